"""Statistics in sliding windows, which several formula critics compare: moments, and the terms of SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.networks.functional import blur, gaussian, slide

__all__ = ["SCALE_WEIGHTS", "TAPS", "ssim_maps", "window_moments"]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales of MS-SSIM, fine to coarse."""
TAPS = 11
"""Of the Gaussian window of SSIM."""
_C1, _C2 = 0.01**2, 0.03**2


def ssim_maps(x: Tensor, y: Tensor, window: tuple[float, ...] = gaussian(TAPS, 1.5)) -> tuple[Tensor, Tensor]:
    r"""Luminance and contrast-structure terms under a separable window, SSIM's own unless another is given.

    .. math::
        l = \frac{2 \mu_x \mu_y + c_1}{\mu_x^2 + \mu_y^2 + c_1}, \quad
        cs = \frac{2 \sigma_{xy} + c_2}{\sigma_x^2 + \sigma_y^2 + c_2}

    Args:
        x: Judged images, (N, C, H, W), in [0, 1].
        y: Reference images, same shape.
        window: Taps, k of them, that sum to 1.

    Returns:
        Both maps, each (N, C, H - k + 1, W - k + 1); SSIM is their product.
    """
    mx, xx, xy = blur(torch.stack([x, x * x, x * y]), window)
    my, yy = blur(torch.stack([y, y * y]), window)
    mxx, myy, mxy = mx * mx, my * my, mx * my
    luminance = (2 * mxy + _C1) / (mxx + myy + _C1)
    return luminance, (2 * (xy - mxy) + _C2) / ((xx - mxx) + (yy - myy) + _C2)


def _centre(
    x: Tensor, y: Tensor, moments: tuple[Tensor, ...], window: tuple[float, ...], dim: int
) -> tuple[Tensor, ...]:
    """One separable step of centred moments along `dim`: (means x, y) and (xx, yy, xy) to the five of wider windows."""
    mx, my = slide(x, window, dim), slide(y, window, dim)
    xx, yy, xy = (slide(v, window, dim) for v in moments)
    for i, weight in enumerate(window):
        dx, dy = x.narrow(dim, i, mx.shape[dim]) - mx, y.narrow(dim, i, mx.shape[dim]) - my
        xx.addcmul_(dx, dx, value=weight)
        yy.addcmul_(dy, dy, value=weight)
        xy.addcmul_(dx, dy, value=weight)
    return mx, my, xx, yy, xy


def window_moments(x: Tensor, y: Tensor, window: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Variances of both images and their covariance in every window.

    Args:
        x: Judged images, (N, 1, H, W).
        y: Reference images, same shape.
        window: Taps of the separable window, k of them.

    Returns:
        Variance of x, of y, and covariance, each (N, 1, H - k + 1, W - k + 1). The values are
        centred; the gradient is that of E[ab] - E[a]E[b], which needs no tensor per tap.
    """
    mx, exx, exy = blur(torch.stack([x, x * x, x * y]), window)
    my, eyy = blur(torch.stack([y, y * y]), window)
    raw = exx - mx * mx, eyy - my * my, exy - mx * my
    with torch.no_grad():
        mx, my, *rows = _centre(x, y, (torch.zeros_like(x),) * 3, window, -1)
        _, _, *centred = _centre(mx, my, tuple(rows), window, -2)
    xx, yy, xy = (r + (c - r).detach() for r, c in zip(raw, centred, strict=True))
    return xx, yy, xy
