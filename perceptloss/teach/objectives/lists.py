"""Lists of predictions and labels as the objectives of this package want them."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.errors import InputError

__all__ = ["above_zero", "centred", "nothing", "paired", "unit_labels", "z_scored"]


def paired(q: Tensor, y: Tensor, objective: str) -> tuple[Tensor, Tensor]:
    """Both lists in the type that is computed in, at least float32; labels receive no gradient.

    Args:
        q: Predictions, (N,).
        y: Labels, (N,), of any type.
        objective: Who asks, for the message.

    Raises:
        InputError: if they are not two lists of one length, on one device.
    """
    if not q.is_floating_point() or q.ndim != 1 or q.shape != y.shape or q.device != y.device:
        raise InputError(
            f"{objective} needs predictions and labels as two lists (N,) on one device, got {q.dtype} {tuple(q.shape)} "
            f"on {q.device} and {y.dtype} {tuple(y.shape)} on {y.device}. Call .flatten() on (N, 1) and (1, N)."
        )
    dtype = torch.promote_types(q.dtype, torch.float32)
    return q.to(dtype), y.detach().to(dtype)


def above_zero(number: float, name: str) -> float:
    """A temperature or scale that may be divided by.

    Raises:
        InputError: if it is not above 0.
    """
    if not number > 0:
        raise InputError(f"{name} must be above 0, got {number}")
    return number


def nothing(q: Tensor) -> Tensor:
    """0 that hangs on the graph of `q`: the loss of a list that says nothing."""
    return (q * 0).sum()


def centred(x: Tensor) -> Tensor:
    """`x` less its mean; twice, because labels such as 1449 +- 121 round the first mean by more than they should."""
    once = x - x.mean()
    return once - once.mean()


def unit_labels(y: Tensor) -> Tensor:
    """Labels of mean 0 and variance 1; zeros where they are constant up to rounding."""
    distance = centred(y)
    spread = distance.square().mean().sqrt()
    rounding = torch.finfo(y.dtype).eps * y.abs().amax() + torch.finfo(y.dtype).tiny
    return torch.where(spread > rounding, distance / spread.clamp_min(rounding), 0)


def z_scored(q: Tensor, eps: float) -> Tensor:
    """Predictions less their mean over their deviation, at least `eps`; mean and deviation are constants."""
    distance = q - (q - centred(q)).detach()
    return distance / distance.detach().square().mean().sqrt().clamp_min(eps)
