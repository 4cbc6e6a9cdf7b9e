"""What a scored set is made of, checked as a whole and identified by a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final, get_args

from perceptloss import __version__
from perceptloss.compare.images import inspect
from perceptloss.errors import PerceptlossError, near
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations import get_degradation, list_degradations
from perceptloss.teach.degradations.chains import Chain
from perceptloss.teach.sets.teachers import TeacherSpec, digest, facts_of, problems_in_teacher

__all__ = ["UNFIT", "Plan", "ScoredSetError", "TeacherSpec", "facts", "identity", "network_files", "problems_in"]

UNFIT: Final = ("network", "chain")  # families that have a place of their own in a plan


class ScoredSetError(PerceptlossError):
    """A scored set cannot be made, continued or read."""


@dataclass(frozen=True)
class Plan:
    """What to make; equal plans make equal sets, bit for bit on one machine.

    Attributes:
        photos: Clean photographs, PNG or JPEG, RGB or grey, 8 bit. The folder's name is an image's source.
        crop: Side of the square crops, in pixels.
        crops_per_photo: Crops of each photograph, from different places where there is room.
        singles: Degradations of each crop; over the whole set each name is dealt equally often.
        levels_each: Levels of each degradation: one drawn from each of as many equal parts of (0.3, 5].
        chains: Random chains of each crop.
        chain_kinds: Kinds of chains, in turn; a kind named twice comes twice as often.
        always: Degradations of every crop besides, all at the same levels, so that they can be compared.
        always_levels: Which levels these are; none: drawn for each crop, as many as `levels_each`.
        degradations: Names to deal; None for all of three channels that `exclude` leaves.
        exclude: Names or families that are not dealt.
        seed: Of every draw.
        teachers: Full-reference judges by label.
        networks: Checkpoints of restoration networks by name; each crop gets one of them, in turn, as one more
            degradation: NAME is given ever worse small pictures, NAME-enlarged ever smaller ones.
    """

    photos: tuple[Path, ...]
    crop: int = 192
    crops_per_photo: int = 2
    singles: int = 6
    levels_each: int = 3
    chains: int = 4
    chain_kinds: tuple[str, ...] = ("real-world", "mixed")
    always: tuple[str, ...] = ()
    always_levels: tuple[float, ...] = ()
    degradations: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    seed: int = 0
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    networks: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = {
            "photos": tuple(Path(photo) for photo in self.photos),
            "chain_kinds": tuple(self.chain_kinds),
            "always": tuple(self.always),
            "always_levels": tuple(float(level) for level in self.always_levels),
            "degradations": None if self.degradations is None else tuple(self.degradations),
            "exclude": tuple(self.exclude),
            "teachers": {label: replace(t, critic=t.critic or label) for label, t in self.teachers.items()},
            "networks": {name: Path(path) for name, path in self.networks.items()},
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The degradations that are dealt."""
        names = list_degradations() if self.degradations is None else self.degradations
        kinds = {name: get_degradation(name).family for name in names}
        unfit = UNFIT if self.degradations is None else ()
        left_out = {*self.exclude, *self.always}
        return tuple(n for n, f in kinds.items() if n not in left_out and f not in (*self.exclude, *unfit))

    @property
    def excluded_names(self) -> tuple[str, ...]:
        """Registered degradations that `exclude` names, itself or by family."""
        return tuple(n for n in list_degradations() if n in self.exclude or get_degradation(n).family in self.exclude)

    @property
    def crops(self) -> int:
        """Crops of the whole set."""
        return len(self.photos) * self.crops_per_photo


def problems_in(plan: Plan) -> list[str]:
    """Everything that would stop the plan, the photographs' headers included; empty if it can be made."""
    least = {"crop": 32, "crops_per_photo": 1, "singles": 0, "levels_each": 1, "chains": 0, "seed": 0}
    problems = [
        f"{name}: expected a whole number of at least {low}, got {value!r}"
        for name, low in least.items()
        if not isinstance(value := getattr(plan, name), int) or isinstance(value, bool) or value < low
    ]
    if problems:
        return problems
    problems += _problems_in_degradations(plan)
    problems += [] if plan.teachers else ["teachers: expected at least one full-reference critic, got none"]
    for name, spec in plan.teachers.items():
        problems += [f"teachers.{name}: {text}" for text in problems_in_teacher(spec, plan.crop)]
    problems += _problems_in_networks(plan)
    problems += [] if plan.photos else ["photos: expected at least one photograph, got none"]
    for photo in plan.photos:
        problems += _problems_in_photo(photo, plan.crop)
    return problems or _twins(plan.photos)


