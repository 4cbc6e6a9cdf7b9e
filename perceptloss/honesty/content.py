"""What images are made of, against their references: figures that no training may push away from the ground truth's.

A critic is a network with holes, and a restorer that is paid by it finds them. What falls out is seldom seen by
another critic but nearly always by statistics of plain content: a printed grid, coloured speckle, edges that are
not there, colours that drift. The list follows what people report of such training: checkerboards (Odena, Dumoulin,
Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016), colour shifts and amplified noise (Blau and Michaeli,
"The Perception-Distortion Tradeoff", CVPR 2018; Liang et al., "Details or Artifacts" (LDL), CVPR 2022).

All figures are of sRGB values in [0, 1]. Lab is CIE L*a*b* under D65; a level is 1/255.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import InputError, PerceptlossError
from perceptloss.honesty.grid import LEAST_SIDE, grid_figures
from perceptloss.inputs import all_finite, described, extremes
from perceptloss.networks.functional import LUMA, SCHARR, edge_magnitude, mix_channels

try:
    from kornia.color import rgb_to_lab
except ModuleNotFoundError as error:
    raise PerceptlossError("content statistics need kornia: pip install 'perceptloss[teach]'") from error

__all__ = ["TOLERANCES", "Content", "Tolerance", "excesses", "mean", "measure"]

_EDGE: Final = 0.1  # a step of 25 levels
_FEW_EDGES: Final = 0.01  # share of pixels added above and below, so that an image without edges has a ratio too
_GREY: Final = 3.0  # Lab units, likewise
_BIN: Final = 4.0  # Lab units, twice a difference that people just see
_BINS: Final = 64
_CELL: Final = 8  # pixels; grain and fine detail average out
_FLAT: Final = 0.1  # share of the reference that counts as flat
_TEXTURED: Final = 6 / 255  # local deviation from which nothing does
_SLACK: Final = 1e-3  # of the range, as for critics


@dataclass(frozen=True)
class Content:
    """Figures of judged images against their references.

    Attributes:
        edge_density: Pixels whose luma changes by more than 25 levels, as a ratio to the reference's; 1 is equal.
        colour_entropy: Bits by which the histogram of colours (a* and b*, cells of 4 units) is wider than the
            reference's.
        saturation: Mean chroma C* after averaging 8x8 pixels, as a ratio to the reference's; 1 is equal.
        drift_a: Mean of a* after that averaging, less the reference's: towards red, in Lab units.
        drift_b: The same of b*: towards yellow.
        flat_noise: Deviation of what is added in the flattest tenth of the reference, in levels: the root of the
            median difference of local variances, negative where the reference has more; 0 of pictures that are all
            texture.
        grid_quarter: dB by which patterns of period 4 exceed what the reference has at their frequencies, and what the
            image gained around these (`grid.grid_figures`).
        grid_half: The same of rows or columns of period 2: half a cycle per pixel along an axis.
        grid_corner: The same of the checkerboard of single pixels: half a cycle per pixel in both directions.
        grid_energy: Energy of the spectrum at a quarter and a half cycle per pixel along the axes, in dB of the
            reference's; grain and sharpness count too, so it has no tolerance.
    """

    edge_density: float
    colour_entropy: float
    saturation: float
    drift_a: float
    drift_b: float
    flat_noise: float
    grid_quarter: float
    grid_half: float
    grid_corner: float
    grid_energy: float

    @property
    def chroma_drift(self) -> float:
        """Length of the drift, in Lab units."""
        return math.hypot(self.drift_a, self.drift_b)


@dataclass(frozen=True)
class Tolerance:
    """What a figure may be.

    Attributes:
        low: Least value.
        high: Largest value.
        unit: Such as `dB`.
        why: How the limits were chosen.
        cure: What to do about more, or less.
    """

    low: float
    high: float
    unit: str
    why: str
    cure: str

    def excess(self, value: float) -> float:
        """How far a value is out; 0 or less within."""
        return max(self.low - value, value - self.high)

    def holds(self, value: float) -> bool:
        """Whether a value is within."""
        return self.excess(value) <= 0

    def __str__(self) -> str:
        ends = (f"at least {self.low:g}" * (self.low > -math.inf), f"at most {self.high:g}" * (self.high < math.inf))
        return f"{' and '.join(filter(None, ends))} {self.unit}".rstrip()


_NO_GRID: Final = Tolerance(
    -math.inf,
    3.0,
    "dB",
    "twice the power; photographs, blurred, sharpened, grainy, enlarged or compressed, stay below 2, and a pattern of "
    "two levels has 4 to 12",
    "shift the pair at random by less than the trunk's stride each step, or lower the weight of the critic whose "
    "trunk has that stride",
)
TOLERANCES: Final = {
    "edge_density": Tolerance(
        -math.inf,
        1.3,
        "of the ground truth's",
        "unsharp masking until halos show has 1.1 to 1.6 on photographs; "
        "fewer edges are blur, which every judge with a reference sees",
        "lower the critics' weights, or add a distance of edges such as gmsd",
    ),
    "colour_entropy": Tolerance(
        -0.75,
        0.75,
        "bits",
        "grain of two levels adds 0.2 to 0.7 to photographs, of four levels 0.6 to 1.5; blur takes up to 0.25",
        "add a term of colour fidelity, or lower the critics' weights",
    ),
    "saturation": Tolerance(
        0.85,
        1.1,
        "of the ground truth's",
        "a tenth more chroma is just seen side by side; L1 alone loses up to a tenth in fine coloured texture",
        "add a term of colour fidelity, and hinge critics without reference to the ground truth's score",
    ),
    "chroma_drift": Tolerance(
        -math.inf,
        1.0,
        "Lab units",
        "half of a difference that people just see (2.3); over whole images and in one direction it is no chance",
        "add a term of colour fidelity",
    ),
    "flat_noise": Tolerance(
        -math.inf,
        2.0,
        "levels",
        "grain of two levels begins to show in a plain sky on a good screen",
        "hinge critics without reference to the ground truth's score, or start them later",
    ),
    "grid_quarter": _NO_GRID,
    "grid_half": _NO_GRID,
    "grid_corner": _NO_GRID,
}
"""By name of the figure. They leave out what blurs: an unfinished restorer is not dishonest."""


@torch.no_grad()
def measure(x: Tensor, y: Tensor) -> Content:
    """Figures of images against their references, averaged over a batch.

    Args:
        x: Judged images, RGB in [0, 1], (N, 3, H, W), sides of at least 32 pixels.
        y: References, same shape.

    Raises:
        InputError: for anything else.

    Example:
        >>> from perceptloss.honesty.content import measure
        >>> y = torch.rand(1, 3, 64, 64)
        >>> measure(y, y).saturation
        1.0
    """
    _check("x", x)
    _check("y", y)
    if x.shape != y.shape:
        raise InputError(f"x and y must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}. Crop or pair anew.")
    x, y = (image.detach().float().clamp(0, 1) for image in (x, y))
    colours_x, colours_y = _colours(x), _colours(y)
    drift_a, drift_b = (colours_x - colours_y).mean((2, 3)).unbind(1)
    chroma_x, chroma_y = (colours.norm(dim=1).mean((1, 2)) for colours in (colours_x, colours_y))
    edges_x, edges_y = _edges(x), _edges(y)
    figures = {
        "edge_density": (edges_x + _FEW_EDGES) / (edges_y + _FEW_EDGES),
        "colour_entropy": _entropy(x) - _entropy(y),
        "saturation": (chroma_x + _GREY) / (chroma_y + _GREY),
        "drift_a": drift_a,
        "drift_b": drift_b,
        "flat_noise": _flat_noise(x, y),
        **{f"grid_{kind}": decibels for kind, decibels in grid_figures(x, y).items()},
    }
    return Content(**{name: float(values.mean()) for name, values in figures.items()})


def mean(contents: Iterable[Content]) -> Content:
    """Means over a set of images, figure by figure: drifts of images in different directions cancel.

    Raises:
        InputError: if there are none.
    """
    given = list(contents)
    if not given:
        raise InputError("content statistics need at least one image, got none.")
    names = [field.name for field in fields(Content)]
    return Content(**{name: math.fsum(getattr(one, name) for one in given) / len(given) for name in names})


def excesses(content: Content) -> dict[str, float]:
    """The figures that are out of tolerance, by name."""
    values = {name: getattr(content, name) for name in TOLERANCES}
    return {name: value for name, value in values.items() if not TOLERANCES[name].holds(value)}


def _check(name: str, image: Tensor) -> None:
    need = f"content statistics need {name} of shape (N, 3, H, W), RGB in [0, 1], sides of at least {LEAST_SIDE}"
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InputError(f"{need}, got {described(image)}.")
    if min(image.shape[-2:]) < LEAST_SIDE or len(image) == 0:
        raise InputError(f"{need}, got {tuple(image.shape)}. Use larger images.")
    if not all_finite(image):
        raise InputError(f"{need}, got values that are NaN or infinite.")
    low, high = extremes(image)
    if low < -_SLACK or high > 1 + _SLACK:
        raise InputError(f"{need}, got values from {low:.4g} to {high:.4g}. Clamp what a restorer made first.")


def _edges(image: Tensor) -> Tensor:
    """Share of pixels with an edge, (N,)."""
    slopes = edge_magnitude(F.pad(mix_channels(image, (LUMA,)), (1,) * 4, mode="replicate"), SCHARR)
    return (slopes[..., 1:-1, 1:-1] > _EDGE).float().mean((1, 2, 3))


def _colours(image: Tensor) -> Tensor:
    """a* and b* of cells of 8x8 pixels, (N, 2, H / 8, W / 8)."""
    return rgb_to_lab(F.avg_pool2d(image, _CELL))[:, 1:]


def _entropy(image: Tensor) -> Tensor:
    """Entropy of the histogram of (a*, b*) of pixels, in bits, (N,); grey is the middle of a cell."""
    cells = (rgb_to_lab(image)[:, 1:] / _BIN).round().add(_BINS // 2).clamp(0, _BINS - 1).long()
    numbers = (cells[:, 0] * _BINS + cells[:, 1]).flatten(1)
    shares = torch.stack([row.bincount(minlength=_BINS**2) for row in numbers]) / numbers.shape[1]
    return torch.special.entr(shares).sum(1) / math.log(2)


def _flat_noise(x: Tensor, y: Tensor) -> Tensor:
    """Signed root of the difference of local variances where the reference is flattest, in levels, (N,)."""
    within_x, _ = _variances(x)
    within_y, around_y = _variances(y)
    tenth = around_y.kthvalue(math.ceil(_FLAT * around_y.shape[1]), 1, keepdim=True).values
    flat = around_y <= tenth.clamp_max(_TEXTURED**2)
    added = (within_x - within_y).where(flat, torch.nan).nanmedian(1).values.nan_to_num(0)
    return 255 * added.sign() * added.abs().sqrt()


def _variances(image: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of cells of 8x8 pixels, and of the eight cells around each, channels averaged: (N, cells) both.

    What is around decides whether a cell is flat, so that those of little noise are not preferred.
    """
    away = image - image.mean((2, 3), keepdim=True)
    means, squares = (F.avg_pool2d(planes, _CELL) for planes in (away, away.square()))
    rings = ((9 * F.avg_pool2d(F.pad(p, (1,) * 4, mode="replicate"), 3, 1) - p) / 8 for p in (means, squares))
    within, around = (
        (square - mean.square()).mean(1).flatten(1).clamp_min(0) for mean, square in ((means, squares), tuple(rings))
    )
    return within, around
