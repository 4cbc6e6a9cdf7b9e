"""What `score`, `compare` and `map` have in common: their flags, planning, and running a plan."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perceptloss.cli.analysis import add_analysis
from perceptloss.output.files import unwritable

if TYPE_CHECKING:
    from perceptloss.compare.pairing import Images
    from perceptloss.compare.plan import Plan

__all__ = [
    "SOURCES",
    "a_count",
    "a_path",
    "add_common",
    "add_computing",
    "add_embed",
    "add_inputs",
    "add_pairing",
    "add_reading",
    "one_system",
    "page_problems",
    "plan_of",
    "unwritable_output",
]

NOT_FINITE, UNWRITTEN, THRESHOLD = 1, 2, 4
_log = logging.getLogger("perceptloss.compare")
SOURCES: Final = "a folder, image, .txt list or .csv of image,path"
_READING: Final = (
    ("--resize", ("never", "to-ref"), "to-ref: bicubic, clamped to [0, 1]"),
    ("--exif", ("refuse", "apply"), "images with a rotation in EXIF"),
    ("--grey", ("refuse", "replicate"), "images with one channel"),
)
EXIT_CODES: Final = (
    "exit codes: 0 fine; 1 internal error, or a score that is not finite; 2 usage, pairing, or a file that cannot be "
    "written; 3 weights unavailable; 4 a --fail-if threshold was met"
)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags for critics, pairing, reading, scoring and output."""
    parser.epilog = EXIT_CODES
    add_inputs(parser, needs_critic=False)
    scoring = parser.add_argument_group("scoring")
    add_computing(scoring, tile="score tiles of at most N pixels a side (auto: 1024) and average them by area")
    scoring.add_argument(
        "--batch", type=a_count("auto"), default="auto", metavar="auto|N", help="images of equal size at once"
    )
    scoring.add_argument(
        "--cache", type=a_path, metavar="FOLDER", help="keep scores there as they come, and do not compute them twice"
    )
    scoring.add_argument(
        "--workers",
        type=a_count(),
        default=0,
        metavar="N",
        help="one-thread processes on the CPU; any number gives the same bits",
    )
    output = parser.add_argument_group("output")
    formats = ("table", "csv", "summary-csv", "json", "md", "latex")
    output.add_argument("--format", choices=formats, default="table", help="of what is printed")
    output.add_argument(
        "--output", type=a_path, metavar="FILE", help="also write everything (.json) or every score (.csv) to a file"
    )
    add_report(output)
    output.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with 4 if a mean meets it: 'lpips-vgg > 0.2'; signed, '> +0.005', its difference to the baseline",
    )
    output.add_argument("--dry-run", action="store_true", help="print the pairs and the amount of work, score nothing")
    output.add_argument("--quiet", action="store_true", help="errors only on stderr")
    add_analysis(parser)


def add_report(group: argparse._ArgumentGroup) -> None:
    """Add the flags of a report."""
    group.add_argument("--report", type=a_path, metavar="FILE", help="also write a page that stands alone (.html)")
    group.add_argument("--map", metavar="NAME", help="in the report, also where this critic of -c sees what")
    add_embed(group)


def add_embed(group: argparse._ArgumentGroup) -> None:
    """Add the flags for the pictures of a report."""
    about = "pictures of a report: crops of at most 256 pixels a side (default), whole ones, or none"
    group.add_argument(
        "--content", action="store_true", help="in the report, also what the shown images are made of (needs kornia)"
    )
    group.add_argument("--embed", choices=("crops", "whole", "none"), default="crops", help=about)


def add_inputs(parser: argparse.ArgumentParser, *, needs_critic: bool = True) -> None:
    """Add the flags for critics, pairing and reading."""
    critics = parser.add_argument_group("critics")
    critics.add_argument(
        "-c",
        "--critic",
        action="append",
        default=None if needs_critic else [],
        required=needs_critic,
        metavar="NAME[=FILE,...]",
        help="a critic, perhaps with weight files of its own, or NAME-y on luma; may be repeated",
    )
    critics.add_argument("--random-weights", action="store_true", help="untrained networks, to try things out only")
    add_pairing(parser)
    reading = add_reading(parser)
    reading.add_argument("--crop-border", type=int, default=0, metavar="N", help="pixels to remove from every side")
    reading.add_argument(
        "--colour", choices=("rgb", "y"), default="rgb", help="y: BT.601 luma, as in BasicSR's evaluation"
    )


