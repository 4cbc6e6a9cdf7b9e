"""Critics of one kind of picture, and what is said once to who trains with them on another."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Literal, get_args

from perceptloss.card import Card
from perceptloss.loss.processes import is_first

__all__ = ["Domain", "domain_of", "warn_outside"]

Domain = Literal["natural", "underwater", "night", "screen"]
"""What the images of a training are."""

_KINDS: Final = frozenset(get_args(Domain)) - {"natural"}
_log = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()


def warn_outside(cards: Iterable[Card], domain: Domain) -> None:
    """Warn of each critic that was made for one kind of picture, which is not this one; once in a training."""
    if not is_first():
        return
    for card in cards:
        key = card.name, domain
        if card.domains <= _KINDS and domain not in card.domains and key not in _told:
            _told.add(key)
            made = " or ".join(sorted(card.domains))
            _log.warning(
                "critic %r was made for %s pictures; what it says of others means little. If yours are such, say so "
                "to the loss: domain: %s",
                card.name,
                made,
                made,
            )


def domain_of(card: Card) -> Domain:
    """A kind of picture that a critic was made for."""
    return next((kind for kind in get_args(Domain) if kind in card.domains), "natural")
