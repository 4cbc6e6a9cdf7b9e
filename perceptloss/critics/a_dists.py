"""a-dists: DISTS that decides from place to place whether there is texture or structure.

Ding, Liu, Zou, Wang, Ma: "Locally Adaptive Structure and Texture Similarity for Image Quality Assessment", ACM MM 2021.
Original: https://github.com/dingkeyan93/A-DISTS (commit 3109871, `A-DISTS.py`, which fits nothing; no licence is
stated, written from its facts). Ours: variances that are rounding noise count as 0, so that a flat image has no
structure; where a single window fits, whose spread the original cannot tell, the whole map is one window, as in
smaller maps; slopes in faint channels are limited; images are never resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.distances import IMAGENET_RULES, VGG16_CHANNELS, texture_and_structure
from perceptloss.networks.functional import blur, gaussian, root, similarity
from perceptloss.networks.layers import unit_norm
from perceptloss.networks.trunks import IMAGENET, Features, TrunkCritic, vgg16
from perceptloss.weights.rules import STAGED_L2_TRUNK, TORCHVISION_TRUNK

__all__ = ["ADISTS", "ENTRIES", "channel_weights", "local_distance", "structure_probability"]

Guide = Literal["reference", "judged"]
Window = tuple[float, ...]
_EPS = 1e-12
_C = 1e-6  # stabiliser of both similarities, in squared units of unit vectors
_NOISE = 16  # rounding errors of a windowed mean of squares
_DARK, _FAINT = 1e-3, 1e-5  # root mean squares of an image and of a feature, below which slopes are held


def _fits(feature: Tensor, window: Window) -> bool:
    """Whether two windows or more lie inside a map."""
    height, width = feature.shape[-2:]
    return min(height, width) >= len(window) and max(height, width) > len(window)


def _stretched(values: Tensor) -> Tensor:
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    return (values - low) / (high - low + _EPS)


def _dispersion(feature: Tensor, window: Window) -> Tensor:
    """Variance by mean of every window, mean over channels: (N, 1, h, w), of the whole map where windows do not fit."""
    if not _fits(feature, window):
        mean = feature.mean((2, 3), keepdim=True)
        return ((feature - mean).square().mean((2, 3), keepdim=True) / (mean + _EPS)).mean(1, keepdim=True)
    mean, square = blur(feature, window), blur(feature.square(), window)
    variance = (square - mean.square() - _NOISE * torch.finfo(square.dtype).eps * square).relu()
    return (variance / (mean + _EPS)).mean(1, keepdim=True)


def structure_probability(features: Sequence[Tensor], window: Window) -> list[Tensor]:
    """How likely each window shows structure, at every level.

    Dispersion above its mean over the map speaks for structure, as far as all coarser levels agree.

    Args:
        features: Levels of one image, fine to coarse, each (N, C, H, W), not negative.
        window: Taps of the separable window.

    Returns:
        Probabilities in [0, 1] of each level, (N, 1, H - k + 1, W - k + 1), or (N, 1, 1, 1) where windows do not fit.
    """
    found: list[Tensor] = []
    for feature in reversed(features):
        dispersion = _dispersion(feature, window)
        coarser = found[-1] if found else torch.ones_like(dispersion)
        if not _fits(feature, window):
            found.append(dispersion.sigmoid() * coarser)
            continue
        away = dispersion - dispersion.mean((2, 3), keepdim=True)
        deviation = root(away.square().sum((2, 3), keepdim=True) / (away[0, 0].numel() - 1))
        likely = _stretched((away / (deviation + _EPS)).sigmoid())
        coarser = F.interpolate(coarser, away.shape[-2:], mode="bilinear", align_corners=True)
        found.append(_stretched(likely * coarser))
    return found[::-1]


def channel_weights(features: Sequence[Tensor]) -> list[Tensor]:
    """Weights of the channels by the entropy over places, (N, C) for each level; all of an image sum to 1.

    Levels weigh by their numbers of channels; what is further than half a deviation from the mean is held there.
    """
    levels = []
    for feature in features:
        share = feature.relu().flatten(2)
        share = share / share.sum(2, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
        entropy = -(share * (share + _EPS).log2()).sum(2)
        levels.append(entropy / (entropy.sum(1, keepdim=True) + _EPS) * feature.shape[1])
    weights = torch.cat(levels, 1)
    weights = weights / (weights.sum(1, keepdim=True) + _EPS)
    mean = weights.mean(1, keepdim=True)
    half = root((weights - mean).square().mean(1, keepdim=True)) / 2
    weights = weights.clamp(mean - half, mean + half)
    weights = weights / (weights.sum(1, keepdim=True) + _EPS)
    return list(weights.split([feature.shape[1] for feature in features], 1))


def unit_channels(feature: Tensor, floor: float) -> Tensor:
    """Channels (N, C, H, W) over the root of their summed squares."""
    places = feature.flatten(2).mT
    return unit_norm(places, floor * places.shape[1] ** 0.5).mT.unflatten(2, feature.shape[2:])


def local_distance(fx: Tensor, fy: Tensor, structure: Tensor, window: Window, floor: float = _FAINT) -> Tensor:
    """One minus the similarity of each channel, of texture or of structure as its windows show them: (N, C).

    Args:
        fx: Features of the judged images, (N, C, H, W).
        fy: Features of the references, same shape.
        structure: Probabilities of `structure_probability`.
        window: Taps of the separable window.
        floor: Root mean square of a channel below which its slope is held.
    """
    fx, fy = (unit_channels(f, floor) for f in (fx, fy))
    if not _fits(fx, window):
        alike, structured = (value[..., None, None] for value in texture_and_structure(fx, fy, _C))
    else:
        mx, xx, xy = (blur(f, window) for f in (fx, fx * fx, fx * fy))
        my, yy = (blur(f, window) for f in (fy, fy * fy))
        alike = similarity(mx, my, _C)
        structured = (2 * (xy - mx * my) + _C) / ((xx - mx * mx) + (yy - my * my) + _C)
    return ((1 - structure) * (1 - alike) + structure * (1 - structured)).mean((2, 3))


class ADISTS(TrunkCritic):
    """A-DISTS distance; lower is better, 0 for equal images.

    Args:
        card: What it is.
        window: Side of the Gaussian window in cells of each level, odd; its sigma is a third of it.
        guide: Which image says where structure is and what channels weigh, the `reference`, as published, or the
            `judged` one, as traiNNer-redux has it.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("a-dists", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    taps = tuple(VGG16_CHANNELS)
    rules = (*STAGED_L2_TRUNK, *TORCHVISION_TRUNK, *IMAGENET_RULES)

    def __init__(self, card: Card, *, window: int = 21, guide: Guide = "reference") -> None:
        problems = []
        if window < 3 or window % 2 == 0:
            problems.append(f"options.window must be an odd number of at least 3, got {window!r}")
        if guide not in get_args(Guide):
            problems.append(f"options.guide must be one of {', '.join(get_args(Guide))}, got {guide!r}")
        if problems:
            raise ConfigError(problems, card.name)
        super().__init__(card)
        self.trunk = vgg16(pool="l2", normalise=IMAGENET)
        self.window, self.guide = gaussian(window, window / 3), guide

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        levels_x, levels_y = self.levels(x, fx), self.levels(given(y), fy)
        guide = levels_y if self.guide == "reference" else levels_x
        structure = map(self.held, structure_probability(guide, self.window))
        weights = map(self.held, channel_weights(guide))
        floors = (_DARK, *(_FAINT for _ in self.taps))
        levels = zip(levels_x, levels_y, structure, weights, floors, strict=True)
        return torch.stack([(w * local_distance(a, b, p, self.window, f)).sum(1) for a, b, p, w, f in levels]).sum(0)

    def levels(self, image: Tensor, taps: Features) -> list[Tensor]:
        """The image and its taps, fine to coarse."""
        return [image, *(taps[tap] for tap in self.taps)]


_CARD = distance_card(
    name="a-dists",
    summary="Similarity of texture or structure of deep features, whichever a place shows; nothing is fitted.",
    bounds=(0.0, 2.0),
    min_size=32,
    tiling="never",
    low_precision=True,
    licence_code="none stated (facts only)",
    licence_weights="BSD-3-Clause (torchvision trunk)",
    weights=("vgg16",),
    paper="Ding et al., Locally Adaptive Structure and Texture Similarity for Image Quality Assessment, ACM MM 2021",
    source="https://github.com/dingkeyan93/A-DISTS commit 3109871 (A-DISTS.py)",
    notes=(
        "not symmetric: the reference says where structure is, unless options: {guide: judged}",
        "channels of the whole crop have length 1 and are compared beside a fixed constant: "
        "distances of different sizes do not compare, and the largest crops score lowest",
        "no resizing: the authors' test script resizes the short side to 256 first",
        "guided by the judged image, its guidance is a constant of the gradient unless critic.hold_weights = False",
        "the scale of a flat channel is lost: combine with a pixel loss",
    ),
)

ENTRIES = {"a-dists": Entry(_CARD, ADISTS)}
