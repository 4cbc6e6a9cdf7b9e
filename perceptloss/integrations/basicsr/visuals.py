"""What a BasicSR model shows while it validates, as critics take it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from perceptloss.compare.pixels import stored
from perceptloss.errors import ConfigError
from perceptloss.loss.critic_loss import CriticLoss

__all__ = ["seeing"]


@contextmanager
def seeing(model: Any, loss: CriticLoss, see: Callable[[Tensor, Tensor], None], most: int) -> Iterator[None]:
    """Hand the first images that a model shows meanwhile to `see`: restored and ground truth, as 8 bits have them.

    Args:
        model: BasicSR's.
        loss: Whose critics see them: its range, its grey, and sides that its critics accept.
        see: Takes two images, RGB in [0, 1], (3, H, W) or a stereo pair (6, H, W), on the model's device.
        most: Number of images.

    Raises:
        ConfigError: if the model shows none, clips, or images without ground truth.
    """
    show, left = model.get_current_visuals, most
    multiple = math.lcm(*(term.critic.card.multiple_of for term in loss.terms))

    def taken(image: Tensor) -> Tensor:
        height, width = (side // multiple * multiple for side in image.shape[1:])
        low, high = loss.input_range
        image = (image[:, :height, :width].to(model.device).float() - low) / (high - low)
        return stored(image.expand(3, -1, -1) if len(image) == 1 else image)

    def note() -> Mapping[str, Tensor]:
        nonlocal left
        visuals: Mapping[str, Tensor] = show()
        if left:
            x, y = visuals["result"], visuals.get("gt")
            if y is None or x.ndim != 4 or x.shape != y.shape:
                truth = "no ground truth" if y is None else f"ground truth of {tuple(y.shape)}"
                raise ConfigError(
                    [f"alarms need single images and their ground truth, got {tuple(x.shape)} and {truth}"],
                    "val.alarms",
                )
            see(taken(x[0]), taken(y[0]))
            left -= 1
        return visuals

    model.get_current_visuals = note
    try:
        yield
    finally:
        model.get_current_visuals = show
    if left == most and model.opt["rank"] == 0:
        raise ConfigError([f"model {type(model).__name__} shows no images while it validates"], "val.alarms")
