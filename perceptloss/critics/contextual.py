"""contextual: each feature of the reference is matched with the most similar one of the judged image, wherever it lies.

Mechrez, Talmi, Zelnik-Manor: "The Contextual Loss for Image Transformation with Non-Aligned Data", ECCV 2018, and
Mechrez, Talmi, Shama, Zelnik-Manor: "Maintaining Natural Image Statistics with the Contextual Loss", ACCV 2018.
Original: https://github.com/roimehrez/contextualLoss (no licence is stated, nothing is taken from it). Written from the
papers: cosine distances of VGG19 features centred by the reference's mean, divided by the smallest of their row, made
similarities of sum 1, and -log of the mean of the largest. Ours: the mean is that of one image, so that a score does
not depend on the batch, and of large maps a fixed subset of places is compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.layers import unit_norm
from perceptloss.networks.trunks import IMAGENET, Features, TrunkCritic, vgg19
from perceptloss.weights.rules import TORCHVISION_TRUNK

__all__ = ["ENTRIES", "Contextual", "contextual"]

Distance = Literal["cosine", "l1", "l2"]
_EPS = 1e-5  # added to the smallest distance of a row
_LAYERS = {"conv3_2": 1.0, "conv4_2": 1.0}
_WIDTHS = (64, 128, 256, 512, 512)


def _distances(fx: Tensor, fy: Tensor, kind: Distance) -> Tensor:
    """Of every vector of (N, C, P) to every vector of (N, C, Q), not negative: (N, P, Q)."""
    if kind == "cosine":
        return ((1 - fx.mT @ fy) / 2).clamp_min(0)
    if kind == "l1":
        return (fx[..., :, None] - fy[..., None, :]).abs().sum(1)
    squares = fx.square().sum(1)[..., :, None] + fy.square().sum(1)[..., None, :]
    return (squares - 2 * fx.mT @ fy).clamp_min(0)


def contextual(fx: Tensor, fy: Tensor, band_width: float, kind: Distance = "cosine") -> Tensor:
    """Contextual loss of two sets of features, >= 0.

    Args:
        fx: Of the judged images, (N, C, P); unit vectors for `cosine`.
        fy: Of the references, (N, C, Q).
        band_width: Of the kernel: small ones tell neighbours of a match from the match.
        kind: Of distance.

    Returns:
        One value per image, (N,).
    """
    distances = _distances(fx, fy, kind)
    relative = distances / (distances.amin(2, keepdim=True) + _EPS)
    return -torch.softmax(-relative / band_width, 2).amax(1).mean(1).log()


class Contextual(TrunkCritic):
    """Contextual loss of VGG19 features; lower is better, near 0 for equal images.

    Args:
        card: What it is.
        layers: Taps of VGG19 and their weights; `conv3_2` is before its ReLU, `relu3_2` behind it.
        band_width: Of the kernel over relative distances.
        distance: `cosine`, `l1` or `l2`, of features.
        positions: Most places of a map that are compared; of more, a fixed subset is drawn.
        normalise: Whether images are brought to ImageNet's mean and deviation first.
        batch_mean: Whether features are centred by the mean of all references of a batch, as others do, which makes
            the score of an image depend on its batch.
        widths: Channels of the five stages of VGG19.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("contextual", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    rules = TORCHVISION_TRUNK

    def __init__(
        self,
        card: Card,
        *,
        layers: Mapping[str, float] | None = None,
        band_width: float = 0.5,
        distance: Distance = "cosine",
        positions: int = 4096,
        normalise: bool = True,
        batch_mean: bool = False,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        trunk = vgg19(IMAGENET if normalise else None, widths)
        layers = _LAYERS if layers is None else layers
        problems = [f"options.layers names {tap!r}, which VGG19 has not" for tap in layers if tap not in trunk.tap_at]
        if not layers:
            problems.append("options.layers must name one tap or more")
        if not (isinstance(band_width, (int, float)) and band_width > 0):
            problems.append(f"options.band_width must be a number above 0, got {band_width!r}")
        if distance not in get_args(Distance):
            problems.append(f"options.distance must be one of {', '.join(get_args(Distance))}, got {distance!r}")
        if not isinstance(positions, int) or positions < 2:
            problems.append(f"options.positions must be a whole number of at least 2, got {positions!r}")
        if problems:
            raise ConfigError(problems, card.name)
        super().__init__(replace(card, couples_batch=batch_mean))
        self.trunk, self.taps, self.layers = trunk, tuple(layers), dict(layers)
        self.band_width, self.distance, self.positions = band_width, distance, positions
        self.batch_mean = batch_mean

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return torch.stack([weight * self._of(fx[tap], fy[tap]) for tap, weight in self.layers.items()]).sum(0)

    def _of(self, fx: Tensor, fy: Tensor) -> Tensor:
        if self.distance == "cosine":
            mean = fy.mean((0, 2, 3) if self.batch_mean else (2, 3), keepdim=True)
            fx, fy = unit_norm(fx - mean), unit_norm(fy - mean)
        fx, fy = (self._places(f.flatten(2)) for f in (fx, fy))
        return contextual(fx, fy, self.band_width, self.distance)

    def _places(self, f: Tensor) -> Tensor:
        count = f.shape[2]
        if count <= self.positions:
            return f
        generator = torch.Generator().manual_seed(zlib.crc32(b"contextual"))
        chosen = torch.randperm(count, generator=generator)[: self.positions].sort().values
        return f.index_select(2, chosen.to(f.device))


_CARD = distance_card(
    name="contextual",
    summary="Matches features of the reference with the most similar ones of the image, wherever they lie.",
    identity=None,
    min_size=32,
    tiling="never",
    fidelity="paper",
    licence_code="none stated (formula from the papers)",
    licence_weights="BSD-3-Clause (torchvision trunk)",
    weights=("vgg19",),
    paper="Mechrez et al., The Contextual Loss for Image Transformation with Non-Aligned Data, ECCV 2018",
    source="https://github.com/roimehrez/contextualLoss (formula only)",
    notes=(
        "for images that do not align; it does not see where things are: combine with a pixel or a low-pass loss",
        "memory grows with the fourth power of the side of the maps: 4096 places, as of a crop of 256, take 64 MiB "
        "for each of a few matrices; crop: 192 is usual",
        "equal images score next to 0, more where features repeat: a flat image scores the log of its places",
    ),
)

ENTRIES = {"contextual": Entry(_CARD, Contextual)}
