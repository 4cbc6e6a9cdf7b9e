"""An exam: versions of a cut at one factor, as a user compares restorers, with the consensus of teachers.

Every cut is shrunk, the small picture is left alone, made noisy, or compressed, and then enlarged by filters and by
super-resolution networks. What is asked besides correlations is the order of pairs within one cut and factor alone
(`within`), which a figure over all damage together says little about.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from perceptloss import __version__
from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.networks.restorers import SuperResolver, load_sr
from perceptloss.output.files import replacing, unwritable
from perceptloss.runs.config import option
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.enlarge import ENLARGERS, enlarged, shrunk
from perceptloss.teach.degradations.operations import normal
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.leaks.hashing import fingerprint_files
from perceptloss.teach.run.fresh import attempt
from perceptloss.teach.run.sources import Opened, Setting
from perceptloss.teach.run.versions import VersionOptions, Versions, find_photos, version_problems
from perceptloss.teach.sets.consensus import consensus
from perceptloss.teach.sets.judging import Panel
from perceptloss.teach.sets.plan import network_files
from perceptloss.teach.sets.teachers import TeacherSpec, checked_teachers, digest, facts_of

__all__ = ["Options", "open_source"]

Damage = Literal["none", "noise", "jpeg"]
_NOISE = 0.01, 0.06  # standard deviation, least and most
_QUALITY = 30.0, 90.0


@dataclass(frozen=True)
class Options(VersionOptions):
    """Photographs, restorers and teachers."""

    factors: tuple[int, ...] = option((2, 3, 4), "how far cuts are shrunk before they are restored", at_least=2)
    enlargers: tuple[str, ...] = option(
        ("nearest", "bilinear", "bicubic", "lanczos", "gradient-directed", "sharpened"), "names to use; none: all"
    )
    networks: dict[str, Any] = option({}, "super-resolution networks that restore: {name: file}")  # noqa: RUF009
    damages: tuple[Damage, ...] = option(("none", "noise", "jpeg"), "what is done to the small picture, each apart")
    teachers: dict[str, Any] = option(  # noqa: RUF009
        {}, "full-reference judges: {label: weight} or {label: {critic, weight, weights, shrink, ...}}"
    )
    scores: str = option("", "file (.npz) that keeps what the teachers say; nothing: they are asked in every run")


@dataclass(frozen=True)
class _Way:
    """How a cut is restored: enlarger or network, factor, damage of the small picture."""

    factor: int
    damage: str
    restorer: str


def _ways(options: Options, networks: Mapping[str, SuperResolver]) -> list[_Way]:
    names = options.enlargers or ENLARGERS
    return [
        _Way(factor, damage, restorer)
        for factor in options.factors
        for damage in options.damages
        for restorer in (*names, *(name for name, network in networks.items() if factor in network.scales))
    ]


def _damaged(small: Tensor, damage: str, generator: torch.Generator) -> Tensor:
    share = float(torch.rand((), generator=generator))
    if damage == "noise":
        low, high = _NOISE
        small = small + (low + (high - low) * share) * normal(small, generator)
    elif damage == "jpeg":
        low, high = _QUALITY
        small = jpeg(small, low + (high - low) * share)
    return small.clamp(0, 1)


def _versions(
    files: Sequence[Path], options: Options, setting: Setting, networks: Mapping[str, SuperResolver]
) -> tuple[Versions, list[_Way]]:
    ways = _ways(options, networks)

    @torch.no_grad()
    def make(clean: Tensor, generator: torch.Generator) -> Tensor:
        places = dict.fromkeys((way.factor, way.damage) for way in ways)
        small = {(f, d): _damaged(shrunk(clean, f), d, generator) for f, d in places}
        size = (clean.shape[-2], clean.shape[-1])
        made = []
        for way in ways:
            source, network = small[way.factor, way.damage], networks.get(way.restorer)
            made.append(enlarged(source, size, way.restorer) if network is None else network(source, way.factor))
        return torch.cat(made).clamp(0, 1)

    return Versions(files, options, setting, len(ways), make), ways


def _teachers(options: Options) -> dict[str, TeacherSpec]:
    """Teachers by their labels.

    Raises:
        ConfigError: listing what is wrong with them.
    """
    problems = [] if options.teachers else ["teachers: give at least one full-reference critic"]
    specs = checked_teachers(options.teachers, options.crop, problems)
    if problems:
        raise ConfigError(problems, options.label)
    return specs


def _facts(made: Versions, options: Options, ways: Sequence[_Way], teachers: Mapping[str, TeacherSpec]) -> str:
    """Everything that decides the scores, as text; how versions are made shows in those of the first cut."""
    facts = {
        "photos": [digest(file) for file in made.files],
        "networks": {name: digest(Path(path)) for name, path in options.networks.items()},
        "teachers": {label: facts_of(label, spec) for label, spec in teachers.items()},
        "ways": [[way.factor, way.damage, way.restorer] for way in ways],
        "rest": [options.crop, options.cuts, made.setting.seed, __version__],
        "pixels": hashlib.sha256(made.of(0)[0].numpy().tobytes()).hexdigest(),
    }
    return json.dumps(facts)


def _asked(made: Versions, panel: Panel) -> np.ndarray:
    """What teachers say of all versions, cut by cut, and then of the clean cuts, (M + R, T)."""
    found, clean = [], []
    for reference in range(made.cuts):
        x, y = (image.float() / 255 for image in made.of(reference))
        found.append(panel.scores(x, y[None]))
        clean.append(panel.scores(y[None], y[None]))
    return torch.cat([*found, *clean]).double().numpy()


def _scores(made: Versions, panel: Panel, file: str, facts: str) -> np.ndarray:
    """What teachers say, from the file if it is about the same.

    Raises:
        ConfigError: if the file is another one, which is left as it is, or cannot be written.
    """
    path = Path(file)
    if file and path.is_file():
        try:
            with np.load(path, allow_pickle=False) as kept:
                if str(kept["facts"]) == facts:
                    return np.asarray(kept["scores"])
        except (ValueError, KeyError, EOFError, AttributeError, TypeError, BadZipFile) as error:
            problem = f"scores: {path} holds no scores of an exam: {error}; remove it, or give another file"
            raise ConfigError([problem], "restoration") from error
    if file and (why := unwritable(path)):
        raise ConfigError([f"scores: {path} {why}"], "restoration")
    scores = _asked(made, panel)
    if file:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft, draft.open("wb") as stream:
            np.savez(stream, scores=scores, facts=np.array(facts))
    return scores


def _exam(
    files: Sequence[Path],
    options: Options,
    setting: Setting,
    networks: Mapping[str, SuperResolver],
    teachers: Mapping[str, TeacherSpec],
) -> Exam:
    made, ways = _versions(files, options, setting, networks)
    panel, facts = Panel(teachers, options.crop), _facts(made, options, ways, teachers)
    scores = np.asarray(setting.on_main(lambda: _scores(made, panel, options.scores, facts)))
    of_clean = scores[len(made) :][made.reference]
    target = consensus(
        dict(zip(teachers, scores[: len(made)].T, strict=True)),
        dict(zip(teachers, of_clean.T, strict=True)),
        panel.is_higher_better,
        {label: spec.weight for label, spec in teachers.items()},
    )
    factor = np.array([way.factor for way in ways])[made.version]
    return Exam(
        name=options.label,
        target=target,
        content=made.content,
        reference=made.reference,
        group=np.full(len(made), -1),
        level=np.full(len(made), np.nan),
        family=np.array([f"factor {f}" for f in factor]),
        unseen=frozenset(),
        images=made,
        batch=16,
        about=f"{made.cuts} cuts of {len(files)} photographs, shrunk by {', '.join(map(str, options.factors))} "
        f"({', '.join(options.damages)}) and restored by {', '.join(dict.fromkeys(way.restorer for way in ways))}; "
        f"targets are the consensus of {', '.join(teachers)}.",
        within=made.reference * (max(options.factors) + 1) + factor,
    )


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check photographs, networks and teachers of the exam, and ask the teachers.

    Raises:
        ConfigError: listing everything that is wrong with the entry, also that it is one of `data`.
    """
    problems = version_problems(options, setting)
    files = find_photos(options, problems)
    networks: dict[str, SuperResolver] = {}
    for name, path in network_files(options.networks, problems).items():
        if name in ENLARGERS:
            problems.append(f"networks.{name}: an enlarger is called so; choose another name")
        try:
            networks[name] = network = load_sr(path)
        except PerceptlossError as error:
            problems.append(f"networks.{name}: {error}")
            continue
        small = [options.crop // factor for factor in options.factors if factor in network.scales]
        if not small:
            problems.append(f"networks.{name}: enlarges by {network.scales}, none of which is in factors")
        elif min(small) < network.minimum:
            problems.append(f"networks.{name}: needs {network.minimum} pixels, got {min(small)}; take a larger crop")
    problems += [] if options.damages else ["damages: expected at least one"]
    teachers: dict[str, TeacherSpec] = attempt(problems, lambda: _teachers(options), {})
    if problems:
        raise ConfigError(problems, options.label)
    exam = _exam(files, options, setting, networks, teachers)
    return Opened(
        None, [exam], None, fingerprint_files(files), tuple(dict.fromkeys(spec.critic for spec in teachers.values()))
    )
