"""Degradations with five comparable levels, deterministic by seed, for teaching and testing critics."""

from __future__ import annotations

from perceptloss.teach.degradations import (  # noqa: F401 - each registers its own
    artefacts,
    blur,
    camera,
    chains,
    colour,
    compression,
    contrast,
    denoisers,
    enlarge,
    generative,
    lens,
    light,
    night,
    noise,
    recompression,
    resize,
    restored,
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