def add_pairing(parser: argparse.ArgumentParser) -> None:
    """Add the flags for pairing."""
    pairing = parser.add_argument_group("pairing")
    pairing.add_argument("--ref", type=a_path, metavar="PATH", help=f"the references: {SOURCES}")
    pairing.add_argument(
        "--strip",
        action="append",
        default=[],
        metavar="REGEX",
        help="an ending to remove from names before pairing, such as x4 or _SwinIR; may be repeated",
    )
    pairing.add_argument("--recursive", action="store_true", help="search folders below; relative paths are paired")
    pairing.add_argument(
        "--allow-missing", action="store_true", help="compare the images that all sets have, and say so"
    )
    pairing.add_argument(
        "--layout",
        default="flat",
        metavar="flat|basicsr[:N]",
        help="of folders of systems; basicsr: NAME/NAME_ITERATION.png, newest iteration or N, and NAME_SUFFIX.png",
    )
    pairing.add_argument(
        "--stereo",
        action="store_true",
        help="two views are one image: folders LEFT,RIGHT, or names or folders such as _L and _R, left and right",
    )


def add_reading(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags for how files become pictures."""
    reading = parser.add_argument_group("images")
    reading.add_argument(
        "--crop",
        default="never",
        metavar="never|to-ref|to-ref-centre|modcrop:N",
        help="cut a few pixels off: to the size that all have, or to multiples of N, before --crop-border",
    )
    reading.add_argument("--max-pixels", type=int, default=178_956_970, metavar="N", help="largest picture to decode")
    for flag, choices, about in _READING:
        reading.add_argument(flag, choices=choices, default=choices[0], help=about)
    return reading


def add_computing(group: argparse._ArgumentGroup, tile: str) -> None:
    """Add the flags for device, precision and tiles; `tile` says what is done with these."""
    group.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: the GPU if there is one)")
    group.add_argument("--tile", type=a_count("never", "auto"), default="never", metavar="never|auto|N", help=tile)
    group.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of the networks, where cards allow it"
    )


def a_path(text: str) -> str:
    """The argument as it is, unless it is empty: `Path("")` would be the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a path, got an empty text (an unset variable of the shell?)")
    return text


def a_count(*words: str) -> Callable[[str], str | int]:
    """A parser of whole numbers and of the words that may stand for one."""

    def parse(text: str) -> str | int:
        if text in words:
            return text
        try:
            return int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {', '.join(words)} or a number, got {text!r}") from None

    return parse


def one_system(paths: Sequence[str]) -> dict[str, Images]:
    """The images of a command that takes one system, under a name for messages."""
    if len(paths) > 1:
        return {"images": tuple(paths)}
    path = Path(paths[0])
    is_pair = "," in paths[0] and not path.exists()
    name = "" if is_pair else path.resolve().name if path.is_dir() else path.stem
    return {name or "images": paths[0]}


def plan_of(
    args: argparse.Namespace, systems: Mapping[str, Images], baseline: str | None = None, *, is_scored: bool = True
) -> Plan:
    """What the flags of `add_inputs` and `add_computing` ask for, checked.

    Raises:
        ConfigError: listing what is wrong with critics and flags.
        PairingError: listing what is wrong with the images.
    """
    from perceptloss.compare.panel import pick_device
    from perceptloss.compare.plan import make_plan
    from perceptloss.compare.settings import Pairing, Settings

    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    pick_device(args.device)
    args.strip = tuple(args.strip)
    rules = Pairing(**{field.name: getattr(args, field.name) for field in fields(Pairing)})
    return make_plan(
        systems, args.ref, args.critic, baseline=baseline, rules=rules, settings=settings, is_scored=is_scored
    )


def unwritable_output(output: str | None, *, is_folder: bool = False, flag: str = "--output") -> list[str]:
    """The problem that nothing can be written to `--output`, if it is one."""
    if output is None:
        return []
    folder = Path(output).parent
    if not folder.is_dir():
        return [f"{flag}: there is no folder {str(folder)!r}"]
    why = unwritable(Path(output), is_folder=is_folder)
    return [f"{flag} {output!r} {why}"] if why else []


def page_problems(path: str, flag: str = "--output") -> list[str]:
    """What speaks against writing a page there."""
    wrong = [] if Path(path).suffix.lower() == ".html" else [f"{flag} must end in .html, got {path!r}"]
    if find_spec("jinja2") is None:
        wrong.append(f"{flag} needs jinja2: pip install 'perceptloss[compare]'")
    return wrong + unwritable_output(path, flag=flag)
