r"""MAD: the most apparent distortion, seen errors where an image is good, and changed appearance where it is bad.

Larson, Chandler: "Most Apparent Distortion: Full-Reference Image Quality Assessment and the Role of Strategy", Journal
of Electronic Imaging 2010. Original: the authors' Matlab (`MAD_index`, 2011); facts and numbers follow
the package viqa 3.0.1 (BSD-3-Clause), translated with their permission. Ours: a smooth form for losses,
moments of filter responses that are 0 instead of rounding noise where nothing varies, gradients that are finite and
bounded, and filters that are centred for odd sides too.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import LUMA, angular_fans, frequencies, log_gabor, mix_channels, root, soften

__all__ = ["ENTRIES", "MAD", "appearance", "detection", "mad"]

_SIDE, _STEP = 16, 4  # of the blocks
_EDGE = 16  # pixels at the borders that do not count
_CYCLES = 32  # per degree at half the sampling rate
_SCALES = (0.5, 0.75, 1.0, 5.0, 6.0)  # weights of wavelengths 3, 9, 27, 81, 243
_B1, _B2 = 0.467, 0.130
_DIM = 0.5  # lightness under which errors do not count
_UNSEEN = -5.0  # logarithm of contrast under which errors, and what masks them, are not seen
_QUIET = 0.001  # deviation of filter responses, in grey levels, under which the slope of their shape fades
_NOTHING = 1e-6
_SLIGHT = 1e-3  # value of an index under which its slope fades


@lru_cache(maxsize=16)
@torch.inference_mode(False)
@torch.no_grad()
def _sensitivity(height: int, width: int) -> Tensor:
    """Contrast sensitivity over the centred spectrum, (H, W), float64."""
    down, across = (torch.arange(n, dtype=torch.float64) - n / 2 + 0.5 for n in (height, width))
    radius = torch.hypot(down[:, None], across) * 2 * _CYCLES / width
    angle = torch.atan2(down[:, None], across)
    radius = radius / (0.15 * (4 * angle).cos() + 0.85)
    curve = 2.6 * (0.0192 + 0.114 * radius) * torch.exp(-((0.114 * radius) ** 1.1))
    return torch.where(radius < 7.8909, 0.9809, curve)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
@torch.no_grad()
def _bank(height: int, width: int) -> Tensor:
    """Log-Gabor filters, (scales, 4, H, W), float64."""
    down, across = frequencies(height, width)
    radius = torch.hypot(down, across)
    radius[0, 0] = 1
    rings = torch.stack([log_gabor(radius, 3.0 * 3**k, 0.55) for k in range(len(_SCALES))])
    return rings[:, None] * angular_fans(torch.atan2(-down, across), 4, math.pi / 4 / 1.5)


def _block_means(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, _SIDE, _STEP)


def _variance(square: Tensor, mean: Tensor) -> Tensor:
    """Unbiased variance in blocks, from means of squares and values."""
    return ((square - mean.square()) * (_SIDE**2 / (_SIDE**2 - 1))).relu()


def _spread(cells: Tensor, like: Tensor) -> Tensor:
    """Values of blocks at the pixels of the cells that they begin with, without the image's borders."""
    cells = cells.repeat_interleave(_STEP, -2).repeat_interleave(_STEP, -1)
    return cells[..., _EDGE : like.shape[-2] - _EDGE, _EDGE : like.shape[-1] - _EDGE]


