"""Where a critic learns from: the common face of all sources, and the table of their kinds.

A new kind is one module of its name with `Options`, a dataclass derived from `SourceOptions`, and
`open_source(options, setting) -> Opened`, and one word in `KINDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from perceptloss import Card
from perceptloss.errors import ConfigError, near
from perceptloss.runs.config import from_mapping, option
from perceptloss.teach.degradations import get_degradation, list_degradations
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.leaks.hashing import Fingerprints

__all__ = [
    "KINDS",
    "Batch",
    "Drawn",
    "Exam",
    "Opened",
    "Setting",
    "Source",
    "SourceOptions",
    "families",
    "family_in",
    "held_out",
    "joined",
    "open_sources",
    "parse_entries",
]

KINDS = (
    "teachers",  # photographs degraded by us, with the consensus of teachers
    "ladders",  # photographs degraded on the fly; nothing but the order of levels is known
    "opinions",  # datasets of people's scores
    "enhanced",  # underwater pictures enhanced in many ways; what critics with and without reference agree on
    "mixtures",  # raw pictures mixed with their references; the order of strengths is known
    "stereo",  # pairs of views; a critic judges each, the order of levels is known
    "enlargers",  # an exam alone: cuts enlarged in many ways, in the order that people are known to see
    "restoration",  # an exam alone: restored versions of a cut at one factor, with the consensus of teachers
)


@dataclass
class Batch:
    """Images of one source, and what is known about them; a column that is None is not known for any.

    Attributes:
        x: Judged images, (N, C, H, W), uint8.
        y: References, same shape.
        target: What is learned, (N,), higher is better.
        content: Photograph, (N,).
        reference: Cut of a photograph, (N,); images of equal reference show the same place.
        group: Images of one reference, kind of damage and random draw, at several levels, (N,); -1: none.
        level: Damage within the group, (N,); 0 is clean, NaN unknown.
        kind: Index of the kind of damage in `Source.kinds`, (N,); -1: none.
        dataset: Name of the source.
    """

    x: Tensor
    y: Tensor | None
    target: Tensor | None
    content: Tensor
    reference: Tensor
    group: Tensor
    level: Tensor
    kind: Tensor
    dataset: str

    def columns(self) -> Tensor:
        """Everything but the images, (N, 6), float64: target, content, reference, group, level, kind."""
        target = torch.full(self.level.shape, torch.nan) if self.target is None else self.target
        rows = (target, self.content, self.reference, self.group, self.level, self.kind)
        return torch.stack([column.double() for column in rows], 1)


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of several of one source."""

    def column(name: str) -> Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    first, names = batches[0], ("content", "reference", "group", "level", "kind")
    return Batch(
        column("x"),
        None if first.y is None else column("y"),
        None if first.target is None else column("target"),
        **{name: column(name) for name in names},
        dataset=first.dataset,
    )


