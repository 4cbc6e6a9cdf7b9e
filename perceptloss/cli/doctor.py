"""`perceptloss doctor`: examine a critic before training on it.

It is attacked, shown patterns, flat patches and ladders of damage, and what it says is put into sentences: what a
restorer could exploit, and which guard helps. A minute or less on a CPU; a network of 100 MB takes longer.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from perceptloss.card import Direction, Kind
from perceptloss.cli.list import known_cards
from perceptloss.cli.options import a_path
from perceptloss.cli.show import weight_places
from perceptloss.cli.terminal import result, result_json
from perceptloss.errors import ConfigError, InputError, near, some
from perceptloss.output.progress import bar
from perceptloss.output.tables import counted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from perceptloss.honesty.examination import Examination
    from perceptloss.honesty.subject import EffortName

__all__ = ["add_parser"]

_FOUND: Final = 4
_PARTS: Final = 5
_PHOTOS: Final = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
_EXIT_CODES: Final = (
    "exit codes: 0 fine, whatever was found; 1 internal error; 2 usage; 3 weights unavailable; 4 a --fail-if was found"
)
_log = logging.getLogger("perceptloss")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor", help="examine a critic before training on it", description=__doc__, epilog=_EXIT_CODES
    )
    parser.add_argument("critic", nargs="?", metavar="NAME|MODULE:CLASS", help="a critic, or a module of your own")
    parser.add_argument("--all", action="store_true", help="a table of all critics whose weights are here")
    own = parser.add_argument_group("the critic")
    own.add_argument("--weights", type=a_path, metavar="FILE", help="weights of its own")
    own.add_argument("--better", choices=get_args(Direction), help="direction of its scores; a plain module needs it")
    own.add_argument("--kind", choices=get_args(Kind), help="of a plain module, where its forward does not say")
    how = parser.add_argument_group("the examination")
    how.add_argument(
        "--images", type=a_path, metavar="DIR", help="photographs of your own (default: those that scikit-image brings)"
    )
    how.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    much = how.add_mutually_exclusive_group()
    for effort, about in (
        ("quick", "two photographs, two attacks, two strengths"),
        ("full", "more and larger squares"),
    ):
        much.add_argument(f"--{effort}", action="store_const", const=effort, dest="effort", help=about)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="figures and findings as JSON")
    output.add_argument("--format", choices=("table", "md"), default="table", help="of --all; md: a Markdown table")
    output.add_argument(
        "--fail-if", action="append", default=[], metavar="FINDING", help="exit with 4 if it is found; `any` for all"
    )
    output.add_argument("--quiet", action="store_true", help="errors only on stderr")
    parser.set_defaults(run=run, effort="standard")


def run(args: argparse.Namespace) -> int:
    """Examine and print."""
    from perceptloss.honesty.findings import FINDINGS, findings_of
    from perceptloss.honesty.sheet import sheet

    _check(args, FINDINGS)
    device, photos = _device(args.device), _photos(args)
    if args.all:
        done = _all(args, photos, device)
    else:
        e = _one(args.critic, args, photos, device)
        done = [e]
        if not args.json:
            result(sheet(e, shutil.get_terminal_size().columns))
    if args.json:
        facts = [{**e.to_dict(), "findings": [vars(finding) for finding in findings_of(e)]} for e in done]
        result_json(facts if args.all else facts[0])
    code = 0
    for e in done:
        names = dict.fromkeys(finding.name for finding in findings_of(e))
        met = [name for name in names if name in args.fail_if or "any" in args.fail_if]
        if met:
            _log.error("%s: found %s", e.critic, ", ".join(met))
            code = _FOUND
    return code


def _check(args: argparse.Namespace, findings: tuple[str, ...]) -> None:
    problems = [
        f"--fail-if {name}: no such finding{near(name, findings)} Findings: {', '.join(findings)}, any"
        for name in args.fail_if
        if name not in (*findings, "any")
    ]
    if args.all == (args.critic is not None):
        problems.append("give the name of a critic, or --all")
    if args.all:
        flags = ("weights", "better", "kind")
        problems += [f"--{flag} is for one critic, not for --all" for flag in flags if getattr(args, flag) is not None]
    elif args.format != "table":
        problems.append("--format md is for --all")
    if problems:
        raise ConfigError(problems, "the command line")


def _device(name: str | None) -> torch.device:
    from perceptloss.compare.panel import pick_device

    return pick_device(name)


def _photos(args: argparse.Namespace) -> dict[str, Tensor]:
    """As many photographs as the effort asks for; one's own in the order of their names."""
    from perceptloss.compare.images import Policy, read
    from perceptloss.compare.pairing import find_images
    from perceptloss.compare.settings import Pairing
    from perceptloss.honesty.ladders import pixels
    from perceptloss.honesty.subject import EFFORTS
    from perceptloss.runs.images import bundled

    if args.images is None:
        files = {pair.name: pair.gt for pair in bundled(_PHOTOS, own="--images DIR")}
    else:
        found, problems = find_images("images", args.images, Pairing())
        if problems:
            raise ConfigError(problems, "--images")
        files = found.files
    count = EFFORTS[args.effort].photos
    if args.images is not None and len(files) > count:
        _log.info("the first %d of %d photographs are looked at", count, len(files))
    chosen: list[tuple[str, Path]] = list(files.items())[:count]
    return {name: pixels(read(path, Policy(profile="ignore"))) for name, path in chosen}


def _one(name: str, args: argparse.Namespace, photos: dict[str, Tensor], device: torch.device) -> Examination:
    from perceptloss.honesty.doctor import examine
    from perceptloss.honesty.foreign import critic_named

    critic = critic_named(name, args.weights, better=args.better, kind=args.kind)
    effort: EffortName = args.effort
    with bar(f"examining {name}", _PARTS, show=False if args.quiet else None) as shown:
        return examine(critic, photos, effort, device=device, progress=lambda part: shown.update())


def _all(args: argparse.Namespace, photos: dict[str, Tensor], device: torch.device) -> list[Examination]:
    """Every critic whose weights are here; rows come as they are found, and what is left out is said."""
    from perceptloss.honesty.sheet import row, table

    done: list[Examination] = []
    apart: list[str] = []
    for name in _usable(apart):
        try:
            done.append(_one(name, args, photos, device))
            _log.info("%s: %.0f s", name, done[-1].seconds)
        except InputError as error:
            apart.append(name)
            _log.warning("%s", error)
    if apart:
        what = counted(len(apart), "critic")
        _log.warning("%s left out, weights missing or photographs too small: %s", what, some(apart))
    if not args.json:
        result(table([row(e) for e in done], is_markdown=args.format == "md"))
    return done


def _usable(apart: list[str]) -> Iterator[str]:
    for card in known_cards()[0]:
        places = weight_places(card).values()
        if all(path is not None and not path.startswith("refused") for path in places):
            yield card.name
        else:
            apart.append(card.name)
