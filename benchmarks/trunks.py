"""Which trunk our own critics should share: what a linear read-out of frozen features knows, costs, and prints.

Features are means and deviations of taps. Ridge regression (its strength chosen on the last fifth of the taught
photographs) predicts the consensus of a scored set, and is examined on other photographs and, if a table is given, on
people's opinions, which nothing is taught or chosen by.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.timing import clocked
from perceptloss import create_critic
from perceptloss.compare.images import read
from perceptloss.compare.statistics.measures import srcc
from perceptloss.critics.mini.nr import pooled
from perceptloss.networks.filters import halve
from perceptloss.networks.trunks import LITE_TAPS, Trunk, TrunkCritic
from perceptloss.registry import DEFAULT, Default
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.sets import ScoredSet

__all__ = ["CANDIDATES", "TrunkRow", "measure", "render"]

Array = NDArray[np.float64]
_RIDGES = (1e2, 1e3, 1e4, 1e5)


@dataclass(frozen=True)
class TrunkRow:
    """What one trunk gives.

    Attributes:
        exam: SRCC with the consensus on photographs that were not taught.
        opinions: SRCC with people's opinions; NaN without a table.
        grid: Greatest peak of the read-out's gradient at the frequencies of strides, dB above what lies beside it.
        seconds: Of forward and backward to 8 images of 128x128.
        size: Bytes of the weights that are used, in halves.
    """

    name: str
    exam: float
    opinions: float
    grid: float
    seconds: float
    size: int


@dataclass(frozen=True)
class Candidate:
    """A trunk, the taps that are read, and how often the image is halved before."""

    make: Callable[[], Trunk]
    taps: Sequence[str]
    halvings: int = 0

    def features(self, trunk: Trunk, x: Tensor) -> Tensor:
        """Means and deviations of taps, (N, 2 x channels)."""
        for _ in range(self.halvings):
            x = halve(x)
        return pooled(trunk(x, self.taps), list(self.taps))


def _of(name: str, weights: Default | None = DEFAULT) -> Callable[[], Trunk]:
    def make() -> Trunk:
        critic = create_critic(name, weights)
        assert isinstance(critic, TrunkCritic)
        return critic.trunk

    return make


_FULL = tuple(tap for tap in LITE_TAPS if tap.startswith("full."))
_NEAR = tuple(tap for tap in LITE_TAPS if tap.startswith("near."))
_FAR = tuple(tap for tap in LITE_TAPS if tap.startswith("far."))
_FIRES = ("relu1", "fire3", "fire5", "fire7", "fire9")
CANDIDATES = {
    "EfficientNet-lite0, smooth, full size, to the fourth stage": Candidate(_of("mini-nr"), _FULL[:4]),
    "the same, and near": Candidate(_of("mini-nr"), (*_FULL[:4], *_NEAR)),
    "the same trunk, near": Candidate(_of("mini-nr"), _NEAR),
    "the same trunk, near and far": Candidate(_of("mini-nr"), (*_NEAR, *_FAR)),
    "the same trunk, near, to the fifth stage": Candidate(_of("mini-nr"), _NEAR[:5]),
    "SqueezeNet 1.1": Candidate(_of("lpips-squeeze"), _FIRES),
    "SqueezeNet 1.1, halved": Candidate(_of("lpips-squeeze"), _FIRES, 1),
    "random EfficientNet-lite0, near": Candidate(_of("mini-nr", weights=None), _NEAR),
}


def measure(taught: Path, exam: Path, opinions: Path | None, images: int, repeat: int) -> Iterator[TrunkRow]:
    """A row per candidate.

    Args:
        taught: Folder of a scored set.
        exam: Folder of one of other photographs.
        opinions: Table with the columns image and mos; None: not asked.
        images: Of the taught set that are used, drawn.
        repeat: Timed rounds.
    """
    first, second = ScoredSet.open(taught), ScoredSet.open(exam)
    for name, candidate in CANDIDATES.items():
        trunk = candidate.make()
        weights, centre, scale = _taught(trunk, candidate, first, images)
        read_out = _ReadOut(trunk, candidate, weights, centre, scale)
        yield TrunkRow(
            name,
            srcc(_on_set(read_out, second, np.arange(len(second))), second.consensus()),
            _with_people(read_out, opinions) if opinions else float("nan"),
            _grid(read_out, second),
            _seconds(read_out, repeat),
            2 * sum(p.numel() for p in trunk.parameters()) - 2 * sum(p.numel() for p in trunk.unread(candidate.taps)),
        )


class _ReadOut(nn.Module):
    def __init__(self, trunk: Trunk, candidate: Candidate, weights: Array, centre: Array, scale: Array) -> None:
        super().__init__()
        self.trunk, self.candidate = trunk, candidate
        self.weights, self.centre, self.scale = (torch.from_numpy(a).float() for a in (weights, centre, scale))

    def forward(self, x: Tensor) -> Tensor:
        found = self.candidate.features(self.trunk, x)
        return (((found - self.centre) / self.scale).clamp(-6, 6) @ self.weights[:-1]) + self.weights[-1]


@torch.no_grad()
def _rows(function: Callable[[Tensor], Tensor], taught: ScoredSet, rows: NDArray[np.int64]) -> Array:
    parts = [taught.images[rows[i : i + 16]] for i in range(0, len(rows), 16)]
    return np.concatenate([function(torch.from_numpy(part).float() / 255).numpy() for part in parts]).astype(float)


def _on_set(read_out: _ReadOut, taught: ScoredSet, rows: NDArray[np.int64]) -> Array:
    return _rows(read_out, taught, rows)


def _taught(trunk: Trunk, candidate: Candidate, taught: ScoredSet, images: int) -> tuple[Array, Array, Array]:
    rows = np.sort(np.random.default_rng(0).permutation(len(taught))[:images])
    found = _rows(lambda x: candidate.features(trunk, x), taught, rows)
    centre, scale = found.mean(0), found.std(0) + 1e-3
    z, target = np.clip((found - centre) / scale, -6, 6), taught.consensus()[rows]
    kept = taught.content[rows] >= 0.8 * len(taught.contents)
    best = max(_RIDGES, key=lambda ridge: srcc(_plus(z[kept]) @ _ridge(z[~kept], target[~kept], ridge), target[kept]))
    return _ridge(z, target, best), centre, scale


def _plus(z: Array) -> Array:
    return np.concatenate([z, np.ones((len(z), 1))], 1)


def _ridge(z: Array, target: Array, strength: float) -> Array:
    middle = target.mean()
    gram = z.T @ z + strength * np.eye(z.shape[1])
    return np.append(np.linalg.solve(gram, z.T @ (target - middle)), middle)


@torch.no_grad()
def _with_people(read_out: _ReadOut, table: Path) -> float:
    with table.open(encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    pictures = [read(table.parent / entry["image"], TAUGHT).transpose(2, 0, 1)[None] for entry in entries]
    said = [read_out(torch.tensor(picture).float() / 255).item() for picture in pictures]
    return srcc(np.array(said), np.array([float(entry["mos"]) for entry in entries]))


def _grid(read_out: _ReadOut, exam: ScoredSet) -> float:
    rows = np.random.default_rng(1).permutation(len(exam))[:32]
    x = (torch.from_numpy(exam.images[np.sort(rows)]).float() / 255)[..., :128, :128].requires_grad_()
    read_out(x).sum().backward()
    assert x.grad is not None
    window = torch.hann_window(96)
    inner = x.grad.mean(1)[:, 16:-16, 16:-16] * window * window[:, None]
    power = torch.fft.fft2(inner).abs().square().mean(0)
    peaks = []
    for period in (2, 4, 8):
        at = 96 // period
        beside = [*range(at - 7, at - 2), *range(at + 3, at + 8)]
        peaks.append(
            (power[at, :2].mean() + power[:2, at].mean()) / (power[beside, :2].mean() + power[:2, beside].mean())
        )
    return float(10 * torch.stack(peaks).max().log10())


def _seconds(read_out: _ReadOut, repeat: int) -> float:
    x = torch.rand(8, 3, 128, 128, requires_grad=True)
    runs = [clocked(lambda: read_out(x).sum().backward(), torch.device("cpu")) for _ in range(repeat)]
    return float(np.median([run.cpu for run in runs]))


def render(rows: Iterator[TrunkRow]) -> Iterator[str]:
    """Lines of a table, as the rows come."""
    yield "| trunk | SRCC, other photographs | SRCC, opinions | grid, dB | ms | MB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in rows:
        yield (
            f"| {row.name} | {row.exam:.3f} | {row.opinions:.3f} | {row.grid:.1f} | {row.seconds * 1e3:.0f} "
            f"| {row.size / 1e6:.1f} |"
        )
