"""perceptual: distances of VGG19 features before their ReLUs, the perceptual loss of ESRGAN and its descendants.

Wang, Yu, Wu, Gu, Liu, Dong, Qiao, Loy: "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV
Workshops 2018; layers and weights are those of Real-ESRGAN (Wang, Xie, Dong, Shan, ICCV Workshops 2021). Numbers follow
`PerceptualLoss` of BasicSR (https://github.com/XPixelGroup/BasicSR, Apache-2.0). Johnson's losses are `vgg-content` and
`vgg-style`. The criterion `distribution` is `pd` of traiNNer-redux (Apache-2.0; written from its facts); ours: its
slope fades where a channel is hardly there.
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
from perceptloss.networks.functional import soften
from perceptloss.networks.trunks import IMAGENET, Features, TrunkCritic, vgg19
from perceptloss.weights.rules import TORCHVISION_TRUNK

__all__ = ["ENTRIES", "Perceptual", "distribution_distance"]

Border = Literal["zeros", "replicate"]
_LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
_BEHIND = {tap.replace("conv", "relu"): weight for tap, weight in _LAYERS.items()}
_WIDTHS = (64, 128, 256, 512, 512)
_FAINT = 1e-3  # of the strongest channel


def distribution_distance(fx: Tensor, fy: Tensor) -> Tensor:
    """How far each channel's activation would have to be carried, row after row: a mean over channels, in positions.

    Args:
        fx: Features of the judged images, (N, C, H, W), not below 0.
        fy: Features of the references, same shape.

    Returns:
        One distance per image, (N,).
    """
    below = _running_shares(fx) - _running_shares(fy)
    return below.abs().sum(-1).mean(1)


def _running_shares(f: Tensor) -> Tensor:
    total = f.sum((2, 3), keepdim=True)
    strength = total / total.detach().amax(1, keepdim=True).clamp_min(1e-12)
    return soften(f / (total + 1e-14), strength.expand_as(f), _FAINT).flatten(2).cumsum(-1)


class Perceptual(TrunkCritic):
    """Weighted sum over taps of the mean distance of features; lower is better, 0 for equal images.

    Args:
        card: What it is.
        layers: Taps of VGG19 and their weights; `conv3_4` is before its ReLU, `relu3_4` behind it.
        criterion: Of the distance: `l1`, `l2`, `huber`, `charbonnier` or `clipped` of each activation, or
            `distribution`, of where those of a channel are, behind its ReLU.
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
        criterion: Criterion | Literal["distribution"] = "l1",
        border: Border = "zeros",
        normalise: bool = True,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        is_distribution = criterion == "distribution"
        if layers is None:
            layers = _BEHIND if is_distribution else _LAYERS
        if border not in get_args(Border):
            raise ConfigError([f"options.border must be 'zeros' or 'replicate', got {border!r}"], card.name)
        trunk = vgg19(IMAGENET if normalise else None, widths, border)
        problems = [f"options.layers names {tap!r}, which VGG19 has not" for tap in layers if tap not in trunk.tap_at]
        if is_distribution:
            problems += [
                f"options.layers names {tap!r}: shares are of what is behind a ReLU"
                for tap in layers
                if tap.startswith("conv")
            ]
        if problems or not layers:
            raise ConfigError(problems or ["options.layers must name one tap or more"], card.name)
        self.criterion = None if criterion == "distribution" else known_criterion(criterion, card.name)
        least = sum(layers.values()) * (least_of(self.criterion) if self.criterion else 0.0)
        super().__init__(replace(card, identity=least, bounds=(least, card.bounds[1])))
        self.trunk, self.taps, self.layers = trunk, tuple(layers), dict(layers)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return torch.stack([weight * self._apart(fx[tap], fy[tap]) for tap, weight in self.layers.items()]).sum(0)

    def _apart(self, fx: Tensor, fy: Tensor) -> Tensor:
        if self.criterion is None:
            return distribution_distance(fx, fy)
        return apart(fx, fy, self.criterion).mean((1, 2, 3))


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
