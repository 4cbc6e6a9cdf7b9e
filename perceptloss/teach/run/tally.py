"""What the steps between two lines of the log cost, and what their losses were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perceptloss.runs.meters import Clock, peak_memory_mb

__all__ = ["Tally"]


class Tally(Clock):
    """Sums of losses, which stay on the device until they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.grad_norm: float | None = None
        self.images = 0
        self._sums: dict[str, Tensor] = {}
        self._added = 0

    def add(self, loss: Tensor, parts: Mapping[str, Tensor], images: int) -> None:
        """Note one forward and backward over some images of this process."""
        for name, value in {"loss": loss.detach(), **parts}.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._added += 1
        self.images += images

    def summary(self) -> dict[str, Any]:
        """Means since the last call, the same on all processes but for time; starts again."""
        means = dict(zip(self._sums, (torch.stack(list(self._sums.values())) / self._added).tolist(), strict=True))
        record = {
            "loss": means.pop("loss"),
            "objectives": means,
            "grad_norm": self.grad_norm,
            "images_per_step": self.images / self.steps,
            "seconds_per_step": self.seconds_per_step(),
            "peak_memory_mb": peak_memory_mb(),
        }
        self._sums, self._added, self.images = {}, 0, 0
        return record
