"""Our degradations beside kornia's: how far apart, and processor seconds of theirs by ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import kornia
import torch
import torch.nn.functional as F
from kornia.geometry import transform
from torch import Tensor

from benchmarks.timing import clocked
from perceptloss.compare.pixels import turned
from perceptloss.output.tables import text
from perceptloss.teach.degradations import get_degradation
from perceptloss.teach.degradations.blur import disc_kernel, line_kernels
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.operations import (
    filter_images,
    from_ycbcr,
    gaussian_blur,
    shift_rows,
    sign,
    to_ycbcr,
)
from perceptloss.teach.degradations.resize import resize

__all__ = ["table"]

Call = Callable[[], Tensor]
_HALF = torch.tensor([0, 0.5, 0.5])[:, None, None]


def _guided(x: Tensor, threshold: float) -> Tensor:
    planes = x.flatten(0, 1)[:, None]
    for _ in range(2):
        planes = kornia.filters.guided_blur(planes, planes, 9, threshold**2, separable=True)
    return planes.reshape(x.shape)


def _pairs(x: Tensor) -> Iterator[tuple[str, Call, Call]]:
    """Name, ours and theirs; x is (N, 3, H, W)."""
    filters, enhance = kornia.filters, kornia.enhance
    signs = sign(x, torch.Generator().manual_seed(0)).flatten()

    def raw(name: str, value: float) -> Tensor:
        return get_degradation(name).function(x, value, torch.Generator().manual_seed(0))

    chroma = to_ycbcr(x)
    yield "RGB to YCbCr", lambda: to_ycbcr(x), lambda: kornia.color.rgb_to_ycbcr(x) - _HALF
    yield "YCbCr to RGB", lambda: from_ycbcr(chroma), lambda: kornia.color.ycbcr_to_rgb(chroma + _HALF)
    for sigma in (0.5, 1.5, 2.0, 4.5, 8.0):
        theirs = partial(filters.gaussian_blur2d, x, 2 * math.ceil(4 * sigma) + 1, (sigma, sigma))
        yield f"gaussian, sigma {sigma}", partial(gaussian_blur, x, sigma), theirs
    lines = [line_kernels(F.normalize(torch.randn(len(x), 2)), length) for length in (4.5, 13.0, 22.0, 50.0)]
    for kernels in (disc_kernel(8.0)[None], *lines):
        theirs = partial(filters.filter2d, x, kernels, behaviour="conv")
        yield f"{len(kernels)} of {kernels.shape[-1]} x {kernels.shape[-1]}", partial(filter_images, x, kernels), theirs
    yield "guided filter, twice", lambda: raw("denoise", 0.1), lambda: _guided(x, 0.1)
    rows = 2.5 * signs
    moves = partial(transform.translate, x, F.pad(rows[:, None], (1, 0)), padding_mode="border", align_corners=True)
    yield "shift of rows", lambda: shift_rows(x, rows[:, None, None, None]), moves
    for mode in ("bilinear", "bicubic"):
        theirs = partial(transform.resize, x, (48, 48), mode, align_corners=False, antialias=True)
        yield f"shrink, {mode}", partial(resize, x, (48, 48), mode), theirs
    quality = torch.full((len(x),), 40.0)
    yield "JPEG", lambda: jpeg(x, 40.0), lambda: enhance.jpeg_codec_differentiable(x, quality)
    yield "hue", lambda: raw("hue-shift", 40.0).clamp(0, 1), lambda: enhance.adjust_hue(x, math.radians(40) * signs)
    yield "gamma", lambda: raw("gamma", 1.0), lambda: enhance.adjust_gamma(x, 2**signs)
    yield "mirror", lambda: turned(x[0], 1), lambda: transform.hflip(x[0])


@torch.no_grad()
def table(size: tuple[int, int, int], repeat: int) -> str:
    """Largest difference and time of theirs by ours, best of `repeat` runs taken in turns, one line each."""
    x = torch.rand(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(0))
    lines = [("operation", "difference", "ours ms", "kornia / ours")]
    for name, ours, theirs in _pairs(x):
        difference = (ours() - theirs()).abs().max()
        runs = [(clocked(ours, x.device).cpu, clocked(theirs, x.device).cpu) for _ in range(repeat)]
        mine, other = (min(column) for column in zip(*runs, strict=True))
        lines.append((name, f"{difference:.1e}", f"{1e3 * mine:.2f}", f"{other / max(mine, 1e-9):.1f}"))
    return text(lines, "lr", rule=True)
