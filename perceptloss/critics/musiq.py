r"""MUSIQ: a transformer over patches of the image at its own size and at two smaller ones, of whatever shape.

Ke, Wang, Wang, Milanfar, Yang: "MUSIQ: Multi-scale Image Quality Transformer", ICCV 2021. Original:
https://github.com/google-research/google-research/tree/master/musiq (Apache-2.0).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.attention import attend
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "MUSIQ", "gaussian_resize", "hashed_places", "patches"]

_PATCH, _GRID, _WIDTH, _GROUPS = 32, 10, 64, 32
_RADIUS, _SIGMA = 1.5, 0.5  # of TensorFlow's Gaussian resampling, which it does not widen when it shrinks


@lru_cache(maxsize=64)
@torch.inference_mode(False)
@torch.no_grad()
def _taps(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Source index and weight of every tap of every output, each (size, 4)."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size)
    place = (centre - _RADIUS - 0.5).ceil()[:, None] + torch.arange(4)
    away = (place + 0.5 - centre[:, None]).abs()
    weight = torch.exp(-away.square() / (2 * _SIGMA**2)) * (away <= _RADIUS) * (place >= 0) * (place < length)
    return place.clamp(0, length - 1).long(), weight / weight.sum(1, keepdim=True)


def gaussian_resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resampling by TensorFlow's `ResizeMethod.GAUSSIAN`, not antialiased: (N, C, H, W) to (N, C, height, width)."""
    for size in (height, width):  # rows, then columns: each turn transposes
        index, weight = (t.to(x.device) for t in _taps(x.shape[-2], size))
        taken = x.mT.index_select(-1, index.flatten()).unflatten(-1, index.shape)
        x = (taken * weight.to(x.dtype)).sum(-1)
    return x


