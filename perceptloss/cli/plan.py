"""`perceptloss plan`: what critics cost on images of a size, foreseen and measured.

    perceptloss plan 3840x2160 -c lpips-squeeze -c mini-nr           # scoring
    perceptloss plan 7680x4320 -c lpips-squeeze --train --tile 1024  # the critic's part of a training step

A process of its own runs each critic on two small random images, foresees the rest, and then runs the size itself
unless that would take long (`--limit`). Peaks are resident memory with torch, weights and images; on a GPU what torch
holds there.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import Any, Final

from perceptloss.cli.options import a_count
from perceptloss.cli.terminal import result, result_json
from perceptloss.errors import ConfigError
from perceptloss.output.tables import text

__all__ = ["add_parser"]

_SIZE: Final = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")
_AUTO: Final = 1024


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "plan",
        help="what critics cost on images of a size",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("size", metavar="WIDTHxHEIGHT", help="such as 3840x2160")
    parser.add_argument("-c", "--critic", dest="critics", action="append", required=True, metavar="NAME")
    parser.add_argument("--train", action="store_true", help="value and gradient, as in a training step of one image")
    parser.add_argument(
        "--tile",
        type=a_count("never", "auto"),
        default="auto",
        metavar="never|auto|N",
        help="longest side (auto: 1024)",
    )
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="SECONDS", help="foreseen time up to which the size itself is run"
    )
    parser.add_argument("--random", action="store_true", help="with random weights, which cost the same")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for every critic."""
    from perceptloss.compare.panel import pick_device
    from perceptloss.registry import get_card
    from perceptloss.runs.footprint import Cost, Question, asked, side_of_tiles

    size = _size(args.size)
    tile = {"never": None, "auto": _AUTO}.get(args.tile, args.tile)
    cards = [get_card(name) for name in args.critics]
    _refuse(cards, size, tile)
    device = str(pick_device(args.device))
    rows = []
    for card in cards:
        side = side_of_tiles(card, tile, size)
        question = Question(card.name, size, side, args.train, device, args.random)

        def is_wanted(cost: Cost) -> str:
            if cost.seconds > args.limit:
                return f"takes longer than --limit {args.limit:g}"
            room = _free() if device == "cpu" else None
            return "needs more memory than is free" if room is not None and cost.peak > room else ""

        found = asked(question, is_wanted)
        seen = "whole" if side is None else f"{side} ({card.tiling})"
        rows.append((card.name, seen, found.foreseen, found.measured, found.reason))
    if args.json:
        result_json([_facts(row) for row in rows])
    else:
        result(_table(rows, args))
    return 0


def _size(words: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(words)
    if match is None:
        raise ConfigError([f"size must be WIDTHxHEIGHT, such as 3840x2160, got {words!r}"], "plan")
    return int(match[2]), int(match[1])


def _refuse(cards: list[Any], size: tuple[int, int], tile: int | None) -> None:
    from perceptloss.networks.tiles import smallest_tile
    from perceptloss.runs.footprint import side_of_tiles

    problems = [f"tile must be a number of pixels, 1 or more, got {tile}"] * (tile is not None and tile < 1)
    for card in cards:
        least = smallest_tile(card)
        side = side_of_tiles(card, tile, size)
        if side is not None and side < least:
            problems.append(f"{card.name} needs --tile of at least {least}, got {tile}")
        if min(size) < card.min_size:
            problems.append(f"{card.name} needs images of at least {card.min_size}x{card.min_size}")
        if any(length % card.multiple_of for length in size):
            problems.append(
                f"{card.name} needs sides that are multiples of {card.multiple_of}, got {size[1]}x{size[0]}"
            )
    if problems:
        raise ConfigError(problems, "plan")


def _free() -> int | None:
    """Bytes that this machine could still give, if it says so."""
    try:
        with open("/proc/meminfo") as file:
            line = next(line for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(0.9 * 1024 * int(line.split()[1]))


def _facts(row: tuple[Any, ...]) -> dict[str, Any]:
    name, seen, foreseen, measured, reason = row
    return {
        "critic": name,
        "tiles": seen,
        "foreseen": vars(foreseen),
        "measured": None if measured is None else vars(measured),
        "reason": reason or None,
    }


def _table(rows: list[tuple[Any, ...]], args: argparse.Namespace) -> str:
    head = ("critic", "tiles", "peak foreseen", "measured", "seconds foreseen", "measured")
    body = [
        (name, seen, _bytes(foreseen), _bytes(measured), _seconds(foreseen), _seconds(measured))
        for name, seen, foreseen, measured, _ in rows
    ]
    what = "value and gradient" if args.train else "a score"
    lines = [f"{what} at {args.size}, {os.cpu_count()} cores", "", text([head, *body], "llrrrr", rule=True)]
    lines += [f"{name}: not measured, as it {reason}" for name, _, _, measured, reason in rows if measured is None]
    return "\n".join(lines).rstrip() + "\n"


def _bytes(cost: Any) -> str:
    return "—" if cost is None else f"{cost.peak / 2**30:.2f} GiB"


def _seconds(cost: Any) -> str:
    return "—" if cost is None else f"{cost.seconds:.3g}"
