"""Scores as arrays, for what is computed from all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.statistics.paired import Array

__all__ = ["Scores"]


@dataclass(frozen=True)
class Scores:
    """Scores of systems by critics on the same images.

    Attributes:
        values: (systems, critics, images), NaN where there is none.
        systems: Names.
        labels: Of the critics.
        higher_better: Direction of each critic.
        counted: Whether each critic is evidence.
        noise: Of each critic's mean.
        keys: Of the images.
        base: Index of the baseline, if there is one.
    """

    values: Array
    systems: tuple[str, ...]
    labels: tuple[str, ...]
    higher_better: tuple[bool, ...]
    counted: tuple[bool, ...]
    noise: tuple[float, ...]
    keys: tuple[str, ...]
    base: int | None

    @property
    def oriented(self) -> Array:
        """Higher is better for all critics."""
        return self.values * np.where(self.higher_better, 1.0, -1.0)[:, None]

    def alive(self, critic: int) -> list[int]:
        """Systems that have a score by a critic."""
        return np.flatnonzero(~np.isnan(self.values[:, critic]).all(axis=1)).tolist()

    def complete(self, critic: int) -> NDArray[np.bool_]:
        """Images of which every system has a score, but for systems without any, (images,)."""
        there = ~np.isnan(self.values[self.alive(critic), critic])
        return np.asarray(there.all(axis=0) & there.any(axis=0))

    def seen(self, critic: int) -> NDArray[np.bool_]:
        """Images of which any system has a score, (images,)."""
        return np.asarray(~np.isnan(self.values[:, critic]).all(axis=0))

    def shown(self, critic: int) -> Array:
        """Scores of all systems on the images seen, (seen, systems), higher is better, a missing one below all."""
        rows = self.oriented[:, critic, self.seen(critic)].T
        shown: Array = np.where(np.isnan(rows), -np.inf, rows)
        return shown
