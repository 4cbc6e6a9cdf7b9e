"""`perceptloss vote`: one blind page on which people say which outputs look better; `compare --votes` counts."""

from __future__ import annotations

import argparse
from pathlib import Path

from perceptloss.cli.compare import systems_of
from perceptloss.cli.options import SOURCES, a_path, add_pairing, add_reading, page_problems, plan_of
from perceptloss.cli.terminal import result
from perceptloss.errors import ConfigError
from perceptloss.output.tables import human

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("vote", help="a blind page that asks people", description=__doc__)
    parser.add_argument("systems", nargs="+", metavar="NAME=PATH", help=f"a system: {SOURCES}")
    add_pairing(parser)
    add_reading(parser)
    asking = parser.add_argument_group("questions")
    asking.add_argument("--trials", type=int, default=40, metavar="N", help="comparisons at most (default: 40)")
    asking.add_argument("--repeats", type=int, default=4, metavar="N", help="asked twice, sides changed (default: 4)")
    asking.add_argument("--catch", type=int, default=3, metavar="N", help="with a ruined picture (default: 3)")
    asking.add_argument("--ties", action="store_true", help='also take "no difference" for an answer')
    asking.add_argument(
        "--side", type=_side, default=256, metavar="N|whole", help="of crops, where systems differ most (default: 256)"
    )
    asking.add_argument("--question", default="", metavar="TEXT", help="what is asked")
    asking.add_argument("--seed", type=int, default=0, metavar="N", help="of order and sides")
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=a_path, required=True, metavar="FILE", help="the page (.html)")
    scoring = {"critic": [], "crop_border": 0, "colour": "rgb", "tile": "never", "precision": "fp32", "batch": "auto"}
    parser.set_defaults(run=run, device="cpu", **scoring)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from perceptloss.compare.votes.asking import vote_html
    from perceptloss.compare.votes.trials import Options
    from perceptloss.output.files import write_atomically

    if wrong := page_problems(args.output):
        raise ConfigError(wrong, "the command line")
    systems = systems_of(args.systems)
    if len(systems) < 2:
        raise ConfigError([f"votes compare two systems or more, got {len(systems)}"], "the command line")
    options = Options(
        trials=args.trials,
        repeats=args.repeats,
        catches=args.catch,
        has_ties=args.ties,
        side=args.side,
        seed=args.seed,
        question=args.question,
    )
    page = vote_html(plan_of(args, systems, is_scored=False), options)
    write_atomically(Path(args.output), page)
    result(f"{args.output} ({human(len(page))})\n")
    return 0


def _side(text: str) -> int | None:
    if text == "whole":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of pixels or whole, got {text!r}") from None
