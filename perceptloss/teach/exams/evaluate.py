"""Exams: qualities of held-out images against their targets, with intervals over photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from perceptloss import Critic
from perceptloss.compare.statistics.measures import krcc, plcc, srcc
from perceptloss.compare.statistics.pairs import level_accuracy, pairwise_accuracy
from perceptloss.errors import near
from perceptloss.honesty.attacks import Quality
from perceptloss.teach.exams.attacks import attack_problems
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.exams.prefer import preferences
from perceptloss.teach.exams.rows import Array, choose_rows, figure_of, floats, shared
from perceptloss.teach.run.critic import quality_of

__all__ = ["choose_rows", "default_best", "exam_problems", "examine", "figures", "look_up", "qualities"]


@torch.no_grad()
def qualities(accelerator: Accelerator, judge: Quality, exam: Exam, rows: Array) -> Array:
    """What a critic says of the rows, shared out over the processes, the same on all of them; float64."""

    def judged(_: int, part: Array) -> list[float]:
        x, y = (floats(accelerator, image) for image in exam.images(part))
        assert x is not None
        return judge(x, y).double().tolist()

    return shared(accelerator, [rows[i : i + exam.batch] for i in range(0, len(rows), exam.batch)], judged)


def figures(exam: Exam, rows: Array, predicted: Array, rounds: int, *, by_family: bool = False) -> dict[str, Any]:
    """Agreement on parts of an exam: `all`, families taught (`seen`) and not (`unseen`), and each family.

    Args:
        exam: Its columns.
        rows: Those that were judged.
        predicted: Their qualities.
        rounds: Of the bootstrap over photographs; 0: no intervals.
        by_family: Also each family.

    Returns:
        Part to figure to `value`, `count` (images, or pairs that were asked for), `low`, `high`; what is not defined is
        None, and `why` says why.
    """
    family = exam.family[rows]
    is_unseen = np.isin(family, list(exam.unseen))
    parts = {"all": np.ones(len(rows), dtype=bool)}
    if exam.unseen:
        parts |= {"seen": ~is_unseen & (family != ""), "unseen": is_unseen}
    if by_family:
        parts |= {f"family:{name}": family == name for name in sorted(set(family) - {""})}
    return {name: _part(exam, rows[mask], predicted[mask], rounds) for name, mask in parts.items() if mask.any()}


def _part(exam: Exam, rows: Array, predicted: Array, rounds: int) -> dict[str, Any]:
    content, target = exam.content[rows], exam.target[rows]
    whole = np.isfinite(target)
    asked: dict[str, tuple[Callable[..., float], Array, Array]] = {}
    if exam.has_targets:
        asked = {
            "srcc": (srcc, target, whole),
            "plcc": (partial(plcc, fit=exam.fit), target, whole),
            "krcc": (krcc, target, whole),
            "pairwise": (partial(pairwise_accuracy, groups=content), target, whole),
        }
    if exam.within is not None:
        asked["within"] = (partial(pairwise_accuracy, groups=exam.within[rows]), target, whole)
    ladder = exam.group[rows] >= 0
    group = exam.group[rows][ladder]
    if len(np.unique(group)) < len(group):  # else no two levels of one damage are left in this part
        asked["levels"] = (partial(level_accuracy, groups=group), exam.level[rows], ladder)
    found = {
        name: figure_of(statistic, predicted[mask], truth[mask], content[mask], rounds)
        for name, (statistic, truth, mask) in asked.items()
    }
    return found | _in_order(exam, rows, predicted, rounds)


def _in_order(exam: Exam, rows: Array, predicted: Array, rounds: int) -> dict[str, Any]:
    """Of each question that these rows answer, the share of pairs in order; equal qualities count half."""
    place = np.full(len(exam.target), -1)
    place[rows] = np.arange(len(rows))
    found: dict[str, Any] = {}
    for name, pairs in exam.asked.items():
        both = place[pairs]
        both = both[(both >= 0).all(1)]
        if len(both):
            flat, pair = both.ravel(), np.repeat(np.arange(len(both)), 2)
            better = np.tile([1.0, 0.0], len(both))
            statistic = partial(pairwise_accuracy, groups=pair)
            figure = figure_of(statistic, predicted[flat], better, exam.content[rows][flat], rounds)
            found[name] = figure | {"count": len(both)}
    return found


def look_up(results: Mapping[str, Any], path: str) -> float | None:
    """A figure by `EXAM/PART/FIGURE`; None where it is not defined, or not finite."""
    exam, part, figure = path.split("/")
    value = results[exam].get(part, {}).get(figure, {}).get("value")
    return value if value is not None and math.isfinite(value) else None


def exam_problems(
    path: str, exams: Sequence[Exam], *, has_card: bool, attacks: Mapping[str, Any] | None = None
) -> list[str]:
    """What would stop a run at its first exam, or after its last."""
    problems = [f"val.best: {problem}"] if (problem := _best_problem(path, exams)) else []
    problems += attack_problems(attacks or {}, exams)
    if has_card and not any(len(np.unique(exam.content)) > 1 for exam in exams):
        problems.append("every exam has a single photograph, and so no interval for the model card; hold out more")
    return problems


def _best_problem(path: str, exams: Sequence[Exam]) -> str:
    """What is wrong with `EXAM/PART/FIGURE`; empty if there is such a figure."""
    if not path:
        return ""
    keys = path.split("/")
    if len(keys) != 3:
        return f"expected EXAM/PART/FIGURE, got {path!r}"
    by_name = {exam.name: exam for exam in exams}
    if keys[0] not in by_name:
        return f"no exam is called {keys[0]!r}{near(keys[0], by_name)} exams: {', '.join(by_name)}"
    exam = by_name[keys[0]]
    parts = ("all", "seen", "unseen") if exam.unseen else ("all",)
    for key, known in zip(keys[1:], (parts, exam.measures), strict=True):
        if key not in known:
            return f"{path!r}: there is no {key!r} in exam {exam.name!r}; there are {', '.join(known)}"
    return ""


def default_best(exams: Sequence[Exam]) -> str:
    """The first figure on all of the first exam; SRCC where there are targets."""
    return f"{exams[0].name}/all/{exams[0].measures[0]}"


def examine(
    accelerator: Accelerator, critic: Critic, exams: Sequence[Exam], *, limit: int, seed: int, rounds: int
) -> dict[str, Any]:
    """All exams: name to part to figure; with intervals and families if `rounds`.

    A critic that has a method `prefer` is asked for pairs of each exam as well; see `preferences`.
    """
    found: dict[str, Any] = {}
    for exam in exams:
        rows = choose_rows(exam, limit, seed)
        predicted = qualities(accelerator, partial(quality_of, critic), exam, rows)
        found[exam.name] = figures(exam, rows, predicted, rounds, by_family=rounds > 0)
        found[exam.name]["all"] |= preferences(accelerator, critic, exam, rows, rounds, seed=seed)
    return found
