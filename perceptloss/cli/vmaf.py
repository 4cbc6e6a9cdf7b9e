"""`perceptloss vmaf`: VMAF of the outputs of systems by ffmpeg, as a .csv for `perceptloss compare --scores-from`."""

from __future__ import annotations

import argparse
from pathlib import Path

from perceptloss.cli.compare import systems_of
from perceptloss.cli.options import SOURCES, a_path, add_pairing, unwritable_output
from perceptloss.cli.terminal import result
from perceptloss.errors import ConfigError
from perceptloss.output.files import write_atomically
from perceptloss.output.progress import bar

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("vmaf", help="VMAF by ffmpeg, for compare --scores-from", description=__doc__)
    parser.add_argument("systems", nargs="+", metavar="NAME=PATH", help=f"a system: {SOURCES}; as in compare")
    add_pairing(parser)
    parser.add_argument("--ffmpeg", type=a_path, metavar="FILE", help="an ffmpeg with libvmaf (default: that on PATH)")
    parser.add_argument("--model", default="vmaf_v0.6.1", metavar="NAME", help="a model that libvmaf brings")
    parser.add_argument("--output", type=a_path, metavar="FILE", help="a .csv to write (default: it is printed)")
    parser.add_argument("--quiet", action="store_true", help="errors only on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score and write."""
    from perceptloss.compare.plan import make_plan
    from perceptloss.compare.settings import Pairing, Settings
    from perceptloss.compare.vmaf import find_ffmpeg, table_of, vmaf_scores

    if wrong := unwritable_output(args.output):
        raise ConfigError(wrong, "the command line")
    ffmpeg = find_ffmpeg(args.ffmpeg)
    rules = Pairing(
        strip=tuple(args.strip),
        recursive=args.recursive,
        allow_missing=args.allow_missing,
        layout=args.layout,
        stereo=args.stereo,
    )
    systems = systems_of(args.systems)
    plan = make_plan(systems, args.ref, (), rules=rules, settings=Settings(device="cpu"), is_scored=False)
    count = len(plan.images) * len(plan.systems)
    with bar("scores", count, show=False if args.quiet else None) as shown:
        table = table_of(vmaf_scores(plan, ffmpeg, args.model, shown.update))
    if args.output is None:
        result(table)
    else:
        write_atomically(Path(args.output), table)
    return 0
