"""What each term of a loss did in the last call, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from perceptloss.loss.gradient import Outcome
from perceptloss.loss.terms import Term

__all__ = ["Row", "report_rows"]

Row = dict[str, float | int | None]


def report_rows(
    terms: Sequence[Term],
    outcome: Outcome,
    weights: Mapping[int, float],
    norms: Mapping[int, Tensor],
    skipped: Mapping[str, int],
) -> dict[str, Row]:
    """One row per term; waits for the device.

    Args:
        terms: All terms of the loss.
        outcome: Of the call.
        weights: Effective weight of each term at that step.
        norms: Gradient norms when last measured.
        skipped: How often each term was left out so far.

    Returns:
        Label to score, loss, weight, weighted, share and skipped. Score and loss are None for a
        term that has not started; share is None where it was never measured.
    """
    lengths = {i: float(norm) for i, norm in norms.items()}
    total = sum(lengths.values())
    rows: dict[str, Row] = {}
    for i, term in enumerate(terms):
        score, loss = (float(store[i]) if i in store else None for store in (outcome.scores, outcome.losses))
        rows[term.label] = {
            "score": score,
            "loss": loss,
            "weight": weights[i],
            "weighted": None if loss is None else weights[i] * loss,
            "share": lengths[i] / total if i in lengths and total > 0 else None,
            "skipped": skipped.get(term.label, 0),
        }
    return rows
