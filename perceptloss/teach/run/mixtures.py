"""Learning from pictures and enhanced versions of them: the more of the raw one a mix holds, the worse it is.

After Fu, Fu, Huang, Ding, "Twice Mixing: A Rank Learning based Quality Assessment Approach for Underwater Image
Enhancement", Signal Processing: Image Communication 2022: x = (1 - s) reference + s raw, in sRGB values. Nothing but
the order of the strengths s is taught, because how much worse the raw picture is differs from scene to scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.images import inspect_all
from perceptloss.errors import ConfigError
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair, check
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations import degrade, list_degradations
from perceptloss.teach.degradations.core import LEVELS
from perceptloss.teach.run.fresh import (
    NAMES,
    Fresh,
    FreshOptions,
    attempt,
    dice,
    divided,
    in_bytes,
    ladder_exam,
    listed,
    name_problems,
    opened,
    stratified,
    with_clean,
)
from perceptloss.teach.run.photos import Photos, cut
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, families, family_in

__all__ = ["Mixtures", "Options", "Scene", "both", "find_scenes", "mix", "open_source"]

_LEAST = 0.3  # level of further damage, below which most kinds vanish when rounded to 8 bits


@dataclass(frozen=True)
class Options(FreshOptions):
    """Raw and enhanced pictures of the same scenes; an item is one cut at several strengths of the raw one."""

    raw: tuple[str, ...] = option((), "folders of raw pictures, resized bicubically where the reference is larger")
    reference: tuple[str, ...] = option((), "folders of their references, one for each of `raw`; equal stems belong")
    crop: int = option(192, "side of the square cuts, pixels of the reference", at_least=32)
    degradations: tuple[str, ...] = option((), "names of further damage, the same to all mixes of an item; none: none")
    damaged: float = option(0.5, "probability of further damage, where `degradations` has names", at_least=0)
    damage: float = option(3.0, "greatest level of further damage", above=_LEAST)


@dataclass(frozen=True)
class Scene:
    """A raw picture and its reference."""

    raw: Path
    reference: Path


def mix(reference: Tensor, raw: Tensor, levels: Sequence[float]) -> Tensor:
    """Mixes at strengths of a fifth of the levels, so that level 5 is the raw picture; the reference is level 0.

    Args:
        reference: (3, H, W), uint8.
        raw: Same shape, uint8.
        levels: In [0, 5].

    Returns:
        (levels, 3, H, W), float in [0, 1].
    """
    strengths = torch.tensor(levels)[:, None, None, None] / LEVELS
    return torch.lerp(reference.float() / 255, raw.float() / 255, strengths)


def both(photos: Photos, scene: Scene) -> tuple[Tensor, Tensor]:
    """Reference and raw picture in the size of the reference, (3, H, W), uint8."""
    reference, raw = photos[scene.reference], photos[scene.raw]
    if raw.shape != reference.shape:
        size = tuple(reference.shape[1:])
        resized = F.interpolate(raw[None].float(), size, mode="bicubic", antialias=True, align_corners=False)
        raw = resized[0].round_().clamp_(0, 255).byte()
    return reference, raw


class Mixtures(Fresh):
    """What is taught.

    Args:
        scenes: Pairs.
        names: Degradations for further damage.
        options: Of the source.
        with_reference: Whether batches bring references.
    """

    kinds = ("clean", "mixture")
    options: Options

    def __init__(
        self, scenes: Sequence[Scene], names: Sequence[str], options: Options, *, with_reference: bool
    ) -> None:
        super().__init__(scenes, options, with_reference=with_reference)
        self.names, self.photos = tuple(names), Photos(options.cache_mb)

    def _ladder(self, content: int, generator: torch.Generator) -> Batch:
        reference, raw = both(self.photos, self.contents[content])
        rows, columns = cut(reference, self.options.crop, generator)
        y = reference[:, rows, columns]
        place, group = torch.randint(NAMES, (2,), generator=generator).tolist()
        levels = stratified(self.options.members, generator)
        x = in_bytes([self._damaged(mix(y, raw[:, rows, columns], levels), generator)])
        with_y = with_clean(levels, self.options.clean, generator)
        x = x if with_y is levels else torch.cat([y[None], x])
        return self._rows((x, y), content, (place, group), with_y, 1)

    def _damaged(self, mixes: Tensor, generator: torch.Generator) -> Tensor:
        """With a chance, the same damage to all mixes; every one of them still is worse than the reference."""
        if not self.names or float(torch.rand((), generator=generator)) >= self.options.damaged:
            return mixes
        name = self.names[int(torch.randint(len(self.names), (), generator=generator))]
        level = _LEAST + (self.options.damage - _LEAST) * float(torch.rand((), generator=generator))
        seed = int(torch.randint(NAMES, (), generator=generator))
        return degrade(mixes, name, level, seed=seed)


def _exam(scenes: Sequence[Scene], options: Options, setting: Setting) -> Exam:
    """On `versions` cuts of a scene."""

    def drawn(content: int) -> tuple[list[list[float]], torch.Generator]:
        generator = dice(setting, content)
        return [[0.0, *stratified(options.members, generator)] for _ in range(options.versions)], generator

    def make() -> tuple[Tensor, Tensor]:
        photos = Photos(0)
        x: list[Tensor] = []
        y: list[Tensor] = []
        for content, scene in enumerate(scenes):
            reference, raw = both(photos, scene)
            ladders, generator = drawn(content)
            for levels in ladders:
                rows, columns = cut(reference, options.crop, generator)
                y.append(reference[:, rows, columns])
                x.append(mix(y[-1], raw[:, rows, columns], levels))
        return in_bytes(x), torch.stack(y)

    ladders = [(content, "", levels) for content in range(len(scenes)) for levels in drawn(content)[0]]
    about = f"mixes of raw pictures with their references, {options.versions} cuts of each of {len(scenes)} scenes; "
    about += "targets are the shares of the reference, an order only within a cut."
    return ladder_exam(options, setting, ladders, make, about, is_own_cut=True)


def find_scenes(raw_folders: Sequence[str], folders: Sequence[str], crop: int, label: str) -> list[Scene]:
    """The pairs of all folders.

    Args:
        raw_folders: Of raw pictures.
        folders: Of references, one for each.
        crop: Least side of a reference.
        label: Of the source, for messages.

    Raises:
        ConfigError: listing missing folders, pictures without partner, unreadable and too small ones, and raw pictures
            of another shape than their references.
    """
    if len(raw_folders) != len(folders) or not folders:
        counts = f"{len(raw_folders)} folders of raw pictures, but {len(folders)} of references"
        raise ConfigError([f"raw, reference: give at least one of each, one for one; got {counts}"], label)
    problems: list[str] = []
    scenes: list[Scene] = []
    for raw_folder, folder in zip(raw_folders, folders, strict=True):
        raw, references = listed(raw_folder, "raw", problems), listed(folder, "reference", problems)
        if raw and references:
            problems += [f"{raw[n]} has no reference in {folder}" for n in sorted(raw.keys() - references.keys())]
            problems += [
                f"{references[n]} has no raw one in {raw_folder}" for n in sorted(references.keys() - raw.keys())
            ]
        scenes += [Scene(raw[name], references[name]) for name in references if name in raw]
    problems += check([Pair(s.reference, None, "") for s in scenes], TAUGHT, crop, 1, decode=False)
    problems += check([Pair(s.raw, None, "") for s in scenes], TAUGHT, 1, 1, decode=False)
    problems += [] if problems else _misshapen(scenes)
    if problems:
        raise ConfigError(problems, label)
    return scenes


def _misshapen(scenes: Sequence[Scene]) -> list[str]:
    """Raw pictures of another shape than their references."""
    files, _ = inspect_all([path for scene in scenes for path in (scene.raw, scene.reference)], TAUGHT, decode=False)
    problems = []
    for scene in scenes:
        (h, w), (height, width) = files[scene.raw].size, files[scene.reference].size
        if abs(w * height - h * width) > max(width, height):  # a pixel of the raw picture
            problems.append(f"{scene.raw}: {h}x{w} pixels, another shape than {height}x{width} of {scene.reference}")
    return problems


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the pictures, and divide them into what is taught and an exam.

    Raises:
        ConfigError: listing everything that is wrong with them.
    """
    problems: list[str] = []
    o = options
    scenes: list[Scene] = attempt(problems, lambda: find_scenes(o.raw, o.reference, o.crop, o.label), [])
    unseen = attempt(problems, lambda: families(options.hold_out_families), frozenset())
    problems += name_problems(options.degradations, (), dict.fromkeys(list_degradations(), ""))
    if options.damage > LEVELS:
        problems.append(f"damage: must be at most {LEVELS}, got {options.damage}")
    if problems:
        raise ConfigError(problems, options.label)
    names = [name for name in options.degradations if family_in(name, unseen) not in unseen]
    taught, kept = divided(scenes, options, setting)
    files = [sorted({path for scene in part for path in (scene.raw, scene.reference)}) for part in (taught, kept)]
    source = None if setting.is_exam else Mixtures(taught, names, options, with_reference=setting.with_reference)
    return opened(source, lambda: _exam(kept, options, setting), files)
