"""Swin blocks: attention inside square windows of tokens, which every second block shifts by half a window.

Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo: "Swin Transformer: Hierarchical Vision Transformer using
Shifted Windows", ICCV 2021. Tokens are maps with the channels last, (N, H, W, D). Tensors are named
as in the authors' code; tables that follow from the sizes alone are not stored.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from perceptloss.networks.attention import MLP, attend

__all__ = ["SwinBlock", "WindowAttention", "merged", "relative_index", "shift_mask", "windows"]

_APART = -100.0  # published logit of tokens that only the shift made neighbours


def windows(tokens: Tensor, side: int) -> Tensor:
    """Cut maps into windows, row by row: (N, H, W, D) to (N * H * W / side ** 2, side ** 2, D)."""
    return rearrange(tokens, "n (rows a) (columns b) d -> (n rows columns) (a b) d", a=side, b=side)


def merged(parts: Tensor, height: int, width: int) -> Tensor:
    """The opposite of `windows`: (N, height, width, D)."""
    side = round(parts.shape[1] ** 0.5)
    whole = "(n rows columns) (a b) d -> n (rows a) (columns b) d"
    return rearrange(parts, whole, a=side, rows=height // side, columns=width // side)


def relative_index(side: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, (side ** 2, side ** 2)."""
    place = torch.arange(side**2)
    row, column = place // side, place % side
    down, right = (axis[:, None] - axis + side - 1 for axis in (row, column))
    return down * (2 * side - 1) + right


def shift_mask(height: int, width: int, side: int, shift: int) -> Tensor:
    """What to add to the logits in a rolled map, per window and pair of tokens: 0 for neighbours, else -100."""

    def strip(length: int) -> Tensor:
        place = torch.arange(length)
        return (place >= length - side).long() + (place >= length - shift).long()

    regions = 3 * strip(height)[:, None] + strip(width)
    labels = windows(regions[None, :, :, None], side).squeeze(2)
    return _APART * (labels[:, None] != labels[:, :, None]).float()


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of a window, with a learned bias per head and relative place.

    Args:
        dim: Channels of a token.
        side: Of a window, in tokens.
        heads: Number of heads.
    """

    index: Tensor

    def __init__(self, dim: int, side: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * side - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_index(side), persistent=False)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, parts: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows (M, T, dim) to the same; `mask` is (windows of an image, T, T)."""
        bias = rearrange(self.relative_position_bias_table[self.index], "t s heads -> 1 heads t s")
        if mask is not None:
            images = len(parts) // len(mask)
            bias = repeat(bias + mask[:, None], "windows ... -> (images windows) ...", images=images)
        query, key, value = self.qkv(parts).chunk(3, -1)
        return self.proj(attend(query, key, value, self.heads, bias))


class SwinBlock(nn.Module):
    """Window attention and a feed-forward layer, each behind a normalisation and added to what it was given.

    Args:
        dim: Channels of a token.
        size: Height and width of the map, multiples of `side`.
        side: Of a window, in tokens.
        heads: Of the attention.
        hidden: Units of the feed-forward layer.
        shift: By how many tokens the windows are moved, down and to the right; not if one spans the map.
    """

    mask: Tensor | None

    def __init__(self, dim: int, size: tuple[int, int], side: int, heads: int, hidden: int, shift: int = 0) -> None:
        super().__init__()
        self.side, self.shift = side, shift if min(size) > side else 0
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = WindowAttention(dim, side, heads), MLP(dim, hidden)
        self.register_buffer("mask", shift_mask(*size, side, shift) if self.shift else None, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps to maps, (N, H, W, dim)."""
        tokens = tokens + self.attend(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))

    def attend(self, tokens: Tensor) -> Tensor:
        """Attention in windows of the rolled map, rolled back."""
        height, width = tokens.shape[1:3]
        if self.shift:
            tokens = tokens.roll((-self.shift, -self.shift), (1, 2))
        tokens = merged(self.attn(windows(tokens, self.side), self.mask), height, width)
        return tokens.roll((self.shift, self.shift), (1, 2)) if self.shift else tokens
