"""Attention along the rows of a rectified stereo pair, where each place of a view has its partner in the other one.

Wang et al., "Learning Parallax Attention for Stereo Image Super-Resolution", CVPR 2019, https://arxiv.org/abs/1903.05784.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["carry", "row_scores", "shares", "valid"]

_STEEP = 5.0  # of the valid mask, as published


def row_scores(query: Tensor, key: Tensor) -> Tensor:
    """Products of all places of the rows of two maps, (N, C, H, W) each, to (N, H, W, W): query, then key."""
    return rearrange(query, "n c h w -> n h w c") @ rearrange(key, "n c h w -> n h c w")


def shares(scores: Tensor) -> Tensor:
    """Softmax over the last axis, in fp32 at least: in half precision wide rows lose their small shares."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)


def carry(share: Tensor, other: Tensor) -> Tensor:
    """The other view as this one sees it: shares (N, H, W, W) of its map (N, C, H, W), in the type of the map."""
    seen = share.to(other.dtype) @ rearrange(other, "n c h w -> n h w c")
    return rearrange(seen, "n h w c -> n c h w")


def valid(received: Tensor) -> Tensor:
    """Where a view is seen by the other one: tanh(5 s) of what each place receives of the other's shares, any shape."""
    return torch.tanh(_STEEP * received)
