"""How each critic after a paper is taught at a reduced width, and on what it is examined: one table of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["FAMILIES", "KINDS", "LESSONS", "SUBJECTS", "Lesson", "Subject"]

KINDS: Final = "kinds"
"""Exam on other photographs, with kinds of damage that were not taught, of families that were."""
FAMILIES: Final = "families"
"""Exam on the same photographs, with damage of families of which nothing was taught."""

_TEACHERS: Final = {
    "haarpsi": 1.0,
    "haarpsi far": {"critic": "haarpsi", "shrink": 2, "weight": 1.0},
    "vif": 1.0,
    "vif far": {"critic": "vif", "shrink": 2, "weight": 1.0},
    "mdsi": 0.5,
    "nlpd": 0.5,
    "lpips-squeeze": 1.0,
    "lpips-squeeze far": {"critic": "lpips-squeeze", "shrink": 2, "weight": 1.0},
}


@dataclass(frozen=True)
class Subject:
    """What some critics are taught and examined on, as options of a source.

    Attributes:
        taught: Of the source to learn from.
        exam: Of both exams.
        kinds: Damage that is not taught, though some of its family is.
        families: Families that are not taught.
        strange: Damage of these families that is asked for.
        is_set: Whether scored sets are made.
    """

    taught: Mapping[str, Any]
    exam: Mapping[str, Any]
    kinds: tuple[str, ...]
    families: tuple[str, ...]
    strange: tuple[str, ...]
    is_set: bool = True

    def asked(self, exam: str) -> dict[str, Any]:
        """What an exam asks for, and counts alone."""
        kinds, counted = (self.kinds, self.kinds) if exam == KINDS else (self.strange, self.families)
        singles = {"singles": min(5, len(kinds))} if self.is_set else {}
        return dict(self.exam) | {"degradations": list(kinds), "hold_out_families": list(counted)} | singles


_RESTORED: Final = ("banding", "camera", "denoising", "restoration")
_RESTORED_KINDS: Final = (
    *("banding", "bilateral-denoise", "non-local-denoise", "variation-denoise", "wavelet-denoise"),
    *("digital-zoom", "phone-pipeline"),
    *("enlarged-blur", "enlarged-jpeg", "enlarged-noise"),
)
_KEPT_KINDS: Final = (
    *("lens-blur", "hand-shake", "shot-noise", "correlated-noise", "webp", "reposted-jpeg"),
    *("enlarge-lanczos", "enlarge-total-variation", "area-resize", "halo"),
)
_NOT_SEEN_ALONE: Final = ("underwater", "screen", "geometry", "colour", "contrast", "exposure", "night", "veil")
_OF_NIGHT: Final = (
    *("bloom", "glare", "low-light", "low-light-noise", "uneven-light"),
    *("camera-noise", "impulse-noise", "speckle-noise", "white-noise", "gaussian-blur", "missed-focus", "motion-blur"),
    *("blocking", "jpeg", "jpeg2000", "bicubic-resize", "enlarge-bicubic", "enlarge-nearest", "over-sharpening"),
)
_ASKED: Final = {"levels_each": 2, "chains": 0, "teachers": _TEACHERS}
_VIEWS: Final = {"kind": "stereo", "size": [160, 256], "disparity": 24, "teacher": {"name": "mini-fr"}}
SUBJECTS: Final[Mapping[str, Subject]] = {
    "restored": Subject(
        taught={
            "singles": 4,
            "levels_each": 3,
            "chains": 1,
            "chain_kinds": ["real-world", "mixed"],
            "exclude": [*_NOT_SEEN_ALONE, *_RESTORED, *_KEPT_KINDS],
            "teachers": _TEACHERS,
        },
        exam=_ASKED,
        kinds=_KEPT_KINDS,
        families=_RESTORED,
        strange=_RESTORED_KINDS,
    ),
    "night": Subject(
        taught={"singles": 3, "levels_each": 3, "chains": 0, "degradations": list(_OF_NIGHT), "teachers": _TEACHERS},
        exam=_ASKED,
        kinds=_KEPT_KINDS,
        families=_RESTORED,
        strange=_RESTORED_KINDS,
    ),
    "pairs": Subject(
        taught={**_VIEWS, "exclude": [*_NOT_SEEN_ALONE, *_RESTORED, *_KEPT_KINDS, "chain"]},
        exam={**_VIEWS, "members": 3, "exam_kinds": 6, "stereo_share": 0.0},
        kinds=_KEPT_KINDS,
        families=_RESTORED,
        strange=_RESTORED_KINDS,
        is_set=False,
    ),
}
"""What restorers and codecs do, light, and stereo pairs. Damage that nobody sees without a reference is in none."""


@dataclass(frozen=True)
class Lesson:
    """One training, or one more look at what another one made.

    Attributes:
        critic: Registered name.
        options: Of its class: the reduced width.
        objectives: What is minimised.
        subject: Name of one of `SUBJECTS`.
        beside: Another one that is learned from as well, or none.
        steps: Of the optimizer; 0: the weights of `start` are examined as they are.
        rate: Learning rate.
        start: Lesson whose weights it starts from.
        remembers: Whether the trunk is fixed, and what it says is kept.
        source: Options of the source to learn from.
        more: Further sources to learn from; `photos` is filled in.
        config: Other options of the recipe.
        is_step: Whether it is a step towards another one, which stands in no table.
    """

    critic: str
    options: Mapping[str, Any]
    objectives: Mapping[str, Any]
    subject: str = "restored"
    beside: str | None = None
    steps: int = 800
    rate: float = 2e-3
    start: str | None = None
    remembers: bool = True
    source: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[Mapping[str, Any], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    is_step: bool = False


_SMALL: Final = {"trunk": "lite0-smooth"}
_FIXED: Final = {"critic.fixed": ["trunk.*"]}
_SQUARED: Final = {"regression": {"weight": 1.0, "error": "l2"}}
_HUBER: Final = {"regression": {"weight": 1.0, "delta": 0.1}}
_UNIFIED: Final = {**_SMALL, "net": {"width": 32, "grid": 4, "layers": 1, "inner": 64, "hidden": 16}}
_PMOS: Final = {**_SMALL, "width": 16, "context": 32, "hidden": 16}
_DDB: Final = {**_SMALL, "width": 16, "hidden": 64, "decomposition": 16, "stages": 4}

LESSONS: Final[Mapping[str, Lesson]] = {
    "gsn": Lesson(
        "gsn",
        {**_SMALL, "width": 12, "fused": 24, "hidden": 24},
        {**_SQUARED, "kl": {"weight": 0.1, "temperature": 0.29}},
        steps=300,
    ),
    "jspl": Lesson(
        "jspl",
        {"widths": [12, 16, 24, 32], "attention": 4, "hidden": 32},
        {
            "regression": {"weight": 1.0, "error": "l2", "head": "exponential"},
            "pairwise": {"weight": 0.5, "kind": "bce"},
            "jspl": {"weight": 0.1, "pseudo": 0.0},
        },
        steps=80,
        remembers=False,
        source={"contents": 6, "versions": 1, "crops": [64]},
        more=(
            {
                "kind": "ladders",
                "name": "unlabelled",
                "crop": 64,
                "members": 2,
                "contents": 3,
                "versions": 1,
                "exclude": [*_NOT_SEEN_ALONE, *_RESTORED, *_KEPT_KINDS, "chain"],
                "objectives": {"jspl": {"weight": 0.1, "pseudo": 0.5}},
            },
        ),
    ),
    "fr-nr": Lesson(
        "fr-nr",
        {**_SMALL, "width": 32, "hidden": 32},
        {**_SQUARED, "pairwise": {"weight": 0.1, "kind": "hinge", "scale": "gaps"}},
        steps=100,
        remembers=False,
        config=_FIXED,
    ),
    "unified-fr": Lesson(
        "unified-fr",
        _UNIFIED,
        {**_HUBER, "pearson": 0.1, "twin": {"weight": 1.0, "pearson": 0.1, "margin": 0.1}},
    ),
    "unified-nr": Lesson("unified-nr", _UNIFIED, {**_HUBER, "pearson": 0.1}, steps=0, start="unified-fr"),
    "pmos": Lesson(
        "pmos",
        _PMOS,
        {"regression": {"weight": 1.0, "delta": 0.4, "onto": "card"}, "pairwise": {"weight": 0.5, "kind": "fidelity"}}
        | {"order": {"weight": 0.5, "scale": 0.4}},
        steps=300,
        config={"train.weight_decay": 0.3},
    ),
    "pmos-map": Lesson(
        "pmos-map",
        _PMOS,
        {
            "regression": {"weight": 1.0, "head": "exponential", "delta": 0.1},
            "pairwise": {"weight": 0.5, "kind": "bce"},
        },
        steps=600,
        start="pmos",
    ),
    "reqa": Lesson(
        "reqa",
        {**_SMALL, "side": 128, "local": 16, "context": 64, "width": 64, "heads": 4, "inner": 64},
        {"reqa": 1.0, "order": {"weight": 0.5, "scale": 0.1}},
        steps=300,
        source={"contents": 4},
        config={"critic.read": "linear"},
    ),
    "biqa4k": Lesson(
        "biqa4k",
        {**_SMALL, "side": 128, "width": 32, "hidden": 64},
        {
            "regression": {"weight": 1.0, "error": "l1"},
            "pearson": 0.5,
            "native": 1.0,
            "order": {"weight": 0.5, "scale": 0.1},
        },
        steps=800,
        config={"balance": "uncertainty", "train.weight_decay": 0.3},
    ),
    "ddbnet-layers": Lesson(
        "ddbnet",
        _DDB,
        {"retinex": 1.0},
        subject="night",
        steps=320,
        remembers=False,
        source={"contents": 4, "versions": 2, "crops": [64]},
        config={"critic.fixed": ["trunk.reflectance.*", "trunk.illumination.*"]},
        is_step=True,
    ),
    "ddbnet": Lesson(
        "ddbnet",
        _DDB,
        {"regression": {"weight": 1.0, "error": "l1"}, "pearson": 0.5, "order": {"weight": 0.5, "scale": 0.1}},
        beside="night",
        steps=1000,
        start="ddbnet-layers",
    ),
    "stereo-srqa": Lesson(
        "stereo-srqa",
        {**_SMALL, "matched": 32, "hidden": 64},
        {**_HUBER, "order": {"weight": 0.5, "scale": 0.1}, "pearson": 0.5},
        subject="pairs",
        steps=500,
        remembers=False,
        config=_FIXED,
    ),
}
"""Name of a lesson to what it is. A lesson comes after the one that it starts from."""
