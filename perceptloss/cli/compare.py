"""`perceptloss compare`: means of several systems on the same images, beside their differences to a baseline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from perceptloss.cli.options import SOURCES, add_common, execute
from perceptloss.errors import ConfigError

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("compare", help="score the outputs of several systems", description=__doc__)
    parser.add_argument("systems", nargs="+", metavar="NAME=PATH", help=f"a system: {SOURCES}")
    parser.add_argument(
        "--baseline", metavar="NAME", help="the system that others are compared with (default: the first)"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    return execute(args, _systems(args.systems), args.baseline)


def _systems(texts: Sequence[str]) -> dict[str, str]:
    """Names and paths of `name=path`.

    Raises:
        ConfigError: listing what is not of this form, and names that are there twice.
    """
    systems: dict[str, str] = {}
    problems = []
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            problems.append(f"expected NAME=PATH, got {text!r}; for one system there is `perceptloss score`")
        elif name in systems:
            problems.append(f"two systems are called {name!r}: {systems[name]} and {path}")
        systems[name] = path
    if problems:
        raise ConfigError(problems, "the systems")
    return systems
