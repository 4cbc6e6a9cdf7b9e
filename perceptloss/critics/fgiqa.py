"""FGIQA: how evenly gradients and log-Gabor texture agree, made for finely graded compression.

Zhang, Sun, Min, Wang, Lu, Zhai: "A Full-Reference Quality Assessment Metric for Fine-Grained
Compressed Images", VCIP 2021. Original: https://github.com/zzc-1998/FGCQA (MIT), whose log-Gabor
bank is that of Kovesi. Ours: the reciprocal of the authors' score, made finite at equal images, and
gradients that are 0 instead of NaN on flat areas.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import angular_fans, edge_magnitude, log_gabor, mix_channels, root, similarity

__all__ = ["ENTRIES", "FGIQA", "YCBCR", "gradient_similarity", "region", "texture_similarity"]

YCBCR = ((0.299, 0.587, 0.114), (-0.172, -0.339, 0.511), (0.511, -0.428, -0.083))  # offsets are filtered out
_SOBEL = (1 / 4, 2 / 4)
_T_EDGE, _T_TEXTURE = 170.0, 1.0  # on the 0-255 scale
_WAVELENGTHS, _BANDWIDTH = (6, 12, 24, 48, 96), 0.55  # in pixels; sigma / centre
_SCALE_WEIGHTS = tuple(w / 13.25 for w in (0.5, 0.75, 1, 5, 6))
_ORIENTATIONS = 4
_SPREAD = math.pi / (_ORIENTATIONS * 1.2)
_CHROMA_SHARE = 0.25
_BEST = math.sqrt(_ORIENTATIONS**2 * (1 + 2 * _CHROMA_SHARE))  # texture of equal images
_FLOOR = 1e-4


@lru_cache(maxsize=4)
@torch.inference_mode(False)
@torch.no_grad()
def _log_gabor(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Radial filters, (scales, H, W), and angular ones, (orientations, H, W), in FFT order."""

    def along(n: int) -> Tensor:
        # of an odd side, the authors' grid has no zero: the frequencies lie half a step beside those of the transform
        return torch.fft.fftshift(torch.arange(n, dtype=torch.float64, device="cpu") - n / 2) / n

    v, h = along(height)[:, None], along(width)[None]
    radius = (v.square() + h.square()).sqrt()
    radius[0, 0] = 1
    bands = torch.stack([log_gabor(radius, wavelength, _BANDWIDTH) for wavelength in _WAVELENGTHS])
    fans = angular_fans(torch.atan2(-v.expand_as(radius), h.expand_as(radius)), _ORIENTATIONS, _SPREAD)
    return bands.to(device, dtype), fans.to(device, dtype)


def _light_edges(light: Tensor) -> Tensor:
    """Sobel magnitude of 2x2 averages, which reach one pixel of zeros at the right and the bottom."""
    return edge_magnitude(F.avg_pool2d(F.pad(light, (0, 1, 0, 1)), 2, 1), _SOBEL)


@torch.no_grad()
def region(x: Tensor, y: Tensor) -> Tensor:
    """Where gradients are judged: strong in either image, or weak in the reference and changed by more than the mean.

    Args:
        x: Gradient magnitude of the judged images, (N, 1, H, W).
        y: That of the references, same shape.

    Returns:
        Mask of ones and zeros, same shape; all ones for an image in which no place qualifies.
    """
    mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
    changed = ((x - y).abs() > (mean_x - mean_y).abs()) & (y < mean_y)
    area = (x > mean_x) | (y > mean_y) | changed
    return (area | ~area.any(-1, keepdim=True).any(-2, keepdim=True)).to(x.dtype)


def gradient_similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of the luminance's gradients, in (0, 1], and the region that counts, both (N, 1, H, W)."""
    x, y = _light_edges(x[:, :1]), _light_edges(y[:, :1])
    return similarity(x, y, _T_EDGE), region(x, y)


def _texture_at(x: Tensor, y: Tensor, band: Tensor, fans: Tensor) -> Tensor:
    """Similarity of the responses at one scale, summed over orientations: spectra (N, 3, H, W) to (N, 3, H, W)."""
    total = torch.zeros_like(x.real)
    for fan in fans:
        a, b = (torch.fft.ifft2(spectrum * (band * fan)) for spectrum in (x, y))
        a, b = (root(response.real.square() + response.imag.square()) for response in (a, b))
        total = total + similarity(a, b, _T_TEXTURE)
    return total


