"""Image operations shared by the formula critics, with gradients that stay finite and bounded.

Nothing here calls a convolution or a matrix product, so scores do not move with the TF32 and
autocast settings of the training run around them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.filters import edge_magnitude, halve, mix_channels, slide
from perceptloss.networks.pointwise import bounded_power, root, similarity, soften

__all__ = [
    "LUMA",
    "PREWITT",
    "SCHARR",
    "STUDIO_LUMA",
    "YIQ",
    "angular_fans",
    "blur",
    "bounded_power",
    "chroma_similarity",
    "edge_magnitude",
    "edge_similarity",
    "frequencies",
    "gaussian",
    "halve",
    "imresize",
    "local_mean",
    "log_gabor",
    "mix_channels",
    "root",
    "root_above",
    "shrink_factor",
    "similarity",
    "slide",
    "soften",
    "weighted_mean",
]

LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601
STUDIO_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # the same in its studio range, but for 16 / 255
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
PREWITT = (1 / 3, 1 / 3)  # side and centre weight across the derivative
SCHARR = (3 / 16, 10 / 16)


def root_above(s: Tensor, floor: float) -> Tensor:
    """sqrt(s + floor^2) - floor for s >= 0: a root whose slope is at most 1 / (2 floor), exactly 0 at 0.

    The root of floor^2 is taken too, for some vector libraries round roots a bit off.
    """
    lift = s.new_full((), floor**2)
    return (s + lift).sqrt() - lift.sqrt()


def weighted_mean(values: Tensor, weights: Tensor, eps: float = 0.0) -> Tensor:
    """Mean of values (N, ...) by weights of the same shape, `eps` added above and below: (N,)."""
    places = tuple(range(1, values.ndim))
    return ((values * weights).sum(places) + eps) / (weights.sum(places) + eps)


def edge_similarity(x: Tensor, y: Tensor, weights: tuple[float, float], c: float, mask: float = 0.0) -> Tensor:
    """`similarity` of the gradient magnitudes of two maps, in (0, 1], same shape."""
    return similarity(edge_magnitude(x, weights), edge_magnitude(y, weights), c, mask)


def chroma_similarity(x: Tensor, y: Tensor, c: float, power: float, floor: float) -> Tensor:
    """Size of the product of the channels' similarities to a small power, (N, C, H, W) to (N, 1, H, W)."""
    return bounded_power(similarity(x, y, c).prod(1, keepdim=True).abs(), power, floor)


def log_gabor(radius: Tensor, wavelength: float, bandwidth: float) -> Tensor:
    """Log-Gabor filter over frequencies in cycles per pixel, 0 at the first of them, which is the mean."""
    band = torch.exp(-((radius * wavelength).log() ** 2) / (2 * math.log(bandwidth) ** 2))
    band[0, 0] = 0
    return band


def angular_fans(theta: Tensor, count: int, spread: float) -> Tensor:
    """Gaussian windows over directions, `count` of them in half a turn: (H, W) to (count, H, W)."""
    away = torch.stack([theta - number * math.pi / count for number in range(count)])
    return torch.exp(-torch.atan2(away.sin(), away.cos()).square() / (2 * spread**2))


def shrink_factor(x: Tensor) -> int:
    """Factor by which the published codes average large images: the short side ends near 256."""
    return max(1, round(min(x.shape[-2:]) / 256))


def local_mean(image: Tensor, window: int) -> Tensor:
    """Means of square windows of odd side, of what lies inside the image; same shape."""
    return F.avg_pool2d(image, window, stride=1, padding=window // 2, count_include_pad=False)


def gaussian(size: int, sigma: float) -> tuple[float, ...]:
    """Gaussian window of `size` taps that sum to 1."""
    taps = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    total = sum(taps)
    return tuple(tap / total for tap in taps)


def blur(x: Tensor, window: tuple[float, ...]) -> Tensor:
    """Separable filter, valid part: (..., H, W) to (..., H - k + 1, W - k + 1)."""
    return slide(slide(x, window, -1), window, -2)


def frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Frequency grids of the Matlab codes in FFT order, float64: vertical (H, 1), horizontal (1, W).

    In cycles per pixel for even sides. For odd sides these codes divide by n - 1, not n, so that
    the highest frequency is exactly 1/2.
    """

    def along(n: int) -> Tensor:
        return torch.fft.fftfreq(n, dtype=torch.float64, device="cpu") * (n / (n - 1) if n % 2 else 1)

    return along(height)[:, None], along(width)[None, :]


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _cubic_taps(
    length: int, size: int, scale: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Source index and weight of every tap of every output, (taps * size,) and (taps, size)."""
    shrink = min(scale, 1.0)
    taps = math.ceil(4 / shrink) + 2
    centre = (torch.arange(size, dtype=torch.float64, device="cpu") + 0.5) / scale - 0.5
    place = centre.floor() + torch.arange(taps, dtype=torch.float64, device="cpu")[:, None] - (taps // 2 - 1)
    away = shrink * (centre - place).abs()
    near, far = (1.5 * away - 2.5) * away.square() + 1, ((2.5 - 0.5 * away) * away - 4) * away + 2
    weight = torch.where(away <= 1, near, torch.where(away <= 2, far, 0))
    # a compiler's graph has no shape that depends on values: there taps without weight stay
    used = slice(None) if torch.compiler.is_compiling() else (weight != 0).any(1)
    mirrored = place[used].long() % (2 * length)
    index = torch.minimum(mirrored, 2 * length - 1 - mirrored)
    return index.flatten().to(device), (weight / weight.sum(0))[used].to(device, dtype)


def imresize(x: Tensor, size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """Bicubic resampling of Matlab's `imresize`: antialiased when shrinking, borders mirrored.

    Args:
        x: Maps, (..., H, W).
        size: Height and width of the result.
        scale: Vertical and horizontal zoom; not exactly the ratio of the sizes where that was rounded.

    Returns:
        The maps at the new size, (..., *size).
    """
    for n, zoom in zip(size, scale, strict=True):  # rows, then columns: each turn transposes
        index, weight = _cubic_taps(x.shape[-2], n, zoom, x.dtype, x.device)
        x = (x.mT.index_select(-1, index).unflatten(-1, weight.shape) * weight).sum(-2)
    return x
