"""Batches of stereo pairs: made from photographs or real ones, damaged between the views, in one view, or in both.

Where the damage is that of single views, a teacher q judges each view beside the clean one, and the target is
0.7 sum_v w_v q_v + 0.3 min_v q_v. The w_v are the views' shares in what is seen, from their contrast, as in binocular
rivalry (Levelt, "On Binocular Rivalry", 1965); the second part is for the worse view, which the better one does not
make up for where it is blocky or noisy (Seuntiens, Meesters, IJsselsteijn, "Perceived quality of compressed
stereoscopic images", ACM Transactions on Applied Perception 2006). This weighting, 0.7 and 0.3, is ours. Where the
damage is that the views disagree, no view shows it alone, and only the order of its levels is taught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair
from perceptloss.teach.degradations import get_degradation
from perceptloss.teach.leaks.hashing import Fingerprints, fingerprint_files
from perceptloss.teach.run.ladders import stratified
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, SourceOptions, families, held_out, joined
from perceptloss.teach.run.views import (
    NAMES,
    Damage,
    Scenes,
    ViewTeacher,
    damaged,
    find_damages,
    find_scenes,
    find_teacher,
)

__all__ = ["Options", "Pairs", "open_source"]


@dataclass(frozen=True)
class Options(SourceOptions):
    """Photographs or stereo pairs; an item is one cut pair with one damage at several levels."""

    photos: tuple[str, ...] = option((), "folders of clean photographs, of which pairs are made")
    pairs: tuple[str, ...] = option((), "folders of clean rectified pairs, NAME_left.png and NAME_right.png")
    size: tuple[int, int] = option(
        (160, 224),
        "rows and columns of the cuts; images are as long on both sides as the longer one, and disparity",
        at_least=32,
    )
    disparity: float = option(24.0, "largest disparity of pairs that are made; a quarter of it to all", at_least=0)
    members: int = option(2, "levels of each cut, one from each of as many equal parts of the scale", at_least=1)
    clean: float = option(0.5, "probability that the clean pair comes too", at_least=0)
    degradations: tuple[str, ...] = option((), "names to use; none: all of pairs and of single images")
    exclude: tuple[str, ...] = option(("underwater", "screen", "spatial"), "names or families that are not used")
    stereo_share: float = option(0.4, "share of degradations of pairs; the others are of single images", at_least=0)
    teacher: dict[str, Any] = option(  # noqa: RUF009
        {}, "full-reference critic of the views: {name, weights}; no weights: those of its card; none: order alone"
    )
    cache_mb: int = option(512, "memory for decoded images, MiB", at_least=0)
    exam_kinds: int = option(8, "kinds of damage of each pair of the exam", at_least=1)


class Pairs:
    """The training part; `versions` items of each photograph or pair.

    Args:
        pairs: Files.
        damages: Those of pairs, and those of single images.
        options: Of the source.
        judge: The teacher; None: no targets.
        with_reference: Whether batches bring references.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        damages: tuple[Sequence[Damage], Sequence[Damage]],
        options: Options,
        judge: ViewTeacher | None,
        *,
        with_reference: bool,
    ) -> None:
        self.scenes = Scenes(pairs, options.size, options.disparity, options.cache_mb)
        self.options, self.damages = options, damages
        self.judge, self.with_reference = judge, with_reference
        self.kinds = ("clean", *(damage.label for part in damages for damage in part))
        known = {"levels", "kinds"} | ({"clean"} if options.clean else set()) | ({"target"} if judge else set())
        self.gives = frozenset(known)

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph or pair of each item."""
        return np.repeat(np.arange(len(self.scenes.pairs)), self.options.versions)

    def __len__(self) -> int:
        return len(self.scenes.pairs) * self.options.versions

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Ladders of fresh cuts: place, depth, damage and levels are drawn."""
        return joined([self._rungs(int(i) // self.options.versions, generator) for i in indices])

    def _rungs(self, content: int, generator: torch.Generator) -> Batch:
        y = self.scenes.draw(content, generator)
        damage = self._drawn(generator)
        seed, place, group = torch.randint(NAMES, (3,), generator=generator).tolist()
        levels = stratified(self.options.members, generator)
        if float(torch.rand((), generator=generator)) < self.options.clean:
            levels = [0.0, *levels]
        x = damaged(y, damage, levels, seed)
        count, at = len(levels), torch.tensor(levels, dtype=torch.float64)
        clean = y.expand(count, -1, -1, -1)
        return Batch(
            x,
            clean if self.with_reference else None,
            self._targets(x, clean, (at == 0) | damage.is_shown),
            torch.full((count,), content),
            torch.full((count,), place),
            torch.where(at > 0, group, -1),
            at,
            torch.where(at > 0, self.kinds.index(damage.label), 0),
            self.options.label,
        )

    def _drawn(self, generator: torch.Generator) -> Damage:
        of_pairs, of_images = self.damages
        is_of_pairs = float(torch.rand((), generator=generator)) < self.options.stereo_share
        part = (of_pairs if is_of_pairs else of_images) or of_pairs or of_images
        return part[int(torch.randint(len(part), (), generator=generator))]

    def _targets(self, x: Tensor, y: Tensor, known: Tensor) -> Tensor | None:
        if self.judge is None:
            return None
        target = torch.full((len(x),), torch.nan)
        if known.any():
            target[known] = self.judge(x[known], y[known])
        return target


class _Rehearsal:
    """The exam's images, made when first asked for and kept, the same in every process."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        damages: tuple[Sequence[Damage], Sequence[Damage]],
        options: Options,
        setting: Setting,
    ) -> None:
        self.scenes = Scenes(pairs, options.size, options.disparity, 0)
        self.damages, self.options, self.setting = damages, options, setting
        self.count = options.members + 1  # and the clean pair, once for each kind

    def _generator(self, content: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.setting.seed * 100_003 + content)

    @cached_property
    def rungs(self) -> list[tuple[int, Damage, list[float], int]]:
        """Pair, damage, levels and seed of each ladder; every pair has both sorts of damage, where there are both."""
        found: list[tuple[int, Damage, list[float], int]] = []
        of_pairs = round(self.options.stereo_share * self.options.exam_kinds)
        for content in range(len(self.scenes.pairs)):
            generator = self._generator(content)
            for part, count in zip(self.damages, (of_pairs, self.options.exam_kinds - of_pairs), strict=True):
                for k in torch.randperm(len(part), generator=generator)[:count].tolist():
                    seed = int(torch.randint(NAMES, (), generator=generator))
                    found.append((content, part[k], [0.0, *stratified(self.options.members, generator)], seed))
        return found

    @cached_property
    def made(self) -> tuple[Tensor, Tensor]:
        """All rows, and the clean pair of each content."""
        contents = range(len(self.scenes.pairs))
        clean = torch.stack([self.scenes.draw(c, self._generator(c), central=True) for c in contents])
        return torch.cat([damaged(clean[c], damage, levels, seed) for c, damage, levels, seed in self.rungs]), clean

    def images(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Rows of the exam."""
        x, clean = self.made
        content = torch.tensor([self.rungs[i // self.count][0] for i in rows])
        return x[torch.from_numpy(rows)], clean[content] if self.setting.card.needs_reference else None

    def exam(self, unseen: frozenset[str]) -> Exam:
        """Its columns."""
        real = sum(pair.lq is not None for pair in self.scenes.pairs)
        content = np.repeat([c for c, *_ in self.rungs], self.count)
        level = np.array([level for _, _, levels, _ in self.rungs for level in levels])
        family = np.repeat([get_degradation(damage.name).family for _, damage, *_ in self.rungs], self.count)
        return Exam(
            name=self.options.label,
            target=-level,
            content=content,
            reference=content,
            group=np.repeat(np.arange(len(self.rungs)), self.count),
            level=level,
            family=np.where(level > 0, family.astype(object), "").astype(str),
            unseen=unseen,
            images=self.images,
            batch=8,
            about=f"{len(level)} damaged versions of {len(self.scenes.pairs)} stereo pairs, {real} of them real, the "
            "others photographs with a made-up depth; "
            "targets are the levels of damage, which two kinds share only roughly.",
        )


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the photographs and pairs, and divide them into what is taught and an exam.

    Raises:
        ConfigError: listing everything that is wrong with the entry.
    """
    o = options
    problems = [] if setting.card.channels == 6 else [f"{setting.card.name!r} judges no stereo pairs"]
    found: list[Any] = []
    looks: list[Callable[[], Any]] = [
        lambda: find_scenes(o.photos, o.pairs, o.size, o.disparity, o.label),
        lambda: families(o.hold_out_families),
        lambda: find_damages(o.degradations, o.exclude, (), o.label),
        lambda: None if setting.is_exam else find_teacher(o.teacher, o.size, o.label),
    ]
    for look in looks:
        try:
            found.append(look())
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems, o.label)
    pairs, unseen, damages, judge = found
    numbers = np.arange(len(pairs))
    held = numbers if setting.is_exam else held_out(numbers, o.hold_out, setting.seed)
    train, kept = [pairs[i] for i in np.setdiff1d(numbers, held)], [pairs[i] for i in held]
    source = None
    if not setting.is_exam:
        taught = find_damages(o.degradations, o.exclude, unseen, o.label)
        source = Pairs(train, taught, o, judge, with_reference=setting.card.needs_reference)
    return Opened(
        source,
        [_Rehearsal(kept, damages, o, setting).exam(unseen)] if kept else [],
        _prints(train),
        _prints(kept),
        () if judge is None else (judge.critic.card.name,),
    )


def _prints(pairs: Sequence[Pair]) -> Fingerprints | None:
    return fingerprint_files([f for pair in pairs for f in (pair.gt, pair.lq) if f is not None]) if pairs else None
