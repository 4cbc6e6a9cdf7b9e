"""iPASSR: stereo super-resolution whose views exchange what both see, and are told where only one sees it.

Wang, Ying, Wang, Yang, An, Guo: "Symmetric Parallax Attention for Stereo Image Super-Resolution", CVPRW 2021,
https://arxiv.org/abs/2011.03802. Written from facts about the authors' code (YingqianWang/iPASSR, no licence stated,
commit e1ffe06). Ours: the attention's softmax is in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.parallax import carry, row_scores, shares, valid
from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["IPASSR", "Parallax", "ipassr_losses"]

_SLOPE = 0.1
_BLOCKS = 4
_REACH = 2  # pixels by which shares are relaxed before they say what is valid


@dataclass(frozen=True)
class Parallax:
    """What the attention of a pair found.

    Attributes:
        to_left: Shares of the right view that make the left one, (N, H, W, W).
        to_right: The other way, same shape.
        valid_left: Where the right view shows what the left one does, (N, 1, H, W) in [0, 1), without gradient.
        valid_right: The other way, same shape.
    """

    to_left: Tensor
    to_right: Tensor
    valid_left: Tensor
    valid_right: Tensor


class _Grown(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, F.leaky_relu(self.conv(x), _SLOPE)], 1)


class _Dense(nn.Module):
    """Residual dense block."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(_Grown(features + n * growth, growth) for n in range(_BLOCKS)))
        self.LFF = nn.Conv2d(features + _BLOCKS * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.LFF(self.conv(x)) + x
        return out


class _Group(nn.Module):
    """Residual dense blocks in a row, and what each of them gave."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.RDB = nn.ModuleList(_Dense(features, growth) for _ in range(_BLOCKS))
        self.conv = nn.Conv2d(_BLOCKS * features, features, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for block in self.RDB:
            x = block(x)
            found.append(x)
        all_of_them = torch.cat(found, 1)
        return self.conv(all_of_them), all_of_them


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 16
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.LeakyReLU(_SLOPE), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.conv_du(x.mean((2, 3), keepdim=True))
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        convs = (nn.Conv2d(channels, channels, 3, padding=1, groups=_BLOCKS) for _ in range(2))
        self.body = nn.Sequential(next(convs), nn.LeakyReLU(_SLOPE), next(convs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + x
        return out


def _relaxed(share: Tensor) -> Tensor:
    """Shares (N, H, W, W) with those of the places up to two pixels left and right added."""
    wide, places = F.pad(share, (0, 0, _REACH, _REACH)), share.shape[2]
    return torch.stack([wide[:, :, start : start + places] for start in range(2 * _REACH + 1)]).sum(0)


class _Attention(nn.Module):
    """Symmetric parallax attention, without a scale, and with the row means of queries and keys removed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = _BLOCKS * channels
        self.bq, self.bs = (nn.Conv2d(wide, channels, 1, groups=_BLOCKS) for _ in range(2))
        self.rb = _Residual(wide)
        self.bn = nn.BatchNorm2d(wide)
        self.own_statistics = False

    def _normed(self, x: Tensor) -> Tensor:
        if self.own_statistics and not self.training:
            return F.batch_norm(x, None, None, self.bn.weight, self.bn.bias, training=True, eps=self.bn.eps)
        return self.bn(x)

    def forward(
        self, left: Tensor, right: Tensor, seen_left: Tensor, seen_right: Tensor
    ) -> tuple[Tensor, Tensor, Parallax]:
        query, key = (conv(self.rb(self._normed(seen))) for conv, seen in ((self.bq, seen_left), (self.bs, seen_right)))
        scores = row_scores(*(part - part.mean(3, keepdim=True) for part in (query, key)))
        to_left, to_right = shares(scores), shares(scores.mT)
        masks = [
            valid((_relaxed(here) * there.mT).sum(3).detach())[:, None].to(left.dtype)
            for here, there in ((to_left, to_right), (to_right, to_left))
        ]
        outs = [
            own.lerp(carry(share, other), mask)
            for own, other, share, mask in zip((left, right), (right, left), (to_left, to_right), masks, strict=True)
        ]
        return outs[0], outs[1], Parallax(to_left, to_right, masks[0], masks[1])


class IPASSR(SuperResolver):
    """iPASSR; (N, 6, H, W) to (N, 6, scale H, scale W), left RGB and right RGB.

    Args:
        upscale_factor: Factor of enlargement.
        own_statistics: In evaluation, normalise by the image at hand instead of the statistics of training: the
            authors' test never leaves training mode, and their figures are made that way.
    """

    KEY: ClassVar[str] = "pam.bq.weight"
    channels: ClassVar[int] = 6

    def __init__(self, upscale_factor: int = 4, *, own_statistics: bool = False) -> None:
        super().__init__()
        self.scales = (upscale_factor,)
        width, growth = 64, 24
        self.init_feature = nn.Conv2d(3, width, 3, padding=1)
        self.deep_feature, self.reconstruct = _Group(width, growth), _Group(width, growth)
        self.pam = _Attention(width)
        self.pam.own_statistics = own_statistics
        self.fusion = nn.Sequential(_Dense(2 * width, 32), _ChannelAttention(2 * width), nn.Conv2d(2 * width, width, 1))
        self.upscale = nn.Sequential(
            nn.Conv2d(width, width * upscale_factor**2, 1),
            nn.PixelShuffle(upscale_factor),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> IPASSR:
        wide, inputs = state["upscale.0.weight"].shape[:2]
        return cls(round((wide / inputs) ** 0.5))

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        return self.with_parallax(x)[0]

    def with_parallax(self, x: Tensor) -> tuple[Tensor, Parallax]:
        """The enlarged pair, and what its losses need; see `forward` and `ipassr_losses`."""
        views = x.chunk(2, 1)
        (left, seen_left), (right, seen_right) = (self.deep_feature(self.init_feature(view)) for view in views)
        to_left, to_right, parallax = self.pam(left, right, seen_left, seen_right)
        out = []
        for view, own, other in zip(views, (left, right), (to_left, to_right), strict=True):
            learned = self.upscale(self.reconstruct(self.fusion(torch.cat([own, other], 1)))[0])
            out.append(learned + _resized(view, self.scales[0]))
        return torch.cat(out, 1), parallax


def _resized(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


def ipassr_losses(restored: Tensor, parallax: Parallax, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
    """The published losses, all means of absolute differences, added over the views.

    `photo`, `smooth` and `cycle` ask of the attention that it carries one view's residual (what bicubic enlargement
    misses, at low-quality size) to the other; `cons` asks of the image that its errors agree between the views, and
    sends no gradient to the attention.

    Args:
        restored: Enlarged pair, (N, 6, scale H, scale W).
        parallax: From `IPASSR.with_parallax`.
        lq: Low-quality pair, (N, 6, H, W).
        gt: Ground truth, of the shape of `restored`.

    Returns:
        Scalars `SR`, `photo`, `smooth`, `cycle`, `cons`, and `total` = SR + 0.1 (cons + photo + smooth + cycle).
    """
    scale = gt.shape[-1] // lq.shape[-1]
    small = 1 / scale
    left, right = _resized((gt - _resized(lq, scale)).abs(), small).chunk(2, 1)
    error_left, error_right = _resized((gt - restored).abs(), small).chunk(2, 1)
    to_left, to_right = parallax.to_left, parallax.to_right
    at_left, at_right = parallax.valid_left, parallax.valid_right
    left_seen, right_seen = carry(to_left, right), carry(to_right, left)

    def apart(pairs: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        masks = at_left, at_right
        terms = [F.l1_loss(one * mask, other * mask) for (one, other), mask in zip(pairs, masks, strict=True)]
        return terms[0] + terms[1]

    smooth = sum(
        F.l1_loss(m[:, :-1], m[:, 1:]) + F.l1_loss(m[:, :, :-1, :-1], m[:, :, 1:, 1:]) for m in (to_left, to_right)
    )
    found = {
        "SR": sum(F.l1_loss(*views) for views in zip(restored.chunk(2, 1), gt.chunk(2, 1), strict=True)),
        "photo": apart(((left, left_seen), (right, right_seen))),
        "smooth": smooth,
        "cycle": apart(((left, carry(to_left, right_seen)), (right, carry(to_right, left_seen)))),
        "cons": apart(
            (
                (error_left, carry(to_left.detach(), error_right)),
                (error_right, carry(to_right.detach(), error_left)),
            )
        ),
    }
    losses = {name: torch.as_tensor(value) for name, value in found.items()}
    guidance = losses["cons"] + losses["photo"] + losses["smooth"] + losses["cycle"]
    return {**losses, "total": losses["SR"] + 0.1 * guidance}
