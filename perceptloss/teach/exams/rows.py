"""What every part of an exam needs: which rows, work shared out over processes, and a figure with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from perceptloss.compare.statistics.bootstrap import bootstrap
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.teach.exams.exam import Exam

__all__ = ["Array", "choose_rows", "figure_of", "floats", "shared"]


Array = NDArray[Any]


def choose_rows(exam: Exam, limit: int, seed: int) -> Array:
    """Rows of whole photographs, in a random order of these, until there are `limit`; 0: all."""
    if not limit or limit >= len(exam.target):
        return np.arange(len(exam.target))
    chosen: list[Array] = []
    count = 0
    for content in np.random.default_rng([seed, 11]).permutation(np.unique(exam.content)):
        rows = np.flatnonzero(exam.content == content)
        if chosen and count + len(rows) > limit:
            break
        chosen.append(rows)
        count += len(rows)
    return np.sort(np.concatenate(chosen))


def shared(accelerator: Accelerator, parts: Sequence[Array], work: Callable[[int, Array], Sequence[float]]) -> Array:
    """What `work` gives of all numbered parts, joined, the same on all processes, which share them; float64."""
    numbers = range(accelerator.process_index, len(parts), accelerator.num_processes)
    mine = [(i, list(work(i, parts[i]))) for i in numbers]
    return np.array([value for _, values in sorted(gather_object(mine)) for value in values])


def floats(accelerator: Accelerator, image: Tensor | None) -> Tensor | None:
    """Bytes on the device of the run, in [0, 1]."""
    return None if image is None else image.to(accelerator.device).float().div_(255)


def figure_of(
    statistic: Callable[..., float], pred: Array, truth: Array, content: Array, rounds: int
) -> dict[str, Any]:
    """A figure as `value`, `count`, `low`, `high`; what is not defined is None, and `why` says why.

    Args:
        statistic: Of predictions and truth.
        pred: (N,).
        truth: (N,).
        content: Photographs, which the bootstrap draws, (N,).
        rounds: Of the bootstrap; 0: no interval.
    """
    try:
        value = float(statistic(pred, truth))
    except ProtocolError as error:
        return {"value": None, "count": len(pred), "why": str(error)}
    figure: dict[str, Any] = {"value": value, "count": len(pred)}
    if not rounds:
        return figure
    try:
        found = bootstrap(statistic, pred, truth, groups=content, rounds=rounds)
    except ProtocolError as error:
        return figure | {"low": None, "high": None, "why": str(error)}
    return figure | {"low": found.low, "high": found.high}
