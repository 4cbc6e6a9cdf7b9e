"""Conv-attentional transformer blocks of CoaT: factorised attention, and positions told by convolutions.

Xu, Xu, Chang, Tu: "Co-Scale Conv-Attentional Image Transformers", ICCV 2021. Tokens are (N, T, D):
a few extra ones first, then those of the image, row by row. Encodings of position are shared by the
blocks of a scale, which therefore are given them and do not hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.networks.attention import MLP

__all__ = ["FactorisedAttention", "ParallelBlock", "Positions", "RelativePositions", "SerialBlock", "joined", "parted"]

Size = tuple[int, int]
_EPS = 1e-6
# whom each of the three scales listens to, in the order of its two gains
_NEIGHBOURS = ((1, 2), (2, 0), (1, 0))


def parted(tokens: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """The extra tokens, (N, E, D), and those of the image as a map, (N, D, *size)."""
    count = size[0] * size[1]
    # not by einops, whose strides of a single image would choose another convolution and move the score
    return tokens[:, :-count], tokens[:, -count:].mT.unflatten(2, size)


def joined(extra: Tensor, image: Tensor) -> Tensor:
    """The opposite of `parted`."""
    return torch.cat([extra, rearrange(image, "n d h w -> n (h w) d")], 1)


def _depthwise(channels: int, window: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, window, padding=window // 2, groups=channels)


class Positions(nn.Module):
    """Adds a depthwise convolution of the image tokens to them, which tells each where it is."""

    def __init__(self, dim: int, window: int = 3) -> None:
        super().__init__()
        self.proj = _depthwise(dim, window)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        """Tokens to tokens, (N, T, D); the extra ones unchanged."""
        extra, image = parted(tokens, size)
        return joined(extra, image + self.proj(image))


class RelativePositions(nn.Module):
    """Attention by distance: queries times a depthwise convolution of the values, none for extra tokens.

    Args:
        dim: Channels of a token.
        windows: Side of the window to the number of heads that look through it.
    """

    def __init__(self, dim: int, windows: Mapping[int, int]) -> None:
        super().__init__()
        per_head = dim // sum(windows.values())
        self.channels = [heads * per_head for heads in windows.values()]
        self.conv_list = nn.ModuleList(_depthwise(c, w) for c, w in zip(self.channels, windows, strict=True))

    def forward(self, query: Tensor, value: Tensor, size: Size) -> Tensor:
        """Queries and values of all heads side by side, each (N, T, D), to (N, T, D)."""
        extra, image = parted(value, size)
        seen = [conv(part) for conv, part in zip(self.conv_list, image.split(self.channels, 1), strict=True)]
        return query * joined(torch.zeros_like(extra), torch.cat(seen, 1))


class FactorisedAttention(nn.Module):
    """Attention whose cost grows with the number of tokens, not with its square: queries read a summary.

    The summary of a head is softmax(K)^T V, with the softmax over the tokens.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, size: Size, relative: RelativePositions) -> Tensor:
        """Tokens to what each has read, (N, T, D)."""
        query, key, value = self.qkv(tokens).chunk(3, -1)
        q, k, v = (rearrange(t, "n t (heads d) -> n heads t d", heads=self.heads) for t in (query, key, value))
        read = rearrange(q @ (k.softmax(2).mT @ v), "n heads t d -> n t (heads d)")
        return self.proj(self.scale * read + relative(query, value, size))


class SerialBlock(nn.Module):
    """A transformer block inside one scale.

    Args:
        dim: Channels of a token.
        heads: Heads of its attention.
        ratio: How many times wider the hidden layer is.
    """

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=_EPS), nn.LayerNorm(dim, eps=_EPS)
        self.attention = FactorisedAttention(dim, heads)
        self.mlp = MLP(dim, ratio * dim)

    def forward(self, tokens: Tensor, size: Size, positions: Positions, relative: RelativePositions) -> Tensor:
        """Tokens to tokens, (N, T, D)."""
        tokens = positions(tokens, size)
        tokens = tokens + self.attention(self.norm1(tokens), size, relative)
        return tokens + self.mlp(self.norm2(tokens))


def _resampled(tokens: Tensor, size: Size, to: Size) -> Tensor:
    extra, image = parted(tokens, size)
    return joined(extra, F.interpolate(image, to, mode="bilinear", align_corners=False))


class ParallelBlock(nn.Module):
    """A transformer block on three scales at once; each adds what the other two have read, by learned gains.

    Arguments as of `SerialBlock`; the scales share `dim` and the hidden layers.
    """

    def __init__(self, dim: int, heads: int, ratio: int, gain: float = 0.05) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.ModuleList(nn.LayerNorm(dim, eps=_EPS) for _ in _NEIGHBOURS) for _ in range(2))
        self.attention = nn.ModuleList(FactorisedAttention(dim, heads) for _ in _NEIGHBOURS)
        self.gains = nn.ParameterList(torch.full((1,), gain) for pair in _NEIGHBOURS for _ in pair)
        self.mlp = MLP(dim, ratio * dim)

    def forward(
        self,
        tokens: Sequence[Tensor],
        sizes: Sequence[Size],
        positions: Sequence[Positions],
        relative: Sequence[RelativePositions],
    ) -> list[Tensor]:
        """Tokens of the scales to tokens, each (N, T, D), fine to coarse."""
        tokens = [place(t, size) for place, t, size in zip(positions, tokens, sizes, strict=True)]
        parts = zip(self.attention, self.norm1, tokens, sizes, relative, strict=True)
        read = [attend(norm(t), size, r) for attend, norm, t, size, r in parts]
        tokens = [t + self._heard(read, scale, sizes) for scale, t in enumerate(tokens)]
        return [t + self.mlp(norm(t)) for t, norm in zip(tokens, self.norm2, strict=True)]

    def _heard(self, read: Sequence[Tensor], scale: int, sizes: Sequence[Size]) -> Tensor:
        total = read[scale]
        for place, other in enumerate(_NEIGHBOURS[scale]):
            total = total + self.gains[2 * scale + place] * _resampled(read[other], sizes[other], sizes[scale])
        return total
