"""What critics say of versions of underwater scenes, with and without the reference; asked once, kept in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceptloss import __version__, create_critic
from perceptloss.errors import ConfigError
from perceptloss.output.files import replacing, unwritable
from perceptloss.output.progress import bar
from perceptloss.runs.config import option
from perceptloss.teach.run.enhanced_versions import Amounts, Version, versions_of
from perceptloss.teach.run.mixtures import Scene
from perceptloss.teach.run.sources import Drawn, Setting
from perceptloss.teach.sets import TeacherSpec
from perceptloss.teach.sets.judging import Panel
from perceptloss.teach.sets.teachers import digest, facts_of

__all__ = ["Content", "Floats", "Made", "Options", "files_of", "made"]

Content = Scene | Path
"""A raw picture with its reference, or a clear photograph."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options(Drawn):
    """Underwater scenes; an item is the mixes of a cut, or all its other versions."""

    raw: tuple[str, ...] = option((), "folders of raw pictures")
    reference: tuple[str, ...] = option((), "folders of their references, one for each of `raw`; equal stems belong")
    photos: tuple[str, ...] = option((), "folders of clear photographs, which are put under simulated water")
    crop: int = option(192, "side of the cuts, pixels: squares of any size, shrunk", at_least=32)
    cuts: int = option(2, "cuts of each scene", at_least=1)
    mixes: int = option(2, "mixes of raw picture and reference, of each cut", at_least=0)
    enhanced: int = option(6, "enhanced versions", at_least=0)
    overdone: int = option(2, "of which so many come with too much of it as well", at_least=0)
    damaged: int = option(4, "damaged ones of any of these", at_least=0)
    degradations: tuple[str, ...] = option(
        (
            *("gaussian-blur", "white-noise", "jpeg", "underwater-blur", "underwater-snow", "underwater-veil"),
            *("contrast-down", "darken", "saturation-up", "colour-cast", "over-sharpening", "low-light-noise"),
        ),
        "names of further damage",
    )
    damage: float = option(3.5, "greatest level of further damage", above=0.5)
    teachers: dict[str, Any] = option(  # noqa: RUF009
        {}, "full-reference judges: {label: weight} or {label: {critic, weight, weights, shrink, ...}}"
    )
    indices: dict[str, Any] = option({"uciqe": 1.0, "uiqm": 1.0, "niqe": 1.0}, "critics without reference, by weight")  # noqa: RUF009
    share: float = option(0.5, "of the target that is theirs; the teachers have the rest", at_least=0)
    enough: float = option(0.85, "share of all versions above which an index tells no difference", above=0)


@dataclass(frozen=True)
class Made:
    """Versions of all cuts and what is said of them: teachers first, then indices."""

    images: NDArray[np.uint8]
    scores: Floats
    versions: list[Version]
    is_higher_better: Mapping[str, bool]
    """Of each teacher."""


def files_of(content: Content) -> tuple[Path, ...]:
    """The pictures of a scene."""
    return (content.raw, content.reference) if isinstance(content, Scene) else (content,)


def made(contents: Sequence[Content], options: Options, setting: Setting, specs: Mapping[str, TeacherSpec]) -> Made:
    """All versions with their scores, from the folder if it holds them.

    Raises:
        ConfigError: if it does not, and cannot be written.
    """
    o, amounts = options, Amounts(options.mixes, options.enhanced, options.overdone, options.damaged)
    cuts = [(content, [setting.seed, number, k]) for number, content in enumerate(contents) for k in range(o.cuts)]

    def of(place: int) -> tuple[NDArray[np.uint8], list[Version]]:
        content, seed = cuts[place]
        return versions_of(content, o.crop, amounts, o.degradations, o.damage, seed)

    facts = json.dumps({
        "files": [[digest(file) for file in files_of(content)] for content in contents],
        "teachers": {label: facts_of(label, spec) for label, spec in specs.items()},
        "indices": list(o.indices),
        "ways": [o.crop, o.cuts, vars(amounts), o.degradations, o.damage, setting.seed, __version__],
        "pixels": hashlib.sha256(of(0)[0].tobytes()).hexdigest(),
    })  # fmt: skip
    path = Path(o.folder) / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            versions = [Version(*row) for row in json.loads(str(kept["versions"]))]
            return Made(kept["images"], kept["scores"], versions, json.loads(str(kept["higher"])))
    if why := unwritable(path):
        raise ConfigError([f"folder: {path} {why}"], options.label)
    found = _asked([of(place) for place in range(len(cuts))], specs, o)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.dumps([list(vars(version).values()) for version in found.versions])
    with replacing(path) as draft, draft.open("wb") as stream:
        texts = {"versions": rows, "higher": json.dumps(dict(found.is_higher_better))}
        columns: dict[str, NDArray[Any]] = {name: np.array(text) for name, text in texts.items()}
        np.savez(stream, allow_pickle=False, images=found.images, scores=found.scores, **columns)
    return found


def _asked(
    cuts: Sequence[tuple[NDArray[np.uint8], list[Version]]], specs: Mapping[str, TeacherSpec], options: Options
) -> Made:
    panel = Panel(specs, options.crop) if specs else None
    judges = [create_critic(name).as_published() for name in options.indices]
    found: list[Tensor] = []
    with bar(f"{options.label}: scores", len(cuts), show=True) as shown, torch.inference_mode():
        for images, _ in cuts:
            x = torch.from_numpy(images).float() / 255
            columns = [] if panel is None else [panel.scores(x, x[:1])]
            columns += [(1 if judge.card.better == "higher" else -1) * judge(x)[:, None] for judge in judges]
            found.append(torch.cat(columns, 1))
            shown.update(1)
    return Made(
        np.concatenate([images for images, _ in cuts]),
        torch.cat(found).double().numpy(),
        [version for _, versions in cuts for version in versions],
        {} if panel is None else panel.is_higher_better,
    )
