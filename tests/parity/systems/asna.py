"""ASNA, and its training loss with the network that ranks sixteen numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.teach.objectives.listwise import asna_loss

from ..case import Row
from ..run import Run, System


def _sorted(run: Run, numbers: Tensor) -> Tensor:
    s = {key.removeprefix("sorter."): t.to(numbers) for key, t in run.case_state.items() if key.startswith("sorter.")}
    h = numbers[None, None]
    for n in range(1, sum(key.startswith("conv_") and key.endswith("weight") for key in s) + 1):
        weight = s[f"conv_{n}.weight"]
        size = weight.shape[-1]
        h = F.conv1d(F.pad(h, ((size - 1) // 2, size // 2)), weight, s[f"conv_{n}.bias"])
        if f"bn_{n}.weight" in s:
            stored = (s[f"bn_{n}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            h = F.batch_norm(h, *stored, eps=1e-3)
        h = torch.where(h > 0, h, h * s[f"prelu_{n}.weight"].mT)
    return F.linear(h.mT.flatten(), s["dense.weight"], s["dense.bias"])


def _lists(run: Run, row: Row) -> tuple[Tensor, Tensor]:
    facts = run.case.entry(row.input)
    return run.tensor(facts["prediction"], requires_grad=True), run.tensor(facts["label"])


def _loss(run: Run, row: Row, mse: float | None = None) -> Tensor:
    """Theirs, or the part of it that has this weight."""
    q, y = _lists(run, row)
    facts = run.case.entry(row.input)
    if mse is not None:
        return asna_loss(q, y, mse, 0)
    loss = asna_loss(q, y, facts["mse_factor"], facts["rank_factor"], ranker=lambda numbers: _sorted(run, numbers))
    return torch.autograd.grad(loss, q)[0] if row.is_gradient else loss


SYSTEM = System(
    "asna",
    readers={
        "loss": _loss,
        "mse": lambda run, row: _loss(run, row, 1),
        "one_minus_squared_correlation": lambda run, row: _loss(run, row, 0),
        "sorter_of_prediction": lambda run, row: _sorted(run, _lists(run, row)[0]),
        "sorter_of_label": lambda run, row: _sorted(run, _lists(run, row)[1]),
        "gradient_in_prediction": _loss,
    },
    parts={
        r"(d\d)\.bn output.*": "{0}",
        "attention block output": "att",
        r"dense_1 output \(after ReLU\)": ("dense_1", torch.relu),
        r"dense_2 output \(after tanh\)": ("dense_2", torch.tanh),
    },
)
