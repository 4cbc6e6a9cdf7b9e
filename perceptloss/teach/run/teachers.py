"""Learning from a scored set: photographs degraded in many ways, with the consensus of full-reference critics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import ConfigError, PerceptlossError, near
from perceptloss.runs.config import option
from perceptloss.runs.images import find_pairs
from perceptloss.teach.degradations import get_degradation, list_degradations
from perceptloss.teach.leaks.hashing import Fingerprints, fingerprint, fingerprint_files
from perceptloss.teach.run.sources import Batch, Drawn, Exam, Opened, Setting, SourceOptions, families, held_out
from perceptloss.teach.run.targets import lowered, raised, target_problems
from perceptloss.teach.sets import Plan, ScoredSet, build
from perceptloss.teach.sets.plan import network_files
from perceptloss.teach.sets.teachers import critic_in, given_teachers

__all__ = ["Ladders", "Options", "Units", "exam_of", "open_source"]

_OF_THE_PLAN = (
    "crop",
    "crops_per_photo",
    "singles",
    "levels_each",
    "chains",
    "chain_kinds",
    "always",
    "always_levels",
    "exclude",
)


@dataclass(frozen=True)
class Options(Drawn):
    """A scored set; its items are ladders (one degradation at several levels) and the chains of a cut."""

    photos: tuple[str, ...] = option(
        (), "folders of clean photographs; none: `folder` is finished, and only its cuts are compared for leaks"
    )
    crop: int = option(192, "side of the square cuts, pixels", at_least=32)
    crops_per_photo: int = option(2, "cuts of each photograph", at_least=1)
    singles: int = option(6, "degradations of each cut", at_least=0)
    levels_each: int = option(3, "levels of each degradation", at_least=1)
    chains: int = option(4, "random chains of degradations of each cut", at_least=0)
    chain_kinds: tuple[str, ...] = option(
        ("real-world", "mixed"), "kinds of chains, in turn: real-world, mixed, restoration, phone"
    )
    degradations: tuple[str, ...] = option((), "names to use; none: all")
    always: tuple[str, ...] = option((), "names that every cut gets besides, all at the same levels, drawn together")
    always_levels: tuple[float, ...] = option((), "these levels, in (0, 5]; none: drawn, as many as levels_each")
    exclude: tuple[str, ...] = option((), "names or families that are not used")
    teachers: dict[str, Any] = option(  # noqa: RUF009
        {}, "full-reference judges: {label: weight} or {label: {critic, weight, weights, shrink, ...}}"
    )
    floors: dict[str, Any] = option({}, "least target of families that teachers judge too hard: {geometry: 0.8}")  # noqa: RUF009
    below: list[Any] = option(  # noqa: RUF009
        [], "pairs [worse, better] of `always`: what people are known to prefer, whatever the teachers say"
    )
    networks: dict[str, Any] = option({}, "restoration networks that degrade: {name: file}")  # noqa: RUF009
    set_seed: int = option(0, "of the set's cuts, degradations and levels", at_least=0)
    processes: int = option(2, "that make the set", at_least=1)


@dataclass(frozen=True)
class Units:
    """The items of a source: rows that may be drawn together, and the clean row (-1: none) of their cut."""

    rows: list[np.ndarray]
    clean: np.ndarray
    content: np.ndarray

    @classmethod
    def of(cls, taught: ScoredSet, is_used: np.ndarray, together: Sequence[str] = ()) -> Units:
        """Ladders by group, chains by reference, and `together` by reference and level, of the rows in use."""
        order = np.flatnonzero(is_used & (taught.level != 0))
        groups = len(taught.group) and int(taught.group.max()) + 1
        cuts = int(taught.reference.max()) + 1
        step = np.unique(taught.level, return_inverse=True)[1]
        side_by_side = groups + cuts + taught.reference * (int(step.max()) + 1) + step
        keys = np.where(taught.group >= 0, taught.group, groups + taught.reference)
        keys = np.where(np.isin(taught.name, list(together)), side_by_side, keys)[order]
        order = order[np.argsort(keys, kind="stable")]
        starts = np.flatnonzero(np.diff(np.sort(keys), prepend=-1))
        rows = np.split(order, starts[1:]) if len(order) else []
        clean_of = np.full(int(taught.reference.max()) + 1, -1)
        is_clean = np.flatnonzero(taught.level == 0)
        clean_of[taught.reference[is_clean]] = is_clean
        first = np.array([unit[0] for unit in rows], dtype=int)
        return cls(rows, clean_of[taught.reference[first]], np.asarray(taught.content)[first])


class Ladders:
    """What is taught of a scored set; an item is a ladder or the chains of one cut.

    Args:
        taught: The set.
        target: Quality of each row; NaN where unknown.
        is_used: Rows to learn from.
        options: Of the source.
        together: See `Units.of`.
        with_reference: Whether batches bring references.
    """

    def __init__(
        self,
        taught: ScoredSet,
        target: np.ndarray,
        is_used: np.ndarray,
        options: Drawn,
        together: Sequence[str] = (),
        *,
        with_reference: bool,
    ) -> None:
        self.taught, self.options, self.with_reference = taught, options, with_reference
        self.target, self.is_used = np.asarray(target, dtype=np.float32), is_used
        self.units = Units.of(taught, is_used, together)
        if not self.units.rows:
            raise ConfigError(["nothing is left to learn from"], options.label)
        names, kind = np.unique(np.asarray(taught.name), return_inverse=True)
        self.kinds = tuple(map(str, names))
        self.kind = kind.astype(np.int64)
        known = {"target", "kinds"} | ({"levels"} if (taught.group >= 0).any() else set())
        known |= ({"clean"} if options.clean > 0 else set()) | ({"references"} if with_reference else set())
        self.gives = frozenset(known)

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph of each item."""
        return self.units.content

    def __len__(self) -> int:
        return len(self.units.rows)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """`members` images of each item, with a chance the clean cut among them."""
        rows = self.rows(indices, generator)
        return self.known(rows, *images(self.taught, rows, self.with_reference))

    def rows(self, indices: Sequence[int], generator: torch.Generator) -> np.ndarray:
        """Rows of the set that a batch of these items holds."""
        return np.concatenate([self._drawn(int(index), generator) for index in indices])

    def known(self, rows: np.ndarray, x: Tensor, y: Tensor | None) -> Batch:
        """What is known about rows, beside their images or what stands for them."""
        t = self.taught

        def column(values: Any) -> Tensor:
            return torch.from_numpy(np.asarray(values[rows]))

        return Batch(
            x,
            y,
            column(self.target),
            column(t.content).long(),
            column(t.reference).long(),
            column(t.group).long(),
            column(t.level).double(),
            column(self.kind),
            self.options.label,
        )

    def _drawn(self, index: int, generator: torch.Generator) -> np.ndarray:
        unit, clean = self.units.rows[index], int(self.units.clean[index])
        order = torch.randperm(len(unit), generator=generator).numpy()
        chance = float(torch.rand((), generator=generator))
        drawn = unit[order][: self.options.members]
        if clean < 0 or chance >= self.options.clean:
            return drawn
        return np.append(drawn[: max(1, self.options.members - 1)], clean)


