"""Pictures to be enhanced, with reference, mask of classes, both or neither, and the published layouts they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from perceptloss.compare.images import Pixels, Policy, inspect_all, read
from perceptloss.compare.pairing import find_images
from perceptloss.compare.settings import Pairing
from perceptloss.errors import ConfigError

__all__ = ["LAYOUTS", "Part", "Role", "Scene", "check_scenes", "find_scenes", "raw_scenes", "split_scenes"]

Role = Literal["train", "val"]
_HELD_OUT: Final = 10  # one scene in so many, the last by name
_BLURRED: Final = 0.05  # of a mask, at most


@dataclass(frozen=True)
class Scene:
    """One picture, as the files that there are of it; at least one of `raw` and `reference`.

    Attributes:
        name: Unique, as a relative path without suffix.
        raw: As it was taken; None if it is generated from the reference.
        reference: As it should be; None if nobody knows.
        mask: Its classes as SUIM has them, bit codes of RGB: black water, blue divers, green plants, cyan wrecks, red
            robots, magenta reefs, yellow fish, white sea floor.
    """

    name: str
    raw: Path | None
    reference: Path | None
    mask: Path | None = None

    @property
    def picture(self) -> Path:
        """The reference, or what there is instead of it."""
        found = self.reference or self.raw
        assert found is not None
        return found

    @property
    def files(self) -> dict[str, Path]:
        """Every file, by what it is called in messages."""
        found = {"reference": self.reference, "raw": self.raw, "mask": self.mask}
        return {f"{self.name} ({what})": path for what, path in found.items() if path is not None}


@dataclass(frozen=True)
class Part:
    """Folders of a layout that belong together, below its root; a star stands for any folder."""

    raw: str
    reference: str | None = None
    mask: str | None = None
    role: Role | None = None


LAYOUTS: Final[Mapping[str, tuple[Part, ...]]] = {
    "UIEB": (Part("raw-890", "reference-890"), Part("challenging-60", role="train")),
    "EUVP": (Part("Paired/*/trainA", "Paired/*/trainB"), Part("Unpaired/trainA", role="train")),
    "LSUI": (Part("input", "GT"),),
    "SUIM": (
        Part("train_val/images", mask="train_val/masks", role="train"),
        Part("TEST/images", mask="TEST/masks", role="val"),
        Part("images", mask="masks"),
    ),
    "LOL": (
        Part("our485/low", "our485/high", role="train"),
        Part("eval15/low", "eval15/high", role="val"),
        Part("low", "high"),
    ),
}
"""What is published where: a folder that has one of these parts is taken for the root of that layout."""


def find_scenes(
    folders: Sequence[str], raws: Sequence[str], masks: Sequence[str], role: Role, where: str
) -> list[Scene]:
    """All scenes below some folders, each the root of a published layout or a folder of references.

    Args:
        folders: Roots, or folders of references.
        raws: For folders of references: where their raw pictures are, in the same order; none to generate them.
        masks: Likewise their masks.
        role: Which part of a layout that has a split of its own.
        where: Name of the option, for messages.

    Raises:
        ConfigError: listing missing folders, half a layout, pictures without partner and names that occur twice.
    """
    problems: list[str] = []
    parts = [part for i, folder in enumerate(folders) for part in _parts(folder, i, raws, masks, role, problems)]
    for what, given in (("raw", raws), ("mask", masks)):
        if given and len(given) != len(folders):
            problems.append(f"{len(folders)} folders, but {len(given)} {what} folders")
    scenes = []
    for prefix, part in parts:
        scenes += _scenes_of(part, f"{prefix}/" if len(parts) > 1 else "", problems)
    if twice := len(scenes) - len({scene.name for scene in scenes}):
        problems.append(f"{twice} pictures have the same name; rename a folder")
    if problems:
        raise ConfigError(sorted(set(problems)), where)
    return scenes


def _parts(
    folder: str, i: int, raws: Sequence[str], masks: Sequence[str], role: Role, problems: list[str]
) -> list[tuple[str, Part]]:
    """The parts of one folder with whole paths, each with the name that its scenes begin with."""
    whole: list[tuple[str, Part, dict[str, Any]]] = []
    halves: list[tuple[str, Part, str]] = []
    for layout, parts in LAYOUTS.items():
        for part in parts:
            for home in _homes(folder, part):
                gone = [path for path in home.values() if path is not None and not path.is_dir()]
                said = (f"{folder} looks like {layout}, but has no {path.relative_to(folder)}" for path in gone)
                halves += [(layout, part, half) for half in said]
                whole += [] if gone else [(layout, part, home)]
    own = [(_name(folder, home), _at(home)) for _, part, home in whole if part.role in (None, role)]
    known = {layout for layout, _, _ in whole}
    lacking = [half for layout, part, half in halves if not known or (layout in known and part.role in (None, role))]
    problems += [f"{half}; for pictures without a layout give the very folder that holds them" for half in lacking]
    for layout in sorted(known) if not own and not lacking else ():
        needed = " or ".join(part.raw for part in LAYOUTS[layout] if part.role in (None, role))
        what = "train on" if role == "train" else "validate on"
        problems.append(f"{folder} is {layout}, but has nothing to {what}: no {needed}")
    if whole or halves:
        return own
    raw, mask = (given[i] if i < len(given) else None for given in (raws, masks))
    return [(Path(folder).name, Part(raw or "", folder, mask))]


def _name(folder: str, home: Mapping[str, Path]) -> str:
    raw = home["raw"]
    return f"{Path(folder).name}/{(raw.parent if raw.parent != Path(folder) else raw).name}"


def _homes(folder: str, part: Part) -> list[dict[str, Any]]:
    """A part's folders, for each name that its star may stand for; none if none of them is there."""
    patterns = {key: getattr(part, key) for key in ("raw", "reference", "mask")}
    given = [pattern for pattern in patterns.values() if pattern]
    found = {path.relative_to(folder) for pattern in given for path in Path(folder).glob(pattern) if path.is_dir()}
    stars = sorted({path.parts[1] for path in found}) if "*" in part.raw else [""] if found else []
    return [
        {key: Path(folder, pattern.replace("*", star)) if pattern else None for key, pattern in patterns.items()}
        for star in stars
    ]


