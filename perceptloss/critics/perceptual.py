"""perceptual: distances of VGG19 features before their ReLUs, the perceptual loss of ESRGAN and its descendants.

Wang, Yu, Wu, Gu, Liu, Dong, Qiao, Loy: "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV
Workshops 2018; layers and weights are those of Real-ESRGAN (Wang, Xie, Dong, Shan, ICCV Workshops 2021). Numbers follow
`PerceptualLoss` of BasicSR (https://github.com/XPixelGroup/BasicSR, Apache-2.0). Johnson's losses are `vgg-content` and
`vgg-style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.criteria import Criterion, apart, known_criterion, least_of
from perceptloss.networks.trunks import IMAGENET, Features, TrunkCritic, vgg19
from perceptloss.weights.rules import TORCHVISION_TRUNK

__all__ = ["ENTRIES", "Perceptual"]

Border = Literal["zeros", "replicate"]
_LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
_WIDTHS = (64, 128, 256, 512, 512)


class Perceptual(TrunkCritic):
    """Weighted sum over taps of the mean distance of features; lower is better, 0 for equal images.

    Args:
        card: What it is.
        layers: Taps of VGG19 and their weights; `conv3_4` is before its ReLU, `relu3_4` behind it.
        criterion: Of the distance: `l1`, `l2`, `huber`, `charbonnier` or `clipped`.
        border: What the first convolution sees around the image: `zeros`, or its outermost pixels (`replicate`).
        normalise: Whether images are brought to ImageNet's mean and deviation first.
        widths: Channels of the five stages of VGG19.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("perceptual", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    rules = TORCHVISION_TRUNK

    def __init__(
        self,
        card: Card,
        *,
        layers: Mapping[str, float] | None = None,
        criterion: Criterion = "l1",
        border: Border = "zeros",
        normalise: bool = True,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        layers = _LAYERS if layers is None else layers
        if border not in get_args(Border):
            raise ConfigError([f"options.border must be 'zeros' or 'replicate', got {border!r}"], card.name)
        trunk = vgg19(IMAGENET if normalise else None, widths, border)
        problems = [f"options.layers names {tap!r}, which VGG19 has not" for tap in layers if tap not in trunk.tap_at]
        if problems or not layers:
            raise ConfigError(problems or ["options.layers must name one tap or more"], card.name)
        self.criterion = known_criterion(criterion, card.name)
        least = sum(layers.values()) * least_of(self.criterion)
        super().__init__(replace(card, identity=least, bounds=(least, card.bounds[1])))
        self.trunk, self.taps, self.layers = trunk, tuple(layers), dict(layers)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        parts = [w * apart(fx[tap], fy[tap], self.criterion).mean((1, 2, 3)) for tap, w in self.layers.items()]
        return torch.stack(parts).sum(0)


_CARD = distance_card(
    name="perceptual",
    summary="Distance of VGG19 features before their ReLUs at five depths: the perceptual loss of Real-ESRGAN.",
    min_size=32,
    low_precision=True,
    fidelity="paper",
    licence_code="Apache-2.0 (BasicSR)",
    licence_weights="BSD-3-Clause (torchvision trunk)",
    weights=("vgg19",),
    paper="Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCV Workshops 2018",
    source="https://github.com/XPixelGroup/BasicSR 1.4.2, PerceptualLoss",
    notes=(
        "features are not normalised, so that those of the deepest layers weigh most: not a quality metric",
        "options: {border: replicate} sees repeated pixels around the image, as traiNNer-redux does",
    ),
)

ENTRIES = {"perceptual": Entry(_CARD, Perceptual)}
