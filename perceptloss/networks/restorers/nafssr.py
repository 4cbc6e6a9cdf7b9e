"""NAFSSR: stereo super-resolution without activation functions, whose views look at each other along their rows.

Chu, Chen, Yu: "NAFSSR: Stereo Image Super-Resolution Using NAFNet", CVPRW 2022, https://arxiv.org/abs/2204.08714.
Written from the paper and the layout of the authors' weights (megvii-research/NAFNet, MIT, commit 2b4af71). Ours:
stochastic depth draws from torch's generator, so that a resumed run draws the same; the attention's softmax is in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.errors import ConfigError
from perceptloss.networks.parallax import CrossAttention, PixelNorm, scale_of
from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["NAFSSR", "box_means"]

_STRIDES = (5, 4, 3, 2, 1)  # of the approximation, the largest that divides a side


def box_means(x: Tensor, window: Sequence[int], *, fast: bool = False) -> Tensor:
    """Mean of a window around each place, and at the borders that of the nearest window that fits.

    Args:
        x: (N, C, H, W).
        window: Rows and columns; the image's where it is smaller.
        fast: Read every fifth (fourth, ...) row and column where that number divides the side, as the authors offer.

    Returns:
        (N, C, H, W), or (N, C, 1, 1) where the window is the whole image.
    """
    height, width = x.shape[-2:]
    if window[0] >= height and window[1] >= width:
        return x.mean((2, 3), keepdim=True)
    if fast:
        rows, columns = (next(s for s in _STRIDES if side % s == 0) for side in (height, width))
        sums = x[:, :, ::rows, ::columns].cumsum(-1).cumsum(-2)
        sides = [min(s - 1, k // step) for s, k, step in zip(sums.shape[-2:], window, (rows, columns), strict=True)]
    else:
        rows = columns = 1
        sums = F.pad(x.cumsum(-1).cumsum(-2), (1, 0, 1, 0))
        sides = [min(side, k) for side, k in zip((height, width), window, strict=True)]
    down, across = sides
    low, high = sums[:, :, :-down], sums[:, :, down:]
    means = (low[..., :-across] - low[..., across:] - high[..., :-across] + high[..., across:]) / (down * across)
    if fast:
        means = means.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    missing = height - means.shape[2], width - means.shape[3]
    return F.pad(means, tuple(m for n in reversed(missing) for m in (n // 2, (n + 1) // 2)), mode="replicate")


class _Average(nn.Module):
    """Mean over the image, or in evaluation over a window of it."""

    window: tuple[int, int] | None = None
    fast = False

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None or self.training:
            return x.mean((2, 3), keepdim=True)
        return box_means(x, self.window, fast=self.fast)


def _gated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return first * second


class _Block(nn.Module):
    """NAFNet's block: products instead of activation functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        twice = 2 * channels
        self.conv1 = nn.Conv2d(channels, twice, 1)
        self.conv2 = nn.Conv2d(twice, twice, 3, padding=1, groups=twice)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(_Average(), nn.Conv2d(channels, channels, 1))
        self.conv4, self.conv5 = nn.Conv2d(channels, twice, 1), nn.Conv2d(channels, channels, 1)
        self.norm1, self.norm2 = PixelNorm(channels), PixelNorm(channels)
        self.beta, self.gamma = scale_of(channels), scale_of(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = _gated(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.beta * self.conv3(h * self.sca(h))
        return x + self.gamma * self.conv5(_gated(self.conv4(self.norm2(x))))


class _StereoBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blk, self.fusion = _Block(channels), CrossAttention(channels)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        out: tuple[Tensor, Tensor] = self.fusion(self.blk(left), self.blk(right))
        return out


class _Skipped(nn.Module):
    """Stochastic depth: in training the block is left out now and then, and counts more when it is not."""

    def __init__(self, module: nn.Module, rate: float) -> None:
        super().__init__()
        self.module, self.rate = module, rate

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training or not self.rate:
            out: tuple[Tensor, Tensor] = self.module(left, right)
            return out
        if float(torch.rand(())) < self.rate:
            return left, right
        new = self.module(left, right)
        return left + (new[0] - left) / (1 - self.rate), right + (new[1] - right) / (1 - self.rate)


class NAFSSR(SuperResolver):
    """NAFSSR; (N, 6, H, W) to (N, 6, scale H, scale W), left RGB and right RGB.

    Args:
        up_scale: Factor of enlargement.
        width: Channels: 48, 64, 96 and 128 in the published sizes T, S, B and L.
        num_blks: Blocks, each followed by cross attention: 16, 32, 64, 128.
        drop_path_rate: Share of blocks that a training step leaves out: 0, 0.1, 0.2, 0.3.
        window: Rows and columns over which evaluation averages where training averages over its patch, 1.5 times the
            low-quality patch (45 x 135) in the authors' tests; None for the whole image.
        fast: The authors' approximation of these averages.

    Raises:
        ConfigError: if a size is none.
    """

    KEY: ClassVar[str] = "body.0.module.fusion.beta"
    channels: ClassVar[int] = 6

    def __init__(
        self,
        up_scale: int = 4,
        width: int = 48,
        num_blks: int = 16,
        drop_path_rate: float = 0.0,
        window: Sequence[int] | None = None,
        *,
        fast: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"up_scale": up_scale, "width": width, "num_blks": num_blks}
        problems = [f"{n} must be a whole number of at least 1, got {v!r}" for n, v in sizes.items() if not _counts(v)]
        if window is not None and not (len(window) == 2 and all(map(_counts, window))):
            problems.append(f"window must be rows and columns, got {window!r}")
        if not 0 <= drop_path_rate < 1:
            problems.append(f"drop_path_rate must be from 0 to below 1, got {drop_path_rate!r}")
        if problems:
            raise ConfigError(problems, "NAFSSR")
        self.scales = (up_scale,)
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(_Skipped(_StereoBlock(width), drop_path_rate) for _ in range(num_blks))
        self.up = nn.Sequential(nn.Conv2d(width, 3 * up_scale**2, 3, padding=1), nn.PixelShuffle(up_scale))
        self.average_over(window, fast=fast)

    def average_over(self, window: Sequence[int] | None, *, fast: bool = False) -> None:
        """Set the window of evaluation; see the arguments of the class."""
        for layer in self.modules():
            if isinstance(layer, _Average):
                layer.window = None if window is None else (window[0], window[1])
                layer.fast = fast

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> NAFSSR:
        blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("body."))
        scale = round((state["up.0.weight"].shape[0] / 3) ** 0.5)
        return cls(scale, state["intro.weight"].shape[0], blocks)

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        left, right = map(self.intro, x.chunk(2, 1))
        for block in self.body:
            left, right = block(left, right)
        learned = torch.cat([self.up(left), self.up(right)], 1)
        return learned + F.interpolate(x, scale_factor=float(scale), mode="bilinear", align_corners=False)


def _counts(value: object) -> bool:
    return isinstance(value, int) and value >= 1
