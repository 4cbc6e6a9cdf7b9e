"""MonotonicIQA: q, the heads of its datasets, bilinear pooling, and a step of its training on rows of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.critics.monotonic import DATASETS, bilinear
from perceptloss.registry import create_critic
from perceptloss.teach.objectives.regression import norm_in_norm

from ..case import Case, Row
from ..run import Run, System, once


def _build(case: Case, row: Row) -> nn.Module:
    critic = create_critic("monotonic", weights=case.state())
    critic.floor = 1e-8  # the exact derivative
    return critic


def _rows(name: str) -> str:
    return "groups_flat" if name == "groups" else name


def _head(run: Run, row: Row, number: str) -> Tensor:
    return run.critic.heads[DATASETS[int(number) - 1]](run.score(row.input))


def _on_grid(run: Run, row: Row, number: str) -> Tensor:
    size, *ends = run.case.noted(r"(\d+) values (-?[\d.]+),[-\d.,]*\.\.,(-?\d+(?:\.\d+)?)").groups()
    grid = torch.linspace(*map(float, ends), int(size), dtype=run.tensor(0.0).dtype)
    return run.critic.heads[DATASETS[int(number) - 1]](grid)


@once
def _heads(run: Run, name: str) -> Tensor:
    """Column by column to the head of its dataset, (rows, datasets)."""
    columns = run.score(_rows(name)).unflatten(0, (-1, len(DATASETS))).unbind(1)
    return torch.stack([run.critic.heads[name](q) for name, q in zip(DATASETS, columns, strict=True)], 1)


def _losses(run: Run, row: Row, which: str) -> Tensor:
    """By a mistake of shapes their norm-in-norm is a plain L1 there; ours refuses such shapes."""
    labels = run.tensor(run.case.listed(r"goes to head k\+1; labels"))
    found = _heads(run, row.input)
    smooth, plain = (of(found, labels, reduction="none").mean(0) for of in (F.smooth_l1_loss, F.l1_loss))
    return {"smooth_l1_per_set": smooth, "second_term_per_set": plain, "total": (smooth + plain).mean()}[which]


def _norm_in_norm(run: Run, row: Row, form: str) -> Tensor:
    lists = run.case.noted(r"p = ([-\d.,]+) and t = ([-\d.,]+)").groups()
    p, t = (run.tensor([float(n) for n in text.rstrip(",").split(",")]) for text in lists)
    if form == "perfect":
        return (norm_in_norm(3 * t - 1, t, 2, 2) < 1e-6).double()
    return norm_in_norm(3 * p + 2 if form == "affine" else p, t, 2, 2)


def _maps(run: Run, row: Row, tap: str = "layer4") -> Tensor:
    return run.tap(row, tap)


SYSTEM = System(
    _build,
    readers={
        "q": lambda run, row: run.score(_rows(row.input)),
        r"head_(\d)": _head,
        r"head_(\d)_on_grid": _on_grid,
        "heads": lambda run, row: _heads(run, row.input),
        r"(layer[1-4])": _maps,
        "bilinear": lambda run, row: bilinear(_maps(run, row)),
        "fc0": lambda run, row: run.critic.fc[0](bilinear(_maps(run, row))),
        r"loss_(smooth_l1_per_set|second_term_per_set|total)": _losses,
        r"norm_in_norm_(batch_first|affine|perfect)": _norm_in_norm,
    },
)
