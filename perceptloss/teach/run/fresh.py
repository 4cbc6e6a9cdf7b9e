"""Sources whose images are made when they are asked for: several levels of one damage of a fresh cut."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import ConfigError, near
from perceptloss.runs.config import option
from perceptloss.runs.images import find_pairs
from perceptloss.teach.degradations import get_degradation
from perceptloss.teach.leaks.hashing import fingerprint_files
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, Source, SourceOptions, held_out, joined

__all__ = [
    "NAMES",
    "Fresh",
    "FreshOptions",
    "attempt",
    "dice",
    "divided",
    "in_bytes",
    "kept_names",
    "ladder_exam",
    "listed",
    "name_problems",
    "opened",
    "stratified",
    "with_clean",
]

T = TypeVar("T")
NAMES = 2**40  # of cuts, groups and seeds, drawn at random: exact in float64
_LOW, _HIGH = 0.3, 5.0  # below this level most degradations vanish when rounded to 8 bits


@dataclass(frozen=True)
class FreshOptions(SourceOptions):
    """What all such sources are asked."""

    members: int = option(3, "levels of each cut, one from each of as many equal parts of the scale", at_least=1)
    clean: float = option(0.5, "probability that the clean cut comes too", at_least=0)
    cache_mb: int = option(512, "memory for decoded images, MiB", at_least=0)


class Fresh:
    """What is taught of such a source; `versions` items of each photograph.

    Args:
        contents: Photographs, scenes or pairs.
        options: Of the source.
        with_reference: Whether batches bring references.
    """

    kinds: tuple[str, ...]
    options: FreshOptions

    def __init__(self, contents: Sequence[Any], options: FreshOptions, *, with_reference: bool) -> None:
        self.contents, self.with_reference, self.options = list(contents), with_reference, options
        known = {"levels": True, "kinds": True, "clean": options.clean > 0, "references": with_reference}
        self.gives = frozenset(name for name, is_known in known.items() if is_known)

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph of each item."""
        return np.repeat(np.arange(len(self.contents)), self.options.versions)

    def __len__(self) -> int:
        return len(self.contents) * self.options.versions

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Ladders of fresh cuts: place, damage and levels are drawn."""
        return joined([self._ladder(int(i) // self.options.versions, generator) for i in indices])

    def _ladder(self, content: int, generator: torch.Generator) -> Batch:
        raise NotImplementedError

    def _rows(
        self,
        images: tuple[Tensor, Tensor],
        content: int,
        names: tuple[int, int],
        levels: Sequence[float],
        kind: int,
        target: Tensor | None = None,
    ) -> Batch:
        """Images (N, C, H, W) of a clean one (C, H, W) at rising levels; `names` are of the place and the group."""
        x, clean = images
        count, at = len(levels), torch.tensor(levels, dtype=torch.float64)
        return Batch(
            x,
            clean.expand(count, -1, -1, -1) if self.with_reference else None,
            target,
            torch.full((count,), content),
            torch.full((count,), names[0]),
            torch.where(at > 0, names[1], -1),
            at,
            torch.where(at > 0, kind, 0),
            self.options.label,
        )


def in_bytes(images: Sequence[Tensor]) -> Tensor:
    """Batches of images in [0, 1] as one, uint8."""
    return torch.cat(list(images)).mul(255).round().byte()


def stratified(count: int, generator: torch.Generator) -> list[float]:
    """Rising levels, one from each of `count` equal parts of the scale."""
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    return ((torch.arange(count) + draws) * ((_HIGH - _LOW) / count) + _LOW).tolist()


def with_clean(levels: list[float], chance: float, generator: torch.Generator) -> list[float]:
    """With a chance, level 0 before the others."""
    return [0.0, *levels] if float(torch.rand((), generator=generator)) < chance else levels


def ladder_exam(
    options: SourceOptions,
    setting: Setting,
    ladders: Sequence[tuple[int, str, list[float]]],
    make: Callable[[], tuple[Tensor, Tensor]],
    about: str,
    *,
    unseen: frozenset[str] = frozenset(),
    batch: int = 16,
    is_own_cut: bool = False,
) -> Exam:
    """An exam on ladders, whose images are made when first asked for and kept, the same in every process.

    Args:
        options: Of the source.
        setting: Of the run.
        ladders: Photograph, family and levels of each, equally many.
        make: All images in the order of the ladders, and the clean ones in that of their cuts.
        about: See `Exam`.
        unseen: See `Exam`.
        batch: See `Exam`.
        is_own_cut: Whether each ladder has a cut of its own, or each photograph one.
    """
    count = len(ladders[0][2])
    group = np.repeat(np.arange(len(ladders)), count)
    content = np.array([c for c, _, _ in ladders])[group]
    level = np.array([level for _, _, levels in ladders for level in levels])
    family = np.array([family for _, family, _ in ladders])[group]
    reference = group if is_own_cut else content
    made = cache(make)

    def images(rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        x, clean = made()
        return x[torch.from_numpy(rows)], clean[torch.from_numpy(reference[rows])] if setting.with_reference else None

    return Exam(
        name=options.label,
        target=-level,
        content=content,
        reference=reference,
        group=group,
        level=level,
        family=np.where(level > 0, family, ""),
        unseen=unseen,
        images=images,
        batch=batch,
        about=f"{len(level)} {about}",
    )


def divided(contents: Sequence[T], options: SourceOptions, setting: Setting) -> tuple[list[T], list[T]]:
    """What is taught, and what is held out for the exam."""
    numbers = np.arange(len(contents))
    held = numbers if setting.is_exam else held_out(numbers, options.hold_out, setting.seed)
    taught = np.setdiff1d(numbers, held)
    return [contents[i] for i in taught.tolist()], [contents[i] for i in held.tolist()]


def dice(setting: Setting, content: int) -> torch.Generator:
    """A generator of what the exam shows of a photograph."""
    return torch.Generator().manual_seed(setting.seed * 100_003 + content)


def opened(
    source: Source | None, exam: Callable[[], Exam], files: Sequence[Sequence[Path]], teachers: Sequence[str] = ()
) -> Opened:
    """What a source brings, with an exam if there are `files` behind one; those behind the source come first."""
    taught_on, held_out = (fingerprint_files(part) if part else None for part in files)
    return Opened(source, [exam()] if held_out else [], taught_on, held_out, teachers)


def attempt(problems: list[str], look: Callable[[], T], otherwise: Any, before: str = "") -> T:
    """What a look gives; where it is refused, its problems are noted and something else is taken."""
    try:
        return look()
    except ConfigError as error:
        problems += [f"{before}{problem}" for problem in error.problems]
        fallback: T = otherwise
        return fallback


def listed(folder: str, where: str, problems: list[str]) -> dict[str, Path]:
    """Images below a folder by their stems; what is wrong with it is noted."""
    found = attempt(problems, lambda: find_pairs((folder,), (), 1, where), [], f"{where}: ")
    return {pair.name: pair.gt for pair in found}


def name_problems(given: Sequence[str], exclude: Collection[str], known: Mapping[str, str]) -> list[str]:
    """Names of degradations, and names or families to exclude, that are not known; `known` is name to family."""
    problems = [f"degradations: there is no {n!r}{near(n, known)}" for n in given if n not in known]
    names = {*known, *known.values()}
    return problems + [
        f"exclude: {n!r} is neither a degradation nor a family{near(n, names)}" for n in exclude if n not in names
    ]


def kept_names(
    given: Sequence[str], exclude: Collection[str], unseen: Collection[str], known: Sequence[str], where: str
) -> list[str]:
    """The degradations of a source; not those `unseen`, nor chains, of which these may be a part.

    Args:
        given: Names; none: all known ones but networks.
        exclude: Names and families.
        unseen: Names and families.
        known: Names.
        where: For messages.

    Raises:
        ConfigError: listing unknown names, or if none is left.
    """
    kinds = {name: get_degradation(name).family for name in known}
    if problems := name_problems(given, exclude, kinds):
        raise ConfigError(problems, where)
    hidden = {*unseen, "chain"} if unseen else set()  # chains are made of any family
    chosen = given or [name for name, family in kinds.items() if family != "network"]
    left_out = {*exclude, *hidden}
    kept = [n for n in chosen if n not in left_out and kinds[n] not in left_out]
    if not kept:
        raise ConfigError(["degradations: none is left"], where)
    return kept
