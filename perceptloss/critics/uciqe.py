"""UCIQE: evenness of chroma, contrast of lightness and saturation of an underwater picture, by formula.

Yang, Sowmya: "An Underwater Color Image Quality Evaluation Metric", IEEE TIP 2015. At least five public
forms disagree with print and with each other. This is the Python port found in most projects
(https://github.com/JOU-UIP/UCIQE among them), on the 8-bit Lab of OpenCV, whose a and b keep their offset
of 128. Ours: Lab without rounding by default, so that the score has a slope, and bounded gradients.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.functional import bounded_power

__all__ = ["ENTRIES", "UCIQE", "chroma_term", "contrast_term", "lab", "lab_of_opencv", "saturation_term"]

_WEIGHTS = (0.4680, 0.2745, 0.2576)  # of chroma, contrast and saturation
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)
_DARK, _SLOPE, _OFFSET = 216 / 24389, 841 / 108, 16 / 116  # of the cube root of CIELab
_BINS = 65536
_TINY = 1e-6


def _linear(v: Tensor) -> Tensor:
    """Light of sRGB values; a line below 0.04045, also for negative values."""
    return torch.where(v <= 0.04045, v / 12.92, ((v.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def _root(t: Tensor) -> Tensor:
    """The cube root of CIELab, a line near 0 and below."""
    return torch.where(t > _DARK, t.clamp_min(_DARK) ** (1 / 3), _SLOPE * t + _OFFSET)


def lab(x: Tensor) -> Tensor:
    """CIELab (D65) of sRGB on the 8-bit scale of OpenCV, not rounded: lightness 0 to 255, a and b plus 128.

    Args:
        x: Images, (N, 3, H, W), RGB in [0, 1].

    Returns:
        Lab, same shape; a and b of grey pixels are 128 exactly.
    """
    r, g, b = (_linear(channel) for channel in x.unbind(1))  # one by one: a power rounds by place in memory
    # around green, as each row of the matrix sums to its white
    roots = [
        _root(g + wr / white * (r - g) + wb / white * (b - g)) for (wr, _, wb), white in zip(_XYZ, _WHITE, strict=True)
    ]
    fx, fy, fz = roots
    return torch.stack([2.55 * (116 * fy - 16), 500 * (fx - fy) + 128, 200 * (fy - fz) + 128], 1)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """OpenCV's tables: light of an 8-bit value, times 8 * 255, and root of light, times 2^15; int64."""
    values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
    light = torch.arange(256 * 12, dtype=torch.float64, device="cpu") / (8 * 255)
    # to float32 before rounding to whole numbers, as OpenCV does: two entries of the root fall the other way
    tables = (8 * 255 * _linear(values), 2**15 * _root(light).float())
    return tables[0].round().long().to(device), tables[1].round().long().to(device)


@torch.no_grad()
def lab_of_opencv(x: Tensor) -> Tensor:
    """What OpenCV's integer arithmetic makes of the 8-bit file of an image: `COLOR_RGB2LAB`.

    Args:
        x: Images, (N, 3, H, W), RGB, rounded to 8 bits and cut to [0, 1] here.

    Returns:
        Lab in whole numbers from 0 to 255, same shape and type; no gradient.
    """
    gamma, cube_root = _tables(x.device)
    r, g, b = gamma[(255 * x).round().clamp(0, 255).long()].unbind(1)
    rows = [[round(2**12 * weight / white) for weight in row] for row, white in zip(_XYZ, _WHITE, strict=True)]
    fx, fy, fz = (cube_root[(r * wr + g * wg + b * wb + 2**11) >> 12] for wr, wg, wb in rows)
    half, offset = 2**14, 128 * 2**15
    light = 296 * fy - (16 * 255 * 2**15 + 50) // 100
    channels = torch.stack([light, 500 * (fx - fy) + offset, 200 * (fy - fz) + offset], 1)
    return ((channels + half) >> 15).clamp(0, 255).to(x.dtype)


def _chroma(colours: Tensor) -> Tensor:
    """Distance of (a, b), offset included, from 0, (N, K), in units of 255."""
    a, b = (colours[:, 1:] / 255).flatten(2).unbind(1)
    return (a.square() + b.square()).clamp_min(_TINY).sqrt()


def chroma_term(colours: Tensor) -> Tensor:
    """sqrt(mean |1 - (mean c / c)^2|) of chroma c: (N, 3, H, W), Lab as of `lab`, to (N,); 0 for an even chroma."""
    c = _chroma(colours)
    base = c[:, :1].detach()
    away = c - base  # exactly 0 for an even chroma, which a mean of it may miss by rounding
    away = away - away.mean(1, keepdim=True)
    uneven = (away * (2 * c - away) / c.square()).abs()
    return bounded_power(uneven.mean(1), 0.5, 1e-4)


