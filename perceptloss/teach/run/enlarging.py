"""Enlargers, until those of `degradations.enlarge` are here."""

from __future__ import annotations

from torch import Tensor

from perceptloss.teach.degradations.resize import resize

ENLARGERS = ("nearest", "bilinear", "bicubic", "lanczos")


def shrunk(x: Tensor, factor: float, down: str = "bicubic") -> Tensor:
    """The small picture."""
    size = (max(1, round(x.shape[-2] / factor)), max(1, round(x.shape[-1] / factor)))
    return resize(x, size, down).clamp(0, 1)


def enlarged(small: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """A small picture at a larger size."""
    return resize(small, size, name).clamp(0, 1)
