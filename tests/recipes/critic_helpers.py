"""What the tests of the critic recipe share: a tiny scored set, made once, and runs of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import recipe_helpers

from perceptloss import get_card
from perceptloss.teach.run import sources
from perceptloss.teach.run.teachers import Options
from perceptloss.teach.sets import Plan, ScoredSet, TeacherSpec, build

CRITIC = "lpips-squeeze"
PHOTOS = 8
PLAN: dict[str, Any] = {
    "crop": 48,
    "crops_per_photo": 1,
    "singles": 2,
    "levels_each": 3,
    "chains": 1,
    "degradations": ["gaussian-blur", "jpeg", "white-noise"],
    "teachers": {"gmsd": 1.0, "ssim": 2.0},
}


def make_set(folder: Path) -> ScoredSet:
    """Eight photographs, one cut each: two degradations at three levels, one chain, one clean."""
    for i in range(PHOTOS):
        recipe_helpers.photograph(folder / "photos" / f"p{i}.png", i, 60, 66)
    photos = tuple(sorted((folder / "photos").glob("*.png")))
    teachers = {name: TeacherSpec(weight) for name, weight in PLAN["teachers"].items()}
    plan = Plan(**{**PLAN, "photos": photos, "teachers": teachers})
    return build(plan, folder / "set", processes=1, progress=False)


def tiny(folder: Path, **changed: Any) -> dict[str, Any]:
    """A configuration that trains in a second."""
    source = {
        "name": "photos",
        "folder": str(folder / "set"),
        "hold_out": 0.25,
        "hold_out_families": ["noise"],
        "contents": 2,
        "versions": 1,
        "crops": [32, 40],
    }
    card = {
        "summary": "A test.",
        "licence": "Apache-2.0",
        "known_failures": ["everything"],
        "sources": [{"folder": "photos", "licence": "CC0-1.0", "attribution": "nobody"}],
    }
    base: dict[str, Any] = {
        "critic": {"name": CRITIC},
        "data": [source],
        "objectives": {"pearson": 1.0, "order": {"weight": 0.5, "scale": 0.05}, "identity": 0.1},
        "train": {"steps": 4, "warmup": 1, "lr": 1e-3, "ema": 0.9},
        "val": {"every": 2, "limit": 0, "rounds": 20, "peers": ["ssim"]},
        "card": card,
        "log": {"every": 1, "checkpoint_every": 2},
    }
    return base | changed


def setting(name: str = CRITIC, *, is_exam: bool = False, seed: int = 0) -> sources.Setting:
    """Of a run in one process."""
    return sources.Setting(get_card(name), seed, is_exam, get_card(name).needs_reference, lambda act: act())


def options(folder: Path, **changed: Any) -> Options:
    """Of the scored set below a folder."""
    return Options(**{"folder": str(folder / "set"), "name": "photos", "contents": 2, "versions": 1, **changed})
