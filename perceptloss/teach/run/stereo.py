"""Learning from stereo pairs: made from photographs or real ones, damaged between the views, in one view, or in both.

Where the damage is that of single views, a teacher q judges each view beside the clean one, and the target is
0.7 sum_v w_v q_v + 0.3 min_v q_v. The w_v are the views' shares in what is seen, from their contrast, as in binocular
rivalry (Levelt, "On Binocular Rivalry", 1965); the second part is for the worse view, which the better one does not
make up for where it is blocky or noisy (Seuntiens, Meesters, IJsselsteijn, "Perceived quality of compressed
stereoscopic images", ACM Transactions on Applied Perception 2006). This weighting, 0.7 and 0.3, is ours. Where the
damage is that the views disagree, no view shows it alone, and only the order of its levels is taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair
from perceptloss.teach.run.fresh import (
    NAMES,
    Fresh,
    FreshOptions,
    attempt,
    dice,
    divided,
    ladder_exam,
    opened,
    stratified,
    with_clean,
)
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, families, family_in
from perceptloss.teach.run.views import (
    Damage,
    Scenes,
    ViewTeacher,
    damaged,
    find_damages,
    find_scenes,
    find_teacher,
)

__all__ = ["Options", "Pairs", "open_source"]

_AT_ONCE = 16


@dataclass(frozen=True)
class Options(FreshOptions):
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
    degradations: tuple[str, ...] = option((), "names to use; none: all of pairs and of single images")
    exclude: tuple[str, ...] = option(("underwater", "screen", "spatial"), "names or families that are not used")
    stereo_share: float = option(0.4, "share of degradations of pairs; the others are of single images", at_least=0)
    teacher: dict[str, Any] = option(  # noqa: RUF009
        {},
        "full-reference critic of the views: {name, weights}; no weights: those of its card; none: order alone, and "
        "the targets of an exam are the levels",
    )
    exam_kinds: int = option(8, "kinds of damage of each pair of the exam", at_least=1)


class Pairs(Fresh):
    """What is taught.

    Args:
        pairs: Files.
        damages: Those of pairs, and those of single images.
        options: Of the source.
        teacher: Of the views; None: no targets.
        with_reference: Whether batches bring references.
    """

    options: Options

    def __init__(
        self,
        pairs: Sequence[Pair],
        damages: tuple[Sequence[Damage], Sequence[Damage]],
        options: Options,
        teacher: ViewTeacher | None,
        *,
        with_reference: bool,
    ) -> None:
        super().__init__(pairs, options, with_reference=with_reference)
        self.scenes = Scenes(pairs, options.size, options.disparity, options.cache_mb)
        self.damages, self.teacher = damages, teacher
        self.kinds = ("clean", *(damage.label for part in damages for damage in part))
        self.gives |= {"target"} if teacher else set()

    def _ladder(self, content: int, generator: torch.Generator) -> Batch:
        y = self.scenes.draw(content, generator)
        damage = self._drawn(generator)
        seed, place, group = torch.randint(NAMES, (3,), generator=generator).tolist()
        levels = with_clean(stratified(self.options.members, generator), self.options.clean, generator)
        x = damaged(y, damage, levels, seed)
        target = self._targets(x, y.expand(len(x), -1, -1, -1), (torch.tensor(levels) == 0) | damage.is_shown)
        return self._rows((x, y), content, (place, group), levels, self.kinds.index(damage.label), target)

    def _drawn(self, generator: torch.Generator) -> Damage:
        of_pairs, of_images = self.damages
        is_of_pairs = float(torch.rand((), generator=generator)) < self.options.stereo_share
        part = (of_pairs if is_of_pairs else of_images) or of_pairs or of_images
        return part[int(torch.randint(len(part), (), generator=generator))]

    def _targets(self, x: Tensor, y: Tensor, known: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        target = torch.full((len(x),), torch.nan)
        if known.any():
            target[known] = self.teacher(x[known], y[known])
        return target


def _exam(
    pairs: Sequence[Pair],
    damages: tuple[Sequence[Damage], Sequence[Damage]],
    options: Options,
    setting: Setting,
    unseen: frozenset[str],
    teacher: ViewTeacher | None,
) -> Exam:
    """Every pair has both sorts of damage, where there are both."""
    scenes = Scenes(pairs, options.size, options.disparity, 0)

    rungs: list[tuple[int, Damage, list[float], int]] = []
    of_pairs = round(options.stereo_share * options.exam_kinds)
    for content in range(len(pairs)):
        generator = dice(setting, content)
        for part, count in zip(damages, (of_pairs, options.exam_kinds - of_pairs), strict=True):
            for k in torch.randperm(len(part), generator=generator)[:count].tolist():
                seed = int(torch.randint(NAMES, (), generator=generator))
                rungs.append((content, part[k], [0.0, *stratified(options.members, generator)], seed))

    @cache
    def make() -> tuple[Tensor, Tensor]:
        clean = torch.stack([scenes.draw(c, dice(setting, c), central=True) for c in range(len(pairs))])
        return torch.cat([damaged(clean[c], damage, levels, seed) for c, damage, levels, seed in rungs]), clean

    real = sum(pair.lq is not None for pair in pairs)
    about = f"damaged versions of {len(pairs)} stereo pairs, {real} of them real, the others photographs with a "
    said = "the levels of damage, which two kinds share only roughly"
    said = said if teacher is None else f"what {teacher.critic.card.name} says of the views, where they show the damage"
    about += f"made-up depth; targets are {said}."
    ladders = [(content, family_in(damage.name, unseen), levels) for content, damage, levels, _ in rungs]
    exam = ladder_exam(options, setting, ladders, make, about, unseen=unseen, batch=8)
    if teacher is None:
        return exam
    shown = np.array([damage.is_shown or level == 0 for _, damage, levels, _ in rungs for level in levels])
    x, clean = make()
    target = np.full(len(shown), np.nan)
    for rows in np.split(np.flatnonzero(shown), range(_AT_ONCE, int(shown.sum()), _AT_ONCE)):
        target[rows] = teacher(x[rows], clean[exam.content[rows]])
    return replace(exam, target=target)


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the photographs and pairs, and divide them into what is taught and an exam.

    Raises:
        ConfigError: listing everything that is wrong with the entry.
    """
    o = options
    problems = [] if setting.card.channels == 6 else [f"{setting.card.name!r} judges no stereo pairs"]
    pairs: list[Pair] = attempt(problems, lambda: find_scenes(o.photos, o.pairs, o.size, o.disparity, o.label), [])
    unseen = attempt(problems, lambda: families(o.hold_out_families), frozenset())
    damages = attempt(problems, lambda: find_damages(o.degradations, o.exclude, (), o.label), ([], []))
    teacher = attempt(problems, lambda: find_teacher(o.teacher, o.size, o.label), None)
    if problems:
        raise ConfigError(problems, o.label)
    shown, kept = divided(pairs, o, setting)
    source = None
    if not setting.is_exam:
        taught = find_damages(o.degradations, o.exclude, unseen, o.label)
        source = Pairs(shown, taught, o, teacher, with_reference=setting.with_reference)
    files = [[f for pair in part for f in (pair.gt, pair.lq) if f is not None] for part in (shown, kept)]
    teachers = () if teacher is None else (teacher.critic.card.name,)
    judge = teacher if setting.is_exam else None  # what is held out of a source keeps its levels
    return opened(source, lambda: _exam(kept, damages, o, setting, unseen, judge), files, teachers)
