"""What is compared: three losses, the ways to obtain their gradient, and the peers of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import Loss
from benchmarks.peers import PEERS, offline
from perceptloss.critic import Precision
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.terms import TermOptions

__all__ = ["CASES", "FIVE", "MODES", "THREE", "Case", "images", "ours", "size_text"]

THREE = ("lpips-vgg", "vgg-content", "vgg-style")
FIVE = (*THREE, "dists", "lpips-squeeze")

MODES: Mapping[str, Mapping[str, Any]] = {
    "autograd": {"grad": "autograd"},
    "checkpoint": {"grad": "checkpoint"},
    "fused": {"micro_batch": None},
    "fused, one at a time": {"micro_batch": 1},
    "fused lean, one at a time": {"micro_batch": 1, "lean": True},
    "fused bf16": {"micro_batch": None, "precision": "bf16"},
    "fused bf16, one at a time": {"micro_batch": 1, "precision": "bf16"},
}


@dataclass(frozen=True)
class Case:
    """Losses that a user would choose between.

    Attributes:
        terms: Names of our critics, weight 1 each.
        peers: Names in `PEERS`; ratios are to the first.
        extra: Further losses of ours, by label, in mode `fused`.
    """

    terms: tuple[str, ...]
    peers: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]]

    def losses(self, device: torch.device) -> dict[str, Loss]:
        """All losses of the case, peers first."""
        with offline():
            built: dict[str, Loss] = {name: PEERS[name](device) for name in self.peers}
        for label, terms in self.extra.items():
            built[label] = ours(terms, device, **MODES["fused"])
        for mode, options in MODES.items():
            built[mode] = ours(self.terms, device, **options)
        return built


CASES: Mapping[str, Case] = {
    "lpips-vgg": Case(("lpips-vgg",), ("lpips", "piq LPIPS"), {}),
    "dists": Case(("dists",), ("DISTS-pytorch", "piq DISTS"), {}),
    "three-terms": Case(THREE, ("piq LPIPS+Content+Style",), {"fused, lpips-vgg alone": ("lpips-vgg",)}),
}


def ours(
    terms: tuple[str, ...], device: torch.device | str = "cpu", precision: Precision = "fp32", **options: Any
) -> CriticLoss:
    """A loss of ours with seeded random weights; shares are not measured."""
    specs: list[TermOptions] = [
        {"critic": name, "weight": 1.0, "weights": None, "precision": precision} for name in terms
    ]
    return CriticLoss(specs, share_every=0, **options).to(device)


def size_text(size: tuple[int, int, int]) -> str:
    """`4x192x192` for N, H, W."""
    return "x".join(map(str, size))


def images(
    shape: tuple[int, int, int], device: torch.device | str = "cpu", seed: int = 0, channels: int = 3
) -> tuple[Tensor, Tensor]:
    """A smooth reference and a noisy copy, (N, channels, H, W) in [0, 1], from (N, H, W)."""
    n, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, max(2, height // 8), max(2, width // 8), generator=generator)
    y = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", antialias=False).clamp(0, 1)
    x = (y + 0.05 * torch.randn(y.shape, generator=generator)).clamp(0, 1)
    return x.to(device), y.to(device)
