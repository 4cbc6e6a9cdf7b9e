"""Finding pictures that show the same thing, and refusing sets that share one.

Two pictures are duplicates if
    1. the content hash of one and that of some crop of the other, mirrored or not, differ in few bits, and
    2. after the crop was aligned, their thumbnails correlate. All coefficients up to six periods count here, the high
       ones more, so that photographs that are merely smooth in the same way do not pass.

The limits were set on 235 different photographs of 512 pixels: of 27495 pairs, none passes both (101 pass the first).
Of their copies by JPEG at quality 5, Gaussian blur of 6 pixels, noise of 60/255, a gamma of 2 or 1/2, shrinking to
96 x 96, and cropping of up to a tenth of each side's length, mirrored or not, all are found but one crop of a page of
text. Of copies brightened by half, in which much is clipped, 9 are missed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.leaks.alignment import WINDOWS, align
from perceptloss.teach.leaks.fingerprints import (
    BITS,
    MIRROR,
    Fingerprints,
    fingerprint,
    fingerprint_files,
    signs,
)
from perceptloss.teach.leaks.thumbnails import centred, cosine_coefficients

__all__ = [
    "BITS",
    "CORRELATION",
    "THRESHOLD",
    "Duplicate",
    "Fingerprints",
    "LeakError",
    "find_duplicates",
    "fingerprint",
    "fingerprint_files",
    "refuse_leak",
]

THRESHOLD: Final = 16  # bits that two hashes of one content may differ in
CORRELATION: Final = 0.82  # of the aligned thumbnails of one content, at least
_ROWS: Final = 512  # pictures of one set, or pairs, handled at once


@dataclass(frozen=True)
class Duplicate:
    """Two pictures that show the same thing.

    Attributes:
        a_name: Of the first set.
        b_name: Of the second set.
        distance: Bits in which the hash of one and that of the best crop of the other differ, 0 to 64.
        correlation: Of their aligned thumbnails, up to 1.
        mirrored: Whether one is the other mirrored left to right.
    """

    a_name: str
    b_name: str
    distance: int
    correlation: float
    mirrored: bool

    def __str__(self) -> str:
        how = ", mirrored" if self.mirrored else ""
        return f"{self.a_name} = {self.b_name} (distance {self.distance}, correlation {self.correlation:.2f}{how})"


class LeakError(ConfigError):
    """Sets that must not share a content do; lists every pair."""


def find_duplicates(
    a: Fingerprints, b: Fingerprints, threshold: int = THRESHOLD, correlation: float = CORRELATION
) -> list[Duplicate]:
    """Pictures of two sets that show the same, also cropped by up to a tenth, mirrored, resized or degraded.

    Args:
        a: One set.
        b: Another; the same object finds the duplicates within one set.
        threshold: Most bits in which the hashes may differ, 0 to 64.
        correlation: Least correlation of the aligned thumbnails, in [-1, 1]; -1 leaves the decision to the hash.

    Returns:
        Every pair once, by distance and then by name.

    Raises:
        InputError: if a limit is out of range.
    """
    if not 0 <= threshold <= BITS or not -1 <= correlation <= 1:
        raise InputError(
            f"expected a threshold in [0, {BITS}] and a correlation in [-1, 1], got {threshold}, {correlation}"
        )
    signs_a, signs_b = _window_signs(a.thumbnails), _window_signs(b.thumbnails)
    found: list[Duplicate] = []
    for start in range(0, len(a.names), _ROWS):
        rows = slice(start, start + _ROWS)
        near_a = _nearest(signs_a[:, rows], signs_b[0])
        near_b = tuple(matrix.T for matrix in _nearest(signs_b, signs_a[0, rows]))
        close = torch.minimum(near_a[0], near_b[0]) <= threshold
        if a is b:
            close &= torch.arange(len(b.names)) > torch.arange(start, start + len(close))[:, None]
        for pairs in close.nonzero().split(_ROWS):
            i, j = pairs.unbind(1)
            starts = [(distance[i, j], variant[i, j]) for distance, variant in (near_a, near_b)]
            found += _verify(a, b, i + start, j, starts, correlation)
    return sorted(found, key=lambda pair: (pair.distance, pair.a_name, pair.b_name))


def refuse_leak(sets: Mapping[str, Fingerprints], *, allow: Collection[tuple[str, str]] = ()) -> None:
    """Make sure that no two sets of pictures share a content.

    Args:
        sets: By name.
        allow: Pairs of names, in any order, that were looked at and found different.

    Raises:
        LeakError: listing every pair.
    """
    known = {frozenset(pair) for pair in allow}
    leaks = [
        f"{one} and {other}: {pair}"
        for one, other in combinations(sets, 2)
        for pair in find_duplicates(sets[one], sets[other])
        if frozenset((pair.a_name, pair.b_name)) not in known
    ]
    if leaks:
        hint = "take every version of such a content out of one of the two, or allow pairs that only look alike"
        raise LeakError(leaks, f"sets that must not share a content ({hint})")


def _window_signs(thumbnails: Tensor) -> Tensor:
    """Hashes of every crop that is tried, as -1 and 1: (N, 64, 64) to (crops, N, 64)."""
    pictures = centred(thumbnails)
    return torch.stack([signs(cosine_coefficients(pictures, window)) for window in WINDOWS])


def _nearest(cropped: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest distance of crops of each picture from each whole picture, mirrored or not.

    Args:
        cropped: (crops, N, 64), of -1 and 1.
        whole: (M, 64), likewise.

    Returns:
        The distance, and which crop n gave it, as 2 n, or 2 n + 1 if mirrored; (N, M) each.
    """
    best = whole.new_full((cropped.shape[1], len(whole)), BITS + 1)
    variant = torch.zeros(best.shape, dtype=torch.int16)
    flip = 1 - 2 * MIRROR.float()
    for n, crop in enumerate(cropped):
        for mirrored in (0, 1):
            distance = (BITS - (crop * flip if mirrored else crop) @ whole.T) / 2
            variant.masked_fill_(distance < best, 2 * n + mirrored)
            best = torch.minimum(best, distance)
    return best.round().long(), variant.long()


