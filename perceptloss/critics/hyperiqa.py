"""HyperIQA: a network that makes, from what an image shows, the weights by which its distortions are judged.

Su, Yan, Zhu, Zhang, Ge, Sun, Zhang: "Blindly Assess Image Quality in the Wild Guided by a
Self-Adaptive Hyper Network", CVPR 2020. Original: https://github.com/SSL92/hyperIQA (MIT, commit
c42e727). Ours: fixed crops instead of random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.networks.trunks import Features, ResNet, TrunkCritic, resnet_rules
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "HyperIQA", "HyperLayer", "LocalVector"]

_STRIDE = 32  # of the last stage
_LOCAL = (16, 32, 64)  # channels to which the first three stages are reduced before they are read


class LocalVector(nn.Module):
    """What one stage tells of the distortions: a map reduced, averaged in cells, and read as a vector.

    Args:
        channels: Of the map.
        reduced: Channels after a 1x1 convolution; None for none.
        grid: Side of a cell, in features.
        cells: Number of cells in the map.
        outputs: Length of the vector.
    """

    def __init__(self, channels: int, reduced: int | None, grid: int, cells: int, outputs: int) -> None:
        super().__init__()
        self.grid = grid
        self.reduce = nn.Identity() if reduced is None else nn.Conv2d(channels, reduced, 1, bias=False)
        self.project = nn.Linear((reduced or channels) * cells, outputs)

    def forward(self, h: Tensor) -> Tensor:
        """Maps (N, C, h, w) to vectors (N, outputs)."""
        return self.project(F.avg_pool2d(self.reduce(h), self.grid).flatten(1))


class HyperLayer(nn.Module):
    """A linear layer that every image brings its own weights for.

    A matrix with an element or more for every place of the content map is read from the map by a convolution,
    row after row; a smaller one, and the bias, from the map's mean.

    Args:
        content: Channels of the content map.
        grid: Its side.
        inputs: Length of the vectors it is given.
        outputs: Length of those it makes.
    """

    def __init__(self, content: int, grid: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        channels, rest = divmod(inputs * outputs, grid**2)
        if channels and rest:
            raise ConfigError([f"a matrix of {outputs}x{inputs} does not fill {grid}x{grid} places evenly"], "hyperiqa")
        self.matrix: nn.Conv2d | nn.Linear
        if channels:
            self.matrix = nn.Conv2d(content, channels, 3, padding=1)
        else:
            self.matrix = nn.Linear(content, inputs * outputs)
        self.bias = nn.Linear(content, outputs)
        for layer, size in ((self.matrix, inputs**-0.5), (self.bias, 0.1)):  # so that results stay of one size
            with torch.no_grad():
                nn.init.kaiming_normal_(layer.weight).mul_(size)
            nn.init.zeros_(layer.get_parameter("bias"))

    def weights(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices, (N, outputs, inputs), and biases, (N, outputs), from content maps (N, content, grid, grid)."""
        mean = content.mean((2, 3))
        matrix = self.matrix(content if isinstance(self.matrix, nn.Conv2d) else mean)
        return matrix.reshape(len(matrix), self.outputs, -1), self.bias(mean)

    def forward(self, vectors: Tensor, content: Tensor) -> Tensor:
        """Vectors (N, inputs) to (N, outputs), each by its own image's weights."""
        matrix, bias = self.weights(content)
        return torch.baddbmm(bias[..., None], matrix, vectors[..., None]).squeeze(2)


