"""Where a restored image shows artefacts rather than detail: the map of LDL.

Liang, Zeng, Zhang: "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution", CVPR 2022 (https://github.com/csjliang/LDL, Apache-2.0; written from the paper).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import bounded_power

__all__ = ["artefact_map"]

_FLOOR = 1e-6  # of a variance: below, the slope of its root is held


def artefact_map(x: Tensor, y: Tensor, steady: Tensor | None = None, window: int = 7) -> Tensor:
    """Weight of every pixel, >= 0: the local variance of the residual, times the fifth root of that of the whole image.

    Args:
        x: Restored images, (N, C, H, W).
        y: References, same shape.
        steady: What the averaged weights (EMA) restore, same shape: where they are further off than `x`, there is no
            artefact, and the weight is 0. None: weights everywhere.
        window: Odd side of the local window; images are mirrored at their borders.

    Returns:
        The map, (N, 1, H, W), differentiable in x.
    """
    residual = (x - y).abs().sum(1, keepdim=True)
    whole = residual.flatten(1).var(1)[:, None, None, None]
    reach = window // 2
    count = window * window
    padded = F.pad(residual - residual.mean((2, 3), keepdim=True), (reach,) * 4, mode="reflect")
    mean, square = F.avg_pool2d(padded, window, 1), F.avg_pool2d(padded.square(), window, 1)
    local = (square - mean.square()).clamp_min(0) * (count / (count - 1))
    weights = bounded_power(whole, 0.2, _FLOOR) * local
    if steady is None:
        return weights
    return torch.where(residual < (steady - y).abs().sum(1, keepdim=True), 0, weights)