def hashed_places(rows: int, columns: int) -> Tensor:
    """Which of 10x10 embeddings each patch has, row by row, (rows * columns,)."""
    down, across = (torch.arange(n) * _GRID // n for n in (rows, columns))
    return (down[:, None] * _GRID + across).flatten()


def patches(image: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of 32x32, row by row, zeros around to make them whole, and their places: (N, T, 3, 32, 32) and (T,)."""
    counts = [-(-n // _PATCH) for n in image.shape[2:]]
    missing = [count * _PATCH - n for count, n in zip(counts, image.shape[2:], strict=True)]
    top, left = (n // 2 for n in missing)
    padded = F.pad(image, (left, missing[1] - left, top, missing[0] - top))
    cut = padded.unfold(2, _PATCH, _PATCH).unfold(3, _PATCH, _PATCH)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(1, 2), hashed_places(*counts).to(image.device)


class _StandardConv(nn.Conv2d):
    """A convolution whose weights are standardised, output by output, and padded as TensorFlow pads."""

    def __init__(self, channels: int, width: int, side: int, stride: int = 1) -> None:
        super().__init__(channels, width, side, stride, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        w = self.weight
        deviation, mean = torch.std_mean(w, (1, 2, 3), correction=0, keepdim=True)
        (side, _), (stride, _) = self.kernel_size, self.stride
        total = max((-(-h.shape[-1] // stride) - 1) * stride + side - h.shape[-1], 0)
        ends = (total // 2, total - total // 2)
        return F.conv2d(F.pad(h, (*ends, *ends)), (w - mean) / (deviation + 1e-5), stride=stride)


class Embedding(nn.Module):
    """Patches to tokens, (P, 3, 32, 32) to (P, width), by a stem, a residual block and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.root, self.norm = _StandardConv(3, _WIDTH, 7, 2), nn.GroupNorm(_GROUPS, _WIDTH)
        plan = ((_WIDTH, _WIDTH, 1), (_WIDTH, _WIDTH, 3), (_WIDTH, 4 * _WIDTH, 1), (_WIDTH, 4 * _WIDTH, 1))
        for name, (channels, out, side) in zip(("1", "2", "3", "_proj"), plan, strict=True):
            self.add_module(f"conv{name}", _StandardConv(channels, out, side))
            self.add_module(f"norm{name}", nn.GroupNorm(_GROUPS, out, eps=1e-4))
        self.project = nn.Linear(4 * _WIDTH * (_PATCH // 4) ** 2, width)

    def _part(self, h: Tensor, name: str) -> Tensor:
        return getattr(self, f"norm{name}")(getattr(self, f"conv{name}")(h))

    def forward(self, h: Tensor) -> Tensor:
        h = F.relu(self.norm(self.root(h)))
        h = F.max_pool2d(F.pad(h, (0, 1, 0, 1), value=-torch.inf), 3, 2)
        inner = F.relu(self._part(F.relu(self._part(h, "1")), "2"))
        h = F.relu(self._part(h, "_proj") + self._part(inner, "3"))
        return self.project(h.permute(0, 2, 3, 1).flatten(1))  # as TensorFlow lays out pixels


class Block(nn.Module):
    """A transformer layer with the normalisation before each branch, tokens (N, T, width) to the same shape."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc_1, self.fc_2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, h: Tensor) -> Tensor:
        n = self.norm_1(h)
        h = h + self.out(attend(self.query(n), self.key(n), self.value(n), self.heads))
        return h + self.fc_2(F.gelu(self.fc_1(self.norm_2(h)), approximate="tanh"))


def _turned(kernel: Tensor) -> Tensor:
    """A kernel of Flax as torch holds it: outputs first."""
    return kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.mT


_AT = r"(?:opt/target/)?"
_LAYER = _AT + r"Transformer/encoderblock_(\d+)/"
_SELF = _LAYER + r"(?:MultiHeadDotProduct|Self)Attention_1/"
_RULES = (
    Rule(r"opt/state/.+|extra/.+", None, "the optimiser's state"),
    Rule(_AT + r"conv_root/kernel", "embed.root.weight", change=_turned),
    Rule(_AT + r"gn_root/scale", "embed.norm.weight"),
    Rule(_AT + r"gn_root/bias", "embed.norm.bias"),
    Rule(_AT + r"block1/unit1/conv(\d|_proj)/kernel", r"embed.conv\1.weight", change=_turned),
    Rule(_AT + r"block1/unit1/gn(\d|_proj)/scale", r"embed.norm\1.weight"),
    Rule(_AT + r"block1/unit1/gn(\d|_proj)/bias", r"embed.norm\1.bias"),
    Rule(_AT + r"embedding/kernel", "embed.project.weight", change=_turned),
    Rule(_AT + r"embedding/bias", "embed.project.bias"),
    Rule(_AT + r"Transformer/posembed_input/pos_embedding", "places"),
    Rule(_AT + r"Transformer/scaleembed_input/scale_embedding", "scales"),
    Rule(_AT + r"Transformer/cls", "token"),
    Rule(_LAYER + r"LayerNorm_0/scale", r"blocks.\1.norm_1.weight"),
    Rule(_LAYER + r"LayerNorm_0/bias", r"blocks.\1.norm_1.bias"),
    Rule(_LAYER + r"LayerNorm_2/scale", r"blocks.\1.norm_2.weight"),
    Rule(_LAYER + r"LayerNorm_2/bias", r"blocks.\1.norm_2.bias"),
    Rule(_SELF + r"(query|key|value)/kernel", r"blocks.\1.\2.weight", change=lambda k: k.flatten(1).mT),
    Rule(_SELF + r"(query|key|value)/bias", r"blocks.\1.\2.bias", change=torch.flatten),
    Rule(_SELF + r"out/kernel", r"blocks.\1.out.weight", change=lambda k: k.flatten(0, 1).mT),
    Rule(_SELF + r"out/bias", r"blocks.\1.out.bias"),
    Rule(_LAYER + r"MlpBlock_3/Dense_0/kernel", r"blocks.\1.fc_1.weight", change=_turned),
    Rule(_LAYER + r"MlpBlock_3/Dense_0/bias", r"blocks.\1.fc_1.bias"),
    Rule(_LAYER + r"MlpBlock_3/Dense_1/kernel", r"blocks.\1.fc_2.weight", change=_turned),
    Rule(_LAYER + r"MlpBlock_3/Dense_1/bias", r"blocks.\1.fc_2.bias"),
    Rule(_AT + r"Transformer/encoder_norm/scale", "norm.weight"),
    Rule(_AT + r"Transformer/encoder_norm/bias", "norm.bias"),
    Rule(_AT + r"head/kernel", "head.weight", change=_turned),
    Rule(_AT + r"head/bias", "head.bias"),
)


class MUSIQ(Critic):
    """Opinion of an image seen at three sizes, on the scale of its labels (0 to 100 for KonIQ); higher is better.

    Args:
        card: Its card.
        sides: Longer sides of the smaller versions, rising; empty for the weights of one scale.
        marks: 1, or how many marks there are a share of which is predicted (10 for AVA); then their mean is the score.
        width: Of the tokens.
        layers: Of the transformer.
        heads: Of the attention.
        inner: Length between the linear layers of a block.

    Example:
        >>> critic = create_critic("musiq", weights=None)
        >>> x = torch.rand(1, 3, 64, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    rules = _RULES

    def __init__(
        self,
        card: Card,
        *,
        sides: tuple[int, ...] = (224, 384),
        marks: int = 1,
        width: int = 384,
        layers: int = 14,
        heads: int = 6,
        inner: int = 1152,
    ) -> None:
        super().__init__(card)
        self.sides = sides
        self.embed = Embedding(width)
        self.places = nn.Parameter(0.02 * torch.randn(1, _GRID**2, width))
        self.scales = nn.Parameter(0.02 * torch.randn(1, len(sides) + 1, width))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, inner) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, marks)

    def versions(self, image: Tensor) -> list[Tensor]:
        """The image at the smaller sizes, then as it is."""
        height, width = image.shape[2:]
        sizes = [[round(n * side / max(height, width)) for n in (height, width)] for side in self.sides]
        return [*(gaussian_resize(image, *size) for size in sizes), image]

    def tokens(self, image: Tensor) -> Tensor:
        """Embedded patches of all versions of images in [0, 1], with their places and scales: (N, T, width)."""
        rows = []
        for scale, version in enumerate(self.versions(2 * image - 1)):
            cut, places = patches(version)
            embedded = self.embed(cut.flatten(0, 1)).unflatten(0, cut.shape[:2])
            rows.append(embedded + self.places[:, places] + self.scales[:, scale])
        return torch.cat(rows, 1)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = torch.cat([self.token.expand(len(x), -1, -1), self.tokens(x)], 1)
        for block in self.blocks:
            h = block(h)
        found = self.head(self.norm(h[:, 0]))
        if found.shape[1] == 1:
            return found.squeeze(1)
        return (found.softmax(1) * torch.arange(1, found.shape[1] + 1, device=x.device)).sum(1)


_CARD = opinion_card(
    name="musiq",
    summary="Opinion score by a transformer over patches of the image at its own size and at two smaller ones.",
    kind="nr",
    min_size=_PATCH,
    tiling="never",
    fidelity="paper",
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0",
    weights=("musiq",),
    paper="Ke et al., MUSIQ: Multi-scale Image Quality Transformer, ICCV 2021",
    source="https://github.com/google-research/google-research/tree/master/musiq commit 1d4d2f1",
    notes=(
        "reads the authors' .npz files of Flax; agrees with a build of today's Flax layers, for theirs are of 2020",
        "the image is resampled inside, to longer sides of 224 and 384, by TensorFlow's narrow Gaussian, which aliases",
        "labels differ by file: 0 to 100 for KonIQ, SPAQ and PaQ-2-PiQ, 1 to 10 for AVA (options {marks: 10})",
        "memory grows with the square of the number of patches: give large images a crop in training",
    ),
)

ENTRIES = {"musiq": Entry(_CARD, MUSIQ)}