def images(taught: ScoredSet, rows: np.ndarray, with_reference: bool) -> tuple[Tensor, Tensor | None]:
    """Rows as uint8 tensors, copied from the files."""
    x = torch.from_numpy(np.asarray(taught.images[rows]))
    return x, torch.from_numpy(np.asarray(taught.references[taught.reference[rows]])) if with_reference else None


def open_source(options: Options, setting: Setting) -> Opened:
    """Open the set, make it first if it must be, and divide it into what is taught and an exam."""
    unseen = families(options.hold_out_families)
    taught, weights = _open(options, setting)
    target = lowered(taught, raised(taught, taught.consensus(weights), options.floors), options.below)
    contents = np.unique(taught.content)
    held = contents if setting.is_exam else held_out(contents, options.hold_out, setting.seed)
    is_held = np.isin(taught.content, held)
    exams = [exam_of(options, taught, target, is_held, unseen, setting)] if is_held.any() else []
    is_used = ~is_held & ~_is_touched(taught, unseen)
    known = (taught, target, is_used, options, options.always)
    source = None if setting.is_exam else Ladders(*known, with_reference=setting.with_reference)
    rest = np.setdiff1d(contents, held)
    prints = [_prints(options, taught, part) for part in (rest, held)]
    return Opened(source, exams, prints[0], prints[1], _judges(taught, weights))


