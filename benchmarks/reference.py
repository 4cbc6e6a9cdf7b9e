"""Published scores of published picture pairs, beside ours: `python -m benchmarks reference FOLDER`.

The pictures belong to their authors and are not shipped; `docs/reference-scores.md` says where each
lies. What a critic's weights are missing for is listed with the command that fetches them.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.lines import lines
from perceptloss import create_critic, get_card
from perceptloss.critics.gmsd import gms_map
from perceptloss.critics.mdsi import MDSI
from perceptloss.critics.nlpd import NLPD
from perceptloss.critics.srsim import SRSIM
from perceptloss.critics.vsi import LMN
from perceptloss.errors import MissingWeights
from perceptloss.networks.functional import (
    SCHARR,
    edge_similarity,
    frequencies,
    mix_channels,
    shrink_factor,
    similarity,
    weighted_mean,
)
from perceptloss.networks.pointwise import power_above
from perceptloss.networks.windows import ssim_maps

__all__ = ["Published", "Result", "published", "render", "run"]

_FILE = Path(__file__).with_name("reference_scores.csv")
Score = Callable[[Tensor, Tensor], Tensor]


def _clipped_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM with negative structure counted as none."""
    luminance, structure = ssim_maps(x, y)
    return (luminance * structure.relu()).mean()


def _channelwise_gmsd(x: Tensor, y: Tensor) -> Tensor:
    """GMSD of the maps of red, green and blue together, with the unbiased deviation."""
    maps = [gms_map(*(image[:, c : c + 1].expand(-1, 3, -1, -1) for image in (x, y))) for c in range(3)]
    return torch.cat(maps).std()


def _full_size_vsi(x: Tensor, y: Tensor) -> Tensor:
    """VSI of a port: saliency at full size, not of a square, Lab over the inverse of D65, the size of the chroma."""
    linear_to_xyz = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
    over_white = [[w * white for w in row] for row, white in zip(linear_to_xyz, (0.950456, 1, 1.088754), strict=True)]

    def spread(v: Tensor) -> Tensor:
        low, high = v.amin((2, 3), keepdim=True), v.amax((2, 3), keepdim=True)
        return (v - low) / (high - low)

    def layers(image: Tensor) -> Tensor:
        xyz = mix_channels(power_above(image, 0.04045, 2.4, (1 / 1.055, 0.055 / 1.055), (1 / 12.92, 0)), over_white)
        fx, fy, fz = power_above(xyz, (6 / 29) ** 3, 1 / 3, (1, 0), ((29 / 6) ** 2 / 3, 4 / 29)).unbind(1)
        colours = torch.stack([116 * fy, 500 * (fx - fy), 200 * (fy - fz)], 1)
        v, h = frequencies(*image.shape[2:])
        radius = (v.square() + h.square()).sqrt().clamp_min(1e-6)
        band = torch.exp(-((torch.where(radius < 0.5, radius, 1e-6) / 0.021).log() ** 2) / (2 * 1.34**2))
        band[0, 0] = 0
        detail = torch.fft.ifft2(torch.fft.fft2(colours) * band).real.square().sum(1, keepdim=True).sqrt()
        down, across = (torch.arange(n, dtype=torch.float64) - n / 2 for n in image.shape[2:])
        centre = torch.exp(-(down[:, None].square() + across.square()) / 145**2)
        warmth = 1 - torch.exp(-spread(colours[:, 1:]).square().sum(1, keepdim=True) / 0.001**2)
        return F.avg_pool2d(torch.cat([spread(detail * centre * warmth), mix_channels(255 * image, LMN)], 1), factor)

    factor = shrink_factor(x)
    x, y = layers(x), layers(y)
    chroma = similarity(x[:, 2:], y[:, 2:], 130).prod(1, keepdim=True).abs() ** 0.02
    similar = similarity(x[:, :1], y[:, :1], 1.27) * edge_similarity(x[:, 1:2], y[:, 1:2], SCHARR, 386) ** 0.4 * chroma
    return weighted_mean(similar, torch.maximum(x[:, :1], y[:, :1]))


# what a publisher computed that no registered critic computes
_VARIANTS: Mapping[str, Score] = {
    "mdsi:combination=mult": MDSI(get_card("mdsi"), combination="mult"),
    "sr-sim:gaussian_size=9": SRSIM(get_card("sr-sim"), gaussian_size=9),
    "nlpd:form=bilinear": NLPD(get_card("nlpd"), form="bilinear"),
    "ssim-full:clipped": _clipped_ssim,
    "gmsd:channelwise": _channelwise_gmsd,
    "vsi:full-size": _full_size_vsi,
}
_MATLAB = (0.2989, 0.5870, 0.1140)
_ROUNDING = {"grey": 0.5, "grey-floor": 0.0}  # added before the luma is cut off