def texture_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Similarity of log-Gabor magnitudes over 5 scales and 4 orientations, channels joined.

    One scale at a time is computed, and computed again for the gradient, to save memory.

    Args:
        x: Judged images, (N, 3, H, W), YCbCr in 0-255, any offset.
        y: Reference images, same shape.

    Returns:
        The map, (N, 1, H, W), at most sqrt(24), which equal images have everywhere.
    """
    bands, fans = _log_gabor(x.shape[-2], x.shape[-1], x.dtype, x.device)
    spectra = [torch.fft.fft2(image - image.detach().mean((2, 3), keepdim=True)) for image in (x, y)]
    total = torch.zeros_like(x)
    for weight, band in zip(_SCALE_WEIGHTS, bands, strict=True):
        texture = checkpoint(_texture_at, *spectra, band, fans, use_reentrant=False, preserve_rng_state=False)
        total = total + weight * texture
    light, blue, red = total.square().split(1, 1)
    return root(light + _CHROMA_SHARE * (blue + red))


def _mean_and_deviation(values: Tensor, mask: Tensor, best: float) -> tuple[Tensor, Tensor]:
    """Of the masked places of each image, (N,) each; the deviation divides by their number less 1."""
    lack = best - values  # small for nearly equal images, so that rounding makes no deviation
    count = mask.sum((1, 2, 3), keepdim=True)
    mean = (lack * mask).sum((1, 2, 3), keepdim=True) / count
    squares = ((lack - mean).square() * mask).sum((1, 2, 3))
    return best - mean.flatten(), root(squares / (count.flatten() - 1).clamp_min(1))


class FGIQA(Critic):
    r"""Distance for nearly equal images, just above 0 for equal ones; lower is better.

    .. math:: D = \sqrt{\frac{(f_2 + \epsilon)(f_4 + \epsilon)}{f_1 f_3}}, \quad \epsilon = 10^{-4}

    of mean f1 and deviation f2 of the gradient similarity in the region that counts, and mean f3
    and deviation f4 of the texture similarity. The authors' score is 1 / D with :math:`\epsilon = 0`.

    Args:
        floor: :math:`\epsilon`; larger values calm the loss near its optimum.

    Example:
        >>> critic = create_critic("fgiqa")
        >>> x = torch.rand(1, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 96, 96)).sum().backward()
    """

    map_direction = "higher"

    def __init__(self, card: Card, *, floor: float = _FLOOR) -> None:
        super().__init__(card)
        self.floor = floor

    def features(self, x: Tensor, y: Tensor) -> Tensor:
        """The features f1 to f4 of each pair, (N, 4)."""
        x, y = (mix_channels(255 * image, YCBCR) for image in (x, y))
        texture = texture_similarity(x, y)
        edges = _mean_and_deviation(*gradient_similarity(x, y), 1)
        return torch.stack([*edges, *_mean_and_deviation(texture, torch.ones_like(texture), _BEST)], 1)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        f1, f2, f3, f4 = self.features(x, given(y)).unbind(1)
        return ((f2 + self.floor) * (f4 + self.floor) / (f1 * f3)).sqrt()

    def official(self, x: Tensor, y: Tensor) -> Tensor:
        """The authors' score, (N,); higher is better, infinite for equal images; for reports, not for training."""
        with torch.no_grad():
            x, checked = self.admit(x, y)
            f1, f2, f3, f4 = self.features(x, given(checked)).unbind(1)
            return (f1 * f3 / (f2 * f4)).sqrt()

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Texture similarity over its best value, in (0, 1], higher is better, (N, 1, H, W)."""
        return texture_similarity(*(mix_channels(255 * image, YCBCR) for image in (x, given(y)))) / _BEST


_CARD = distance_card(
    name="fgiqa",
    summary="Evenness of gradient and log-Gabor texture similarity; tells nearly equal compressed images apart.",
    bounds=(_FLOOR / math.sqrt(_BEST), math.inf),
    identity=_FLOOR / math.sqrt(_BEST),
    domains=frozenset({"natural", "compressed"}),
    min_size=_WAVELENGTHS[-1],
    tiling="never",
    fidelity="paper",
    licence_code="MIT",
    paper="Zhang et al., A Full-Reference Quality Assessment Metric for Fine-Grained Compressed Images, VCIP 2021",
    source="https://github.com/zzc-1998/FGCQA d680afc (MIT)",
    notes=(
        "the score is the reciprocal of the authors', which is infinite for equal images and which "
        "critic.official(x, y) gives",
        "damage spread evenly scores as none, and so do shifts of luminance and colour: combine with a pixel loss",
        "steepest near equal images: add it late in training",
        "wavelengths of 48 and 96 pixels carry 11/13.25 of the texture weight and wrap around the borders: "
        "use crops of 192 or more",
        "the region that counts follows both images but carries no gradient",
    ),
)

ENTRIES = {"fgiqa": Entry(_CARD, FGIQA)}
