r"""CW-SSIM: structural similarity of complex wavelets, which forgives small shifts, turns and zooms.

Sampat, Wang, Gupta, Bovik, Markey: "Complex Wavelet Structural Similarity: A New Image Similarity Index", IEEE TIP
2009. Original: the authors' Matlab `cwssim_index.m`, on the steerable pyramid of Portilla and Simoncelli (IJCV 2000)
of https://github.com/LabForComputationalVision/matlabPyrTools (MIT). Ours: the stabiliser, which the paper leaves
open, and a gradient that is 0 instead of NaN where both wavelets vanish.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, similarity_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import LUMA, gaussian, mix_channels, root

__all__ = ["CWSSIM", "ENTRIES", "cw_ssim", "wavelets"]

_WINDOW = 7
_C = 0.01  # squared grey levels; wavelets of anything visible have far more


@lru_cache(maxsize=32)
@torch.inference_mode(False)
@torch.no_grad()
def _masks(height: int, width: int, level: int, count: int) -> tuple[tuple[slice, slice], Tensor]:
    """The part of the centred spectrum that a level of the pyramid keeps, and its filters, (count, h, w), float64."""
    sides = (height, width)
    ramps = [(torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in sides]
    radius = torch.hypot(ramps[0][:, None], ramps[1])
    radius[height // 2, width // 2] = radius[height // 2, width // 2 - 1]
    octave, angle = radius.log2(), torch.atan2(ramps[0][:, None], ramps[1])

    def high(edge: float) -> Tensor:
        """Amplitude of a high-pass that rises over an octave below `edge`, a power of 2."""
        return torch.sin(math.pi / 2 * (octave - edge + 1).clamp(0, 1))

    low = (1 - high(0).square()).clamp_min(0).sqrt()
    here = [slice(0, n) for n in sides]
    for k in range(1, level):
        low = low * (1 - high(-k).square()).clamp_min(0).sqrt()
        for axis, part in enumerate(here):
            size = part.stop - part.start
            half = (size + 1) // 2
            first = part.start + size // 2 - half // 2
            here[axis] = slice(first, first + half)
    order = count - 1
    scale = 2**order * math.factorial(order) / math.sqrt(count * math.factorial(2 * order))
    fans = torch.stack([angle - math.pi * number / count for number in range(count)])
    fans = torch.atan2(fans.sin(), fans.cos())
    fans = 2 * scale * fans.cos().clamp_min(0) ** order * (fans.abs() < math.pi / 2)
    rows, columns = here
    return (rows, columns), (low * high(-level) * fans)[:, rows, columns]


def wavelets(grey: Tensor, level: int, count: int) -> Tensor:
    """One level of the complex steerable pyramid: (N, 1, H, W) to (N, count, ~H / 2^(level - 1), ~W / 2^(level - 1)).

    Args:
        grey: Images.
        level: 1 is the finest.
        count: Directions.
    """
    (rows, columns), masks = _masks(*grey.shape[-2:], level, count)
    masks = masks.to(grey)
    spectrum = torch.fft.fftshift(torch.fft.fft2(grey), (-2, -1))[..., rows, columns]
    turned = spectrum * masks * (-1j) ** (count - 1)
    return torch.fft.ifft2(torch.fft.ifftshift(turned, (-2, -1)))


def cw_ssim(x: Tensor, y: Tensor, *, level: int = 4, count: int = 8) -> Tensor:
    r"""CW-SSIM in [0, 1]: 2 |\sum c_x c_y^*| / \sum (|c_x|^2 + |c_y|^2) in windows of 7x7 wavelets of one level.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1].
        y: Reference images, same shape.
        level: Of the pyramid; 1 is the finest. Level k has wavelets for every 2^(k - 1) pixels, 7 of which are needed.
        count: Directions.

    Returns:
        One score per image, (N,).
    """
    a, b = (wavelets(255 * mix_channels(image, (LUMA,)), level, count) for image in (x, y))

    def windowed(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, _WINDOW, stride=1)

    ar, ai, br, bi = a.real, a.imag, b.real, b.imag
    together = root(windowed(ar * br + ai * bi).square() + windowed(ai * br - ar * bi).square())
    power = windowed(ar * ar + ai * ai) + windowed(br * br + bi * bi)
    similar = (2 * together + _C) / (power + _C)
    rows, columns = (similar.new_tensor(gaussian(n, a.shape[-2] / 4)) for n in similar.shape[-2:])
    return (similar * (rows[:, None] * columns)).sum((2, 3)).mean(1)


class CWSSIM(Critic):
    """CW-SSIM in [0, 1]; higher is better, 1 for equal images.

    Args:
        card: Its card.
        level: Of the pyramid that is compared.
        count: Directions.

    Example:
        >>> critic = create_critic("cw-ssim")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def __init__(self, card: Card, *, level: int = 4, count: int = 8) -> None:
        super().__init__(card)
        self.level, self.count = level, count

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return cw_ssim(x, given(y), level=self.level, count=self.count)


_CARD = similarity_card(
    name="cw-ssim",
    summary="Similarity of the phases and sizes of complex wavelets; forgives small shifts, turns and zooms.",
    min_size=_WINDOW * 8,
    tiling="never",
    fidelity="paper",
    licence_code="MIT (matlabPyrTools)",
    paper="Sampat et al., Complex Wavelet Structural Similarity: A New Image Similarity Index, IEEE TIP 2009",
    source="the authors' cwssim_index.m; https://github.com/LabForComputationalVision/matlabPyrTools (MIT)",
    notes=(
        "the fourth level of the pyramid in eight directions, as ports for learning have it; the paper's own examples "
        "take a sixth level in sixteen: options level and count",
        "sees one octave, wavelengths near 16 pixels at the fourth level: blind to finer and coarser damage, and to "
        "colour and brightness; combine with others",
    ),
)

ENTRIES = {"cw-ssim": Entry(_CARD, CWSSIM)}
