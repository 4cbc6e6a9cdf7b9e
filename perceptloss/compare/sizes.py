"""Sizes of pictures that are compared: what critics see of them, and what speaks against that.

A network that enlarges by 3 gives 99x99 for a ground truth of 100x100: such a few pixels are cut off, never resized.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from torch import Tensor

from perceptloss.card import Card
from perceptloss.compare.images import ImageFile
from perceptloss.compare.results import Flag, ImageRecord
from perceptloss.compare.settings import Settings

__all__ = ["Size", "cut", "judged_sizes", "mismatches", "outputs", "size_flags", "too_small", "warn_if_shifted"]

Size = tuple[int, int]  # height, width
_MOST: Final = 4  # a cut takes less than one part in so many off a side; more is another scale, not a border
_SCALES: Final = range(2, 17)
_CLEARLY: Final = 0.5  # of the squared error; what a better place must reach to be told
_ALL: Final = 6  # pixels up to which every place is tried
_log = logging.getLogger("perceptloss.compare")


def outputs(record: ImageRecord) -> list[ImageFile]:
    """The judged files of a record."""
    return [file for file in record.outputs if file is not None]


def judged_sizes(record: ImageRecord, settings: Settings) -> tuple[Size, ...]:
    """What critics see of each output: its size after cutting or resizing, less the border."""
    border = 2 * settings.crop_border
    sizes = [_kept(file.size, record, settings) for file in outputs(record)]
    if settings.resize == "to-ref" and record.reference:
        sizes = [record.reference.size] * len(sizes)
    return tuple((max(0, height - border), max(0, width - border)) for height, width in sizes)


def _kept(size: Size, record: ImageRecord, settings: Settings) -> Size:
    """What is left of a picture after cutting."""
    if settings.modulus:
        return size[0] - size[0] % settings.modulus, size[1] - size[1] % settings.modulus
    if settings.crop == "never":
        return size
    sizes = [file.size for file in (*outputs(record), record.reference) if file is not None]
    return min(height for height, _ in sizes), min(width for _, width in sizes)


def cut(image: Tensor, size: Size, settings: Settings) -> Tensor:
    """(C, H, W) cut to a size, from the top left corner or around the middle."""
    height, width = size
    tall, wide = image.shape[-2:]
    top, left = ((tall - height) // 2, (wide - width) // 2) if settings.crop == "to-ref-centre" else (0, 0)
    return image[..., top : top + height, left : left + width]


def mismatches(records: Sequence[ImageRecord], names: Sequence[str], settings: Settings) -> list[str]:
    """Outputs whose size or depth is not that of the reference (or of the first system), and what would help."""
    problems = []
    for record in records:
        reference = record.reference
        first, who = (reference, "the reference") if reference else (outputs(record)[0], names[0])
        for name, file in zip(names, outputs(record), strict=True):
            subject = f"{name}: {record.key!r}"
            problems += [f"{subject} {problem}" for problem in _against(file, first, who, record, settings)]
            if file.depth != first.depth:
                problems.append(f"{subject} has {file.depth} bits, but {who} has {first.depth}; save both alike")
    return problems


def _against(file: ImageFile, first: ImageFile, who: str, record: ImageRecord, settings: Settings) -> Iterator[str]:
    if settings.resize == "to-ref" and record.reference:
        return
    kept, wanted = _kept(file.size, record, settings), _kept(first.size, record, settings)
    sizes = f"is {_text(file.size)}, but {who} is {_text(first.size)} (height x width)"
    if kept != wanted:
        cuts = f"; --crop {settings.crop} leaves {_text(kept)} and {_text(wanted)}" if settings.modulus else ""
        yield f"{sizes}{cuts}{_advice(file.size, first.size, has_reference=record.reference is not None)}"
    elif settings.crop.startswith("to-ref") and not (_is_border(file.size, kept) and _is_border(first.size, wanted)):
        yield f"{sizes}: more than a border, so not to be cut; give pictures of one scale"


def _is_border(size: Size, kept: Size) -> bool:
    return all(_MOST * (whole - left) < whole for whole, left in zip(size, kept, strict=True))


def _advice(size: Size, other: Size, *, has_reference: bool) -> str:
    """What to do about two sizes: cut a few pixels off, resize, or save them again."""
    common = min(size[0], other[0]), min(size[1], other[1])
    ways = []
    if scale := next((n for n in _SCALES if _floor(size, n) == _floor(other, n) == common), None):
        ways.append(f"--crop modcrop:{scale} cuts to multiples of {scale}, as super-resolution by {scale} is evaluated")
    if has_reference and _is_border(size, common) and _is_border(other, common):
        ways.append(f"--crop to-ref cuts both to {_text(common)} from the top left (to-ref-centre: around the middle)")
    elif has_reference and not ways:
        ways.append("--resize to-ref would resize it")
    return "; " + (", or ".join(ways) or "save both at one size")


def _floor(size: Size, n: int) -> Size:
    return size[0] - size[0] % n, size[1] - size[1] % n


def too_small(cards: Sequence[Card], records: Sequence[ImageRecord], sizes: Sequence[Sequence[Size]]) -> list[str]:
    """All images that a critic cannot take, one line per critic and reason."""
    problems: dict[str, list[str]] = defaultdict(list)
    for record, row in zip(records, sizes, strict=True):
        for size in sorted(set(row)):
            for card in cards:
                if min(size) < max(1, card.min_size):
                    least = f"at least {card.min_size}x{card.min_size}"
                    problems[f"critic {card.name!r} needs images of {least}"].append(f"{record.key!r} is {_text(size)}")
                elif size[0] % card.multiple_of or size[1] % card.multiple_of:
                    need = f"critic {card.name!r} needs sides that are multiples of {card.multiple_of}"
                    problems[need].append(f"{record.key!r} is {_text(size)}")
    return [f"{need}: {', '.join(images)}" for need, images in problems.items()]


def size_flags(record: ImageRecord, names: Sequence[str], settings: Settings) -> Iterator[Flag]:
    """Outputs that were resized, or pairs of which something was cut off."""
    reference = record.reference
    for name, file in zip(names, outputs(record), strict=True):
        subject = f"{name}: {record.key!r}"
        if settings.resize == "to-ref" and reference and file.size != reference.size:
            sizes = f"from {_text(file.size)} to {_text(reference.size)}"
            yield Flag("resized", f"{subject} was resized {sizes}", name, record.key)
        kept = _kept(file.size, record, settings)
        if kept != file.size or (settings.crop != "never" and reference and kept != reference.size):
            whole = f"{_text(file.size)}, and its reference {_text(reference.size)}" if reference else _text(file.size)
            yield Flag("cut", f"{subject} was judged on {_text(kept)} (it is {whole})", name, record.key)


def warn_if_shifted(x: Tensor, y: Tensor, text: str, settings: Settings) -> None:
    """Say so if a picture fits its reference clearly better at another place than where they are cut.

    Args:
        x: The judged image, (C, H, W).
        y: Its reference, of another size.
        text: What the message calls the image.
        settings: How they are cut.
    """
    size = min(x.shape[-2], y.shape[-2]), min(x.shape[-1], y.shape[-1])
    over = [max(x.shape[d], y.shape[d]) - size[d] for d in (-2, -1)]
    at = tuple(n // 2 for n in over) if settings.crop == "to-ref-centre" else (0, 0)
    places = list(product(*(range(n + 1) if n <= _ALL else sorted({0, n // 2, n - n // 2, n}) for n in over)))

    def error(place: tuple[int, ...]) -> float:
        views = [_window(image, size, place) for image in (x, y)]
        return (views[0] - views[1]).var().item()

    errors = {place: error(place) for place in {*places, at}}
    best = min(errors, key=errors.__getitem__)
    if errors[best] < _CLEARLY * errors[at]:
        is_middle = best == tuple(n // 2 for n in over)
        other = "to-ref-centre" if is_middle else "to-ref" if best == (0, 0) else ""
        advice = f"--crop {other} cuts there" if other else "cut the pictures yourself"
        _log.warning("%s fits its reference better at row %d, column %d than at %d, %d: %s", text, *best, *at, advice)


def _window(image: Tensor, size: Size, place: tuple[int, ...]) -> Tensor:
    """Part of an image from a place on; where it has nothing to spare, all of it."""
    starts = [place[n] if image.shape[n - 2] > size[n] else 0 for n in (0, 1)]
    return image[..., starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
