"""Registered toy critics, and folders of small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from judges import CARDS, Brightness, MeanError
from PIL import Image

from perceptloss import registry
from perceptloss.critic import Entry

MakeFolder = Callable[..., Path]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> type[MeanError]:
    """Register `toy-error` (compares, lower is better) and `toy-light` (judges alone, higher is better)."""
    monkeypatch.setitem(registry._registered, "toy-error", Entry(CARDS["toy-error"], MeanError))
    monkeypatch.setitem(registry._registered, "toy-light", Entry(CARDS["toy-light"], Brightness))
    monkeypatch.setattr(MeanError, "scored", 0)
    return MeanError


@pytest.fixture
def folder(tmp_path: Path) -> MakeFolder:
    """Make a folder of 8-bit RGB images of one value each: `folder("gt", a=10, b=20)`."""

    def make(name: str, size: tuple[int, int] = (12, 16), ending: str = ".png", **values: int) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True, exist_ok=True)
        for stem, value in values.items():
            Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path / f"{stem}{ending}")
        return path

    return make


@pytest.fixture
def noise() -> Callable[[Sequence[int], int], np.ndarray]:
    """Random 8-bit images of a shape, from a seed."""

    def make(shape: Sequence[int], seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, tuple(shape), dtype=np.uint8)

    return make
