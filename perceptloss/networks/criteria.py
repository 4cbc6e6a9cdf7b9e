"""Pointwise distances by the names that training configurations give them."""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor

from perceptloss.errors import ConfigError

__all__ = ["CHARBONNIER", "CLIP", "Criterion", "apart", "known_criterion", "least_of"]

Criterion = Literal["charbonnier", "clipped", "huber", "l1", "l2"]
CHARBONNIER: Final = 1e-12
"""What BasicSR and its kin add under the root."""
CLIP: Final = (0.003921, 0.996078)
"""Between which neosr's `chc` holds a difference: 1 and 254 levels of 8 bits."""


def known_criterion(value: object, critic: str) -> Criterion:
    """The criterion that an option names.

    Raises:
        ConfigError: if it is none.
    """
    if value not in get_args(Criterion):
        raise ConfigError([f"options.criterion must be one of {', '.join(get_args(Criterion))}, got {value!r}"], critic)
    return value  # type: ignore[return-value]


def least_of(criterion: Criterion, eps: float = CHARBONNIER) -> float:
    """The distance of what is equal."""
    return {"charbonnier": eps**0.5, "clipped": CLIP[0]}.get(criterion, 0.0)


def apart(x: Tensor, y: Tensor, criterion: Criterion, eps: float = CHARBONNIER) -> Tensor:
    """Elementwise distance, of any shape.

    |d| for `l1`, d^2 for `l2`, sqrt(d^2 + eps) for `charbonnier`, and held between 0.0039 and 0.996 for `clipped`,
    where there is no slope; Huber's d^2 / 2 up to 1 and |d| - 1/2 from there.
    """
    difference = x - y
    if criterion == "l1":
        return difference.abs()
    if criterion == "huber":
        size = difference.abs()
        return torch.where(size < 1, difference.square() / 2, size - 0.5)
    squared = difference.square()
    if criterion == "l2":
        return squared
    size = (squared + eps).sqrt()
    return size.clamp(*CLIP) if criterion == "clipped" else size
