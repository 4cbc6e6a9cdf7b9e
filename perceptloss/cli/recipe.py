"""`perceptloss recipe`: list, show, copy and run the recipes and their configurations, which come with perceptloss."""

from __future__ import annotations

import argparse
import ast
import logging
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from perceptloss.cli.terminal import result
from perceptloss.errors import InputError, near
from perceptloss.output.files import replacing

__all__ = ["add_parser"]

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_HINT: Final = "; options of the recipe itself come after --"
_INSTALL: Final = "pip install 'perceptloss[recipes]'"

_log = logging.getLogger("perceptloss.recipe")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("recipe", help="list, show, copy and run the training recipes", description=__doc__)
    actions = parser.add_subparsers(title="subcommands", dest="action", required=True, metavar="ACTION")

    def action(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        if name != "list":
            added.add_argument("name", metavar="NAME", help="a recipe or a configuration; `recipe list` shows them")
        return added

    action("list", _list, "recipes, and configurations of each")
    action("show", _show, "the text of a recipe or a configuration")
    added = action("copy", _copy, "a copy of your own, to change; a recipe's brings the parts it needs")
    added.add_argument("folder", nargs="?", default=".", metavar="DIR", help="where to; default: here")
    added = action("run", _run, "start a recipe, or one with a configuration, by `accelerate launch`")
    added.add_argument(
        "--launch",
        default="",
        metavar="OPTIONS",
        help='for accelerate launch: --launch="--num_processes 2"; it knows accelerate_fsdp and the like by name',
    )
    added.add_argument("arguments", nargs="*", metavar="-- ARGS", help="for the recipe; -- --help shows its options")
    parser.set_defaults(flag_hint=_HINT)


def _list(args: argparse.Namespace) -> int:
    files = _files()
    width, columns = max(map(len, files)), shutil.get_terminal_size().columns
    for title, suffixes in (("recipes", (".py",)), ("configurations", (".yaml", ".yml"))):
        result(f"{title}\n")
        for name, path in files.items():
            if path.suffix in suffixes:
                result(f"  {name:{width}}  {textwrap.shorten(_about(path), columns - width - 4, placeholder=' …')}\n")
    return 0


def _show(args: argparse.Namespace) -> int:
    result(_find(args.name).read_text(encoding="utf-8"))
    return 0


def _copy(args: argparse.Namespace) -> int:
    source, folder = _find(args.name), Path(args.folder)
    wanted = {folder / source.name: source}
    if re.search(r"^(from|import) _lib\b", source.read_text(encoding="utf-8"), re.MULTILINE):
        wanted |= {folder / path.relative_to(source.parent): path for path in source.parent.glob("_lib/**/*.py")}
    try:
        taken = [str(new) for new, old in wanted.items() if new.exists() and new.read_bytes() != old.read_bytes()]
        if taken:
            raise InputError(f"nothing was copied: {', '.join(taken)} exists already and is not the same.")
        for new, old in wanted.items():
            new.parent.mkdir(parents=True, exist_ok=True)
            with replacing(new) as draft:
                shutil.copyfile(old, draft)
    except OSError as error:
        raise InputError(f"cannot copy {args.name} to {folder}: {error.strerror}: {error.filename}") from None
    result("".join(f"{new}\n" for new in wanted))
    if source.suffix == ".py":
        start = "python" if source.parent.name == "basicsr" else "accelerate launch"
        _log.info("start it by `%s %s`", start, folder / source.name)
    return 0


def _run(args: argparse.Namespace) -> int:
    line = args.command_line
    given = line[line.index("--") + 1 :] if "--" in line else []
    if args.arguments:
        raise InputError(f"unexpected {args.arguments[0]!r}{_HINT}: perceptloss recipe run {args.name} -- ...")
    path = _find(args.name)
    script, options = (path, []) if path.suffix == ".py" else _configured(path)
    needed = "basicsr" if script.parent.name == "basicsr" else "accelerate"
    if find_spec(needed) is None:
        where = " on Python 3.10 to 3.12, the only ones it installs on" if needed == "basicsr" else ""
        raise InputError(f"recipe {args.name!r} needs the package {needed}, which is missing: {_INSTALL}{where}.")
    from perceptloss.runs import launcher

    if needed == "basicsr":
        if args.launch:
            raise InputError("BasicSR's script is started by Python alone; for several GPUs copy it and use torchrun.")
        _log.info("python %s", shlex.join([str(script), *options, *given]))
        return launcher.run(script, [*options, *given])
    launch = _launch_options(args.launch)
    _log.info("accelerate launch %s", shlex.join([*launch, str(script), *options, *given]))
    return launcher.launch(script, launch, [*options, *given])


def _launch_options(text: str) -> list[str]:
    """The options, with the names of configurations as their paths."""
    files = _files()
    try:
        return [str(files.get(word, word)) for word in shlex.split(text)]
    except ValueError as error:
        raise InputError(f"--launch {text!r} cannot be taken apart: {error}.") from None


def _configured(path: Path) -> tuple[Path, Sequence[str]]:
    """The script that a configuration is for, and its options."""
    if path.stem.startswith("accelerate_"):
        raise InputError(
            f"{path.stem} is for the launcher: perceptloss recipe run sr --launch='--config_file {path.stem}'."
        )
    if path.suffix == ".yml":
        return path.parent / "train.py", ["-opt", str(path)]
    named = re.search(r"recipes/(\w+)\.py", path.read_text(encoding="utf-8"))
    return path.parents[1] / f"{named[1] if named else 'sr'}.py", ["--config", str(path)]


def _find(name: str) -> Path:
    files = _files()
    if name not in files:
        raise InputError(f"no recipe is called {name!r}{near(name, files)} `perceptloss recipe list` shows all.")
    return files[name]


def _files() -> dict[str, Path]:
    """Every recipe and configuration by name: in the wheel, else in the repository."""
    for home in (_PACKAGE / "_recipes", _PACKAGE.parent / "recipes"):
        if (home / "minimal.py").is_file():
            break
    else:
        raise InputError("perceptloss is installed without its recipes; install it again.")
    found = [*sorted(home.glob("*.py")), *sorted(home.glob("configs/*.yaml")), *sorted(home.glob("basicsr/*.yml"))]
    return {"basicsr": home / "basicsr" / "train.py", **{path.stem: path for path in found}}


def _about(path: Path) -> str:
    """The first sentences that a file says of itself."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    lines = (line.removeprefix("#").strip() for line in text.splitlines())
    return " ".join(iter(lines.__next__, ""))
