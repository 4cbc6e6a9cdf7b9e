"""Exams: qualities of held-out images against their targets, with intervals over photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from perceptloss.compare.statistics.bootstrap import bootstrap
from perceptloss.compare.statistics.measures import krcc, plcc, srcc
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.compare.statistics.pairs import level_accuracy, pairwise_accuracy
from perceptloss.errors import near
from perceptloss.teach.run.sources import Exam

__all__ = ["choose_rows", "default_best", "exam_problems", "figures", "look_up", "qualities"]

Quality = Callable[[Tensor, Tensor | None], Tensor]
Array = NDArray[Any]


def choose_rows(exam: Exam, limit: int, seed: int) -> Array:
    """Rows of whole photographs, in a random order of these, until there are `limit`; 0: all."""
    if not limit or limit >= len(exam.target):
        return np.arange(len(exam.target))
    chosen: list[Array] = []
    count = 0
    for content in np.random.default_rng([seed, 11]).permutation(np.unique(exam.content)):
        rows = np.flatnonzero(exam.content == content)
        if chosen and count + len(rows) > limit:
            break
        chosen.append(rows)
        count += len(rows)
    return np.sort(np.concatenate(chosen))


@torch.no_grad()
def qualities(accelerator: Accelerator, judge: Quality, exam: Exam, rows: Array) -> Array:
    """What a critic says of the rows, shared out over the processes, the same on all of them; float64."""
    parts = [rows[i : i + exam.batch] for i in range(0, len(rows), exam.batch)]
    mine: list[tuple[int, list[float]]] = []
    for i in range(accelerator.process_index, len(parts), accelerator.num_processes):
        x, y = exam.images(parts[i])
        device = accelerator.device
        score = judge(x.to(device).float().div_(255), None if y is None else y.to(device).float().div_(255))
        mine.append((i, score.double().tolist()))
    return np.array([value for _, values in sorted(gather_object(mine)) for value in values])


def figures(exam: Exam, rows: Array, predicted: Array, rounds: int, *, by_family: bool = False) -> dict[str, Any]:
    """Agreement on parts of an exam: `all`, families taught (`seen`) and not (`unseen`), and each family.

    Args:
        exam: Its columns.
        rows: Those that were judged.
        predicted: Their qualities.
        rounds: Of the bootstrap over photographs; 0: no intervals.
        by_family: Also each family.

    Returns:
        Part to figure to `value`, `count`, `low`, `high`; what is not defined is None, and `why` says why.
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
    content, target, group = exam.content[rows], exam.target[rows], exam.group[rows]
    whole = np.ones(len(rows), dtype=bool)
    asked: dict[str, tuple[Callable[..., float], Array, Array]] = {
        "srcc": (srcc, target, whole),
        "plcc": (partial(plcc, fit=exam.fit), target, whole),
        "krcc": (krcc, target, whole),
        "pairwise": (partial(pairwise_accuracy, groups=content), target, whole),
    }
    if (group >= 0).any():
        ladder = group >= 0
        asked["levels"] = (partial(level_accuracy, groups=group[ladder]), exam.level[rows], ladder)
    return {
        name: _figure(statistic, predicted[mask], truth[mask], content[mask], rounds)
        for name, (statistic, truth, mask) in asked.items()
    }


def _figure(statistic: Callable[..., float], pred: Array, truth: Array, content: Array, rounds: int) -> dict[str, Any]:
    try:
        value = float(statistic(pred, truth))
    except ProtocolError as error:
        return {"value": None, "count": len(pred), "why": str(error)}
    figure: dict[str, Any] = {"value": value, "count": len(pred)}
    if not rounds:
        return figure
    try:
        found = bootstrap(statistic, pred, truth, groups=content, rounds=rounds)
    except ProtocolError as error:
        return figure | {"low": None, "high": None, "why": str(error)}
    return figure | {"low": found.low, "high": found.high}


def look_up(results: Mapping[str, Any], path: str) -> float | None:
    """A figure by `EXAM/PART/FIGURE`; None where it is not defined, or not finite."""
    exam, part, figure = path.split("/")
    value = results[exam].get(part, {}).get(figure, {}).get("value")
    return value if value is not None and math.isfinite(value) else None


def exam_problems(path: str, exams: Sequence[Exam], *, has_card: bool) -> list[str]:
    """What would stop a run at its first exam, or after its last."""
    problems = [f"val.best: {problem}"] if (problem := _best_problem(path, exams)) else []
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
    figures = ("srcc", "plcc", "krcc", "pairwise", *(("levels",) if (exam.group >= 0).any() else ()))
    for key, known in zip(keys[1:], (parts, figures), strict=True):
        if key not in known:
            return f"{path!r}: there is no {key!r} in exam {exam.name!r}; there are {', '.join(known)}"
    return ""


def default_best(exams: Sequence[Exam]) -> str:
    """SRCC on all of the first exam."""
    return f"{exams[0].name}/all/srcc"


def examine(
    accelerator: Accelerator, judge: Quality, exams: Sequence[Exam], *, limit: int, seed: int, rounds: int
) -> dict[str, Any]:
    """All exams: name to part to figure; with intervals and families if `rounds`."""
    found: dict[str, Any] = {}
    for exam in exams:
        rows = choose_rows(exam, limit, seed)
        predicted = qualities(accelerator, judge, exam, rows)
        found[exam.name] = figures(exam, rows, predicted, rounds, by_family=rounds > 0)
    return found
