"""LPIPS v0.1: distance of unit-normalised classifier features with learned channel weights.

Zhang, Isola, Efros, Shechtman, Wang: "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018. Original: https://github.com/richzhang/PerceptualSimilarity
(commit 082bb24, BSD-2-Clause). Ours: the gradient at positions whose features are all zero is
limited instead of NaN; the value is the authors'.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from perceptloss.backbones import Trunk, alexnet, squeezenet, vgg16
from perceptloss.card import Card
from perceptloss.convert import TORCHVISION_TRUNK, Rule
from perceptloss.critic import Critic, Entry, Features, TrunkCritic
from perceptloss.layers import unit_distance

__all__ = ["ENTRIES", "LPIPS"]


class LPIPS(TrunkCritic):
    """LPIPS distance; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("lpips-vgg", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    rules = (
        Rule(r"lins?\.?(\d)\.model\.1\.weight", r"heads.\1"),
        Rule(r"net\.slice\d\.(\d+\..+)", r"trunk.features.\1"),
        *TORCHVISION_TRUNK,
        Rule(
            r"scaling_layer\.shift",
            None,
            "the ImageNet mean on [-1, 1]",
            lambda critic, t: torch.allclose(t.cpu().float(), 2 * critic.trunk.mean.cpu().float() - 1, atol=1e-5),
        ),
        Rule(
            r"scaling_layer\.scale",
            None,
            "the ImageNet deviation on [-1, 1]",
            lambda critic, t: torch.allclose(t.cpu().float(), 2 * critic.trunk.std.cpu().float(), atol=1e-5),
        ),
    )

    def __init__(self, card: Card, trunk: Callable[[], Trunk], taps: dict[str, int]) -> None:
        super().__init__(card)
        self.trunk = trunk()
        self.taps = tuple(taps)
        self.heads = nn.ParameterList([torch.rand(channels) / channels for channels in taps.values()])

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.distances(fx, fy).sum(0)

    def distances(self, fx: Features, fy: Features) -> Tensor:
        """Weighted distance of each tap, (taps, N)."""
        pairs = zip(self.taps, self.heads, strict=True)
        return torch.stack([unit_distance(fx[tap], fy[tap], head) for tap, head in pairs])


_ALEX = {"relu1": 64, "relu2": 192, "relu3": 384, "relu4": 256, "relu5": 256}
_VGG = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}
_SQUEEZE = {"relu1": 64, "fire3": 128, "fire5": 256, "fire6": 384, "fire7": 384, "fire8": 512, "fire9": 512}


def _entry(
    net: str, trunk: Callable[[], Trunk], taps: dict[str, int], files: tuple[str, str], top: float, size: int
) -> Entry:
    card = Card(
        name=f"lpips-{net}",
        summary=f"Learned perceptual distance in features of {net}, the usual perceptual loss of restoration.",
        kind="fr",
        better="lower",
        bounds=(0.0, top),
        identity=0.0,
        shape="distance",
        min_size=size,
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
    "lpips-alex": _entry("alex", alexnet, _ALEX, ("alexnet", "lpips-alex"), 8.05, 35),
    "lpips-squeeze": _entry("squeeze", squeezenet, _SQUEEZE, ("squeezenet1_1", "lpips-squeeze"), 11.32, 32),
    "lpips-vgg": _entry("vgg", vgg16, _VGG, ("vgg16", "lpips-vgg"), 6.63, 32),
}
