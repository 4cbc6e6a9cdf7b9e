"""What is left of noisy pictures when denoisers that are set too strong have passed: smeared texture, blotches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import blur
from perceptloss.teach.degradations.compression import wavelet, wavelet_inverse
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.operations import from_ycbcr, normal, pad, to_ycbcr

__all__ = ["bilateral", "non_local", "soft_wavelets", "total_variation"]

_LEVELS = (0.012, 0.025, 0.045, 0.08, 0.14)
_SPATIAL = 2.5  # sigma of the bilateral filter, in pixels
_PLACES = 25  # in a window
_DEPTH = 4
_CHROMA = 2.0  # chroma is smoothed more than luma, as eyes forgive it


def _average(x: Tensor, reach: float, spatial: float, strength: float, patch: int) -> Tensor:
    """Mean of pixels within reach whose surroundings look alike, patches as wide as told."""
    margin, (height, width) = math.ceil(reach), x.shape[-2:]
    padded, window = pad(x, margin), (1 / patch,) * patch
    total, weight = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for turn in range(_PLACES):  # a spiral, as a thinned square would leave its grid in the picture
        radius, angle = reach * math.sqrt(turn / _PLACES), turn * math.pi * (3 - math.sqrt(5))
        down, across = round(radius * math.sin(angle)), round(radius * math.cos(angle))
        moved = padded[..., margin + down : margin + down + height, margin + across : margin + across + width]
        unlike = (moved - x).square().mean(1, keepdim=True)
        if patch > 1:
            unlike = blur(pad(unlike, patch // 2), window)
        near = (unlike / (-2 * max(strength, 1e-4) ** 2)).exp_() * math.exp(-(down**2 + across**2) / (2 * spatial**2))
        total.addcmul_(near, moved)
        weight += near
    return total / weight


def bilateral(x: Tensor, strength: float) -> Tensor:
    """Tomasi and Manduchi's filter, ICCV 1998, at 25 places of a window of 11.

    Args:
        x: Images, (N, 3, H, W).
        strength: Root mean square difference of colours that counts as noise.
    """
    return _average(x, 5.0, _SPATIAL, strength, 1)


def non_local(x: Tensor, strength: float) -> Tensor:
    """Non-local means of Buades, Coll, Morel, CVPR 2005, with patches of 5, at 25 places of a window of 15.

    Arguments as of `bilateral`.
    """
    return _average(x, 7.0, 1e3, 0.7 * strength, 5)


def total_variation(x: Tensor, strength: float, rounds: int = 15) -> Tensor:
    """Chambolle's projected gradient on the dual, EMMCVPR 2005, each channel by itself.

    Args:
        x: Images, (N, C, H, W).
        strength: Weight of the total variation.
        rounds: Of the iteration.
    """
    if strength <= 0:
        return x
    down, across = x.new_zeros(x.shape), x.new_zeros(x.shape)
    wanted = x / strength
    for _ in range(rounds):
        rest = _divergence(down, across).sub_(wanted)
        down[..., :-1, :] += 0.25 * rest.diff(dim=-2)
        across[..., :-1] += 0.25 * rest.diff(dim=-1)
        length = (down.square() + across.square()).sqrt_().clamp_min_(1)
        down /= length
        across /= length
    return x - strength * _divergence(down, across)


def _divergence(down: Tensor, across: Tensor) -> Tensor:
    out = down + across
    out[..., 1:, :] -= down[..., :-1, :]
    out[..., 1:] -= across[..., :-1]
    return out


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
    # each scale halves the noise, the finest too
    shrunk = [band.sign() * (band.abs() - by / 2 ** (k + 1)).clamp_min(0) for k, band in enumerate(details)]
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
    """Standard deviation of noise that soft thresholds of three times that removed."""
    return soft_wavelets(_noisy(x, std, generator), 3 * std)
