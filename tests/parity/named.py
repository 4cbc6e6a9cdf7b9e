"""Parity cases whose inputs and expected rows have names: building the inputs, and comparing a row.

A module `named_<system>.py` beside this one holds a `SYSTEM`: the critic, a reader per quantity,
and the quantities left out with the reason. `test_parity_named.py` runs every row of every such case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptloss import create_critic
from perceptloss.critic import Critic

from .parity import distort, fill_state, image, load_case

__all__ = ["NamedCase", "Reader", "System", "gradient"]

DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class NamedCase:
    """One case in one floating-point type."""

    folder: Path
    dtype: str = "float64"

    @cached_property
    def facts(self) -> dict[str, Any]:
        return load_case(self.folder)

    def state(self) -> dict[str, Tensor]:
        """The authors' checkpoint, filled as the case says."""
        filled = fill_state(self.facts["layout"], seed=self.facts["seed"])
        return {key: torch.from_numpy(np.array(value)) for key, value in filled.items()}

    def image(self, name: str) -> Tensor:
        """The batch called `name`, (N, channels, H, W), in the case's type."""
        return torch.from_numpy(self._array(name)).to(DTYPES[self.dtype])

    def _array(self, name: str) -> np.ndarray:
        (facts,) = [entry for entry in self.facts["inputs"] if entry["name"] == name]
        if "stack" in facts:
            return np.concatenate([self._array(part) for part in facts["stack"]])
        if "crop_of" in facts:
            top, left, height, width = facts["box"]
            return self._array(facts["crop_of"])[..., top : top + height, left : left + width]
        picture = image(facts["seed"], facts["height"], facts["width"], facts.get("channels", 3))
        for kind, level, seed in facts.get("distort", []):
            picture = distort(picture, kind, level, seed)
        return picture[None]

    def compare(self, row: Mapping[str, Any], ours: Tensor) -> None:
        """Compare one row: all values, a summary, or a gradient; in float64 to the case's tightest tolerance."""
        what = f"{row['name']} of {row['input']}"
        is_double = self.dtype == "float64"
        rtol = self.facts["rtol64"] if is_double else self.facts["rtol"][row["kind"]]
        atol = self.facts["atol64"] if is_double else self.facts["atol"]
        ours = ours.detach().double()
        if row["kind"] == "value":
            self._close(what, ours.flatten(), row["value"], rtol * max(map(abs, map(float, row["value"]))) + atol)
        elif row["kind"] == "summary":
            assert list(ours.shape) == row["shape"], f"{what}: shape {list(ours.shape)}, expected {row['shape']}"
            slack = rtol * max(row["std"], abs(row["mean"])) + atol
            first = row["first"]
            self._close(what, ours.flatten()[: len(first)], first, 10 * slack)
            self._close(f"mean of {what}", ours.mean(), row["mean"], slack)
            self._close(f"deviation of {what}", ours.std(unbiased=False), row["std"], slack)
        else:
            assert torch.isfinite(ours).all(), f"{what} is not finite"
            assert ours.numel() == row["numel"], f"{what}: {ours.numel()} elements, expected {row['numel']}"
            slack = rtol * row["norm"] + atol
            self._close(f"norm of {what}", ours.norm(), row["norm"], slack)
            self._close(f"mean of {what}", ours.mean(), row["mean"], slack / math.sqrt(row["numel"]) + atol)
            values = row["values"]
            self._close(what, ours.flatten()[row["index"]], values, rtol * max(map(abs, values)) + atol)

    @staticmethod
    def _close(what: str, ours: Tensor, theirs: Any, slack: float) -> None:
        wanted = torch.tensor(theirs, dtype=torch.float64)
        torch.testing.assert_close(ours, wanted, rtol=0, atol=slack, msg=lambda text: f"{what}: {text}")


Reader = Callable[[Critic, NamedCase, str], Tensor]
"""Our quantity for the input of a name: (critic, case, name of the input) -> tensor."""


@dataclass(frozen=True)
class System:
    """How a named case is read.

    Attributes:
        critic: Registry name, made with the case's weights.
        readers: Name of a row to its reader.
        left: Names of rows (regular expressions) that our critic has no counterpart of, with the reason.
        options: Further arguments of `create_critic`.
        types: Floating-point types in which it is run.
    """

    critic: str
    readers: Mapping[str, Reader]
    left: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    types: tuple[str, ...] = tuple(DTYPES)

    def build(self, case: NamedCase) -> Critic:
        """The critic with the case's weights and type, and exact gradients."""
        critic = create_critic(self.critic, weights=case.state() or None, **self.options).to(DTYPES[case.dtype])
        critic.hold_weights = False
        return critic


def gradient(score: Callable[[Critic, Tensor], Tensor]) -> Reader:
    """Reader of the gradient of the summed score with respect to the input."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        x = case.image(name).requires_grad_()
        (found,) = torch.autograd.grad(score(critic, x).sum(), x)
        return found

    return read
