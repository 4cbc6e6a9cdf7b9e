"""Water and darkness made over clear pictures, each a pure function of the picture and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import numpy as np
from torch import Tensor

from perceptloss.compare.pixels import stored
from perceptloss.teach.degradations import Step, apply_steps

__all__ = ["DAMAGES", "Domain", "darkened", "submerged"]

Domain = Literal["underwater", "night"]


def submerged(gt: Tensor, seed: int) -> Tensor:
    """Pictures (N, 3, H, W) as a camera under water takes them: cast, scatter, often a veil, sometimes snow."""
    rng = np.random.default_rng([seed, 1])
    cast = "underwater-green-cast" if rng.random() < 0.5 else "underwater-blue-cast"
    steps = [(cast, rng.uniform(2.5, 5)), ("underwater-blur", rng.uniform(0.3, 2.3))]
    if rng.random() < 0.6:
        steps.append(("underwater-veil", rng.uniform(0.5, 2.5)))
    if rng.random() < 0.1:
        steps.append(("underwater-snow", rng.uniform(0.3, 1.5)))
    return _damaged(gt, steps, seed)


def darkened(gt: Tensor, seed: int) -> Tensor:
    """Pictures (N, 3, H, W) as a camera without light takes them: dark, unevenly so, noisy, a little off in colour."""
    rng = np.random.default_rng([seed, 2])
    steps = [("uneven-light", rng.uniform(0, 2)), ("white-balance", rng.uniform(0, 1.2))]
    steps += [("under-exposure", rng.uniform(1.5, 4.5)), ("low-light", rng.uniform(1.5, 4.5))]
    return _damaged(gt, steps, seed)


def _damaged(gt: Tensor, steps: list[tuple[str, float]], seed: int) -> Tensor:
    chain = [Step(name, level, seed + number) for number, (name, level) in enumerate(steps)]
    return stored(apply_steps(gt, chain))


DAMAGES: Final[Mapping[Domain, Callable[[Tensor, int], Tensor]]] = {"underwater": submerged, "night": darkened}
"""What is done to the picture of a clear day."""
