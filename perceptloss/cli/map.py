"""`perceptloss map`: where in an image a critic sees what, as a picture or as numbers.

The critic's own quality map where it has one. Other critics are explained: with a reference, each
pixel's share of the difference between the scores of image and reference (attribution); without,
how strongly the score hangs on each pixel (sensitivity). Neither is a quality map.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perceptloss.cli.options import a_path, add_computing, add_inputs, one_system, plan_of, unwritable_output
from perceptloss.cli.terminal import result
from perceptloss.errors import ConfigError
from perceptloss.output.files import unwritable
from perceptloss.output.names import visible
from perceptloss.output.progress import bar

if TYPE_CHECKING:
    from perceptloss.compare.maps import Form, MapSet
    from perceptloss.compare.panel import Scorer
    from perceptloss.compare.plan import Plan
    from perceptloss.maps.drawn import WrittenMap

__all__ = ["add_parser"]

_FORMS: Final = ("png", "npy")
_NOT_FINITE: Final = 1
_EXIT_CODES: Final = (
    "exit codes: 0 fine; 1 internal error, or a map that is not finite; 2 usage or pairing, or a file that is there "
    "already; 3 weights unavailable"
)
_log = logging.getLogger("perceptloss.compare")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("map", help="show where a critic sees what", description=__doc__, epilog=_EXIT_CODES)
    parser.add_argument(
        "images", nargs="+", type=a_path, metavar="PATH", help="a folder, images, a .txt list or a .csv of image,path"
    )
    add_inputs(parser)
    tile = "judge tiles of at most N pixels a side (auto: 1024) and put their maps together"
    add_computing(parser.add_argument_group("computing"), tile=tile)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        type=a_path,
        metavar="PATH",
        help="a .png or .npy file for one map; else a folder for files IMAGE.CRITIC.png (default: here)",
    )
    output.add_argument(
        "--format",
        choices=_FORMS,
        help="png: colours from good (dark, or blue) to bad (bright, or orange), the default; npy: the values, float32",
    )
    output.add_argument("--overlay", action="store_true", help="lay the colours over the image (png)")
    output.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="values of the ends of the colours, for one critic (default: those of all images together)",
    )
    output.add_argument("--force", action="store_true", help="overwrite files")
    output.add_argument("--quiet", action="store_true", help="errors only on stderr")
    parser.set_defaults(run=run, batch=1)


def run(args: argparse.Namespace) -> int:
    """Make the maps, write them, and say what was written."""
    form, problems = _form(args)
    problems += _wrong_range(args)
    if problems:
        raise ConfigError(problems, "the command line")
    plan = plan_of(args, one_system(args.images))
    single = [entry.name for entry in plan.asked if plan.rules.stereo and entry.card.channels == 3]
    if single:
        problem = f"{', '.join(single)}: judges single images; map the left and the right ones apart, without --stereo"
        raise ConfigError([problem], "the critics")
    count = len(plan.images) * len(plan.asked)
    if _is_one_file(args) and count != 1:
        raise ConfigError([f"--output {args.output!r} is one file for {count} maps: give a folder"], "the command line")
    from perceptloss.compare.maps import write_maps
    from perceptloss.compare.panel import build

    scorers = build(plan.asked, plan.settings, random_weights=args.random_weights)
    _check_range(args, plan, scorers)
    targets = [[_target(args, record.key, scorer, form) for record in plan.images] for scorer in scorers]
    _check_targets(args, plan, [path for row in targets for path in row])
    for flag in plan.flags:
        _log.warning("%s", flag.text)
    for key, names in plan.left_out.items():
        _log.warning("%r was left out (not in %s)", key, ", ".join(names))
    code = 0
    for scorer, row in zip(scorers, targets, strict=True):
        with bar(f"maps of {scorer.label}", len(row), show=False if args.quiet else None) as shown:
            found = write_maps(
                plan, scorer, row, form, overlay=args.overlay, value_range=args.range, progress=shown.update
            )
        result(_describe(found))
        for key in found.not_finite:
            _log.error("%s: the map of %r is not finite and was not written", scorer.label, key)
            code = _NOT_FINITE
    return code


def _form(args: argparse.Namespace) -> tuple[Form, list[str]]:
    """Format of the files, and what is wrong with it."""
    ending = Path(args.output).suffix.lower().removeprefix(".") if _is_one_file(args) else ""
    form: Form = args.format or ("npy" if ending == "npy" else "png")
    problems = []
    if ending and ending not in _FORMS:
        problems.append(f"--output must be a folder or end in .png or .npy, got {args.output!r}")
    elif ending not in ("", form):
        problems.append(f"--format {form} does not go with --output {args.output!r}")
    if args.overlay and form == "npy":
        problems.append("--overlay draws, and --format npy holds numbers: leave one of them out")
    if args.range and form == "npy":
        problems.append("--range is about colours, and --format npy holds numbers: leave one of them out")
    return form, problems + unwritable_output(args.output, is_folder=not _is_one_file(args))


def _is_one_file(args: argparse.Namespace) -> bool:
    return bool(args.output) and not Path(args.output).is_dir() and bool(Path(args.output).suffix)


def _wrong_range(args: argparse.Namespace) -> list[str]:
    if args.range is None:
        return []
    low, high = args.range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return [f"--range must be two numbers, the smaller one first, got {low:g} {high:g}"]
    return [] if len(args.critic) == 1 else ["--range is for one critic: every critic has values of its own"]


def _target(args: argparse.Namespace, key: str, scorer: Scorer, form: str) -> Path:
    if _is_one_file(args):
        return Path(args.output)
    return Path(args.output or ".") / f"{key}.{scorer.label}.{form}"


def _check_targets(args: argparse.Namespace, plan: Plan, targets: list[Path]) -> None:
    """Refuse to overwrite: an image that is judged always, other files without --force; and to write elsewhere."""
    if problems := [] if _is_one_file(args) else _outside(Path(args.output or "."), targets):
        raise ConfigError(problems, "the files to write")
    files = [file for record in plan.images for file in (*record.outputs, record.reference) if file is not None]
    judged = {os.path.realpath(view.path) for file in files for view in file.files}
    problems = [f"{path.as_posix()} is an image of this run" for path in targets if os.path.realpath(path) in judged]
    if not args.force:
        there = [path for path in targets if os.path.lexists(path) and os.path.realpath(path) not in judged]
        problems += [f"{path.as_posix()} is there already; --force overwrites it" for path in there]
    problems += problems or [f"{path.as_posix()} {why}" for path in targets if (why := unwritable(path))]
    if problems:
        raise ConfigError(problems, "the files to write")


def _outside(folder: Path, targets: list[Path]) -> list[str]:
    """Files that keys of a list would put elsewhere, by `..`, by a link, or onto one another."""
    home = Path(os.path.realpath(folder))
    places = [Path(os.path.realpath(path)) for path in targets]
    twice = {place for place, count in Counter(places).items() if count > 1}
    problems = [
        f"{path.as_posix()} is outside of {folder.as_posix()}; give the image another name in its list"
        for path, place in zip(targets, places, strict=True)
        if not place.is_relative_to(home)
    ]
    return problems + [f"{place.as_posix()} is the file of two images or critics" for place in sorted(twice)]


def _check_range(args: argparse.Namespace, plan: Plan, scorers: list[Scorer]) -> None:
    """Colours of signed maps must have 0 in the middle."""
    from perceptloss.maps.drawn import kind_of

    if args.range is None:
        return
    kind = kind_of(scorers[0].critic, has_reference=plan.images[0].reference is not None)
    low, high = args.range
    if kind == "attribution" and low != -high:
        problem = (
            f"--range of an attribution must have 0 in its middle, such as {-high:g} {high:g}, got {low:g} {high:g}"
        )
        raise ConfigError([problem], scorers[0].label)


def _describe(found: MapSet) -> str:
    critic = found.scorer.critic
    titles = {
        "native": f"its own quality map, {critic.map_better} is better",
        "attribution": "attribution, not a quality map: shares of score minus score of the reference, "
        f"{critic.card.better} is better",
        "sensitivity": "sensitivity, not a quality map: size of the gradient, neither good nor bad",
    }
    lines = [f"{found.scorer.label}: {titles[found.kind]}", *_legend(found), *map(_line, found.maps)]
    return "\n".join([*lines, f"  {found.scorer.signature}"]) + "\n"


def _legend(found: MapSet) -> list[str]:
    scale = found.scale
    if scale is None or not found.maps:
        return []
    ends = {
        "native": ("best, dark", "worst, bright"),
        "attribution": ("better, blue", "worse, orange"),
        "sensitivity": ("dark", "bright"),
    }[found.kind]
    middle = "0 (white) to " if scale.is_signed else ""
    same = ", the same for all images" if len(found.maps) > 1 else ""
    flat = "; all cells are equal" if scale.first == scale.last else ""
    return [f"  colours: {scale.first:.4g} ({ends[0]}) to {middle}{scale.last:.4g} ({ends[1]}){same}{flat}"]


def _line(written: WrittenMap) -> str:
    rows, columns = written.shape
    facts = [f"{rows}x{columns} cells", f"{written.low:.4g} to {written.high:.4g}"]
    if written.difference is None:
        facts.append(f"mean {written.mean:.4g}")
    else:
        facts.append(f"sum {written.total:.4g} of a difference of {written.difference:.4g}")
    if written.beyond:
        facts.append(f"{written.beyond} cells beyond the colours")
    return f"  {visible(written.path.as_posix())}: {', '.join(facts)}"
