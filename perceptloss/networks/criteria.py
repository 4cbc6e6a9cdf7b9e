"""Pointwise distances by the names that training configurations give them."""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor

from perceptloss.errors import ConfigError

__all__ = ["CHARBONNIER", "Criterion", "apart", "known_criterion"]

Criterion = Literal["charbonnier", "huber", "l1", "l2"]
CHARBONNIER: Final = 1e-12
"""What BasicSR and its kin add under the root."""


def known_criterion(value: object, critic: str) -> Criterion:
    """The criterion that an option names.

    Raises:
        ConfigError: if it is none.
    """
    if value not in get_args(Criterion):
        raise ConfigError([f"options.criterion must be one of {', '.join(get_args(Criterion))}, got {value!r}"], critic)
    return value  # type: ignore[return-value]


def apart(x: Tensor, y: Tensor, criterion: Criterion, eps: float = CHARBONNIER) -> Tensor:
    """Elementwise |d|, d^2, sqrt(d^2 + eps), or Huber's d^2 / 2 up to 1 and |d| - 1/2 from there, of any shape."""
    difference = x - y
    if criterion == "l1":
        return difference.abs()
    if criterion == "huber":
        size = difference.abs()
        return torch.where(size < 1, difference.square() / 2, size - 0.5)
    squared = difference.square()
    return squared if criterion == "l2" else (squared + eps).sqrt()
