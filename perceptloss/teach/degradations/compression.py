"""Lossy coding: block transform, wavelet, block edges alone, and losses on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from perceptloss.teach.degradations.core import KADID, degradation
from perceptloss.teach.degradations.operations import from_ycbcr, normal, to_ycbcr

__all__ = ["CHROMA_TABLE", "LUMA_TABLE", "jpeg", "quality_table", "wavelet", "wavelet_inverse"]

# ITU-T T.81 (JPEG), annex K, tables K.1 and K.2
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def quality_table(table: Sequence[Sequence[int]], quality: float) -> Tensor:
    """A quantisation table at a quality of 1 to 100, scaled the way libjpeg does it, (8, 8)."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table, dtype=torch.float32) * percent + 50) / 100).floor().clamp(1, 255)


def jpeg(x: Tensor, quality: float) -> Tensor:
    """Baseline JPEG, 4:2:0: exact transform, libjpeg's tables, rounding to 8 bits at both ends.

    Args:
        x: Images, (N, 3, H, W), RGB in [0, 1].
        quality: 1 to 100; need not be whole.
    """
    height, width = x.shape[-2:]
    y, chroma = to_ycbcr(_fill((255 * x).round(), 16)).split((1, 2), 1)
    y = _quantised(y.round() - 128, quality_table(LUMA_TABLE, quality)) + 128
    chroma = _quantised(F.avg_pool2d(chroma, 2).round(), quality_table(CHROMA_TABLE, quality))
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear").round()
    return from_ycbcr(torch.cat([y, chroma], 1))[..., :height, :width].round().clamp(0, 255) / 255


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    basis = _dct(planes.device)
    blocks = rearrange(planes, "n c (rows h) (columns w) -> n c rows columns h w", h=8, w=8)
    table = table.to(planes.device)
    coefficients = (basis @ blocks @ basis.T / table).round() * table
    planes = rearrange(basis.T @ coefficients @ basis, "n c rows columns h w -> n c (rows h) (columns w)")
    return planes.round().clamp(-128, 127)


def _dct(device: torch.device) -> Tensor:
    frequency, place = torch.arange(8.0)[:, None], torch.arange(8.0)
    basis = (math.pi / 8 * (place + 0.5) * frequency).cos() / 2
    basis[0] /= math.sqrt(2)
    return basis.to(device)


def _fill(x: Tensor, multiple: int) -> Tensor:
    bottom, right = (-side % multiple for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom), mode="replicate")


# CDF 9/7 by lifting (Daubechies, Sweldens 1998; ITU-T T.800, annex F): predict, update, predict, update, scale
_LIFTS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
_SCALE = 1.230174104914001


