"""What one photograph yields, as one file that is either whole or not there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceptloss.output.files import replacing
from perceptloss.output.tensors import sort_metadata

__all__ = ["Shard", "is_whole", "read_shard", "write_shard"]


@dataclass(frozen=True, eq=False)
class Shard:
    """The images of one photograph, row by row, and what is known of them.

    Attributes:
        references: Clean crops, (C, 3, S, S) uint8.
        images: (M, 3, S, S) uint8.
        scores: Of each teacher in the plan's order, natural units, (M, T) float32.
        reference: Row of `references` that an image was made from, (M,).
        level: In [0, 5], NaN for chains, (M,).
        group: Number of the group over the whole set, -1 for none, (M,).
        name: Of the degradation, (M,).
        family: (M,).
        recipe: The steps as text, (M,).
        is_higher_better: Of each teacher, as it was built.
    """

    references: NDArray[np.uint8]
    images: NDArray[np.uint8]
    scores: NDArray[np.float32]
    reference: NDArray[np.int64]
    level: NDArray[np.float64]
    group: NDArray[np.int64]
    name: list[str]
    family: list[str]
    recipe: list[str]
    is_higher_better: dict[str, bool]


_TENSORS = ("references", "images", "scores", "reference", "level", "group")
_NOTES = ("name", "family", "recipe", "is_higher_better")


def write_shard(shard: Shard, path: Path, plan_hash: str) -> None:
    """Write it beside its place, then move it there."""
    from safetensors.numpy import save_file

    notes = {name: json.dumps(getattr(shard, name)) for name in _NOTES}
    with replacing(path) as draft:
        save_file({name: getattr(shard, name) for name in _TENSORS}, draft, {**notes, "plan": plan_hash})
        sort_metadata(draft)


def read_shard(path: Path) -> Shard:
    """Read all of it."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        notes = opened.metadata()
        values: dict[str, Any] = {name: opened.get_tensor(name) for name in _TENSORS}
    return Shard(**values, **{name: json.loads(notes[name]) for name in _NOTES})


def is_whole(path: Path, plan_hash: str) -> bool:
    """Whether it is there, complete and of this plan."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            return (opened.metadata() or {}).get("plan") == plan_hash
    except (OSError, SafetensorError):
        return False
