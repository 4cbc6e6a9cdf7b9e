"""Batches without any label: photographs degraded on the fly, of which more damage is known to be worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import ConfigError, near
from perceptloss.runs.config import option
from perceptloss.runs.images import check, find_pairs
from perceptloss.teach.data.pictures import LESSONS
from perceptloss.teach.degradations import degrade, get_degradation, list_degradations
from perceptloss.teach.leaks.hashing import fingerprint_files
from perceptloss.teach.run.photos import Photos, cut
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, SourceOptions, families, held_out, joined

__all__ = ["Options", "Rungs", "open_source"]

_LOW, _HIGH = 0.3, 5.0  # below this level most degradations vanish when rounded to 8 bits
_NAMES = 2**40  # of cuts and groups, drawn at random: exact in float64


@dataclass(frozen=True)
class Options(SourceOptions):
    """Photographs; an item is one cut with one degradation at several levels."""

    photos: tuple[str, ...] = option((), "folders of clean photographs")
    crop: int = option(128, "side of the square cuts, pixels", at_least=32)
    members: int = option(3, "levels of each cut, one from each of as many equal parts of the scale", at_least=1)
    clean: float = option(0.5, "probability that the clean cut comes too", at_least=0)
    degradations: tuple[str, ...] = option((), "names to use; none: all of single images")
    exclude: tuple[str, ...] = option((), "names or families that are not used")
    cache_mb: int = option(512, "memory for decoded photographs, MiB", at_least=0)
    exam_kinds: int = option(4, "degradations of each photograph of the exam", at_least=1)


class Rungs:
    """The training part; `versions` items of each photograph.

    Args:
        files: Photographs.
        names: Degradations.
        options: Of the source.
        with_reference: Whether batches bring references.
    """

    def __init__(self, files: Sequence[Path], names: Sequence[str], options: Options, *, with_reference: bool) -> None:
        self.files, self.names, self.options, self.with_reference = list(files), tuple(names), options, with_reference
        self.photos = Photos(options.cache_mb)
        self.kinds = ("clean", *self.names)
        self.gives = frozenset({"levels", "kinds"} | ({"clean"} if options.clean else set()))

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph of each item."""
        return np.repeat(np.arange(len(self.files)), self.options.versions)

    def __len__(self) -> int:
        return len(self.files) * self.options.versions

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Ladders of fresh cuts: place, degradation, seed and levels are drawn."""
        return joined([self._ladder(int(i) // self.options.versions, generator) for i in indices])

    def _ladder(self, content: int, generator: torch.Generator) -> Batch:
        image = self.photos[self.files[content]]
        rows, columns = cut(image, self.options.crop, generator)
        kind = int(torch.randint(len(self.names), (), generator=generator))
        seed, reference, group = torch.randint(_NAMES, (3,), generator=generator).tolist()
        levels = stratified(self.options.members, generator)
        if float(torch.rand((), generator=generator)) < self.options.clean:
            levels = [0.0, *levels]
        clean = image[:, rows, columns]
        made = ladder(clean, self.names[kind], levels, seed)
        count = len(levels)
        at = torch.tensor(levels, dtype=torch.float64)
        return Batch(
            made,
            clean.expand(count, -1, -1, -1) if self.with_reference else None,
            None,
            torch.full((count,), content),
            torch.full((count,), reference),
            torch.where(at > 0, group, -1),
            at,
            torch.where(at > 0, kind + 1, 0),
            self.options.label,
        )


def stratified(count: int, generator: torch.Generator) -> list[float]:
    """Rising levels, one from each of `count` equal parts of the scale."""
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    return ((torch.arange(count) + draws) * ((_HIGH - _LOW) / count) + _LOW).tolist()


def ladder(clean: Tensor, name: str, levels: Sequence[float], seed: int) -> Tensor:
    """A cut (3, S, S), uint8, at several levels of one degradation with the same draws, (N, 3, S, S), uint8."""
    x = clean[None].float() / 255
    return torch.cat([degrade(x, name, level, seed=seed) for level in levels]).mul(255).round().byte()


class _Rehearsal:
    """The exam's images, made when first asked for and kept, the same in every process."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], options: Options, setting: Setting) -> None:
        self.files, self.names, self.options, self.setting = list(files), names, options, setting
        self.count = options.members + 1  # and the clean cut, once for each kind

    @property
    def rungs(self) -> list[tuple[int, str, list[float], int]]:
        """Photograph, degradation, levels and seed of each ladder."""
        found: list[tuple[int, str, list[float], int]] = []
        for content in range(len(self.files)):
            generator = torch.Generator().manual_seed(self.setting.seed * 100_003 + content)
            for k in torch.randperm(len(self.names), generator=generator)[: self.options.exam_kinds].tolist():
                seed = int(torch.randint(_NAMES, (), generator=generator))
                found.append((content, self.names[k], [0.0, *stratified(self.options.members, generator)], seed))
        return found

    @cached_property
    def made(self) -> tuple[Tensor, Tensor]:
        photos, side = Photos(0), self.options.crop
        cuts: dict[int, Tensor] = {}
        for content, file in enumerate(self.files):
            image = photos[file]
            rows, columns = cut(image, side, torch.Generator().manual_seed(self.setting.seed * 100_003 + content))
            cuts[content] = image[:, rows, columns]
        x = [ladder(cuts[content], name, levels, seed) for content, name, levels, seed in self.rungs]
        y = [cuts[content].expand(self.count, -1, -1, -1) for content, _, _, _ in self.rungs]
        return torch.cat(x), torch.cat(y)

    def images(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        x, y = self.made
        chosen = torch.from_numpy(rows)
        return x[chosen], y[chosen] if self.setting.card.needs_reference else None

    def exam(self, unseen: frozenset[str]) -> Exam:
        rungs = self.rungs
        content = np.repeat([c for c, _, _, _ in rungs], self.count)
        level = np.array([level for _, _, levels, _ in rungs for level in levels])
        family = np.repeat([get_degradation(name).family for _, name, _, _ in rungs], self.count).astype(object)
        group = np.repeat(np.arange(len(rungs)), self.count)
        return Exam(
            name=self.options.label,
            target=-level,
            content=content,
            reference=content,
            group=group,
            level=level,
            family=np.where(level > 0, family, "").astype(str),
            unseen=unseen,
            images=self.images,
            batch=16,
            about=f"{len(level)} degraded cuts of {len(self.files)} photographs; targets are the levels of damage, "
            "which two kinds share only roughly.",
        )


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the photographs, and divide them into what is taught and an exam."""
    pairs = find_pairs(options.photos, (), 1, "photos")
    if not pairs:
        raise ConfigError(["photos: give at least one folder"], options.label)
    if problems := check(pairs, LESSONS, options.crop, 1, decode=False):
        raise ConfigError(problems, "photos")
    names, unseen = _names(options), families(options.hold_out_families)
    hidden = {*unseen, "chain"} if unseen else unseen  # chains are made of any family
    taught = [name for name in names if get_degradation(name).family not in hidden]
    numbers = np.arange(len(pairs))
    held = numbers if setting.is_exam else held_out(numbers, options.hold_out, setting.seed)
    train = [pairs[i].gt for i in np.setdiff1d(numbers, held)]
    kept = [pairs[i].gt for i in held]
    if not taught:
        raise ConfigError(["degradations: none is left to train on"], options.label)
    with_reference = setting.card.needs_reference
    return Opened(
        None if setting.is_exam else Rungs(train, taught, options, with_reference=with_reference),
        [_Rehearsal(kept, names, options, setting).exam(unseen)] if kept else [],
        fingerprint_files(train) if train else None,
        fingerprint_files(kept) if kept else None,
    )


def _names(options: Options) -> list[str]:
    known = list_degradations()
    kinds = {get_degradation(name).family for name in known}
    problems = [f"degradations: there is no {n!r}{near(n, known)}" for n in options.degradations if n not in known]
    problems += [
        f"exclude: {n!r} is neither a degradation nor a family{near(n, {*known, *kinds})}"
        for n in options.exclude
        if n not in {*known, *kinds}
    ]
    if problems:
        raise ConfigError(problems, options.label)
    chosen = options.degradations or [n for n in known if get_degradation(n).family != "network"]
    return [n for n in chosen if n not in options.exclude and get_degradation(n).family not in options.exclude]