class Source(Protocol):
    """What a critic learns from. Every method is a pure function of its arguments, which is what lets a run resume."""

    @property
    def options(self) -> SourceOptions:
        """Its entry."""
        ...

    @property
    def gives(self) -> frozenset[str]:
        """What is known: of `target`, `levels`, `clean` (undamaged images occur), `kinds`, `references`."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of damage."""
        ...

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph of each item, (len,); a batch is spread over them."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """The images of some items (an item may be several images), of one size, not yet cut or turned."""
        ...


@dataclass(frozen=True)
class Opened:
    """What a source brings.

    Attributes:
        source: Batches; None for an entry of `val.sets`.
        exams: Held-out images.
        taught_on: Photographs behind the source, to find leaks.
        held_out: Photographs behind the exams.
        teachers: Critics whose scores are the targets.
    """

    source: Source | None
    exams: Sequence[Exam]
    taught_on: Fingerprints | None = None
    held_out: Fingerprints | None = None
    teachers: Sequence[str] = ()


@dataclass(frozen=True)
class Setting:
    """What a source must know about the run."""

    card: Card
    seed: int
    is_exam: bool
    with_reference: bool
    """Whether images come with their references: the critic or an objective needs them."""
    on_main: Callable[[Callable[[], Any]], Any]
    """Runs on the main process; its result, or its error, on all."""


@dataclass(frozen=True)
class SourceOptions:
    """An entry of `data` or `val.sets`; the kind of source adds its own."""

    kind: str = option("teachers", "kind of source")
    name: str = option("", "name in logs and tables; nothing: its kind")
    weight: float = option(1.0, "weight of its losses", at_least=0)
    objectives: dict[str, Any] = option({}, "instead of the run's objectives")  # noqa: RUF009
    contents: int = option(8, "photographs per process and forward", at_least=1)
    versions: int = option(4, "items of each photograph", at_least=1)
    crops: tuple[int, ...] = option((), "sides of random square cuts, one drawn per step; none: whole images", above=0)
    turns: Literal["none", "mirror", "all"] = option(
        "all", "random mirroring, or also turning; one draw for all images of a reference"
    )
    hold_out: float = option(0.0, "share of the photographs that is an exam", at_least=0, below=1)
    hold_out_families: tuple[str, ...] = option((), "families of damage, or single names, that are not taught")

    @property
    def label(self) -> str:
        """Name in logs and tables."""
        return self.name or self.kind


@dataclass(frozen=True)
class Drawn(SourceOptions):
    """How the items of a scored set are drawn, and where it lies."""

    folder: str = option("", "the set; made there if it is not finished and pictures are given")
    members: int = option(2, "images drawn of an item", at_least=1)
    clean: float = option(0.25, "probability that the clean cut is one of them", at_least=0)


def held_out(contents: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Some of the photographs, for an exam; at least one if the share is above 0.

    Raises:
        ConfigError: if none would be left.
    """
    count = int(np.ceil(share * len(contents)))
    if count >= len(contents):
        raise ConfigError([f"hold_out: {share} of {len(contents)} photographs leaves none to learn from"], "hold_out")
    return np.sort(np.random.default_rng([seed, 7]).permutation(contents)[:count])


def families(names: Iterable[str], where: str = "hold_out_families") -> frozenset[str]:
    """Families of degradations by their names; a single degradation may be named as well.

    Raises:
        ConfigError: listing those that do not exist.
    """
    single = [name for channels in (3, 6) for name in list_degradations(channels=channels)]
    known = {*single, *(get_degradation(name).family for name in single), "chain"}
    problems = [f"{where}: no family and no damage is called {n!r}{near(n, known)}" for n in names if n not in known]
    if problems:
        raise ConfigError(problems, where)
    return frozenset(names)


def family_in(name: str, unseen: Collection[str]) -> str:
    """Family of a degradation in an exam; its own name where it alone of its family is not taught."""
    return name if name in unseen else get_degradation(name).family


def parse_entries(entries: Sequence[Any], where: str) -> list[SourceOptions]:
    """Entries of the configuration as the options of their kinds.

    Raises:
        ConfigError: listing the problems of all entries.
    """
    problems: list[str] = []
    parsed: list[SourceOptions] = []
    for i, entry in enumerate(entries):
        place = f"{where}[{i}]"
        kind = entry.get("kind", "teachers") if isinstance(entry, dict) else None
        if kind not in KINDS:
            problems.append(
                f"{place}: expected a mapping with `kind`, one of {', '.join(KINDS)}, got {entry!r}"
                if kind is None
                else f"{place}.kind: there is no {kind!r}{near(str(kind), KINDS)}; kinds: {', '.join(KINDS)}"
            )
            continue
        try:
            parsed.append(from_mapping(_module(kind).Options, entry, place))
        except ConfigError as error:
            problems += error.problems
    labels = [entry.label for entry in parsed]
    problems += [f"{where}: two entries are called {n!r}; give a `name`" for n in set(labels) if labels.count(n) > 1]
    if problems:
        raise ConfigError(problems, where)
    return parsed


def open_sources(entries: Sequence[SourceOptions], setting: Setting) -> list[Opened]:
    """Open every entry.

    Raises:
        ConfigError: listing what is wrong with any of them.
    """
    problems: list[str] = []
    opened: list[Opened] = []
    for entry in entries:
        try:
            opened.append(_module(entry.kind).open_source(entry, setting))
        except ConfigError as error:
            problems += [f"{entry.label}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems, "data")
    return opened


def _module(kind: str) -> Any:
    return importlib.import_module(f"perceptloss.teach.run.{kind}")
