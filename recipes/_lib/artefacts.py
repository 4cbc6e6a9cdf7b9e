"""The loss of artefacts (LDL) beside the pixel loss: absolute errors weighed by where they vary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perceptloss.maps.artefacts import artefact_weights
from perceptloss.runs import loop
from perceptloss.runs.options import Loss

__all__ = ["artefact_loss", "restored_by_average"]


def restored_by_average(run: Any, lq: Tensor) -> Tensor | None:
    """What the averaged weights make of a batch, without a graph; None if nobody asks, or there are none."""
    if not run.config.loss.artefacts or run.ema is None:
        return None
    run.network.eval()
    with torch.no_grad(), loop.averaged(run):
        restored: Tensor = run.network(lq).float()
    run.network.train()
    return restored


def artefact_loss(options: Loss, output: Tensor, gt: Tensor, steady: Tensor | None) -> Tensor | float:
    """Weighted loss, 0-d; 0 if it is switched off."""
    if not options.artefacts:
        return 0.0
    return options.artefacts * (artefact_weights(output, gt, steady) * (output - gt).abs()).mean()