def _problems_in_degradations(plan: Plan) -> list[str]:
    known = list_degradations()
    chains = get_args(Chain)
    families = {get_degradation(name).family for name in known}
    problems = [
        f"degradations: {name!r} is not a degradation of three channels{near(name, known)}"
        for name in plan.degradations or ()
        if name not in known
    ]
    problems += [
        f"always: {name!r} is not a degradation of three channels{near(name, known)}"
        for name in plan.always
        if name not in known
    ]
    problems += [
        f"always_levels: expected numbers in (0, 5], got {level!r}"
        for level in plan.always_levels
        if not 0 < level <= 5
    ]
    problems += [
        f"exclude: {name!r} is neither a degradation nor a family{near(name, {*known, *families, *UNFIT})}"
        for name in plan.exclude
        if name not in {*known, *families, *UNFIT}
    ]
    problems += [
        f"chain_kinds: unknown {kind!r}{near(kind, chains)}" for kind in plan.chain_kinds if kind not in chains
    ]
    problems += [] if plan.chain_kinds else [f"chain_kinds: expected some of {', '.join(chains)}, got none"]
    if plan.degradations and len(set(plan.degradations)) < len(plan.degradations):
        problems.append(f"degradations: each name once, got {plan.degradations}")
    if not problems and plan.singles and not plan.names:
        problems.append("degradations: `exclude` leaves none to deal; set singles to 0 or exclude less")
    return problems


def network_files(given: Mapping[str, Any], problems: list[str]) -> dict[str, Path]:
    """Files of networks as entries give them, by name; what is no file's name is noted."""
    known = {name: Path(file) for name, file in given.items() if isinstance(file, (str, PathLike))}
    problems += [f"networks.{n}: expected a file, got {f!r}" for n, f in given.items() if n not in known]
    return known


def _problems_in_networks(plan: Plan) -> list[str]:
    problems = [f"networks.{name}: no such file: {path}" for name, path in plan.networks.items() if not path.is_file()]
    known = {name: get_degradation(name).family for name in list_degradations()}
    return problems + [
        f"networks.{name}: a degradation is called so; choose another name"
        for name in plan.networks
        if known.get(name, "network") != "network"
    ]


def _problems_in_photo(photo: Path, crop: int) -> list[str]:
    file, problems = inspect(photo, TAUGHT, decode=False)
    if file is not None and min(file.size) < crop:
        size = f"{file.width}x{file.height}"
        problems.append(f"{photo}: is {size}, smaller than a crop of {crop}x{crop}; leave it out or crop less")
    return problems


def _twins(photos: tuple[Path, ...]) -> list[str]:
    """The same picture twice would be two contents, and leak from one part of a split into the other."""
    seen: dict[str, Path] = {}
    return [
        f"photos: {photo} and {first} are the same file"
        for photo in photos
        if (first := seen.setdefault(digest(photo), photo)) is not photo
    ]


def facts(plan: Plan) -> dict[str, Any]:
    """All that decides the pixels and the scores, as JSON types: contents of files, not where they lie."""
    numbers = {
        name: getattr(plan, name) for name in ("crop", "crops_per_photo", "singles", "levels_each", "chains", "seed")
    }
    unused = {*UNFIT, *plan.exclude}
    kinds = {n: kind for n in list_degradations() if not {n, (kind := get_degradation(n)).family} & unused}
    return {
        **numbers,
        "photos": [[content_name(photo), digest(photo)] for photo in plan.photos],
        "degradations": list(plan.names),
        "exclude": sorted(plan.exclude),
        "chain_kinds": list(plan.chain_kinds),
        "always": list(plan.always),
        **({"always_levels": list(plan.always_levels)} if plan.always_levels else {}),
        "tables": {name: [kind.identity, *kind.values] for name, kind in kinds.items()},
        "teachers": {label: facts_of(label, spec) for label, spec in plan.teachers.items()},
        "networks": {name: digest(path) for name, path in plan.networks.items()},
        "version": __version__,
    }


def identity(facts: Mapping[str, Any]) -> str:
    """Hash of the facts, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def content_name(photo: Path) -> str:
    """Folder and file name, the same on every machine."""
    return f"{photo.absolute().parent.name}/{photo.name}"