def _at(home: Mapping[str, Path | None]) -> Part:
    reference, mask = (None if home[key] is None else str(home[key]) for key in ("reference", "mask"))
    return Part(str(home["raw"]), reference, mask)


def _scenes_of(part: Part, prefix: str, problems: list[str]) -> list[Scene]:
    found = {
        what: _files(folder, problems)
        for what, folder in (("raw", part.raw), ("reference", part.reference), ("mask", part.mask))
        if folder
    }
    names = sorted(set[str]().union(*found.values()))
    for what, files in found.items():
        folder = getattr(part, what)
        problems += [f"{name} has no {what} picture in {folder}" for name in names if name not in files]
    return [
        Scene(prefix + name, *(found.get(what, {}).get(name) for what in ("raw", "reference", "mask")))
        for name in names
    ]


def _files(folder: str, problems: list[str]) -> dict[str, Path]:
    found, more = find_images("images", folder, Pairing(recursive=True))
    problems += [problem.removeprefix("images: ") for problem in more]
    return found.files


def raw_scenes(folders: Sequence[str], where: str) -> list[Scene]:
    """All pictures below some folders, none of which has a reference; errors as of `find_scenes`."""
    problems: list[str] = []
    scenes = []
    for folder in folders:
        prefix = f"{Path(folder).name}/" if len(folders) > 1 else ""
        scenes += [Scene(prefix + name, path, None) for name, path in _files(folder, problems).items()]
    if problems:
        raise ConfigError(sorted(problems), where)
    return scenes


def split_scenes(scenes: Sequence[Scene]) -> tuple[list[Scene], list[Scene]]:
    """To train on and to validate on: the last tenth by name, as neighbours are often alike; of those with a reference,
    if there are any.
    """
    paired = [scene for scene in scenes if scene.reference is not None] or scenes
    held = {scene.name for scene in paired[-max(1, len(paired) // _HELD_OUT) :]}
    return [s for s in scenes if s.name not in held], [s for s in scenes if s.name in held]


def check_scenes(scenes: Sequence[Scene], policy: Policy, smallest: int, *, decode: bool) -> list[str]:
    """What is wrong with the files of some scenes, all of them.

    Args:
        scenes: Scenes to look at.
        policy: By which pictures will be read.
        smallest: Least side, pixels.
        decode: Read every pixel, which finds truncated files; otherwise only headers.
    """
    pictures = [path for scene in scenes for path in (scene.raw, scene.reference) if path is not None]
    masks = [scene.mask for scene in scenes if scene.mask is not None]
    files, problems = inspect_all([*pictures, *masks], policy, decode=decode)
    for scene in scenes:
        sizes = {what: files[path].size for what, path in scene.files.items() if path in files}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{what} {size[0]}x{size[1]}" for what, size in sizes.items())
            problems.append(f"files of one picture differ in size: {told}")
        elif any(min(size) < smallest for size in sizes.values()):
            height, width = next(iter(sizes.values()))
            problems.append(f"{scene.name}: {height}x{width} pixels; at least {smallest}x{smallest} are needed")
        if decode and scene.mask in files and not _is_mask(read(scene.mask, policy)):
            problems.append(
                f"{scene.mask}: not a mask in SUIM's colours, which have each channel at 0 or full; translate numbers "
                "or other colours"
            )
    return problems


def _is_mask(pixels: Pixels) -> bool:
    """Whether nearly all channels are off or on, and not all nearly off; edges may be blurred by compression."""
    values = pixels / np.iinfo(pixels.dtype).max
    between = (values > 0.1) & (values < 0.9)
    return bool(between.mean() <= _BLURRED) and not 0 < values.max() < 0.5
