"""`perceptloss score`: every image of one system, and the means."""

from __future__ import annotations

import argparse
from pathlib import Path

from perceptloss.commands.options import add_common, execute

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("score", help="score the images of one system", description=__doc__)
    parser.add_argument(
        "images", nargs="+", metavar="PATH", help="a folder, images, a .txt list or a .csv of image,path"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    if len(args.images) > 1:
        return execute(args, {"images": args.images})
    path = Path(args.images[0])
    name = path.resolve().name if path.is_dir() else path.stem
    return execute(args, {name or "images": args.images[0]})
