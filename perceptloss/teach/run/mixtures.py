"""Batches from pictures and enhanced versions of them: the more of the raw one a mix holds, the worse it is.

After Fu, Fu, Huang, Ding, "Twice Mixing: A Rank Learning based Quality Assessment Approach for Underwater Image
Enhancement", Signal Processing: Image Communication 2022: x = (1 - s) reference + s raw, in sRGB values. Nothing but
the order of the strengths s is taught, because how much worse the raw picture is differs from scene to scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.images import inspect_all
from perceptloss.errors import ConfigError, near
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair, check, find_pairs
from perceptloss.teach.data.pictures import LESSONS
from perceptloss.teach.degradations import degrade, get_degradation, list_degradations
from perceptloss.teach.degradations.core import LEVELS
from perceptloss.teach.leaks.hashing import Fingerprints, fingerprint_files
from perceptloss.teach.run.ladders import stratified
from perceptloss.teach.run.photos import Photos, cut
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, SourceOptions, families, held_out, joined

__all__ = ["Mixtures", "Options", "Scene", "find_scenes", "mix", "open_source"]

_LEAST = 0.3  # level of further damage, below which most kinds vanish when rounded to 8 bits
_NAMES = 2**40  # of cuts and groups, drawn at random: exact in float64


@dataclass(frozen=True)
class Options(SourceOptions):
    """Raw and enhanced pictures of the same scenes; an item is one cut at several strengths of the raw one."""

    raw: tuple[str, ...] = option((), "folders of raw pictures, resized bicubically where the reference is larger")
    reference: tuple[str, ...] = option((), "folders of their references, one for each of `raw`; equal stems belong")
    crop: int = option(192, "side of the square cuts, pixels of the reference", at_least=32)
    members: int = option(3, "mixes of each cut, one from each of as many equal parts of the strengths", at_least=1)
    clean: float = option(0.5, "probability that the reference comes too", at_least=0)
    degradations: tuple[str, ...] = option((), "names of further damage, the same to all mixes of an item; none: none")
    damaged: float = option(0.5, "probability of further damage, where `degradations` has names", at_least=0)
    damage: float = option(3.0, "greatest level of further damage", above=_LEAST)
    cache_mb: int = option(512, "memory for decoded pictures, MiB", at_least=0)


@dataclass(frozen=True)
class Scene:
    """A raw picture and its reference."""

    raw: Path
    reference: Path


def mix(reference: Tensor, raw: Tensor, levels: Sequence[float]) -> Tensor:
    """Mixes at strengths of a fifth of the levels, so that level 5 is the raw picture; the reference is level 0.

    Args:
        reference: (3, H, W), uint8.
        raw: Same shape, uint8.
        levels: In [0, 5].

    Returns:
        (levels, 3, H, W), float in [0, 1].
    """
    strengths = torch.tensor(levels)[:, None, None, None] / LEVELS
    return torch.lerp(reference.float() / 255, raw.float() / 255, strengths)


def both(photos: Photos, scene: Scene) -> tuple[Tensor, Tensor]:
    """Reference and raw picture in the size of the reference, (3, H, W), uint8."""
    reference, raw = photos[scene.reference], photos[scene.raw]
    if raw.shape != reference.shape:
        size = tuple(reference.shape[1:])
        resized = F.interpolate(raw[None].float(), size, mode="bicubic", antialias=True, align_corners=False)
        raw = resized[0].round_().clamp_(0, 255).byte()
    return reference, raw


class Mixtures:
    """The training part; `versions` items of each scene.

    Args:
        scenes: Pairs.
        names: Degradations for further damage.
        options: Of the source.
        with_reference: Whether batches bring references.
    """

    kinds = ("clean", "mixture")

    def __init__(
        self, scenes: Sequence[Scene], names: Sequence[str], options: Options, *, with_reference: bool
    ) -> None:
        self.scenes, self.names, self.options, self.with_reference = list(scenes), tuple(names), options, with_reference
        self.photos = Photos(options.cache_mb)
        self.gives = frozenset({"levels", "kinds"} | ({"clean"} if options.clean else set()))

    @property
    def content_ids(self) -> np.ndarray:
        """Scene of each item."""
        return np.repeat(np.arange(len(self.scenes)), self.options.versions)

    def __len__(self) -> int:
        return len(self.scenes) * self.options.versions

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Mixes of fresh cuts: place, strengths and further damage are drawn."""
        return joined([self._rungs(int(i) // self.options.versions, generator) for i in indices])

    def _rungs(self, content: int, generator: torch.Generator) -> Batch:
        reference, raw = both(self.photos, self.scenes[content])
        rows, columns = cut(reference, self.options.crop, generator)
        y = reference[:, rows, columns]
        place, group = torch.randint(_NAMES, (2,), generator=generator).tolist()
        levels = stratified(self.options.members, generator)
        x = self._damaged(mix(y, raw[:, rows, columns], levels), generator).mul(255).round().byte()
        if float(torch.rand((), generator=generator)) < self.options.clean:
            levels, x = [0.0, *levels], torch.cat([y[None], x])
        count, at = len(levels), torch.tensor(levels, dtype=torch.float64)
        return Batch(
            x,
            y.expand(count, -1, -1, -1) if self.with_reference else None,
            None,
            torch.full((count,), content),
            torch.full((count,), place),
            torch.where(at > 0, group, -1),
            at,
            (at > 0).long(),
            self.options.label,
        )

    def _damaged(self, mixes: Tensor, generator: torch.Generator) -> Tensor:
        """With a chance, the same damage to all mixes; every one of them still is worse than the reference."""
        if not self.names or float(torch.rand((), generator=generator)) >= self.options.damaged:
            return mixes
        name = self.names[int(torch.randint(len(self.names), (), generator=generator))]
        level = _LEAST + (self.options.damage - _LEAST) * float(torch.rand((), generator=generator))
        seed = int(torch.randint(_NAMES, (), generator=generator))
        return torch.cat([degrade(one[None], name, level, seed=seed) for one in mixes])


class _Rehearsal:
    """The exam's images, made when first asked for and kept, the same in every process; `versions` cuts of a scene."""

    def __init__(self, scenes: Sequence[Scene], options: Options, setting: Setting) -> None:
        self.scenes, self.options, self.setting = list(scenes), options, setting
        self.count = options.members + 1  # and the reference

    def _generator(self, content: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.setting.seed * 100_003 + content)

    def _levels(self, generator: torch.Generator) -> list[list[float]]:
        drawn = range(self.options.versions)
        return [[0.0, *stratified(self.options.members, generator)] for _ in drawn]

    @cached_property
    def made(self) -> tuple[Tensor, Tensor]:
        """All mixes, and the cuts of the references."""
        photos = Photos(0)
        x: list[Tensor] = []
        y: list[Tensor] = []
        for content, scene in enumerate(self.scenes):
            reference, raw = both(photos, scene)
            generator = self._generator(content)
            for levels in self._levels(generator):
                rows, columns = cut(reference, self.options.crop, generator)
                y.append(reference[:, rows, columns])
                x.append(mix(y[-1], raw[:, rows, columns], levels).mul(255).round().byte())
        return torch.cat(x), torch.stack(y)

    def images(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Rows of the exam."""
        x, y = self.made
        chosen = torch.from_numpy(rows)
        return x[chosen], y[chosen // self.count] if self.setting.card.needs_reference else None

    def exam(self) -> Exam:
        """Its columns."""
        versions = self.options.versions
        level = np.array([self._levels(self._generator(content)) for content in range(len(self.scenes))]).ravel()
        reference = np.repeat(np.arange(len(self.scenes) * versions), self.count)
        return Exam(
            name=self.options.label,
            target=-level,
            content=reference // versions,
            reference=reference,
            group=reference,
            level=level,
            family=np.full(len(level), ""),
            unseen=frozenset(),
            images=self.images,
            batch=16,
            about=f"{len(level)} mixes of raw pictures with their references, {versions} cuts of each "
            f"of {len(self.scenes)} scenes; targets are the shares of the reference, an order only within a cut.",
        )


def find_scenes(options: Options) -> list[Scene]:
    """The pairs of all folders.

    Raises:
        ConfigError: listing missing folders, pictures without partner, unreadable and too small ones, and raw pictures
            of another shape than their references.
    """
    if len(options.raw) != len(options.reference) or not options.raw:
        counts = f"{len(options.raw)} folders of raw pictures, but {len(options.reference)} of references"
        raise ConfigError([f"raw, reference: give at least one of each, one for one; got {counts}"], options.label)
    problems: list[str] = []
    scenes: list[Scene] = []
    for raw_folder, folder in zip(options.raw, options.reference, strict=True):
        raw, references = _named(raw_folder, "raw", problems), _named(folder, "reference", problems)
        if raw and references:
            problems += [f"{raw[n]} has no reference in {folder}" for n in sorted(raw.keys() - references.keys())]
            problems += [
                f"{references[n]} has no raw one in {raw_folder}" for n in sorted(references.keys() - raw.keys())
            ]
        scenes += [Scene(raw[name], references[name]) for name in references if name in raw]
    problems += check([Pair(s.reference, None, "") for s in scenes], LESSONS, options.crop, 1, decode=False)
    problems += check([Pair(s.raw, None, "") for s in scenes], LESSONS, 1, 1, decode=False)
    problems += [] if problems else _misshapen(scenes)
    if problems:
        raise ConfigError(problems, options.label)
    return scenes


def _named(folder: str, where: str, problems: list[str]) -> dict[str, Path]:
    try:
        return {pair.name: pair.gt for pair in find_pairs((folder,), (), 1, where)}
    except ConfigError as error:
        problems += [f"{where}: {problem}" for problem in error.problems]
        return {}


def _misshapen(scenes: Sequence[Scene]) -> list[str]:
    """Raw pictures of another shape than their references."""
    files, _ = inspect_all([path for scene in scenes for path in (scene.raw, scene.reference)], LESSONS, decode=False)
    problems = []
    for scene in scenes:
        (h, w), (height, width) = files[scene.raw].size, files[scene.reference].size
        if abs(w * height - h * width) > max(width, height):  # a pixel of the raw picture
            problems.append(f"{scene.raw}: {h}x{w} pixels, another shape than {height}x{width} of {scene.reference}")
    return problems


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the pictures, and divide them into what is taught and an exam.

    Raises:
        ConfigError: listing everything that is wrong with them.
    """
    problems: list[str] = []
    scenes: list[Scene] = []
    unseen: frozenset[str] = frozenset()
    try:
        scenes = find_scenes(options)
    except ConfigError as error:
        problems += error.problems
    try:
        unseen = families(options.hold_out_families)
    except ConfigError as error:
        problems += error.problems
    known = list_degradations()
    problems += [f"degradations: there is no {n!r}{near(n, known)}" for n in options.degradations if n not in known]
    if options.damage > LEVELS:
        problems.append(f"damage: must be at most {LEVELS}, got {options.damage}")
    if problems:
        raise ConfigError(problems, options.label)
    names = [name for name in options.degradations if get_degradation(name).family not in unseen]
    numbers = np.arange(len(scenes))
    held = numbers if setting.is_exam else held_out(numbers, options.hold_out, setting.seed)
    train, kept = [scenes[i] for i in np.setdiff1d(numbers, held)], [scenes[i] for i in held]
    lessons = Mixtures(train, names, options, with_reference=setting.card.needs_reference)
    return Opened(
        None if setting.is_exam else lessons,
        [_Rehearsal(kept, options, setting).exam()] if kept else [],
        _prints(train),
        _prints(kept),
    )


def _prints(scenes: Sequence[Scene]) -> Fingerprints | None:
    files = {path for scene in scenes for path in (scene.raw, scene.reference)}
    return fingerprint_files(sorted(files)) if files else None
