"""Scoring restored images: PSNR, the critics trained on, and judges that were not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perceptloss import Critic, create_critic

__all__ = ["Metric", "Scores", "build_metrics", "mean_scores", "psnr_y", "score_image", "wins"]

Scores = dict[str, dict[str, float]]  # image name -> metric name -> score
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # ITU-R BT.601, head and foot room as MATLAB's rgb2ycbcr


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
        name: `psnr-y` or the critic's registry name.
        better: Direction.
        role: `fidelity`, `critic` (trained on) or `judge` (not trained on).
        score: Images and references, (N, 3, H, W) in [0, 1], to scores (N,).
        signature: The choices that change the number.
    """

    name: str
    better: Literal["higher", "lower"]
    role: Literal["fidelity", "critic", "judge"]
    score: Callable[[Tensor, Tensor], Tensor]
    signature: str

    def is_better(self, new: float, old: float) -> bool:
        """Whether `new` beats `old`."""
        return new > old if self.better == "higher" else new < old


def psnr_y(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of the luma, dB, (N,); higher is better, infinite for equal images."""
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=x.device).view(1, 3, 1, 1)
    error = ((x.double() - y.double()) * weights).sum(1).square().mean((-2, -1))
    return -10 * error.log10()


def build_metrics(trained: Sequence[Critic], judges: Sequence[str], device: torch.device) -> list[Metric]:
    """PSNR, then judges, then the critics trained on, each once."""
    metrics = [Metric("psnr-y", "higher", "fidelity", psnr_y, "psnr-y|bt601|peak:255")]
    watching = [create_critic(name).as_published().to(device) for name in judges]
    for role, critics in (("judge", watching), ("critic", trained)):
        for critic in critics:
            if critic.card.name not in [metric.name for metric in metrics]:
                metrics.append(Metric(critic.card.name, critic.card.better, role, critic, critic.signature))  # type: ignore[arg-type]
    return metrics


@torch.no_grad()
def score_image(metrics: Sequence[Metric], restored: Tensor, gt: Tensor, border: int) -> dict[str, float]:
    """Every metric of one image, (3, H, W), after rounding to the 8 bits of a saved file and cutting the border."""
    height, width = gt.shape[-2:]
    inner = (slice(None), slice(border, height - border), slice(border, width - border))
    x = restored.clamp(0, 1).mul(255).round().div(255)[inner][None]
    return {metric.name: float(metric.score(x, gt[inner][None])) for metric in metrics}


def mean_scores(scores: Scores) -> dict[str, float]:
    """Mean over images, in order of their names."""
    rows = [scores[name] for name in sorted(scores)]
    return {metric: sum(row[metric] for row in rows) / len(rows) for metric in rows[0]}


def wins(metrics: Sequence[Metric], ours: Mapping[str, float], other: Mapping[str, float]) -> list[str]:
    """Names of the judges that find `ours` better than `other`."""
    return [m.name for m in metrics if m.role == "judge" and m.is_better(ours[m.name], other[m.name])]
