"""What is left of noisy pictures when denoisers that are set too strong have passed: smeared texture, blotches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import blur
from perceptloss.teach.degradations.compression import wavelet, wavelet_inverse
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.operations import from_ycbcr, luma, normal, pad, to_ycbcr

__all__ = ["bilateral", "non_local", "soft_wavelets", "total_variation"]

_LEVELS = (0.012, 0.025, 0.045, 0.08, 0.14)
_SPATIAL = 2.5  # sigma of the bilateral filter, in pixels
_PLACES = 25  # in a window
_DEPTH = 4
_CHROMA = 2.0  # chroma is smoothed more than luma, as eyes forgive it


def _average(x: Tensor, reach: float, spatial: float, strength: float, patch: int) -> Tensor:
    """Mean of pixels within reach whose surroundings look alike in luma, patches as wide as told."""
    maps, margin, (height, width) = torch.cat([x, luma(x)], 1), math.ceil(reach), x.shape[-2:]
    padded, own, window = pad(maps, margin), maps[:, 3:], (1 / patch,) * patch
    total, weight = torch.zeros_like(x), torch.zeros_like(own)
    for turn in range(_PLACES):  # a spiral, as a thinned square would leave its grid in the picture
        radius, angle = reach * math.sqrt(turn / _PLACES), turn * math.pi * (3 - math.sqrt(5))
        down, across = round(radius * math.sin(angle)), round(radius * math.cos(angle))
        moved = padded[..., margin + down : margin + down + height, margin + across : margin + across + width]
        unlike = (moved[:, 3:] - own).square()
        if patch > 1:
            unlike = blur(pad(unlike, patch // 2), window)
        near = (unlike / (-2 * max(strength, 1e-4) ** 2)).exp_() * math.exp(-(down**2 + across**2) / (2 * spatial**2))
        total.addcmul_(near, moved[:, :3])
        weight += near
    return total / weight


def bilateral(x: Tensor, strength: float) -> Tensor:
    """Tomasi and Manduchi's filter, ICCV 1998, at 25 places of a window of 11.

    Args:
        x: Images, (N, 3, H, W).
        strength: Difference in luma that counts as noise.
    """
    return _average(x, 5.0, _SPATIAL, strength, 1)


def non_local(x: Tensor, strength: float) -> Tensor:
    """Non-local means of Buades, Coll, Morel, CVPR 2005, with patches of 5, at 25 places of a window of 15.

    Arguments as of `bilateral`.
    """
    return _average(x, 7.0, 1e3, 0.7 * strength, 5)


def total_variation(x: Tensor, strength: float, rounds: int = 15) -> Tensor:
    """Chambolle's projection, J. Math. Imaging Vision 2004, each channel by itself.

    Args:
        x: Images, (N, C, H, W).
        strength: Weight of the total variation.
        rounds: Of the fixed-point iteration.
    """
    if strength <= 0:
        return x
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(rounds):
        rest = _divergence(down, across) - x / strength
        d, a = F.pad(rest.diff(dim=-2), (0, 0, 0, 1)), F.pad(rest.diff(dim=-1), (0, 1))
        length = 1 + 0.25 * torch.hypot(d, a)
        down, across = (down + 0.25 * d) / length, (across + 0.25 * a) / length
    return x - strength * _divergence(down, across)


def _divergence(down: Tensor, across: Tensor) -> Tensor:
    return down - F.pad(down[..., :-1, :], (0, 0, 1, 0)) + across - F.pad(across[..., :-1], (1, 0))


def soft_wavelets(x: Tensor, strength: float) -> Tensor:
    """Soft thresholds on the details of a CDF 9/7 transform (Donoho, 1995), harder on chroma.

    Args:
        x: Images, (N, 3, H, W).
        strength: Threshold for luma.
    """
    height, width = x.shape[-2:]
    multiple = 2**_DEPTH
    *details, mean = wavelet(
        to_ycbcr(F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")), _DEPTH
    )
    by = strength * x.new_tensor([1.0, _CHROMA, _CHROMA])[:, None, None, None]
    # a band spreads noise over 2^k pixels a side, so its noise is that much weaker
    shrunk = [band.sign() * (band.abs() - by / 2**k).clamp_min(0) for k, band in enumerate(details)]
    return from_ycbcr(wavelet_inverse([*shrunk, mean]))[..., :height, :width]


def _noisy(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return (x + std * normal(x, generator)).clamp(0, 1)


@degradation("bilateral-denoise", "denoising", _LEVELS, "Tomasi, Manduchi, ICCV 1998; SPAQ, CVPR 2020 (over-smoothing)")
def _bilateral(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of noise that a bilateral filter of three times that removed."""
    return bilateral(bilateral(_noisy(x, std, generator), 3 * std), 2 * std)


@degradation("non-local-denoise", "denoising", _LEVELS, "Buades, Coll, Morel, CVPR 2005; SPAQ, CVPR 2020")
def _non_local(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of noise that non-local means of twice that removed."""
    return non_local(_noisy(x, std, generator), 2 * std)


@degradation("variation-denoise", "denoising", _LEVELS, "Rudin, Osher, Fatemi, 1992; SPAQ, CVPR 2020")
def _variation(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of noise that total variation of twice that weight removed."""
    return total_variation(_noisy(x, std, generator), 2 * std)


@degradation("wavelet-denoise", "denoising", _LEVELS, "Donoho, De-noising by soft-thresholding, 1995; SPAQ, CVPR 2020")
def _wavelets(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of noise that soft thresholds of twice that removed."""
    return soft_wavelets(_noisy(x, std, generator), 2 * std)
