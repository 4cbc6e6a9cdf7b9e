"""Attention along the rows of a rectified stereo pair, where each place of a view has its partner in the other one.

Wang et al., "Learning Parallax Attention for Stereo Image Super-Resolution", CVPR 2019, https://arxiv.org/abs/1903.05784.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["CrossAttention", "PixelNorm", "carry", "row_scores", "scale_of", "shares", "valid"]

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


def scale_of(channels: int) -> nn.Parameter:
    """A factor per channel, learned from 0."""
    return nn.Parameter(torch.zeros(1, channels, 1, 1))


class PixelNorm(nn.Module):
    """Normalises the channels of each pixel, (N, C, H, W)."""

    eps = 1e-6

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


class CrossAttention(nn.Module):
    """Adds to each view what the other one shows at the same places; to begin with, nothing.

    SCAM of NAFSSR (Chu, Chen, Yu, CVPRW 2022, https://arxiv.org/abs/2204.08714).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_l, self.norm_r = PixelNorm(channels), PixelNorm(channels)
        self.l_proj1, self.r_proj1 = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.l_proj2, self.r_proj2 = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.beta, self.gamma = scale_of(channels), scale_of(channels)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of both views, (N, C, H, W) each, to the same shapes."""
        query, key = self.l_proj1(self.norm_l(left)), self.r_proj1(self.norm_r(right))
        scores = row_scores(query, key) * left.shape[1] ** -0.5
        from_right = carry(shares(scores), self.r_proj2(right))
        from_left = carry(shares(scores.mT), self.l_proj2(left))
        return left + self.beta * from_right, right + self.gamma * from_left
