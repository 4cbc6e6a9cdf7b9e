"""DeepDC (DID): distance correlation between the channels of VGG19 features; nothing is trained.

Zhu et al.: "DeepDC: Deep Distance Correlation as a Perceptual Image Quality Evaluator", IEEE TIP
2025 (first "From Distance to Dependency", arXiv 2211.04927). Original:
https://github.com/h4nwei/DeepDC (commit 4317cfa, MIT). As there, four taps are read after their
ReLU and the last one before it. Ours: images are never resized, and the gradient of features whose
channels are all alike is 0, not NaN.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.networks.functional import root
from perceptloss.networks.layers import pixels
from perceptloss.networks.trunks import IMAGENET, Features, Normalisation, TrunkCritic, vgg19
from perceptloss.weights.rules import TORCHVISION_TRUNK, Rule

__all__ = ["ENTRIES", "DeepDC", "centred_distances", "distance_correlation"]


def centred_distances(f: Tensor) -> Tensor:
    r"""Distances between the channels of a feature map, each channel a vector of its pixels, double-centred.

    D_ij = \sqrt{|f_i - f_j|^2 / C^2 + 10^{-5}}, from which the means of its rows and of its columns
    are subtracted.

    Args:
        f: Features, (N, C, H, W).

    Returns:
        (N, C, C); rows and columns sum to 0.
    """
    p = pixels(f)
    gram = p.transpose(1, 2) @ p
    energy = gram.diagonal(dim1=1, dim2=2)
    squares = (energy[:, :, None] + energy[:, None, :] - 2 * gram).clamp_min(0)
    distances = (squares / f.shape[1] ** 2 + 1e-5).sqrt()
    means = distances.mean(1, keepdim=True)
    return distances - means - means.transpose(1, 2) + means.mean(2, keepdim=True)


def distance_correlation(a: Tensor, b: Tensor, c: float = 1e-6) -> Tensor:
    """Correlation of two centred distance matrices, in [0, 1].

    It is not negative, because minus a centred distance matrix is positive semidefinite.

    Args:
        a: Of the judged images, (N, C, C).
        b: Of the references, same shape.
        c: Stabiliser; two matrices of zeros correlate perfectly.

    Returns:
        (N,); 1 if the channels keep their distances up to a common factor.
    """
    joint, alone = (a * b).sum((1, 2)), a.square().sum((1, 2)) * b.square().sum((1, 2))
    return (joint + c) / (root(alone) + c)


class DeepDC(TrunkCritic):
    """DeepDC distance; lower is better, 0 for equal images.

    Args:
        card: Of the critic.
        normalise: Mean and deviation of the trunk's input; None is the authors' setting.

    Example:
        >>> critic = create_critic("deepdc", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    taps = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "conv5_4")
    rules = (Rule(r"features_extractor\.features\.(.+)", r"trunk.features.\1"), *TORCHVISION_TRUNK)

    def __init__(self, card: Card, normalise: Normalisation | None = None) -> None:
        super().__init__(card)
        self.trunk = vgg19(normalise=normalise)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return 1 - self.correlations(fx, fy).mean(1)

    def correlations(self, fx: Features, fy: Features) -> Tensor:
        """Distance correlation of each tap, (N, 5)."""
        pairs = [(centred_distances(fx[tap]), centred_distances(fy[tap])) for tap in self.taps]
        return torch.stack([distance_correlation(a, b) for a, b in pairs], 1)


_card = partial(
    distance_card,
    bounds=(0.0, 1.0),
    min_size=32,
    licence_code="MIT",
    licence_weights="BSD-3-Clause (torchvision trunk)",
    weights=("vgg19",),
    paper="Zhu et al., DeepDC: Deep Distance Correlation as a Perceptual Image Quality Evaluator, IEEE TIP 2025",
    source="https://github.com/h4nwei/DeepDC commit 4317cfa",
)
_NOTES = (
    "blind to place: moved, mirrored or scrambled content costs little; a texture loss, to pair with a pixel loss",
    "blind to a common gain of the channels: slight losses of contrast are free",
    "quadratic at the reference: its gradient fades as training converges",
    "no resizing: the authors' script shrinks the short side to 224 first",
    "a fixed stabiliser makes the score depend on the size: use crops of 128 pixels or more",
    "rounding can give about -1e-7 at identity",
)

ENTRIES = {
    "deepdc": Entry(
        _card(
            name="deepdc",
            summary="Distance correlation between the channels of VGG19 features; a texture distance, nothing trained.",
            notes=("images enter VGG19 in [0, 1], without mean and deviation, as its authors do", *_NOTES),
        ),
        DeepDC,
    ),
    "deepdc-imagenet": Entry(
        _card(
            name="deepdc-imagenet",
            summary="DeepDC with the ImageNet mean and deviation that VGG19 was trained with.",
            fidelity="paper",
            notes=("a switch of the authors' code, off in their numbers", *_NOTES),
        ),
        partial(DeepDC, normalise=IMAGENET),
    ),
}
