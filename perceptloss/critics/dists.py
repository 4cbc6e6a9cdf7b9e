"""DISTS: similarity of means (texture) and of correlations (structure) of VGG16 features.

Ding, Ma, Wang, Simoncelli: "Image Quality Assessment: Unifying Structure and Texture
Similarity", IEEE TPAMI 2020. Original: https://github.com/dingkeyan93/DISTS (commit 1267d8c,
MIT). Ours: the covariance is centred (the public form E[xy] - E[x]E[y] cancels in fp32), and
images are never resized.
"""

from __future__ import annotations

from perceptloss.card import distance_card
from perceptloss.critic import Entry
from perceptloss.networks.distances import IMAGENET_RULES, TextureStructureCritic
from perceptloss.weights.rules import STAGED_L2_TRUNK, TORCHVISION_TRUNK

__all__ = ["DISTS", "ENTRIES"]


class DISTS(TextureStructureCritic):
    """DISTS distance; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("dists", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    rules = (*STAGED_L2_TRUNK, *TORCHVISION_TRUNK, *IMAGENET_RULES)


_CARD = distance_card(
    name="dists",
    summary="Structure and texture similarity of deep features; tolerant of resampled texture.",
    bounds=(0.0, 1.13),
    min_size=32,
    tiling="exact",
    halo=112,
    stride=16,
    low_precision=True,
    licence_code="MIT",
    licence_weights="MIT (alpha and beta), BSD-3-Clause (torchvision trunk)",
    weights=("vgg16", "dists"),
    paper="Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, IEEE TPAMI 2020",
    source="https://github.com/dingkeyan93/DISTS commit 1267d8c",
    notes=(
        "no resizing: the authors' test script resizes the short side to 256 first",
        "statistics run over the whole crop: use 128 pixels or more, and compare equal sizes only",
        "keep fp32: a bf16 trunk turns the gradient near the reference (python -m benchmarks precision)",
        "weak on exact position: combine with a pixel loss",
        "bounds hold for the published weights",
    ),
)

ENTRIES = {"dists": Entry(_CARD, DISTS)}