def detection(x: Tensor, y: Tensor, *, sharp: bool = False) -> Tensor:
    r"""How much of the error is seen beside what masks it, (N,).

    Args:
        x: Grey levels of the judged images, (N, 1, H, W), float64.
        y: Of the references.
        sharp: Errors under the threshold of masking count for nothing, \log \max(1, c / t), as published; else for
            little, \log(1 + (c / t)^2) / 2, so that they have a slope.
    """
    csf = _sensitivity(*x.shape[-2:]).to(x)

    def seen(grey: Tensor) -> Tensor:
        # black has no slope here: that of the power is infinite, and what is as dark does not count
        light = 0.02874 * grey.clamp_min(_NOTHING) ** (2.2 / 3)
        spectrum = torch.fft.fftshift(torch.fft.fft2(light), (-2, -1)) * csf
        return torch.fft.ifft2(torch.fft.ifftshift(spectrum, (-2, -1))).real

    ours, theirs = seen(x), seen(y)
    error = ours - theirs
    mean = _block_means(theirs)
    of_error = _variance(_block_means(error.square()), _block_means(error))
    masking = root(_variance(_block_means(theirs.square()), mean))
    masking = -F.max_pool2d(F.pad(-masking, (0, 1, 0, 1), value=-torch.inf), 2, stride=1)  # least of four neighbours
    counts = mean > _DIM
    mean = mean.where(counts, mean.new_ones(()))
    threshold = (masking / mean).clamp_min(math.exp(_UNSEEN))
    times = (of_error / (mean * threshold).square()).where(counts, mean.new_zeros(()))
    visible = (times.clamp_min(1).log() if sharp else times.log1p()) / 2
    squares = F.avg_pool2d((x - y).square(), _SIDE, stride=1)
    start = _EDGE - (_SIDE // 2 - 1)
    height, width = (n - 2 * _EDGE for n in x.shape[-2:])
    local = squares[..., start : start + height, start : start + width]
    return 200 * root((_spread(visible, x) * local).square().mean((1, 2, 3)))


def appearance(x: Tensor, y: Tensor) -> Tensor:
    """How much deviation, skew and peakedness of log-Gabor responses changed: (N, 1, H, W), float64, to (N,)."""
    bank = _bank(*x.shape[-2:]).to(x)
    changes = x.new_zeros(())
    spectra = [torch.fft.fft2(image) for image in (x, y)]
    for weight, filters in zip(_SCALES, bank, strict=True):
        (dx, sx, kx), (dy, sy, ky) = (_shapes(torch.fft.ifft2(spectrum * filters)) for spectrum in spectra)
        change = (dx - dy).abs() + 2 * (sx - sy).abs() + (kx - ky).abs()
        changes = changes + weight / sum(_SCALES) * change.sum(1, keepdim=True)
    return root(_spread(changes, x).square().mean((1, 2, 3)))


def _shapes(response: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Deviation, skew and kurtosis of the sizes of responses in blocks, (N, 4, H, W) to three (N, 4, h, w)."""
    size = root(response.real.square() + response.imag.square())
    rows, columns = (n // _STEP * _STEP for n in size.shape[-2:])
    cells = rearrange(size[..., :rows, :columns], "n o (h a) (w b) -> n o h w (a b)", a=_STEP, b=_STEP)
    centre = cells.mean(-1)
    away = cells - centre[..., None]
    # moments about the mean, of cells and then of blocks of cells: those about 0 would cancel
    c1, c2, c3, c4 = (_cells_of(m) for m in (centre, *((away**k).mean(-1) for k in (2, 3, 4))))
    d = c1 - c1.mean(-1, keepdim=True)
    m2 = (c2 + d.square()).mean(-1)
    m3 = (c3 + 3 * d * c2 + d**3).mean(-1)
    m4 = (c4 + 4 * d * c3 + 6 * d.square() * c2 + d**4).mean(-1)
    deviation = root(m2 * (_SIDE**2 / (_SIDE**2 - 1)))
    varies = deviation > _NOTHING
    variance, zero = m2.where(varies, m2.new_ones(())), m2.new_zeros(())
    shapes = (m3 / variance**1.5, m4 / variance.square())
    skew, kurtosis = (soften(shape, deviation, _QUIET).where(varies, zero) for shape in shapes)
    return deviation, skew, kurtosis


def _cells_of(cells: Tensor) -> Tensor:
    """Values of cells as those of the blocks they make: (N, C, h, w) to (N, C, h - 3, w - 3, 16)."""
    per_side = _SIDE // _STEP
    return cells.unfold(-2, per_side, 1).unfold(-2, per_side, 1).flatten(-2)


def mad(x: Tensor, y: Tensor, *, sharp: bool = False) -> Tensor:
    r"""MAD, 0 or more; 0 is best: d^\alpha a^{1 - \alpha}, where \alpha = 1 / (1 + 0.467 d^{0.13}).

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 64.
        y: Reference images, same shape.
        sharp: See `detection`.

    Returns:
        One score per image, (N,), in the type of `x`.
    """
    ours, theirs = (255 * mix_channels(image.double(), (LUMA,)) for image in (x, y))
    indices = (detection(ours, theirs, sharp=sharp), appearance(ours, theirs))
    d, a = (soften(index, index, _SLIGHT) for index in indices)
    differ = (d > 0) & (a > 0)
    d, a = (index.where(differ, index.new_ones(())) for index in (d, a))
    alpha = 1 / (1 + _B1 * d**_B2)
    found = torch.exp(alpha * d.log() + (1 - alpha) * a.log())
    return found.where(differ, found.new_zeros(())).to(x.dtype)


class MAD(Critic):
    """Most apparent distortion, 0 or more; lower is better, 0 for equal images.

    Args:
        card: Its card.
        sharp: See `detection`; may be set at any time.

    Example:
        >>> critic = create_critic("mad")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    def __init__(self, card: Card, *, sharp: bool = False) -> None:
        super().__init__(card)
        self.sharp = sharp

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return mad(x, given(y), sharp=self.sharp)

    def as_published(self) -> MAD:
        """Errors that are masked count for nothing."""
        self.sharp = True
        return self

    @property
    def signature(self) -> str:
        """As of any critic, and which form it has."""
        return f"{super().signature}|{'sharp' if self.sharp else 'smooth'}"


_CARD = distance_card(
    name="mad",
    summary="Visible errors in good images, changed filter responses in bad ones, whichever is more apparent.",
    min_size=64,
    tiling="never",
    fidelity="paper",
    licence_code="BSD-3-Clause (viqa)",
    paper="Larson and Chandler, Most Apparent Distortion: Full-Reference Image Quality Assessment and the Role of "
    "Strategy, Journal of Electronic Imaging 2010",
    source="the package viqa 3.0.1 (BSD-3-Clause), after the authors' Matlab",
    notes=(
        "sixteen pixels at each border do not count; what lies there gets little gradient",
        "published, errors under the threshold of masking count for nothing, and small ones score exactly 0: so it is "
        "in reports (critic.as_published()); the default lets them count a little, which gives the slope a loss needs",
        "as the translation viqa for even sides; for odd ones its filters sit off the centre, here they do not",
        "forty images of filter responses: several times the work of vif or fsim, in float64 whatever the images are",
        "blind to colour",
    ),
)

ENTRIES = {"mad": Entry(_CARD, MAD)}
