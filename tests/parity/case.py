"""A parity case as rows: what the authors' code gave for one quantity of one input, in one form for all files.

A file lists its inputs either as batches of pairs (`items`) or as single images with parts and stacks; and its
expected numbers either as named rows with a `kind`, or as one record per input whose fields are the quantities.
Whatever a file holds that is not understood here is a failure, never a gap.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from .parity import distort, fill_state, image, load_case

__all__ = ["DTYPES", "Case", "Row", "refuse"]

DTYPES = {"float64": torch.float64, "float32": torch.float32}
_CONTEXT = {"input", "metric", "loss_name", "arguments", "labels"}
_FIELDS = {
    "value": {"shape", "value"},
    "summary": {"shape", "mean", "std", "first"},
    "grad": {"norm", "mean", "index", "values", "value", "numel", "shape"},
}
_FACTS = {
    *("system", "source", "commit", "licence", "torch", "tensorflow", "packages", "parameters", "notes", "format"),
    *("layout", "seed", "dtype", "metrics", "inputs", "loss_inputs", "expected", "expected_losses"),
    *("rtol", "atol", "rtol64", "atol64", "rtol_float32", "atol_float32", "float32_deviation"),
}


def refuse(sentence: str) -> NoReturn:
    pytest.fail(sentence, pytrace=False)


@dataclass(frozen=True)
class Row:
    """One quantity of one input: `value` (all numbers), `summary` (mean, deviation, first numbers) or `grad`."""

    quantity: str
    input: str
    kind: str
    facts: Mapping[str, Any] = field(compare=False)
    context: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def metric(self) -> str | None:
        return self.context.get("metric")

    @property
    def is_gradient(self) -> bool:
        return self.kind == "grad" or self.quantity.startswith("gradient")


@dataclass(frozen=True)
class Case:
    """One folder."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        return load_case(self.folder)

    @property
    def system(self) -> str:
        return self.facts["system"]

    @property
    def types(self) -> tuple[str, ...]:
        """Types for which there is a tolerance."""
        has_single = "format" in self.facts or "rtol_float32" in self.facts
        return ("float64", "float32") if has_single else ("float64",)

    @cached_property
    def rows(self) -> list[Row]:
        """All expected numbers; a row of kind `unknown` for what cannot be read."""
        unknown = [key for key in self.facts if key not in _FACTS]
        found = [Row(key, "", "unknown", {}) for key in unknown]
        for key in ("expected", "expected_losses"):
            for entry in self.facts.get(key, ()):
                found += _rows_of(entry)
        return found or [Row("expected", "", "unknown", {})]

    @cached_property
    def inputs(self) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for key in ("inputs", "loss_inputs") for entry in self.facts.get(key, ())}

    def entry(self, name: str) -> dict[str, Any]:
        return self.inputs[name] if name in self.inputs else refuse(f"{self.system}: no input is called {name!r}")

    def state(self) -> dict[str, Tensor]:
        """The authors' checkpoint, filled as the case says."""
        filled = fill_state(self.facts["layout"], seed=self.facts["seed"])
        return {key: torch.from_numpy(np.array(value)) for key, value in filled.items()}

    def shape_in(self, key: str) -> list[int]:
        """Shape of a tensor of the checkpoint."""
        return next(row["shape"] for row in self.facts["layout"] if row["key"] == key)

    def array(self, name: str, *, pristine: bool = False, channels: int = 3) -> np.ndarray:
        """The batch called `name`, (N, channels, H, W), or what it was before any distortion."""
        facts = self.entry(name)
        if "items" in facts:
            return np.stack([_picture(item["image"], item["distort"], pristine, channels) for item in facts["items"]])
        if "stack" in facts:
            return np.concatenate([self.array(part, pristine=pristine) for part in facts["stack"]])
        if "crop_of" in facts:
            top, left, height, width = facts["box"]
            whole = self.array(facts["crop_of"], pristine=pristine)
            return whole[..., top : top + height, left : left + width]
        return _picture(facts, facts.get("distort", []), pristine, channels)[None]

    def crops(self, name: str) -> list[tuple[Any, ...]]:
        """The windows over which a score is averaged; one that is everything where the case names none."""
        windows = self.inputs.get(name, {}).get("crops", [])
        return [(..., slice(t, t + h), slice(left, left + w)) for t, left, h, w in windows] or [(...,)]

    # ---- what only the prose of a case says

    @cached_property
    def notes(self) -> str:
        notes = self.facts["notes"]
        return notes if isinstance(notes, str) else "\n".join(notes)

    def noted(self, pattern: str) -> re.Match[str]:
        return re.search(pattern, self.notes) or refuse(f"{self.system}: its notes have nothing like {pattern!r}")

    def listed(self, phrase: str) -> Any:
        """The list of numbers that follows a phrase of the notes."""
        return json.loads(self.noted(rf"{phrase}[^\[.;\n]*?(\[[-\d., \[\]]*\])")[1])

    # ---- comparing

    def compare(self, row: Row, ours: Tensor, dtype: str, rtol: float | None = None) -> None:
        """Ours against the authors'; in float64 to the case's tight tolerance.

        Args:
            row: What is expected.
            ours: In any shape for values, in theirs for summaries, of the input's shape for gradients.
            dtype: In which it was computed.
            rtol: Another tolerance than the case's.
        """
        facts, what = row.facts, f"{row.quantity} of {row.input}"
        named = "format" in self.facts
        suffix = {"float64": "64", "float32": ""} if named else {"float64": "", "float32": "_float32"}
        stated, atol = (self.facts.get(f"{name}{suffix[dtype]}", self.facts[name]) for name in ("rtol", "atol"))
        rtol = rtol or (stated[row.kind] if isinstance(stated, dict) else stated)
        ours = ours.detach().double()
        if row.kind == "value":
            wanted = _numbers(facts["value"])
            if not np.isfinite(wanted).all():  # theirs is not a number, ours has to be one
                assert torch.isfinite(ours).all(), f"{what} is not finite"
                return
            of_all = named or row.is_gradient
            scale = np.abs(wanted).max(initial=0) if of_all else np.abs(wanted)
            _close(what, ours, wanted, rtol * scale + atol)
        elif row.kind == "summary":
            assert list(ours.shape) == facts["shape"], f"{what}: shape {list(ours.shape)}, expected {facts['shape']}"
            slack = rtol * max(facts["std"], abs(facts["mean"])) + atol
            first = _numbers(facts["first"])
            _close(what, ours.flatten()[: len(first)], first, (10 if named else 1) * slack)
            _close(f"mean of {what}", ours.mean(), facts["mean"], slack)
            _close(f"deviation of {what}", ours.std(unbiased=False), facts["std"], slack)
        else:
            self._compare_gradient(what, ours, facts, rtol, atol, 1 if named else 1e-3)

    @staticmethod
    def _compare_gradient(
        what: str, ours: Tensor, facts: Mapping[str, Any], rtol: float, atol: float, share: float
    ) -> None:
        assert torch.isfinite(ours).all(), f"{what} is not finite"
        norm = float(facts["norm"])
        if not math.isfinite(norm):  # theirs is not a number somewhere
            return
        size = facts.get("numel", ours.numel())
        assert ours.numel() == size, f"{what}: {ours.numel()} elements, expected {size}"
        _close(f"norm of {what}", ours.norm(), norm, rtol * norm + atol)
        typical, atol = rtol * norm / math.sqrt(size), share * atol  # of an element
        _close(f"mean of {what}", ours.mean(), float(facts["mean"]), typical + atol)
        values = _numbers(facts["values"] if "values" in facts else facts["value"])
        places = facts["index"]
        if places and isinstance(places[0], list):
            places = [int(np.ravel_multi_index(place, ours.shape)) for place in places]
        _close(what, ours.flatten()[places], values, rtol * np.abs(values).max() + 10 * typical + atol)


