"""What restoration makes of small pictures that are damaged too: enlargers raise the damage with the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.core import REAL_ESRGAN, degradation
from perceptloss.teach.degradations.enlarge import ENLARGERS, enlarged, shrunk
from perceptloss.teach.degradations.operations import gaussian_blur, normal

__all__ = []

_SCALES = (2, 3, 4)


def _draw(x: Tensor, generator: torch.Generator) -> tuple[Tensor, str]:
    """The small picture and who enlarges it."""
    scale, enlarger = (int(torch.randint(len(of), (), generator=generator)) for of in (_SCALES, ENLARGERS))
    return shrunk(x, _SCALES[scale]), ENLARGERS[enlarger]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


@degradation("enlarged-noise", "restoration", (0.01, 0.022, 0.04, 0.065, 0.1), REAL_ESRGAN)
def _enlarged_noise(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of noise on the small picture before it is enlarged; factor 2 to 4 and enlarger drawn."""
    small, enlarger = _draw(x, generator)
    noise = F.interpolate(normal(x, generator), small.shape[2:], mode="nearest")
    return enlarged((small + std * noise).clamp(0, 1), _size(x), enlarger)


@degradation("enlarged-blur", "restoration", (0.3, 0.6, 1.0, 1.6, 2.5), REAL_ESRGAN)
def _enlarged_blur(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Sigma in pixels of the small picture's blur before it is enlarged and sharpened; factor and enlarger drawn."""
    small, enlarger = _draw(x, generator)
    large = enlarged(gaussian_blur(small, sigma), _size(x), enlarger)
    return large + 0.6 * (large - gaussian_blur(large, 1.5))


@degradation("enlarged-jpeg", "restoration", (80.0, 55.0, 35.0, 20.0, 9.0), REAL_ESRGAN, identity=100.0)
def _enlarged_jpeg(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Quality of the small picture's JPEG before it is enlarged; factor 2 to 4 and enlarger drawn."""
    small, enlarger = _draw(x, generator)
    return enlarged(jpeg(small, quality), _size(x), enlarger)
