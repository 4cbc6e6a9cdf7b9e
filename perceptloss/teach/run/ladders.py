"""Learning without any label: photographs degraded on the fly, of which more damage is known to be worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.runs.config import option
from perceptloss.runs.images import check, find_pairs
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations import degrade, list_degradations
from perceptloss.teach.run.fresh import (
    NAMES,
    Fresh,
    FreshOptions,
    dice,
    divided,
    in_bytes,
    kept_names,
    ladder_exam,
    opened,
    stratified,
    with_clean,
)
from perceptloss.teach.run.photos import Photos, cut
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, families, family_in

__all__ = ["Options", "Rungs", "open_source"]


@dataclass(frozen=True)
class Options(FreshOptions):
    """Photographs; an item is one cut with one degradation at several levels."""

    photos: tuple[str, ...] = option((), "folders of clean photographs")
    crop: int = option(128, "side of the square cuts, pixels", at_least=32)
    degradations: tuple[str, ...] = option((), "names to use; none: all of single images")
    exclude: tuple[str, ...] = option((), "names or families that are not used")
    exam_kinds: int = option(4, "degradations of each photograph of the exam", at_least=1)


class Rungs(Fresh):
    """What is taught.

    Args:
        files: Photographs.
        names: Degradations.
        options: Of the source.
        with_reference: Whether batches bring references.
    """

    options: Options

    def __init__(self, files: Sequence[Path], names: Sequence[str], options: Options, *, with_reference: bool) -> None:
        super().__init__(files, options, with_reference=with_reference)
        self.names, self.photos = tuple(names), Photos(options.cache_mb)
        self.kinds = ("clean", *self.names)

    def _ladder(self, content: int, generator: torch.Generator) -> Batch:
        image = self.photos[self.contents[content]]
        rows, columns = cut(image, self.options.crop, generator)
        kind = int(torch.randint(len(self.names), (), generator=generator))
        seed, place, group = torch.randint(NAMES, (3,), generator=generator).tolist()
        levels = with_clean(stratified(self.options.members, generator), self.options.clean, generator)
        clean = image[:, rows, columns]
        return self._rows(
            (ladder(clean, self.names[kind], levels, seed), clean), content, (place, group), levels, kind + 1
        )


def ladder(clean: Tensor, name: str, levels: Sequence[float], seed: int) -> Tensor:
    """A cut (3, S, S), uint8, at several levels of one degradation with the same draws, (N, 3, S, S), uint8."""
    x = clean[None].float() / 255
    return in_bytes([degrade(x, name, level, seed=seed) for level in levels])


def _exam(
    files: Sequence[Path], names: Sequence[str], options: Options, setting: Setting, unseen: frozenset[str]
) -> Exam:
    rungs: list[tuple[int, str, list[float], int]] = []
    for content in range(len(files)):
        generator = dice(setting, content)
        for k in torch.randperm(len(names), generator=generator)[: options.exam_kinds].tolist():
            seed = int(torch.randint(NAMES, (), generator=generator))
            rungs.append((content, names[k], [0.0, *stratified(options.members, generator)], seed))

    def make() -> tuple[Tensor, Tensor]:
        photos = Photos(0)
        cuts: list[Tensor] = []
        for content, file in enumerate(files):
            image = photos[file]
            rows, columns = cut(image, options.crop, dice(setting, content))
            cuts.append(image[:, rows, columns])
        return torch.cat([ladder(cuts[c], name, levels, seed) for c, name, levels, seed in rungs]), torch.stack(cuts)

    about = f"degraded cuts of {len(files)} photographs; targets are the levels of damage, which two kinds share only "
    ladders = [(content, family_in(name, unseen), levels) for content, name, levels, _ in rungs]
    return ladder_exam(options, setting, ladders, make, f"{about}roughly.", unseen=unseen)


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the photographs, and divide them into what is taught and an exam."""
    pairs = find_pairs(options.photos, (), 1, "photos")
    if not pairs:
        raise ConfigError(["photos: give at least one folder"], options.label)
    if problems := check(pairs, TAUGHT, options.crop, 1, decode=False):
        raise ConfigError(problems, "photos")
    unseen = families(options.hold_out_families)
    names, taught = (
        kept_names(options.degradations, options.exclude, hidden, list_degradations(), options.label)
        for hidden in ((), unseen)
    )
    files, kept = divided([pair.gt for pair in pairs], options, setting)
    source = None if setting.is_exam else Rungs(files, taught, options, with_reference=setting.with_reference)
    return opened(source, lambda: _exam(kept, names, options, setting, unseen), (files, kept))
