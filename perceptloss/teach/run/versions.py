"""What the exams of enlargement share: cuts of photographs, and the same versions of each, made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import near
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair, check, find_pairs
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations.enlarge import ENLARGERS
from perceptloss.teach.run.fresh import attempt, dice, in_bytes
from perceptloss.teach.run.photos import Photos, cut
from perceptloss.teach.run.sources import Setting, SourceOptions

__all__ = ["VersionOptions", "Versions", "find_photos", "version_problems"]

_TRIES = 4

Make = Callable[[Tensor, torch.Generator], Tensor]
"""A cut (1, 3, S, S) in [0, 1], and a generator of its own, to all versions (V, 3, S, S) in [0, 1]."""


@dataclass(frozen=True)
class VersionOptions(SourceOptions):
    """What both such exams are asked."""

    photos: tuple[str, ...] = option((), "folders of clean photographs")
    crop: int = option(192, "side of the square cuts, pixels; a multiple of all factors", at_least=32)
    cuts: int = option(1, "cuts of each photograph", at_least=1)
    factors: tuple[int, ...] = option((2, 3, 4, 6, 8), "how far cuts are shrunk before they are enlarged", at_least=2)
    enlargers: tuple[str, ...] = option((), "names to use; none: all")


class Versions:
    """Images of an exam, by row: photograph by photograph, cut by cut, version by version; kept once made.

    Args:
        files: Photographs.
        options: Of the exam.
        setting: Of the run.
        count: Versions of a cut.
        make: All of them.
    """

    def __init__(
        self, files: Sequence[Path], options: VersionOptions, setting: Setting, count: int, make: Make
    ) -> None:
        self.files, self.options, self.setting, self.make = list(files), options, setting, make
        self.cuts, self.count = len(files) * options.cuts, count
        self.reference = np.repeat(np.arange(self.cuts), count)
        self.content = self.reference // options.cuts
        self.version = np.tile(np.arange(count), self.cuts)
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.cuts * self.count

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Rows and, if they are needed, their references, uint8, (N, 3, S, S)."""
        x = torch.stack([self.of(r)[0][v] for r, v in zip(*self._places(rows), strict=True)])
        if not self.setting.with_reference:
            return x, None
        return x, torch.stack([self.of(r)[1] for r in self._places(rows)[0]])

    def _places(self, rows: np.ndarray) -> tuple[list[int], list[int]]:
        return self.reference[rows].tolist(), self.version[rows].tolist()

    def of(self, reference: int) -> tuple[Tensor, Tensor]:
        """All versions of a cut, (V, 3, S, S), and the cut, (3, S, S), uint8."""
        if reference not in self._made:
            generator = dice(self.setting, reference)
            clean = self._cut(Photos(0)[self.files[reference // self.options.cuts]], generator)
            made = in_bytes([self.make(clean[None].float() / 255, generator)])
            self._made[reference] = made, clean
        return self._made[reference]

    def _cut(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Of a few places the one with most contrast: an empty sky looks the same however it is enlarged."""
        places = [cut(image, self.options.crop, generator) for _ in range(_TRIES)]
        windows = [image[:, rows, columns] for rows, columns in places]
        return max(windows, key=lambda window: float(window.float().mean(0).std()))


def find_photos(options: VersionOptions, problems: list[str]) -> list[Path]:
    """The photographs; what is wrong with them is noted."""
    pairs: list[Pair] = attempt(problems, lambda: find_pairs(options.photos, (), 1, "photos"), [])
    if not pairs and not problems:
        problems.append("photos: give at least one folder")
    problems += check(pairs, TAUGHT, options.crop, 1, decode=False)
    return [pair.gt for pair in pairs]


def version_problems(options: VersionOptions, setting: Setting) -> list[str]:
    """What is wrong with an entry, photographs aside."""
    problems = []
    if not setting.is_exam:
        problems.append(f"`kind: {options.kind}` is an exam and teaches nothing; move the entry from data to val.sets")
    if setting.card.channels != 3:
        problems.append(f"{setting.card.name!r} judges {setting.card.channels} channels, these pictures have 3")
    problems += [f"factors: {f} does not divide crop, {options.crop}" for f in options.factors if options.crop % f]
    problems += [] if options.factors else ["factors: expected at least one"]
    for name, chosen in (("factors", options.factors), ("enlargers", options.enlargers)):
        if len(set(chosen)) < len(chosen):
            problems.append(f"{name}: each once, got {', '.join(map(str, chosen))}")
    problems += [
        f"enlargers: there is no {name!r}{near(name, ENLARGERS)}" for name in options.enlargers if name not in ENLARGERS
    ]
    return problems
