"""Two rows of numbers about the same images: checks, ties and ranks, under resampling as well.

A resample is a row of counts, how often each image was drawn. Every statistic of the protocol works on counts,
so that a thousand resamples are one array operation and no score is copied or sorted again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perceptloss.errors import PerceptlossError

__all__ = [
    "Array",
    "Evaluate",
    "PairCounts",
    "ProtocolError",
    "Ties",
    "codes_of",
    "labels",
    "pair_counts",
    "paired",
    "pearson",
    "vector",
]

Array: TypeAlias = NDArray[np.float64]
Evaluate: TypeAlias = Callable[[Array], Array]  # counts (R, n) to a value for each resample, (R,); NaN if undefined

_NEGLIGIBLE = 1e-13  # standard deviation over largest deviation, below which rounding is all there is


class ProtocolError(PerceptlossError, ValueError):
    """A statistic was asked for that these numbers do not define."""


def vector(values: object, name: str) -> Array:
    """Finite numbers as float64, (n,).

    Raises:
        ProtocolError: naming the array and the first place that is not finite.
    """
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{name} must be a row of numbers, got {type(values).__name__}: {error}.") from None
    if array.ndim != 1:
        raise ProtocolError(f"{name} must be a row of numbers, (n,), got an array of shape {array.shape}.")
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        raise ProtocolError(
            f"{name} holds {wrong.size} numbers of {array.size} that are not finite, the first, {array[wrong[0]]}, at "
            f"{wrong[0]}. Find out why these images have no score; leave them out only if every critic does."
        )
    return array


def paired(pred: object, mos: object, least: int = 3, second: str = "mos") -> tuple[Array, Array]:
    """Predictions and labels of the same images, finite and not constant, both (n,).

    Args:
        pred: Predictions.
        mos: Labels.
        least: Smallest number of images.
        second: What the labels are called in messages.

    Raises:
        ProtocolError: naming the array that is wrong and what to do.
    """
    x, y = vector(pred, "pred"), vector(mos, second)
    if x.size != y.size:
        raise ProtocolError(f"pred and {second} must be about the same images, got {x.size} and {y.size} of them.")
    if x.size < least:
        raise ProtocolError(f"expected at least {least} images, got {x.size}.")
    for name, values, advice in (
        ("pred", x, "The critic has collapsed, or read the same image each time: look at its outputs."),
        (second, y, "Nothing can be learned from images of one label: take some that differ."),
    ):
        if np.all(values == values[0]):
            raise ProtocolError(f"{name} is constant, {values[0]:g} for all {x.size} images. {advice}")
    return x, y


def labels(values: object, count: int, name: str) -> NDArray[Any]:
    """One label for each image, such as its content, (n,).

    Raises:
        ProtocolError: if there are more or fewer.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (count,):
        raise ProtocolError(f"{name} must hold one label per image, ({count},), got an array of shape {array.shape}.")
    return array


def codes_of(values: NDArray[Any]) -> NDArray[np.intp]:
    """Position of each value among the distinct ones in increasing order, (n,)."""
    codes: NDArray[np.intp] = np.unique(values, return_inverse=True)[1].reshape(-1)
    return codes


@dataclass(frozen=True)
class Ties:
    """Numbers in increasing order, equal ones together.

    Attributes:
        codes: Position of each number among the distinct ones, (n,).
        order: Positions that sort the numbers, (n,).
        starts: Where each distinct number begins in that order, (distinct,).
    """

    codes: NDArray[np.intp]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Ties:
        """Ties of (n,) values."""
        codes = codes_of(values)
        order = np.argsort(codes, kind="stable")
        return cls(codes, order, np.flatnonzero(np.diff(codes[order], prepend=-1)))

    def sizes(self, counts: Array) -> Array:
        """How often each distinct number was drawn, (R, distinct)."""
        return np.add.reduceat(counts[:, self.order], self.starts, axis=1)

    def ranks(self, counts: Array) -> Array:
        """Rank of each number in each resample, (R, n), from 1; equal ones share their mean rank."""
        sizes = self.sizes(counts)
        middle: Array = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
        return middle[:, self.codes]


def pearson(x: Array, y: Array, counts: Array, least: float = 0.0) -> Array:
    """Linear correlation in each resample, (R,); NaN where a side is constant.

    Args:
        x: (n,) or (R, n).
        y: (n,) or (R, n).
        counts: (R, n).
        least: Standard deviation of x below which it counts as constant.
    """
    sides = []
    with np.errstate(all="ignore"):  # an empty resample, or numbers too large to square: NaN
        total = counts.sum(axis=1, keepdims=True)
        for values, bound in ((x, least), (y, 0.0)):
            values = values - values.mean()
            centred = values - (counts * values).sum(axis=1, keepdims=True) / total
            spread = np.sqrt((counts * centred**2).sum(axis=1))
            floor = np.sqrt(total[:, 0]) * np.maximum(_NEGLIGIBLE * np.abs(values).max(axis=-1), bound)
            sides.append((centred, np.where((spread > floor) & (spread < np.inf), spread, np.nan)))
        (a, size_a), (b, size_b) = sides
        return np.clip((counts * a * b).sum(axis=1) / size_a / size_b, -1, 1)


@dataclass(frozen=True)
class PairCounts:
    """How many pairs there are in each resample, all (R,).

    Attributes:
        pairs: All of them.
        equal_x: Those that x cannot tell apart.
        equal_y: Those that y cannot tell apart.
        agreeing: Those that both order alike.
        opposed: Those that they order differently.
    """

    pairs: Array
    equal_x: Array
    equal_y: Array
    agreeing: Array
    opposed: Array


def pair_counts(x: Array, y: Array) -> Callable[[Array], PairCounts]:
    """Function of counts, (R, n), that counts pairs of (n,) numbers; in O(R n log n)."""
    by_x, by_y = Ties.of(x), Ties.of(y)
    by_both = Ties.of(by_x.codes * (int(by_y.codes.max()) + 1) + by_y.codes)

    def count(counts: Array) -> PairCounts:
        total = counts.sum(axis=1)
        pairs = total * (total - 1) / 2
        sizes = (ties.sizes(counts) for ties in (by_x, by_y, by_both))
        equal_x, equal_y, equal = ((size * (size - 1)).sum(axis=1) / 2 for size in sizes)
        opposed = _inversions(by_x, by_y, counts)
        return PairCounts(pairs, equal_x, equal_y, pairs - equal_x - equal_y + equal - opposed, opposed)

    return count


def _inversions(x: Ties, y: Ties, counts: Array) -> Array:
    """Number of pairs that x and y order differently, in each resample, (R,).

    In the order of x (of y among equals), one bit of y's rank at a time from the highest: numbers that agree in the
    higher bits are inverted where the bit is set in the earlier and not in the later one.
    """
    order = np.lexsort((y.codes, x.codes))
    weights, ranks = counts[:, order], y.codes[order]
    found: Array = np.zeros(len(counts))
    for bit in reversed(range(int(ranks.max()).bit_length())):
        is_upper = (ranks >> bit) & 1 == 1
        upper_before = np.cumsum(weights * is_upper, axis=1) - weights * is_upper
        block = ranks >> (bit + 1)  # sorted, by the rounds before
        start = np.searchsorted(block, block)
        found += (weights * (upper_before - upper_before[:, start]) * ~is_upper).sum(axis=1)
        following = np.argsort(ranks >> bit, kind="stable")
        weights, ranks = weights[:, following], ranks[following]
    return found