@dataclass(frozen=True)
class Published:
    """A row of `reference_scores.csv`.

    Attributes:
        critic: Registry name, perhaps with an option behind a colon.
        prepare: What the publisher did to the pictures first: `rgb` nothing; `bgr` exchanged red and
            blue; `grey` MATLAB's rounded luma, copied to three channels; `grey-floor` the same, cut off
            instead of rounded; `short-224` shrank the short side to 224; `noise-20` added noise of
            deviation 20 to the reference, as scikit-image's test does.
        reference: Picture, relative to the folder; `distorted` likewise.
        value: What `source` published.
        tolerance: Largest difference that counts as agreement.
    """

    critic: str
    prepare: str
    reference: str
    distorted: str
    value: float
    tolerance: float
    source: str


@dataclass(frozen=True)
class Result:
    """Our score for a published one, or what was missing."""

    row: Published
    ours: float | None
    missing: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; False if there is no score."""
        return self.ours is not None and abs(self.ours - self.row.value) <= self.row.tolerance


def published() -> list[Published]:
    """All rows of the file."""
    with _FILE.open(encoding="utf-8") as file:
        rows: Iterator[dict[str, Any]] = csv.DictReader(file)
        return [
            Published(**{**row, "value": float(row["value"]), "tolerance": float(row["tolerance"])}) for row in rows
        ]


@lru_cache
def _score(name: str) -> Score:
    return _VARIANTS[name] if ":" in name else create_critic(name).as_published().double()


def _picture(path: Path) -> Tensor:
    with Image.open(path) as picture:  # GIF too, which our reader refuses
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _prepared(row: Published, folder: Path) -> tuple[Tensor, Tensor]:
    """Distorted picture and reference, (1, 3, H, W) in [0, 1], float64."""
    y, x = (_picture(folder / name) for name in (row.reference, row.distorted))
    if row.prepare == "noise-20":
        grain = np.random.RandomState(5).randn(*y.shape[2:])
        x = (y + torch.from_numpy(20 * grain)).clamp(0, 255).to(torch.uint8).double()
    elif row.prepare in _ROUNDING:
        weights, offset = torch.tensor(_MATLAB, dtype=torch.float64).view(1, 3, 1, 1), _ROUNDING[row.prepare]
        x, y = (((image * weights).sum(1, keepdim=True) + offset).floor().expand(-1, 3, -1, -1) for image in (x, y))
    elif row.prepare == "short-224":
        x, y = _shrunk(x), _shrunk(y)
    elif row.prepare == "bgr":
        x, y = x.flip(1), y.flip(1)
    return x / 255, y / 255


def _shrunk(image: Tensor) -> Tensor:
    """As torchvision's resize of a PIL picture: bilinear with antialiasing, in 8 bits."""
    height, width = image.shape[2:]
    factor = 224 / min(height, width)
    if factor >= 1:
        return image
    size = (round(height * factor), round(width * factor))
    return torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True).round()


def run(folder: Path, rows: Sequence[Published] | None = None) -> Iterator[Result]:
    """Score every row whose pictures and weights are there; fetches nothing."""
    os.environ["PERCEPTLOSS_OFFLINE"] = "1"
    for row in published() if rows is None else rows:
        lacking = [name for name in (row.reference, row.distorted) if not (folder / name).is_file()]
        if lacking:
            yield Result(row, None, f"no picture {lacking[0]}")
            continue
        try:
            score = _score(row.critic)
        except MissingWeights:
            yield Result(row, None, f"perceptloss weights fetch {row.critic}")
            continue
        x, y = _prepared(row, folder)
        with torch.no_grad():
            yield Result(row, score(x, y).item())


def render(results: Iterable[Result]) -> Iterator[str]:
    """Lines of text, one as soon as its result is there, and a count."""
    head = ["critic", "reference", "distorted", "verdict", "published", "ours", "difference", "tolerance"]
    seen: list[Result] = []

    def cells_of(result: Result) -> list[str]:
        seen.append(result)
        row = result.row
        verdict = result.missing or ("agrees" if result.agrees else "DIFFERS")
        cells = [row.critic, row.reference, row.distorted, verdict, f"{row.value:.6g}"]
        ours = ["", ""] if result.ours is None else [f"{result.ours:.6g}", f"{abs(result.ours - row.value):.1e}"]
        return [*cells, *ours, f"{row.tolerance:g}"]

    yield from lines(head, map(cells_of, results), (24, 20, 21, 36))
    scored = [result for result in seen if result.ours is not None]
    agreed = sum(result.agrees for result in scored)
    yield f"\n{agreed} of {len(scored)} agree; {len(seen) - len(scored)} need pictures or weights"
