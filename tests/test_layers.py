"""The plan of the package: which room may import which, and that nothing goes in a circle, types included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import perceptloss

PACKAGE = Path(perceptloss.__file__).parent
ROOT = PACKAGE.parent
_CORE = {"errors", "card", "inputs", "weights.rules", "critic"}
_SCORING = {*_CORE, "weights", "networks", "registry", "maps"}

# room -> rooms it may import; `weights.rules` is what a critic says of files, below the critics that say it
MAY_IMPORT = {
    "errors": {"output"},
    "card": {"errors"},
    "weights.rules": {"errors"},
    "inputs": {"errors", "card"},
    "critic": {"errors", "card", "inputs", "weights.rules"},
    "output": set(),
    "weights": {*_CORE, "output"},
    "networks": {*_CORE, "weights"},
    "critics": {*_CORE, "weights", "networks"},
    "registry": {*_CORE, "weights", "networks", "critics"},
    "loss": {*_CORE, "networks", "registry"},
    "maps": {"output", *_CORE, "networks"},
    "compare": {*_SCORING, "output"},
    "honesty": {*_SCORING, "output", "compare"},
    "runs": {*_SCORING, "output", "loss", "compare"},
    "integrations": {*_CORE, "output", "networks", "registry", "loss", "compare", "honesty", "teach"},
    "teach": {*_SCORING, "output", "critics", "compare", "honesty", "runs"},
    "cli": {*_SCORING, "output", "compare", "honesty", "integrations", "runs"},
}
ROOMS = sorted(MAY_IMPORT, key=len, reverse=True)
FRAMEWORKS = {
    "basicsr": {"integrations", "weights"},
    "accelerate": {"runs", "teach"},
    "torchvision": {"integrations"},
    "skimage": {"runs", "teach"},
    "kornia": {"teach", "honesty"},
    "filelock": {"output"},
    "tqdm": {"output"},
}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in PACKAGE.rglob("*.py")}


def imports(file: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in the file and for whatever purpose."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(imported: str) -> str | None:
    """The file of ours that an import reaches; public names of the root are those of their homes."""
    if imported.partition(".")[0] != "perceptloss" or imported == "perceptloss.__version__":
        return None
    head, _, last = imported.rpartition(".")
    if head == "perceptloss" and last in perceptloss._HOME:
        return f"perceptloss.{perceptloss._HOME[last]}"
    return imported if imported in FILES else head


def room_of(module: str) -> str | None:
    inner = module.partition(".")[2]
    return next((room for room in ROOMS if inner == room or inner.startswith(f"{room}.")), None)


GRAPH = {
    module: {found for name in imports(file) if (found := module_of(name)) is not None} - {module}
    for module, file in FILES.items()
    if module != "perceptloss"
}


def test_every_file_is_in_a_room():
    homeless = {module for module in GRAPH if room_of(module) is None}
    assert homeless == {"perceptloss.__main__"}


def test_arrows_point_downwards_only():
    upward = {
        f"{module} -> {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if (here := room_of(module)) and (there := room_of(target)) != here and there not in MAY_IMPORT[here]
    }
    assert upward == set()


def test_the_rooms_themselves_are_no_circle():
    TopologicalSorter(MAY_IMPORT).prepare()


def test_no_file_imports_itself_through_others():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_critics_never_import_another_system():
    def system(module: str) -> str:
        return module.split(".")[2]

    critics = {module: targets for module, targets in GRAPH.items() if module.startswith("perceptloss.critics.")}
    foreign = {
        f"{module} -> {target}"
        for module, targets in critics.items()
        for target in targets
        if target.startswith("perceptloss.critics.") and system(target) != system(module)
    }
    assert foreign == set()


def test_a_framework_is_imported_where_it_belongs():
    stray = {
        f"{module} imports {name}"
        for module, file in FILES.items()
        for name in imports(file)
        if (framework := name.partition(".")[0]) in FRAMEWORKS and room_of(module) not in FRAMEWORKS[framework]
    }
    assert stray == set()


def test_the_root_has_seven_files_and_no_file_is_long():
    assert {file.stem for file in PACKAGE.glob("*.py")} == {
        *("__init__", "__main__", "errors", "card", "inputs", "critic", "registry"),
    }
    folders = (PACKAGE, *(ROOT / name for name in ("recipes", "benchmarks")))
    lengths = {str(p): len(p.read_text().splitlines()) for folder in folders for p in folder.rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 300} == {}
