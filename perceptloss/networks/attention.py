"""Multi-head attention, written out: torch's fused kernels have no second derivative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

__all__ = ["MLP", "EncoderLayer", "attend", "by_row_and_column"]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, head by head.

    Args:
        query: Projected queries, (N, T, D), with D a multiple of `heads`.
        key: Projected keys, (N, S, D).
        value: Projected values, (N, S, D).
        heads: Number of heads; each has D / heads channels.
        bias: Added to the scaled products before the softmax, if given; broadcast to (N, heads, T, S).

    Returns:
        The heads' results side by side, (N, T, D).
    """
    q, k, v = (rearrange(tokens, "n t (heads d) -> n heads t d", heads=heads) for tokens in (query, key, value))
    logits = q @ k.mT * q.shape[-1] ** -0.5
    weights = (logits if bias is None else logits + bias).softmax(-1)
    return rearrange(weights @ v, "n heads t d -> n t (heads d)")


def by_row_and_column(along: Tensor) -> Tensor:
    """Codes of the places along a side, (grid, D), to those of a square, row by row: (grid * grid, 2 D), rows first."""
    rows = repeat(along, "row d -> (row column) d", column=len(along))
    columns = repeat(along, "column d -> (row column) d", row=len(along))
    return torch.cat([rows, columns], 1)


class MLP(nn.Module):
    """The feed-forward layer of a transformer block, tokens (N, T, dim) to the same shape."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class EncoderLayer(nn.Module):
    """Transformer layer (Vaswani et al., NeurIPS 2017) with the normalisation before each branch."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """Tokens (N, T, width) to the same shape."""
        q, k, v = self.qkv(self.norm_1(h)).chunk(3, -1)
        h = h + self.dropout(self.out(attend(q, k, v, self.heads)))
        return h + self.dropout(self.feed(self.norm_2(h)))
