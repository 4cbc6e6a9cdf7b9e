"""An exam: held-out images, and what good scores of them agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from perceptloss.compare.statistics.measures import Fit

__all__ = ["Exam"]


@dataclass(frozen=True)
class Exam:
    """Held-out images with targets, with pairs whose order is known, or both.

    Attributes:
        name: Of the exam.
        target: What good scores agree with, (M,), higher is better; NaN where there is none.
        content: Photograph, (M,).
        reference: Cut of a photograph, (M,).
        group: As in `Batch`, (M,).
        level: As in `Batch`, (M,).
        family: Family of damage, or its name where it alone of its family was not taught, (M,) text; empty: unknown.
        unseen: Of these, what was not taught.
        images: Rows to images of one size and their references, uint8, (N, C, H, W).
        batch: Images that may be asked for at once; 1 where sizes differ.
        about: A sentence for people: what is in it, and how the targets arose.
        fit: Curve before PLCC; see `perceptloss.compare.statistics.measures.plcc`.
        within: What a user would compare, such as one cut at one factor, (M,); only rows of one content share a value.
        asked: Name of a question to pairs of rows of one content, the better one first, (K, 2).
    """

    name: str
    target: np.ndarray
    content: np.ndarray
    reference: np.ndarray
    group: np.ndarray
    level: np.ndarray
    family: np.ndarray
    unseen: frozenset[str]
    images: Callable[[np.ndarray], tuple[Tensor, Tensor | None]]
    batch: int
    about: str
    fit: Fit = "none"
    within: np.ndarray | None = None
    asked: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def has_targets(self) -> bool:
        """Whether there is anything to correlate with."""
        return not np.isnan(self.target).all()

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of its figures, the most telling one first."""
        known = ("srcc", "plcc", "krcc", "pairwise") if self.has_targets else ()
        within = ("within",) if self.within is not None else ()
        levels = ("levels",) if (self.group >= 0).any() else ()
        return (*known, *within, *levels, *self.asked)