class HyperIQA(CropCritic, TrunkCritic):
    """HyperIQA score, about 0 to 100 for the published weights, unbounded; higher is better.

    Local features of four stages make one vector of distortions. A content map of the last stage makes
    the weights of the small network, sigmoid between its layers, that turns this vector into the score.
    Mean over crops.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of a crop in pixels, a multiple of 32; weights fit one side only.
        widths: Channels of the ResNet-50's stages, a quarter of what they put out.
        local: Length of the vectors of the first three stages; the last makes up the rest.
        content: Channels of the three layers that make the content map.
        target: Lengths of the vectors in the small network, from that of the distortions on.

    Example:
        >>> critic = create_critic("hyperiqa", weights=None)
        >>> x = torch.rand(1, 3, 224, 224, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    taps = ("layer1", "layer2", "layer3", "layer4")
    rules = (
        *resnet_rules(r"res\."),
        Rule(r"res\.lda(\d)_pool\.0\.weight", r"local.\1.reduce.weight"),
        Rule(r"res\.lda(\d)_fc\.(.+)", r"local.\1.project.\2"),
        Rule(r"conv1\.(\d\..+)", r"content.\1"),
        Rule(r"fc(\d)w_(?:conv|fc)\.(.+)", r"layers.\1.matrix.\2"),
        Rule(r"fc(\d)b_fc\.(.+)", r"layers.\1.bias.\2"),
    )

    def __init__(
        self,
        card: Card,
        *,
        side: int = 224,
        widths: Sequence[int] = (64, 128, 256, 512),
        local: int = 16,
        content: Sequence[int] = (1024, 512, 112),
        target: Sequence[int] = (224, 112, 56, 28, 14),
    ) -> None:
        if side % _STRIDE or target[0] <= len(_LOCAL) * local:
            problem = (
                f"side must be a multiple of {_STRIDE}, got {side}, and target must start above "
                f"{len(_LOCAL)} * local, got {target[0]} with local={local}"
            )
            raise ConfigError([problem], card.name)
        super().__init__(card, side)
        grid = side // _STRIDE
        self.trunk = ResNet(50, widths=widths)
        lengths = (*(local,) * len(_LOCAL), target[0] - len(_LOCAL) * local)
        stages = zip(widths, (*_LOCAL, None), (64, 16, 4, 1), lengths, strict=True)
        self.local = nn.ModuleDict(
            {str(n): LocalVector(4 * w, c, grid, cells, out) for n, (w, c, cells, out) in enumerate(stages, 1)}
        )
        steps = pairwise((4 * widths[-1], *content))
        self.content = nn.Sequential(*(part for a, b in steps for part in (nn.Conv2d(a, b, 1), nn.ReLU())))
        self.layers = nn.ModuleDict(
            {str(n): HyperLayer(content[-1], grid, a, b) for n, (a, b) in enumerate(pairwise((*target, 1)), 1)}
        )
        for module in self.content:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def distortions(self, maps: Features) -> Tensor:
        """The vector of local features, from the trunk's taps: (N K, target[0]), stage by stage."""
        return torch.cat([part(maps[tap]) for tap, part in zip(self.taps, self.local.values(), strict=True)], 1)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        vectors, content = self.distortions(fx), self.content(fx["layer4"])
        *inner, last = self.layers.values()
        for layer in inner:
            vectors = layer(vectors, content).sigmoid()
        return self.averaged(last(vectors, content).squeeze(1), x)


_CARD = opinion_card(
    name="hyperiqa",
    summary="Opinion score without reference; the image's content makes the weights that judge its distortions.",
    kind="nr",
    min_size=224,
    licence_code="MIT",
    licence_weights="MIT",
    weights=("hyperiqa",),
    paper="Su et al., Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network, CVPR 2020",
    source="https://github.com/SSL92/hyperIQA commit c42e727",
    notes=(
        crops_note(224, authors="average 25 random crops"),
        "the published weights learned KonIQ's photographs shrunk to 512x384 (height 512), a distorted shape: nothing "
        "is resized here, so scores of large images differ from those of the authors' demo",
        "weights trained on LIVE or CSIQ predict differences of opinion: give better='lower'",
        "sigmoids inside flatten the slope of images that are far from what it has learned",
    ),
)

ENTRIES = {"hyperiqa": Entry(_CARD, HyperIQA)}
