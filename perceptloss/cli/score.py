"""`perceptloss score`: every image of one system, and the means."""

from __future__ import annotations

import argparse

from perceptloss.cli.execution import execute
from perceptloss.cli.options import a_path, add_common, one_system

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("score", help="score the images of one system", description=__doc__)
    parser.add_argument(
        "images", nargs="+", type=a_path, metavar="PATH", help="a folder, images, a .txt list or a .csv of image,path"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    return execute(args, one_system(args.images))
