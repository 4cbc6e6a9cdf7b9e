"""What is said once to who trains on a critic without reference and without its guards.

A learned critic that compares with nothing goes on paying beyond the truth. Where its loss stops at the reference's
score, and its part of the gradient is small, there is little to gain by that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from perceptloss.loss.processes import is_first
from perceptloss.loss.terms import TermSpec

__all__ = ["warn_unguarded"]

_SMALL: Final = 0.3  # largest share of the gradient that is said nothing of
_log = logging.getLogger(__name__)
_told: set[str] = set()


def warn_unguarded(specs: Iterable[TermSpec]) -> None:
    """Warn of learned critics without reference that a loss lets loose; once in a training."""
    if not is_first():
        return
    for spec in specs:
        for problem in _problems(spec):
            if problem not in _told:
                _told.add(problem)
                _log.warning("%s", problem)


def _problems(spec: TermSpec) -> Iterator[str]:
    if spec.monitor or spec.card.needs_reference or not spec.card.weights:
        return
    who = f"term {spec.label!r} judges without a reference"
    if spec.shape not in ("hinge", "softplus"):
        yield f"{who}, and shape {spec.shape!r} pays beyond the ground truth: shape 'hinge' stops there"
    if spec.share is not None and spec.share > _SMALL:
        yield f"{who}, and has {spec.share:g} of the gradient: at most {_SMALL:g}, after a late start, deceives less"
