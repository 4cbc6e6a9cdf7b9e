"""What FPR is made of: a blind encoder, couplings that hallucinate the reference's features, and readers of patches.

See `perceptloss.critics.fpr.critic` for the paper.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.critics.fpr.invertible import Couplings
from perceptloss.networks.functional import root
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import cut, per_image, tiles
from perceptloss.weights.rules import Rule

__all__ = ["SIDE", "HallucinatingCritic", "PatchReader", "row_distance"]

SIDE = 64
_SLOPE = 0.2
_LEAST = 1e-8  # weight of a patch that the recurrent network finds irrelevant
_POOLED = (True, False, True, False, True)  # which pairs of the blind encoder end in a pooling


def _conv(h: Tensor, layer: nn.Module) -> Tensor:
    return F.leaky_relu(layer(h), _SLOPE, inplace=True)


def row_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance of the authors' triplets: Euclidean along a row of the map, mean over channels and rows.

    Args:
        a: Maps, (N, C, h, w).
        b: The same shape.

    Returns:
        (N,); in its unit the authors' margin between a reference and a distorted image is 0.5.
    """
    return root((a - b).square().sum(-1)).mean((1, 2))


class PatchReader(nn.Module):
    """Score of a patch from two feature maps, and its weight from these and the patches before it.

    Args:
        channels: Of both maps together, 8x8 pixels.
        width: Channels after the first convolution; half as many after the second.
        hidden: Units of the linear layer and of the recurrent network.
    """

    def __init__(self, channels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 3, padding=1)
        self.conv = nn.Conv2d(width, width // 2, 3)
        length = 4 * (width // 2)
        self.value = nn.Sequential(nn.Linear(length, hidden), nn.Linear(hidden, 1))
        self.gru = nn.GRU(length, hidden, batch_first=True)
        self.weight = nn.Linear(hidden, 1)
        nn.init.ones_(self.weight.bias)  # else a new weight is often dead for every patch

    def vectors(self, first: Tensor, second: Tensor) -> Tensor:
        """Two maps of patches, (M, C, 8, 8) each, to vectors, (M, length)."""
        h = F.max_pool2d(_conv(torch.cat([first, second], 1), self.reduce), 2)
        return self.conv(h).flatten(1)

    def states(self, vectors: Tensor) -> Tensor:
        """States of the recurrent network, (N, P, hidden), from vectors of patches in order, (N, P, length)."""
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient in evaluation mode
            return self.gru(vectors)[0]

    def relevance(self, vectors: Tensor) -> Tensor:
        """Weights of the patches before their ReLU, (N, P)."""
        return self.weight(self.states(vectors)).squeeze(2)


def _rules() -> tuple[Rule, ...]:
    """The authors' names: `s` marks what belongs to the blind branch."""
    rules = [Rule(r"gn\..+", None, "a group normalisation that no path uses")]
    encoders = {"reference_encoder": ("fl1", "fl2", "fl3"), "encoder": ("sfl1", "sfl21", "sfl22", "sfl23", "sfl3")}
    for ours, names in encoders.items():
        for place, name in enumerate(names):
            rules += [Rule(rf"{name}\.conv{n}\.conv\.0\.(.+)", rf"{ours}.{place}.{n - 1}.\1") for n in (1, 2)]
    for letter, part in (("F", "add"), ("G", "shift"), ("H", "scale")):
        for n in range(1, 5):
            theirs = rf"InvRescaleNet\.operations\.(\d+)\.{letter}\.conv{n}\.(.+)"
            rules.append(Rule(theirs, rf"couplings.\1.{part}.{2 * n - 2}.\2"))
    for mark, reader in (("", "reference_reader"), ("s", "reader")):
        rules += [
            Rule(rf"{mark}cl1\.conv\.conv\.0\.(.+)", rf"{reader}.reduce.\1"),
            Rule(rf"{mark}cl2\.(.+)", rf"{reader}.conv.\1"),
            *(Rule(rf"{mark}rl{n}\.(.+)", rf"{reader}.value.{n - 1}.\1") for n in (1, 2)),
            Rule(rf"{mark}wl1\.(.+)", rf"{reader}.gru.\1"),
            Rule(rf"{mark}wl2\.(.+)", rf"{reader}.weight.\1"),
        ]
    return tuple(rules)


def _encoder(widths: tuple[int, ...]) -> nn.ModuleList:
    """Pairs of 3x3 convolutions, each pair followed by leaky ReLUs and perhaps a pooling."""
    encoder = nn.ModuleList()
    for channels, width in pairwise((3, *widths)):
        convs = [nn.Conv2d(wide, width, 3, padding=1) for wide in (channels, width)]
        draw(*convs, slope=_SLOPE)
        encoder.append(nn.ModuleList(convs))
    return encoder


class HallucinatingCritic(Critic):
    """The network of both modes. Stacks of patches are (N, P, 3, 64, 64), their maps (N P, 2 width, 8, 8).

    Args:
        card: What it is.
        width: Channels of the first blind convolutions, from which all others follow.
        blocks: Couplings of the invertible network.
    """

    rules = _rules()

    def __init__(self, card: Card, *, width: int = 128, blocks: int = 3) -> None:
        super().__init__(card)
        self.reference_encoder = _encoder((width // 2, width, 2 * width))
        self.encoder = _encoder((width, 2 * width, 2 * width, 2 * width, 4 * width))
        self.couplings = Couplings(blocks, 2 * width, 4 * width)
        self.reference_reader, self.reader = (PatchReader(4 * width, width, width // 4) for _ in range(2))

    def patches(self, image: Tensor) -> Tensor:
        """All 64x64 patches of an image row by row, (N, P, 3, 64, 64); what remains at the ends is not read."""
        return per_image(cut(image, *tiles(image, SIDE), SIDE), len(image))

    def encode(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of the blind features."""
        h = patches.flatten(0, 1)
        for convs, is_pooled in zip(self.encoder, _POOLED, strict=True):
            h = _pair(h, convs, is_pooled)
        first, second = h.chunk(2, 1)
        return first, second

    def encode_reference(self, patches: Tensor) -> Tensor:
        """Features of the full-reference branch, of a reference or of a distorted image."""
        h = patches.flatten(0, 1)
        for convs in self.reference_encoder:
            h = _pair(h, convs, True)
        return h

    def hallucinate(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_reference` would say of these distorted patches, and of their unseen references."""
        distorted, reference, _ = self.couplings(*self.encode(patches))
        return distorted, reference

    def judge(self, first: Tensor, second: Tensor, images: int, reader: PatchReader) -> tuple[Tensor, Tensor]:
        """Scores of patches and their positive weights, (N, P) each, from two maps.

        The blind branch reads the halves of `encode`, the other branch the features of reference and distorted image.
        """
        vectors = per_image(reader.vectors(first, second), images)
        weights = F.relu(reader.relevance(self.held(vectors))) + _LEAST
        return reader.value(vectors).squeeze(2), weights


def _pair(h: Tensor, convs: nn.Module, is_pooled: bool) -> Tensor:
    for conv in convs.children():
        h = _conv(h, conv)
    return F.max_pool2d(h, 2) if is_pooled else h
