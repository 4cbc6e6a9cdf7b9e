"""Learning from underwater pictures and enhanced versions of them: what critics with and without reference agree on.

Scenes are raw pictures with references that people chose, or clear photographs under simulated water. Their versions
are enhanced in many ways, overdone, mixed, and damaged. Full-reference critics compare them with the reference; indices
without one (UCIQE, UIQM, NIQE) see colour, contrast and naturalness, which no distance from a restyled reference tells.
Each alone is known to err: indices reward too much colour and contrast (Li et al., "An Underwater Image Enhancement
Benchmark Dataset and Beyond", TIP 2020), and noise. So an index has no say above a rank, and what is worse by
construction is worse in the target: too much of an enhancement than enough of it, damage than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from perceptloss.card import Card
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.registry import get_card
from perceptloss.runs.images import Pair, check, find_pairs
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations import list_degradations
from perceptloss.teach.degradations.core import LEVELS
from perceptloss.teach.run.enhanced_scores import Content, Floats, Made, Options, files_of, made
from perceptloss.teach.run.enhanced_versions import Version
from perceptloss.teach.run.fresh import attempt, divided, name_problems, opened
from perceptloss.teach.run.mixtures import Scene, find_scenes
from perceptloss.teach.run.sources import Exam, Opened, Setting
from perceptloss.teach.run.teachers import Ladders, exam_of
from perceptloss.teach.sets import ScoredSet, TeacherSpec
from perceptloss.teach.sets.consensus import consensus, midranks
from perceptloss.teach.sets.teachers import checked_teachers

__all__ = ["Options", "open_source", "target_of"]


def target_of(
    versions: Sequence[Version], full: Floats, indices: Mapping[str, Floats], options: Options, count: int
) -> Floats:
    """Quality of every version, in [0, 1].

    Args:
        versions: Of cuts of so many (`count`), one after the other.
        full: What full-reference teachers agree on, in [0, 1]; NaN throughout without any.
        indices: What each index says, higher is better.
        options: Of the source.
        count: Versions of a cut.
    """
    target = full
    if indices and options.share:
        weights = np.array([float(options.indices[name]) for name in indices])
        ranks = [(midranks(scores) - 0.5) / len(scores) for scores in indices.values()]
        said = np.average([np.minimum(rank / options.enough, 1) for rank in ranks], axis=0, weights=weights)
        target = said if np.isnan(full).all() else options.share * said + (1 - options.share) * full
    target = target.copy()
    for row, version in enumerate(versions):  # a base stands before what was made of it
        base = row - row % count + version.base
        if base != row:
            target[row] = min(target[row], (1 - version.loss) * target[base])
    return target


def _full(found: Made, specs: Mapping[str, TeacherSpec], count: int) -> Floats:
    """What the teachers agree on; the first version of a cut is its reference."""
    if not specs:
        return np.full(len(found.scores), np.nan)
    clean = np.repeat(found.scores[::count], count, axis=0)
    return consensus(
        dict(zip(specs, found.scores.T, strict=False)),
        dict(zip(specs, clean.T, strict=False)),
        found.is_higher_better,
        {label: spec.weight for label, spec in specs.items()},
    )


def _set_of(found: Made, contents: Sequence[Content], options: Options, specs: Mapping[str, TeacherSpec]) -> ScoredSet:
    """The versions as a scored set; mixes of a cut are a group."""
    count = len(found.versions) // (len(contents) * options.cuts)
    reference = np.arange(len(found.versions)) // count
    kind = np.array([version.kind for version in found.versions])
    level = np.array([version.level for version in found.versions])
    return ScoredSet(
        references=found.images[::count],
        images=found.images,
        reference=reference,
        content=reference // options.cuts,
        source=0 * reference,
        name=np.array([version.name for version in found.versions]),
        family=kind,
        level=level,
        group=np.where(level > 0, reference, -1),
        recipe=np.full(len(kind), ""),
        scores=found.scores.astype(np.float32),
        clean_scores=found.scores[::count].astype(np.float32),
        teachers=(*specs, *options.indices),
        weights={label: spec.weight for label, spec in specs.items()},
        is_higher_better=dict(found.is_higher_better) | dict.fromkeys(options.indices, True),
        contents=tuple(str(c.reference if isinstance(c, Scene) else c) for c in contents),
        sources=("",),
        plan={},
    )


def _judged(
    contents: Sequence[Content], options: Options, setting: Setting, specs: Mapping[str, TeacherSpec]
) -> tuple[ScoredSet, Floats]:
    """Versions of all scenes, and their targets."""
    setting.on_main(lambda: made(contents, options, setting, specs) and None)
    found = made(contents, options, setting, specs)
    taught = _set_of(found, contents, options, specs)
    count = len(found.versions) // len(taught.references)
    said = {name: found.scores[:, len(specs) + i] for i, name in enumerate(options.indices)}
    return taught, target_of(found.versions, _full(found, specs, count), said, options, count)


def _exam(contents: Sequence[Content], options: Options, setting: Setting, specs: Mapping[str, TeacherSpec]) -> Exam:
    taught, target = _judged(contents, options, setting, specs)
    exam = exam_of(options, taught, target, np.ones(len(target), dtype=bool), frozenset(), setting)
    about = f"{len(target)} enhanced, mixed and damaged versions of {len(contents)} underwater scenes; targets are the "
    about += f"consensus of {', '.join(taught.teachers)}, no person was asked."
    return replace(exam, about=about, within=exam.reference)


def _contents(options: Options, problems: list[str]) -> list[Content]:
    """Pairs and photographs; what is wrong with them is noted."""
    o, found = options, list[Content]()
    if o.raw or o.reference or not o.photos:
        found += attempt(problems, lambda: find_scenes(o.raw, o.reference, o.crop, o.label), [])
    if o.photos:
        pairs: list[Pair] = attempt(problems, lambda: find_pairs(o.photos, (), 1, "photos"), [])
        problems += check(pairs, TAUGHT, o.crop, 1, decode=False)
        found += [pair.gt for pair in pairs]
    return found


def _index_problems(options: Options) -> list[str]:
    problems = []
    for name, weight in options.indices.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
            problems.append(f"indices.{name}: expected a weight above 0, got {weight!r}")
        try:
            card: Card = get_card(name)
        except UnknownCritic as error:
            problems.append(f"indices: {error}")
            continue
        if card.kind != "nr" or card.min_size > options.crop:
            problems.append(f"indices: {name!r} judges no images of {options.crop} pixels without a reference")
    if not options.indices and not options.teachers:
        problems.append("indices, teachers: give at least one of either")
    return problems


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check pictures and critics, make versions, ask the critics, and divide them into taught and exam.

    Raises:
        ConfigError: listing everything that is wrong with the entry.
    """
    problems: list[str] = []
    contents, specs = _contents(options, problems), checked_teachers(options.teachers, options.crop, problems)
    problems += _index_problems(options) + name_problems(
        options.degradations, (), dict.fromkeys(list_degradations(), "")
    )
    if not options.folder:
        problems.append("folder: where shall versions and scores be kept?")
    if options.hold_out_families:
        problems.append("hold_out_families: has no meaning here; leave names out of `degradations`")
    if options.overdone > options.enhanced:
        problems.append(f"overdone: at most as many as enhanced, {options.enhanced}; got {options.overdone}")
    if options.share > 1 or options.enough > 1:
        problems.append(f"share, enough: must be at most 1, got {options.share} and {options.enough}")
    if options.damage > LEVELS:
        problems.append(f"damage: must be at most {LEVELS}, got {options.damage}")
    if problems:
        raise ConfigError(problems, options.label)
    taught, kept = divided(contents, options, setting)
    files = [[file for content in part for file in files_of(content)] for part in (taught, kept)]
    source = None
    if not setting.is_exam:
        rows, target = _judged(taught, options, setting, specs)
        source = Ladders(rows, target, np.ones(len(target), dtype=bool), options, with_reference=setting.with_reference)
    judges = tuple(dict.fromkeys([*(spec.critic for spec in specs.values()), *options.indices]))
    return opened(source, lambda: _exam(kept, options, setting, specs), files, judges)
