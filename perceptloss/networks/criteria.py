"""Pointwise distances by the names that training configurations give them."""

from __future__ import annotations

from typing import Final, Literal, get_args

from torch import Tensor

from perceptloss.errors import ConfigError

__all__ = ["CHARBONNIER", "Criterion", "apart", "known_criterion"]

Criterion = Literal["charbonnier", "l1", "l2"]
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
    """Elementwise |d|, d^2 or sqrt(d^2 + eps), of any shape."""
    difference = x - y
    if criterion == "l1":
        return difference.abs()
    squared = difference.square()
    return squared if criterion == "l2" else (squared + eps).sqrt()