def _verify(
    a: Fingerprints, b: Fingerprints, i: Tensor, j: Tensor, starts: list[tuple[Tensor, Tensor]], least: float
) -> list[Duplicate]:
    """The pairs among (i, j) whose thumbnails correlate by `least` or more once they are aligned.

    The alignment starts from the best crop of a, from the best crop of b, and from no crop at all, since the hash
    often cannot tell which of the two was cropped.

    Args:
        a: One set.
        b: The other.
        i: Numbers of pictures of a, (M,).
        j: Of b, (M,).
        starts: Distances and variants as `_nearest` gives them, for crops of a and for crops of b, (M,) each.
        least: As said.
    """
    x, y = centred(a.thumbnails[i]), centred(b.thumbnails[j])
    (distance_a, variant_a), (distance_b, variant_b) = starts
    closer = torch.where(distance_a <= distance_b, variant_a, variant_b) % 2
    variants = torch.stack([variant_a, variant_b, closer])
    whole = torch.stack([y, x, y])
    whole = torch.where((variants % 2 == 1)[..., None, None], whole.flip(3), whole)
    found = align(torch.cat([x, y, x]), whole.flatten(0, 1), WINDOWS[variants.flatten() // 2])
    best, which = found.view(3, -1).max(0)
    mirrored = variants.gather(0, which[None])[0] % 2 == 1
    distance = torch.minimum(distance_a, distance_b)
    return [
        Duplicate(a.names[i[k]], b.names[j[k]], int(distance[k]), float(best[k]), bool(mirrored[k]))
        for k in (best >= least).nonzero()[:, 0].tolist()
    ]
