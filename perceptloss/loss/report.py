"""What the terms of a loss did: a row of plain numbers each, and how often one was left out."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from perceptloss.errors import NonFiniteLoss
from perceptloss.loss.terms import OnNonFinite, Term

__all__ = ["Record", "Row", "Skips"]

_log = logging.getLogger(__name__)
Row = dict[str, float | int | None]


@dataclass(frozen=True)
class Record:
    """One call, by term: effective weight, mean score and loss where it ran, squared gradient norm if ever measured."""

    weights: Mapping[Term, float] = field(default_factory=dict)
    scores: Mapping[Term, Tensor] = field(default_factory=dict)
    losses: Mapping[Term, Tensor] = field(default_factory=dict)
    squares: Mapping[Term, Tensor] = field(default_factory=dict)

    def rows(self, skipped: Mapping[str, int]) -> dict[str, Row]:
        """Label to score, loss, weight, weighted, share and skipped; waits for the device.

        Score and loss are None for a term that has not started, share where it was never measured.
        """
        norms = {term: math.sqrt(float(square)) for term, square in self.squares.items()}
        total = sum(norms.values())
        rows: dict[str, Row] = {}
        for term, weight in self.weights.items():
            score, loss = (float(of[term]) if term in of else None for of in (self.scores, self.losses))
            rows[term.label] = {
                "score": score,
                "loss": loss,
                "weight": weight,
                "weighted": None if loss is None else weight * loss if weight else 0.0,
                "share": norms[term] / total if term in norms and total > 0 else None,
                "skipped": skipped.get(term.label, 0),
            }
        return rows


@dataclass
class Skips:
    """Terms that were left out because something was not finite: counted and logged, or refused."""

    policy: OnNonFinite
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, labels: Sequence[str], what: str) -> None:
        """Take note of terms one of which has a bad `what`.

        Raises:
            NonFiniteLoss: if the policy is `raise`.
        """
        self._add(labels, f"the {what} of term {' or '.join(map(repr, labels))} is not finite", "left out")

    def add_images(self, labels: Sequence[str], what: str) -> None:
        """Take note of bad images, which keep all terms from running.

        Raises:
            NonFiniteLoss: if the policy is `raise`.
        """
        self._add(labels, what, f"{', '.join(map(repr, labels)) or 'nothing'} left out")

    def _add(self, labels: Sequence[str], what: str, consequence: str) -> None:
        if self.policy == "raise":
            raise NonFiniteLoss(f"{what}; with on_nonfinite='skip': {consequence} of the step.")
        self.counts.update(labels)
        count = max((self.counts[label] for label in labels), default=1)
        if count & (count - 1) == 0:  # 1st, 2nd, 4th, 8th ... time
            _log.warning("%s: %s of this step (time %d)", what, consequence, count)