def _split(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    even, odd = x.unflatten(dim, (-1, 2)).unbind(dim)
    for turn in (0, 2):
        odd = odd + _LIFTS[turn] * (even + _shift(even, dim, 1))
        even = even + _LIFTS[turn + 1] * (odd + _shift(odd, dim, -1))
    return even / _SCALE, odd * _SCALE / 2


def _merge(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    even, odd = even * _SCALE, odd * 2 / _SCALE
    for turn in (2, 0):
        even = even - _LIFTS[turn + 1] * (odd + _shift(odd, dim, -1))
        odd = odd - _LIFTS[turn] * (even + _shift(even, dim, 1))
    return torch.stack([even, odd], dim).flatten(dim - 1, dim)


def _shift(x: Tensor, dim: int, by: int) -> Tensor:
    """Each entry's neighbour; the end repeats, which is the mirror extension of the undivided signal."""
    rest, last = x.narrow(dim, max(by, 0), x.shape[dim] - 1), x.narrow(dim, x.shape[dim] - 1 if by > 0 else 0, 1)
    return torch.cat([rest, last] if by > 0 else [last, rest], dim)


def wavelet(x: Tensor, depth: int) -> list[Tensor]:
    """CDF 9/7 transform of planes (..., H, W), sides multiples of 2^depth.

    Returns:
        The three detail bands of each scale as (..., 3, H / 2^k, W / 2^k), finest first, then the mean band.
    """
    bands = []
    for _ in range(depth):
        low, high = _split(x, -2)
        x, across = _split(low, -1)
        bands.append(torch.stack([across, *_split(high, -1)], -3))
    return [*bands, x]


def wavelet_inverse(bands: Sequence[Tensor]) -> Tensor:
    """Inverse of `wavelet`."""
    x = bands[-1]
    for detail in reversed(bands[:-1]):
        across, down, diagonal = detail.unbind(-3)
        x = _merge(_merge(x, across, -1), _merge(down, diagonal, -1), -2)
    return x


@degradation("jpeg2000", "compression", (5.0, 12.0, 28.0, 60.0, 140.0), KADID)
def _wavelet_coded(x: Tensor, step: float, generator: torch.Generator) -> Tensor:
    """Quantiser step at the finest scale, in 255ths."""
    height, width = x.shape[-2:]
    step = max(step, 1e-3)
    bands = wavelet(to_ycbcr(_fill(255 * x, 16)) - 128 * x.new_tensor([1, 0, 0])[:, None, None], 4)
    # a band's coefficient spreads over 4^k pixels, so coarse bands get finer steps; chroma gets coarser ones
    weight = x.new_tensor([1.0, 1.7, 1.7])[:, None, None]
    coded = [_dead_zone(band, step / 2**k * weight[..., None]) for k, band in enumerate(bands[:-1])]
    coded.append(_dead_zone(bands[-1], step / 2 ** len(coded) * weight))
    image = wavelet_inverse(coded) + 128 * x.new_tensor([1, 0, 0])[:, None, None]
    return from_ycbcr(image)[..., :height, :width] / 255


def _dead_zone(coefficients: Tensor, step: Tensor) -> Tensor:
    index = (coefficients.abs() / step).floor()
    return coefficients.sign() * (index + 0.5 * (index > 0)) * step


@degradation("jpeg", "compression", (50.0, 26.0, 14.0, 8.0, 4.0), KADID, identity=100.0)
def _jpeg(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Quality, 1 to 100."""
    return jpeg(x, quality)


@degradation("blocking", "compression", (0.01, 0.02, 0.04, 0.08, 0.15), "CSIQ and TID2013 (block-wise distortions)")
def _blocking(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of the offset between 8x8 blocks."""
    height, width = x.shape[-2:]
    cells = x.new_empty(x.shape[0], 1, -(-height // 8), -(-width // 8))
    offsets = normal(cells, generator).clamp(-2, 2)
    offsets[:, 1:] *= 0.4
    return x + from_ycbcr(std * _spread(offsets)[..., :height, :width])


def _spread(cells: Tensor) -> Tensor:
    return cells.repeat_interleave(8, -1).repeat_interleave(8, -2)


_RUN = 6  # blocks that share one fate
_WRONG = torch.tensor([0.3, 0.1, 0.1])[:, None, None]  # spread of a wrong mean in Y, Cb and Cr


@degradation("transmission-error", "compression", (0.005, 0.015, 0.04, 0.1, 0.25), "TID2013 (JPEG transmission errors)")
def _transmission(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of 8x8 blocks that come lost or with a wrong mean, in runs."""
    count, _, height, width = x.shape
    rows, columns = -(-height // 8), -(-width // 8)
    runs = -(-rows * columns // _RUN)
    order = torch.rand(count, runs, generator=generator).argsort(1).argsort(1)
    lost = torch.rand(count, runs, generator=generator) < 0.35
    shift = (
        normal(x.new_empty(count, 3, runs, 1, device="cpu"), generator) * torch.tensor([0.3, 0.1, 0.1])[:, None, None]
    )
    shift = from_ycbcr(shift + 0.15 * shift.sign())[..., 0]
    place = torch.arange(rows * columns)
    run = place // _RUN
    hit = order[:, run] * _RUN + place % _RUN < share * rows * columns

    def over_pixels(blocks: Tensor) -> Tensor:
        return _spread(blocks.unflatten(-1, (rows, columns)).to(x.device))[..., :height, :width]

    damaged = torch.where(over_pixels(lost[:, None, run]), 0.5, x) + over_pixels(shift[..., run])
    return torch.where(over_pixels(hit[:, None]), damaged, x)
