"""`perceptloss compare`: means of several systems on the same images, beside their differences to a baseline."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from perceptloss.cli.execution import execute
from perceptloss.cli.options import SOURCES, add_common
from perceptloss.compare.folders import composed
from perceptloss.errors import ConfigError

__all__ = ["add_parser", "systems_of"]

_log = logging.getLogger("perceptloss.compare")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("compare", help="score the outputs of several systems", description=__doc__)
    parser.add_argument(
        "systems", nargs="+", metavar="NAME=PATH", help=f"a system: {SOURCES}; by its own name without NAME="
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="the system that others are compared with (default: the first)"
    )
    parser.add_argument(
        "--set-judges",
        metavar="fid,kid,cmmd",
        help="also how far the outputs of a system, as a set, are from the references: in a second table",
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    baseline = None if args.baseline is None else composed(args.baseline)
    return execute(args, systems_of(args.systems), baseline)


def systems_of(texts: Sequence[str]) -> dict[str, str]:
    """Names and paths of `name=path`, or of a path that exists, whose own name tells it from the others.

    Raises:
        ConfigError: listing what is neither, and names that are there twice.
    """
    systems: dict[str, str] = {}
    problems = []
    own = _own_names([text for text in texts if os.path.lexists(text)])
    for text in texts:
        name, path = (own[text], text) if text in own else _parted(text)
        if not name or not path:
            problems.append(f"expected NAME=PATH, or a path that exists, got {text!r}")
        elif "/" in name and text not in own and not os.path.lexists(path):
            problems.append(f"neither {text!r} is there nor, for a system called {name!r}, {path!r}")
        elif name in systems:
            problems.append(f"two systems are called {name!r}: {systems[name]} and {path}")
        systems[name] = path
    if problems:
        raise ConfigError(problems, "the systems")
    return systems


def _parted(text: str) -> tuple[str, str]:
    """Name and path, at the first sign of equality behind which something exists, else at the first one."""
    places = [place for place, sign in enumerate(text) if sign == "="] or [len(text)]
    place = next((place for place in places if os.path.lexists(text[place + 1 :])), places[0])
    return composed(text[:place]), text[place + 1 :]


def _own_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or as many parts as tell them apart."""
    for path in paths:
        name, place = _parted(path)
        if name and "/" not in name and os.path.lexists(place):
            _log.info("%r has this name itself; for a system %s of %s write %s=./%s", path, name, place, name, place)
    parts = {path: Path(os.path.abspath(path)).parts for path in paths}
    parts |= {path: (*parts[path][:-1], Path(path).stem) for path in paths if os.path.isfile(path)}
    longest = max(map(len, parts.values()), default=0)
    attempts = ({path: "/".join(own[-count:]) for path, own in parts.items()} for count in range(1, longest + 1))
    names: dict[str, str] = {}
    for names in attempts:
        if len(set(names.values())) == len(names):
            break
    return {path: composed(name) for path, name in names.items()}
