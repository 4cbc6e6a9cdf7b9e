"""DACNN: two EfficientNets, one that knows pictures and one that knows synthetic distortions, gated by each other.

Pan, Zhang, Lei, Fang, Shao, Ling, Kwong: "DACNN: Blind Image Quality Assessment via a
Distortion-Aware Convolutional Neural Network", IEEE TCSVT 2022. Original:
https://github.com/NUIST-Videocoding/DACNN (commit d8f9b46, no licence stated); our code is written
from facts. Ours: no dropout (the authors' is on even in their test, which makes scores random), and
images larger than 224x224 are judged by evenly spaced crops (the authors draw 25 at random).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import EfficientNet, Features, JoinedTrunk, TrunkCritic, efficientnet_rules
from perceptloss.weights.rules import Rule

__all__ = ["DACNN", "ENTRIES", "Gates", "MultiScale"]

_TAPS = ("block2", "block4", "block10", "head")  # strides 4, 8, 16, 32
_STAGES = (1, 2, 4, 6)  # whose widths the taps have; 6 stands for the head


class MultiScale(nn.Module):
    """Three views of a map at half its size, side by side: 1x1, 3x3, and two 3x3 in a row.

    Args:
        channels: Of the map.
        width: Of each view.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, width, 1, stride=2)
        self.near = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.far = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, h: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, 3 * width, H / 2, W / 2), rounded up."""
        return torch.cat([self.point(h), self.near(h), self.far(h)], 1)


class Gates(nn.Module):
    """Lets two maps of equal shape, (N, channels, H, W), pass as far as both together say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.authentic, self.synthetic = (nn.Conv2d(2 * channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, authentic: Tensor, synthetic: Tensor) -> Tensor:
        """Both behind their gates, side by side, (N, 2 * channels, H, W)."""
        both = torch.cat([authentic, synthetic], 1)
        return torch.cat([authentic * self.authentic(both).sigmoid(), synthetic * self.synthetic(both).sigmoid()], 1)


def _rules() -> tuple[Rule, ...]:
    """The authors' names; a bare file of efficientnet_pytorch fills the trunk that knows pictures."""
    rules = [
        *efficientnet_rules(r"(?:ADANet\.)?", "trunk.authentic"),
        *efficientnet_rules(r"SDANet\.efficient\.", "trunk.synthetic"),
        Rule(r"SDANet\.fc[123]\..+", None, "the regressor of the distortion trunk's own training"),
    ]
    views = {"conv1_MSFB": "point", "conv3_MSFB_s2_1": "near", "conv3_MSFB_s2_2": "far.0", "conv3_MSFB_s1": "far.1"}
    for n in range(len(_TAPS)):
        blocks = {f"msfb{n + 1}1": "authentic", f"msfb{n + 1}2": "synthetic", f"msfb_{n + 1}": "fused"}
        for block, target in blocks.items():
            rules += [Rule(rf"{block}\.{theirs}\.(.+)", rf"{target}.{n}.{ours}.\1") for theirs, ours in views.items()]
        rules += [
            Rule(rf"wgb{n + 1}\.conv3_s1_1\.(.+)", rf"gates.{n}.authentic.\1"),
            Rule(rf"wgb{n + 1}\.conv3_s1_2\.(.+)", rf"gates.{n}.synthetic.\1"),
        ]
    head = ("fc1", "prelu1", "fc2", "prelu2", "fc3")
    return (*rules, *(Rule(rf"{name}\.(.+)", rf"head.{place}.\1") for place, name in enumerate(head)))


class DACNN(CropCritic, TrunkCritic):
    """DACNN opinion score, in the units of the labels it was fitted to, unbounded; higher is better.

    Taps of both trunks at strides 4, 8, 16 and 32 are seen at three scales, gated by each other,
    seen at three scales again, averaged over the image, and joined to the vector that a small
    network turns into the score. Mean over crops.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of the crops.
        stem: Channels of the trunks' stems.
        widths: Channels of the trunks' stages.
        top: Channels of the trunks' head convolutions.
        width: Channels of a view in `MultiScale`.
        hidden: Units of the small network.

    Example:
        >>> critic = create_critic("dacnn", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> (-critic(x)).sum().backward()
    """

    taps = tuple(f"{trunk}.{tap}" for trunk in ("authentic", "synthetic") for tap in _TAPS)
    rules = _rules()

    def __init__(
        self,
        card: Card,
        *,
        side: int = 224,
        stem: int = 32,
        widths: Sequence[int] = (16, 24, 40, 80, 112, 192, 320),
        top: int = 1280,
        width: int = 24,
        hidden: int = 512,
    ) -> None:
        super().__init__(card, side)
        authentic, synthetic = (EfficientNet(stem=stem, widths=widths, head=top) for _ in range(2))
        self.trunk = JoinedTrunk(authentic=authentic, synthetic=synthetic)
        channels, seen = [(*widths[:-1], top)[stage] for stage in _STAGES], 3 * width
        self.authentic, self.synthetic = (nn.ModuleList(MultiScale(c, width) for c in channels) for _ in range(2))
        self.gates = nn.ModuleList(Gates(seen) for _ in channels)
        self.fused = nn.ModuleList(MultiScale(2 * seen, width) for _ in channels)
        self.head = nn.Sequential(
            nn.Linear(len(channels) * seen, hidden),
            nn.PReLU(),
            nn.Linear(hidden, hidden),
            nn.PReLU(),
            nn.Linear(hidden, 1),
        )
        draw(self.authentic, self.synthetic, self.fused, self.head)  # as the authors draw their linear layers

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.averaged(self.head(self.vector(fx)).squeeze(1), x)

    def vector(self, fx: Features) -> Tensor:
        """What the small network reads, (crops, 12 * width): 288 numbers in the published size."""
        levels = zip(_TAPS, self.authentic, self.synthetic, self.gates, self.fused, strict=True)
        found = []
        for tap, authentic, synthetic, gates, fused in levels:
            both = gates(authentic(fx[f"authentic.{tap}"]), synthetic(fx[f"synthetic.{tap}"]))
            found.append(fused(both).mean((2, 3)))
        return torch.cat(found, 1)


_CARD = opinion_card(
    name="dacnn",
    summary="Opinion score learned from two EfficientNets, of which one knows synthetic distortions.",
    kind="nr",
    min_size=224,
    licence_code="none stated",
    licence_weights="none stated",
    weights=("dacnn",),
    paper="Pan et al., DACNN: Blind Image Quality Assessment via a Distortion-Aware Convolutional Neural Network, "
    "IEEE Transactions on Circuits and Systems for Video Technology 2022",
    source="https://github.com/NUIST-Videocoding/DACNN commit d8f9b46 (no licence stated)",
    notes=(
        crops_note(224),
        "the authors publish the trunks, not the fitted network: bring a checkpoint of their training",
        "scores are in the units of the set it was fitted to; where its labels are differences from the reference "
        "(DMOS), lower is better: say so with better='lower'",
        "no dropout: the authors' code drops half of the hidden units even in its test, so that published scores vary "
        "from call to call, about ours",
        "the trunks are those of the package efficientnet_pytorch 0.7, whose weights and epsilon are not torchvision's",
        "weights of both trunks were frozen in its training; only what reads them was fitted",
    ),
)

ENTRIES = {"dacnn": Entry(_CARD, DACNN)}
