"""Versions of one underwater scene as restorers would make them: mixed, enhanced, overdone and damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.degradations import Step, apply_steps, degrade
from perceptloss.teach.degradations.core import LEVELS
from perceptloss.teach.degradations.enhancers import ENHANCERS, enhanced
from perceptloss.teach.run.fresh import in_bytes, stratified
from perceptloss.teach.run.mixtures import Scene, both, mix
from perceptloss.teach.run.photos import Photos, cut

__all__ = ["Amounts", "Version", "versions_of"]

_WELL, _TOO_MUCH = (0.4, 1.1), (1.5, 2.2)  # strengths of enhancers
_CASTS = ("underwater-blue-cast", "underwater-green-cast")
_CAST, _VEIL, _SCATTER, _GRAIN = (1.5, 5.0), (0.3, 3.0), (0.3, 2.0), (0.2, 1.2)  # levels of simulated water
_LEAST = 0.5  # level of damage
_OVERDONE, _LOST = 0.3, 0.12  # share of quality that too much costs, and each level of damage, at least
_SEEDS = 2**31


@dataclass(frozen=True)
class Amounts:
    """How many versions of each kind a cut has, beside the reference and the raw picture."""

    mixes: int
    enhanced: int
    overdone: int
    damaged: int

    @property
    def total(self) -> int:
        """Versions of a cut."""
        return 2 + self.mixes + self.enhanced + self.overdone + self.damaged


@dataclass(frozen=True)
class Version:
    """How a version was made.

    Attributes:
        name: `clean`, `mixture`, an enhancer, or a degradation.
        kind: `clean`, `mixture`, `enhanced`, `overdone` or `damaged`.
        level: Five times the share of the raw picture in a mix, 0 of the reference; NaN of all others.
        base: Row of the version that this one is worse than; its own if none is known.
        loss: Share of the base's quality that it has lost at least.
    """

    name: str
    kind: str
    level: float
    base: int
    loss: float


def _between(limits: tuple[float, float], generator: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=generator))


def _any(names: Sequence[str], generator: torch.Generator) -> str:
    return names[int(torch.randint(len(names), (), generator=generator))]


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(_SEEDS, (), generator=generator))


def _under_water(clear: Tensor, generator: torch.Generator) -> Tensor:
    """A clear picture (1, 3, S, S) in [0, 1] as a camera would see it through drawn water."""
    steps = [Step(_any(_CASTS, generator), _between(_CAST, generator), _seed(generator))]
    for name, levels in (("underwater-veil", _VEIL), ("underwater-blur", _SCATTER), ("camera-noise", _GRAIN)):
        if float(torch.rand((), generator=generator)) < 0.5:
            steps.append(Step(name, _between(levels, generator), _seed(generator)))
    return apply_steps(clear, steps)


def _pair(content: Scene | Path, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Reference and raw picture, (1, 3, S, S) in [0, 1]: a square of any size, shrunk."""
    photos = Photos(0)
    pictures = torch.stack(both(photos, content)) if isinstance(content, Scene) else photos[content][None]
    least = min(pictures.shape[-2:])
    drawn = side + int((least - side) * float(torch.rand((), generator=generator)))
    rows, columns = cut(pictures[0], drawn, generator)
    window = pictures[..., rows, columns].float() / 255
    small = F.interpolate(window, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    if len(small) == 2:
        return small[:1], small[1:]
    return small, _under_water(small, generator)


def versions_of(
    content: Scene | Path, side: int, amounts: Amounts, damages: Sequence[str], worst: float, seed: Sequence[int]
) -> tuple[np.ndarray, list[Version]]:
    """All versions of a cut, (V, 3, S, S) uint8, the reference first and the raw picture after it, and what they are.

    Args:
        content: A raw picture and its reference, or a clear photograph, which is put under simulated water.
        side: Of the cut.
        amounts: How many of each kind.
        damages: Degradations for the damaged ones.
        worst: Their greatest level.
        seed: Of everything drawn.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    reference, raw = _pair(content, side, generator)
    images = [reference, raw]
    made = [Version("clean", "clean", 0.0, 0, 0.0), Version("mixture", "mixture", float(LEVELS), 1, 0.0)]

    def add(image: Tensor, version: Version) -> None:
        images.append(image)
        made.append(version)

    levels = stratified(amounts.mixes, generator)
    for image, level in zip(mix(255 * reference[0], 255 * raw[0], levels), levels, strict=True):
        add(image[None], Version("mixture", "mixture", level, len(made), 0.0))
    names = list(ENHANCERS)
    order = torch.randperm(len(names), generator=generator).tolist()
    for number in range(amounts.enhanced):
        name = names[order[number % len(order)]]
        add(enhanced(raw, name, _between(_WELL, generator)), Version(name, "enhanced", np.nan, len(made), 0.0))
        if number < amounts.overdone:
            strong = enhanced(raw, name, _between(_TOO_MUCH, generator))
            add(strong, Version(name, "overdone", np.nan, len(made) - 1, _OVERDONE))
    bases = [row for row, version in enumerate(made) if version.kind != "overdone"]
    for _ in range(amounts.damaged):
        base = bases[int(torch.randint(len(bases), (), generator=generator))]
        name, level = _any(damages, generator), _between((_LEAST, worst), generator)
        damaged = degrade(images[base], name, level, seed=_seed(generator))
        add(damaged, Version(name, "damaged", np.nan, base, level * _LOST))
    return in_bytes(images).numpy(), made
