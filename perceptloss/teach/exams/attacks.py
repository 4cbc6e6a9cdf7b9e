"""What attacks on a critic do to its order on an exam; the attacks themselves are `perceptloss.honesty.attacks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator

from perceptloss import Critic
from perceptloss.compare.statistics.measures import srcc
from perceptloss.errors import near
from perceptloss.honesty.attacks import ATTACKS, STRENGTHS, Attack, pgd
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.exams.rows import Array, figure_of, floats, shared
from perceptloss.teach.run.critic import quality_of

__all__ = ["attack_problems", "attacked", "under_attack"]

_LIMIT: Final = 60


def under_attack(
    accelerator: Accelerator, critic: Critic, exam: Exam, *, limit: int, seed: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """SRCC on an exam of which every picture is attacked so as to spoil the order.

    Pictures whose target is the median or above are pushed down, the others up.

    Args:
        accelerator: Of the run.
        critic: Frozen.
        exam: With targets.
        limit: Most images, drawn from all photographs; 0: all.
        seed: Of the images, and of the starts of PGD.
        rounds: Of the bootstrap over photographs; 0: no intervals.

    Returns:
        Attack to strength, in 1/255 (`0`: before), to a figure.
    """
    rows = _drawn(exam, limit, seed)
    target, content, middle = exam.target[rows], exam.content[rows], np.median(exam.target[rows])
    quality = partial(quality_of, critic)
    parts = [rows[i : i + exam.batch] for i in range(0, len(rows), exam.batch)]

    def figure(attack: Attack | None, strength: int) -> dict[str, Any]:
        def judged(number: int, part: Array) -> list[float]:
            x, y = (floats(accelerator, image) for image in exam.images(part))
            assert x is not None
            if attack is not None:
                direction = torch.from_numpy(np.where(exam.target[part] >= middle, -1.0, 1.0)).to(x)
                x = attack(quality, x, y, direction, strength / 255, **_draws(attack, seed, number))
            with torch.no_grad():
                return quality(x, y).double().tolist()

        return figure_of(srcc, shared(accelerator, parts, judged), target, content, rounds)

    before = figure(None, 0)
    return {name: {"0": before, **{str(k): figure(attack, k) for k in STRENGTHS}} for name, attack in ATTACKS.items()}


def _drawn(exam: Exam, limit: int, seed: int) -> Array:
    """Rows with targets, one by one: whole photographs would be too few for an interval."""
    rows = np.flatnonzero(np.isfinite(exam.target))
    return np.sort(np.random.default_rng([seed, 19]).permutation(rows)[: limit or len(rows)])


def _draws(attack: Attack, seed: int, number: int) -> dict[str, Any]:
    return {"generator": torch.Generator().manual_seed(seed * 100_003 + number)} if attack is pgd else {}


def attack_problems(given: Mapping[str, Any], exams: Sequence[Exam]) -> list[str]:
    """What is wrong with `val.attacks`; empty if there are none."""
    if not given:
        return []
    with_targets = [exam.name for exam in exams if exam.has_targets]
    name, limit = given.get("exam"), given.get("limit", _LIMIT)
    problems = [
        f"val.attacks: unknown key {key!r}; known: exam, limit" for key in given if key not in ("exam", "limit")
    ]
    if name not in with_targets:
        known = ", ".join(with_targets) or "there is none"
        hint = near(str(name), with_targets)
        problems.append(f"val.attacks.exam: expected an exam with targets ({known}), got {name!r}{hint}")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        problems.append(f"val.attacks.limit: expected a whole number of images, 0 for all, got {limit!r}")
    return problems


def attacked(
    accelerator: Accelerator,
    critics: Mapping[str, Critic],
    exams: Sequence[Exam],
    given: Mapping[str, Any],
    rounds: int,
) -> dict[str, Any] | None:
    """What `val.attacks` asks for: exam, images and, by critic, attack and strength, figures; None if nothing."""
    if not given:
        return None
    exam = next(exam for exam in exams if exam.name == given["exam"])
    limit = given.get("limit", _LIMIT)
    found = {
        name: under_attack(accelerator, critic, exam, limit=limit, seed=0, rounds=rounds)
        for name, critic in critics.items()
    }
    return {"exam": exam.name, "images": len(_drawn(exam, limit, 0)), "figures": found}