def _rows_of(entry: Mapping[str, Any]) -> Iterator[Row]:
    context = {key: entry[key] for key in _CONTEXT & entry.keys()}
    name = context.get("input", "")
    if "kind" in entry:
        facts = {key: entry[key] for key in entry.keys() - _CONTEXT - {"name", "kind", "float32_deviation"}}
        known = facts.keys() <= _FIELDS.get(entry["kind"], set())
        yield Row(entry["name"], name, entry["kind"] if known else "unknown", facts, context)
        return
    for key, value in entry.items():
        if key in _CONTEXT:
            continue
        if key == "gradient":
            yield Row("grad_score", name, "grad", value, context)
        elif key == "intermediate":
            yield from (Row(part["name"], name, "summary", part, context) for part in value)
        elif isinstance(value, (int, float, str, list)):
            yield Row(key, name, "value", {"value": value if isinstance(value, list) else [value]}, context)
        else:
            yield Row(key, name, "unknown", {}, context)


def _picture(facts: Mapping[str, Any], steps: Any, pristine: bool, channels: int) -> np.ndarray:
    """Steps are `[kind, level, seed]` lists, one mapping, or None."""
    picture = image(facts["seed"], facts["height"], facts["width"], facts.get("channels", channels))
    steps = [steps] if isinstance(steps, Mapping) else steps or []
    for step in () if pristine else steps:
        picture = distort(picture, **step) if isinstance(step, Mapping) else distort(picture, *step)
    return picture


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).flatten()  # "nan" is a number to numpy


def _close(what: str, ours: Tensor, theirs: Any, slack: Any) -> None:
    found, wanted = ours.flatten().numpy(), _numbers(theirs)
    assert found.shape == wanted.shape, f"{what}: {found.size} numbers, expected {wanted.size}"
    misses = np.abs(found - wanted)
    if not (misses <= slack).all():  # also where ours is not a number
        worst = int(np.nanargmax(np.where(np.isnan(misses), np.inf, misses - slack)))
        allowed = float(np.broadcast_to(slack, misses.shape)[worst])
        pytest.fail(
            f"{what}, number {worst}: {found[worst]!r}, expected {wanted[worst]!r}, allowed {allowed:.3g}",
            pytrace=False,
        )
