"""Losses of the content-diverse comparison scheme on lists; given pairs join the two halves of a list."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.statistics.pairs import pairwise_accuracy
from perceptloss.teach.objectives import comparison, correlation

from ..case import Row, refuse
from ..run import Run, System


def _lists(run: Run, row: Row) -> tuple[Tensor, Tensor]:
    facts = run.case.entry(row.input)
    return run.tensor(facts["prediction"], requires_grad=True), run.tensor(facts["label"])


def _mask(row: Row, size: int) -> Tensor | None:
    given = row.context["loss_name"].startswith("given pairs")
    return torch.eye(size, dtype=torch.bool).roll(size // 2, 1) if given else None


def _rises(row: Row) -> bool:
    """Whether predictions should rise with labels; `invert` has two meanings in the authors' code."""
    turned = row.context["loss_name"] in ("all pairs: ranking", "all pairs: squared difference")
    return row.context["arguments"].get("invert", False) == turned


def _pairs(row: Row, q: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Leads of the first of each pair over the second, in prediction and label."""
    mask, size = _mask(row, len(q)), len(q)
    places = torch.ones(size, size, dtype=torch.bool).triu(1) if mask is None else mask.triu()
    return (q[:, None] - q)[places], (y[:, None] - y)[places]


def _cross_entropy(row: Row, q: Tensor, y: Tensor) -> Tensor:
    """Ours; theirs where it takes the sigmoid first and a clear mistake leaves its slope at 0, its loss at most 100."""
    temperature = row.context["arguments"]["temperature"]
    ours = comparison.pairwise_bce(q if _rises(row) else -q, y, temperature, mask=_mask(row, len(q)), min_gap=None)
    lead, gap = _pairs(row, q, y)
    wins, chance = (gap > 0) == _rises(row), (lead / temperature).sigmoid()
    mistakes = torch.where(wins, chance, 1 - chance)
    if mistakes.min() > 1e-12:
        return ours
    theirs = F.binary_cross_entropy(chance, wins.to(chance))
    if mistakes.min() > 0:
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=0)
    else:  # rounded to 1
        assert theirs > ours
    return theirs


def _loss(run: Run, row: Row, q: Tensor, y: Tensor) -> Tensor:
    name, arguments = row.context["loss_name"], row.context["arguments"]
    temperature, mask, signed = arguments.get("temperature"), _mask(row, len(q)), q if _rises(row) else -q
    match name.removeprefix("all pairs: ").removeprefix("given pairs: "):
        case "ranking":
            over = "all" if mask is not None else "active"
            return comparison.rank_hinge(signed, y, arguments["margin"], mask=mask, min_gap=None, over=over)
        case "sigmoid against Elo probability":
            return comparison.elo_mse(signed, y, temperature=temperature, mask=mask)
        case "binary cross entropy":
            return _cross_entropy(row, q, y)
        case "squared difference" if mask is None:
            return comparison.difference_mse(signed, y)
        case "Pearson":
            return 1 - correlation.pearson_loss(q, y, published=True)
        case "soft Spearman":
            return 1 - correlation.spearman_loss(q, y, temperature, published=True)
        case "soft Kendall":
            return 1 - correlation.kendall_loss(q, y, temperature, published=True)
    refuse(f"{run.case.system}: no objective of ours is {name!r}")


def _value(run: Run, row: Row) -> Tensor:
    q, y = _lists(run, row)
    loss = _loss(run, row, q, y)
    return torch.autograd.grad(loss, q)[0] if row.is_gradient else loss


def _accuracy(run: Run, row: Row) -> Tensor:
    """Ours judges no ties; theirs count as wrong, or, in the forms of probabilities, as not greater."""
    q, y = (numbers.detach() for numbers in _lists(run, row))
    lead, gap = _pairs(row, q, y)
    if not (lead * gap == 0).any():
        pairs = np.arange(len(q)) % (len(q) // 2) if _mask(row, len(q)) is not None else None
        return run.tensor(pairwise_accuracy((q if _rises(row) else -q).numpy(), y.numpy(), groups=pairs))
    if row.context["loss_name"].endswith(("ranking", "squared difference")):
        return (lead * gap * (1 if _rises(row) else -1) > 0).double().mean()
    return ((lead > 0) == ((gap > 0) == _rises(row))).double().mean()


def _rtol(row: Row, dtype: str) -> float | None:
    return 1e-8 if "cross entropy" in row.context["loss_name"] else None  # the sigmoid of theirs rounds near 1


SYSTEM = System(None, {"value|gradient_in_prediction": _value, "pair_accuracy": _accuracy}, rtol=_rtol)
