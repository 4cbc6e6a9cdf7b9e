"""What is said of a teacher, checked and identified."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Final

from perceptloss.card import Card
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.registry import get_card
from perceptloss.teach.sets.packages import DISPLAYED, is_package, package, version_of
from perceptloss.weights.download import sha256_of

__all__ = [
    "FLOOR",
    "SHRINKS",
    "SIGMA",
    "TeacherSpec",
    "checked_teachers",
    "critic_in",
    "digest",
    "facts_of",
    "given_teachers",
    "problems_in_teacher",
    "teacher_spec",
]

SHRINKS: Final = (1, 2, 4)
SIGMA: Final = 2.0  # of the blur of a reference that says how much texture it has, in pixels as judged
FLOOR: Final = 0.1  # share of the distance of a standard texture that the distance of any reference gets on top

Weights = str | PathLike[str] | tuple[str | PathLike[str], ...] | None


@dataclass(frozen=True)
class TeacherSpec:
    """A full-reference judge of the images.

    Attributes:
        weight: Its say in the consensus, above 0.
        weights: What `create_critic` takes: a file, a name of the weights manifest, or several; None for the files
            that its card names (none for a critic without weights).
        critic: A full-reference critic, or `package:NAME` of `teach.sets.packages`; "" for the teacher's own label.
        shrink: Both pictures become the means of squares of this side before they are judged, 1, 2 or 4: what is
            seen from farther away.
        masked: Whether to store the distance from what the judge says of the equal pair, divided by the root of the
            reference's distance from its own blurred self: losses on smooth content count more, on texture less.
        pixels_per_degree: Of the display of `package:cvvdp`, pixels as judged; None for its own 75.4.
    """

    weight: float = 1.0
    weights: Weights = None
    critic: str = ""
    shrink: int = 1
    masked: bool = False
    pixels_per_degree: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.weights, list):
            object.__setattr__(self, "weights", tuple(self.weights))


def teacher_spec(given: Any) -> TeacherSpec:
    """A teacher as an entry gives it: a weight, or a mapping of the attributes of `TeacherSpec`.

    Raises:
        ConfigError: for anything else.
    """
    known = {field.name for field in fields(TeacherSpec)}
    if isinstance(given, dict) and given.keys() <= known:
        weight = given.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise ConfigError([f"weight: expected a number above 0, got {weight!r}"], "teachers")
        return TeacherSpec(**{**given, "weight": float(weight)})
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return TeacherSpec(weight=float(given))
    raise ConfigError([f"expected a weight or a mapping of {', '.join(sorted(known))}, got {given!r}"], "teachers")


def given_teachers(given: Mapping[str, Any], problems: list[str]) -> dict[str, TeacherSpec]:
    """Teachers as entries give them, by their labels; what is none is noted."""
    specs: dict[str, TeacherSpec] = {}
    for label, entry in given.items():
        try:
            spec = teacher_spec(entry)
        except ConfigError as error:
            problems += [f"teachers.{label}: {problem}" for problem in error.problems]
            continue
        specs[label] = replace(spec, critic=spec.critic or label)
    return specs


def checked_teachers(given: Mapping[str, Any], crop: int, problems: list[str]) -> dict[str, TeacherSpec]:
    """As `given_teachers`; what is wrong with any teacher of crops of this side is noted as well."""
    specs = given_teachers(given, problems)
    for label, spec in specs.items():
        problems += [f"teachers.{label}: {problem}" for problem in problems_in_teacher(spec, crop)]
    return specs


def problems_in_teacher(spec: TeacherSpec, crop: int) -> list[str]:
    """Everything that is wrong with a teacher of crops of this side."""
    if not isinstance(spec.critic, str):
        return [f"critic: expected a name, got {spec.critic!r}"]
    problems = []
    if not (math.isfinite(spec.weight) and spec.weight > 0):
        problems.append(f"weight: expected a number above 0, got {spec.weight!r}")
    files = spec.weights if isinstance(spec.weights, tuple) else (spec.weights,)
    if spec.weights is not None and not all(isinstance(file, (str, PathLike)) for file in files):
        problems.append(f"weights: expected a file, a name of the weights manifest, or a list, got {spec.weights!r}")
    if not isinstance(spec.masked, bool):
        problems.append(f"masked: expected true or false, got {spec.masked!r}")
    if spec.shrink not in SHRINKS or isinstance(spec.shrink, bool):
        return [*problems, f"shrink: expected one of {', '.join(map(str, SHRINKS))}, got {spec.shrink!r}"]
    if crop % spec.shrink:
        problems.append(f"shrink: crop {crop} is not a multiple of {spec.shrink}")
    if (ppd := spec.pixels_per_degree) is not None:
        if spec.critic != DISPLAYED:
            problems.append(f"pixels_per_degree: only {DISPLAYED} takes it, got {ppd!r}")
        elif isinstance(ppd, bool) or not isinstance(ppd, (int, float)) or not 1 <= ppd <= 1000:
            problems.append(f"pixels_per_degree: expected a number from 1 to 1000, got {ppd!r}")
    if is_package(spec.critic):
        return [*problems, *_problems_in_package(spec, crop)]
    try:
        card = get_card(spec.critic)
    except UnknownCritic as error:
        return [*problems, str(error)]
    return [*_problems_in_card(card, spec, crop), *problems]


def _problems_in_card(card: Card, spec: TeacherSpec, crop: int) -> list[str]:
    problems, side = [], crop // spec.shrink
    seen = f"crop is {crop}" + (f", shrunk to {side}" if spec.shrink > 1 else "")
    if card.kind != "fr":
        problems.append(f"a teacher compares an image with its reference; this critic is of kind {card.kind!r}")
    if side < card.min_size or side % card.multiple_of:
        problems.append(f"needs sides of at least {card.min_size} and a multiple of {card.multiple_of}, {seen}")
    return problems


def _problems_in_package(spec: TeacherSpec, crop: int) -> list[str]:
    try:
        found = package(spec.critic)
    except KeyError as error:
        return [str(error.args[0])]
    problems = []
    if spec.weights is not None:
        problems.append(f"weights: {spec.critic} brings its own, got {spec.weights!r}")
    if crop // spec.shrink < found.min_size:
        problems.append(f"needs sides of at least {found.min_size}, crop {crop} shrinks to {crop // spec.shrink}")
    if version_of(found) is None:
        problems.append(f"{found.module} is not installed: pip install '{found.requirement}', or perceptloss[teachers]")
    return problems


def facts_of(label: str, spec: TeacherSpec) -> Any:
    """All of a teacher that decides its scores, as JSON types: a list of weights where there is nothing else."""
    weights = _weights_facts(spec.weights)
    if spec == TeacherSpec(spec.weight, spec.weights, label):
        return weights
    facts: dict[str, Any] = {"critic": spec.critic, "weights": weights, "shrink": spec.shrink, "masked": spec.masked}
    if spec.masked:
        facts["masked"] = {"sigma": SIGMA, "floor": FLOOR}
    if is_package(spec.critic):
        facts |= {"version": version_of(package(spec.critic)), "pixels_per_degree": spec.pixels_per_degree}
    return facts


def critic_in(label: str, facts: Mapping[str, Any]) -> str:
    """Which critic or package a teacher of these facts (of all teachers) is."""
    return str(facts[label]["critic"]) if isinstance(facts[label], dict) else label


def digest(path: Path) -> str:
    """Of a file's content, read again only if the file changed."""
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)[:16]


def _weights_facts(weights: Weights) -> list[str]:
    given = () if weights is None else weights if isinstance(weights, tuple) else (weights,)
    return [digest(Path(w)) if Path(w).is_file() else str(w) for w in given]