def saturation_term(colours: Tensor) -> Tensor:
    """Mean of c / sqrt(c^2 + L^2) of chroma and lightness: (N, 3, H, W), Lab as of `lab`, to (N,), in (0, 1]."""
    c, light = _chroma(colours), colours[:, 0].flatten(1) / 255
    return (c / (c.square() + light.square()).sqrt()).mean(1)


def _at_rank(values: Tensor, ranked: Tensor, rank: int) -> Tensor:
    """The value of a rank from 0, (N,), whose gradient goes to all that share it."""
    value = ranked[:, rank]
    tied = values == value[:, None]
    return value + torch.where(tied, values - value[:, None], 0).sum(1) / tied.sum(1)


def contrast_term(colours: Tensor, *, binned: bool = False) -> Tensor:
    """Distance of two percentiles of lightness, over its range: (N, 3, H, W), Lab as of `lab`, to (N,), in [0, 1].

    The lower value is the first with more than 1 % of the pixels at or below it, the upper one the first
    with at least 99 %. A range of less than one step counts as one step.

    Args:
        colours: Lab.
        binned: Place the percentiles in 65536 bins, as published, instead of exactly.
    """
    light = colours[:, 0].flatten(1)
    count = light.shape[1]
    ranked = light.detach().sort(1).values
    ranks = (0, count // 100, -(-99 * count // 100) - 1, count - 1)
    darkest, low, high, brightest = (_at_rank(light, ranked, rank) for rank in ranks)
    span = (brightest - darkest).clamp_min(1)
    contrast = (high - low) / span
    if binned:
        bins = [((v - darkest).double() * _BINS / span.double()).floor().clamp(max=_BINS - 1) for v in (low, high)]
        published = ((bins[1] - bins[0]) / (_BINS - 1)).to(contrast)
        contrast = contrast + (published - contrast).detach()
    return contrast


class UCIQE(Critic):
    r"""UCIQE in the form of its widely copied Python port, 0 to 1, about 0.4 to 0.7 on pictures; higher is better.

    .. math:: 0.4680 \sqrt{\operatorname{mean}|1 - (\bar c / c)^2|} + 0.2745\,\frac{L_{99\%} - L_{1\%}}
        {L_{max} - L_{min}} + 0.2576 \operatorname{mean}\frac{c}{\sqrt{c^2 + L^2}}

    with c = sqrt(a^2 + b^2), the offset of 128 in a and b included. In print, the first term is the
    standard deviation of chroma, and a and b have no offset.

    Args:
        card: What it is.
        rounded: Score the 8-bit Lab of OpenCV in 65536 bins, the port's number to one bin (4e-6), with the
            gradient of the smooth form. False: nothing is rounded, and the score is within 0.01 of the
            port's. Also an attribute that may be set later.

    Example:
        >>> critic = create_critic("uciqe")
        >>> x = torch.rand(1, 3, 64, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    def __init__(self, card: Card, *, rounded: bool = False) -> None:
        super().__init__(card)
        self.rounded = rounded

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        colours = self.colours(x)
        terms = (chroma_term(colours), contrast_term(colours, binned=self.rounded), saturation_term(colours))
        return _WEIGHTS[0] * terms[0] + _WEIGHTS[1] * terms[1] + _WEIGHTS[2] * terms[2]

    def colours(self, x: Tensor) -> Tensor:
        """Lab as the score reads it, (N, 3, H, W)."""
        smooth = lab(x)
        return smooth + (lab_of_opencv(x) - smooth).detach() if self.rounded else smooth

    def as_published(self) -> UCIQE:
        """OpenCV's 8-bit Lab, as the port has it."""
        self.rounded = True
        return self

    @property
    def signature(self) -> str:
        """As of any critic, and whether Lab is rounded."""
        return super().signature + ("|lab:opencv8" if self.rounded else "")


_CARD = opinion_card(
    name="uciqe",
    summary="Chroma, contrast and saturation of underwater pictures by formula; for reports.",
    kind="nr",
    bounds=(0.0, 1.0),
    domains=frozenset({"underwater"}),
    tiling="never",
    licence_code="none stated",
    paper="Yang and Sowmya, An Underwater Color Image Quality Evaluation Metric, IEEE TIP 2015",
    source="https://github.com/JOU-UIP/UCIQE (none stated), a port that many projects copy, not the authors' own code",
    notes=(
        "the form of that port, with its departures from print; numbers of other forms do not compare",
        "critic.rounded = True gives the port's number, of OpenCV's 8-bit Lab; the smooth default is within 0.01 of it",
        "easily cheated, so a report first: saturation, a red cast and sharpening raise it; as a loss use shape "
        "'hinge', which stops at the reference's value, with a weight of 0.01 or less beside a pixel loss",
        "contrast is relative to the range of the image's own lightness: a faint image has as much as a strong one",
        "contrast hangs on four ranks of lightness, so its gradient is sparse",
    ),
)

ENTRIES = {"uciqe": Entry(_CARD, UCIQE)}