def _prints(options: Options, taught: ScoredSet, contents: np.ndarray) -> Fingerprints | None:
    """Of whole photographs where they are known, else of all their cuts."""
    if not len(contents):
        return None
    if options.photos:
        photos = _photos(options)
        return fingerprint_files([photos[c] for c in contents])
    rows = np.flatnonzero(np.isin(taught.content, contents) & (taught.level == 0))
    cuts = (images(taught, rows[i : i + 64], False)[0] / 255 for i in range(0, len(rows), 64))
    prints = [fingerprint([str(i) for i in range(len(cut))], cut).thumbnails for cut in cuts]
    names = [f"{taught.contents[taught.content[row]]}, cut {taught.reference[row]}" for row in rows]
    return Fingerprints(tuple(names), torch.cat(prints))


def _photos(options: Options) -> tuple[Path, ...]:
    return tuple(pair.gt for pair in find_pairs(options.photos, (), 1, "photos"))


def _open(options: Options, setting: Setting) -> tuple[ScoredSet, Mapping[str, float]]:
    problems = [] if options.folder else ["folder: where is the scored set, or where shall it be made?"]
    problems += target_problems(options.floors, options.below, options.always) if options.photos else []
    teachers, networks = given_teachers(options.teachers, problems), network_files(options.networks, problems)
    if problems:
        raise ConfigError(problems, options.label)
    folder = Path(options.folder)
    if options.photos:
        plan = Plan(
            photos=_photos(options),
            **{name: getattr(options, name) for name in _OF_THE_PLAN},
            degradations=options.degradations or None,
            seed=options.set_seed,
            teachers=teachers,
            networks=networks,
        )
        setting.on_main(lambda: build(plan, folder, processes=options.processes) and None)
    taught = ScoredSet.open(folder)
    weights = {name: spec.weight for name, spec in teachers.items()} or dict(taught.weights)
    unknown = [n for n in weights if n not in taught.teachers]
    if unknown:
        raise ConfigError(
            [f"teachers: the set in {folder} has no scores of {n!r}{near(n, taught.teachers)}" for n in unknown],
            options.label,
        )
    return taught, weights


def _judges(taught: ScoredSet, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Critics and packages that were heard, each once, whatever their labels."""
    return tuple(dict.fromkeys(critic_in(label, taught.plan["teachers"]) for label in weights))


def _is_touched(taught: ScoredSet, unseen: frozenset[str]) -> np.ndarray:
    """Rows in whose making a held-out family or degradation had a part, as one step of a chain too."""

    def touched(recipe: str) -> set[str]:
        steps = [step.partition(":")[0] for step in recipe.split(" + ") if step]
        return {*steps, *(get_degradation(name).family if name in registered else "network" for name in steps)}

    if not unseen:
        return np.zeros(len(taught.level), dtype=bool)
    registered = list_degradations()
    in_chain = np.array([bool(touched(str(recipe)) & unseen) for recipe in taught.recipe])
    return in_chain | np.isin(taught.family, list(unseen))


def exam_of(
    options: SourceOptions,
    taught: ScoredSet,
    target: np.ndarray,
    is_held: np.ndarray,
    unseen: frozenset[str],
    setting: Setting,
) -> Exam:
    """The held rows as an exam."""
    rows = np.flatnonzero(is_held)
    if len(rows) < 2:
        raise PerceptlossError(f"{options.label}: an exam needs at least two images")
    family = np.asarray(taught.family)[rows].astype(str)
    name = np.asarray(taught.name)[rows].astype(str)
    family = np.where(np.isin(name, list(unseen)), name, family)
    family[np.asarray(taught.level)[rows] == 0] = ""
    count = len(np.unique(taught.content[rows]))
    teachers = ", ".join(taught.teachers)
    return Exam(
        name=options.label,
        target=np.asarray(target, dtype=float)[rows],
        content=np.asarray(taught.content)[rows],
        reference=np.asarray(taught.reference)[rows],
        group=np.asarray(taught.group)[rows],
        level=np.asarray(taught.level, dtype=float)[rows],
        family=family,
        unseen=unseen,
        images=lambda chosen: images(taught, rows[chosen], setting.with_reference),
        batch=16,
        about=f"{len(rows)} degraded cuts of {count} photographs; targets are the consensus of {teachers}.",
    )
