"""Degradations with five comparable levels, deterministic by seed, for teaching and testing critics."""

from __future__ import annotations

from perceptloss.teach.degradations import (
    artefacts,
    blur,
    chains,
    colour,
    compression,
    contrast,
    networks,
    night,
    noise,
    resize,
    screen,
    spatial,
    stereo,
    underwater,
)
from perceptloss.teach.degradations.chains import random_chain
from perceptloss.teach.degradations.core import (
    Degradation,
    Step,
    UnknownDegradation,
    apply_steps,
    degrade,
    get_degradation,
    list_degradations,
    register_degradation,
)

__all__ = [
    "Degradation",
    "Step",
    "UnknownDegradation",
    "apply_steps",
    "degrade",
    "get_degradation",
    "list_degradations",
    "random_chain",
    "register_degradation",
]

for _module in (
    blur,
    noise,
    compression,
    resize,
    colour,
    contrast,
    spatial,
    artefacts,
    networks,
    underwater,
    night,
    stereo,
    screen,
    chains,
):
    for _degradation in _module.DEGRADATIONS:
        register_degradation(_degradation)
