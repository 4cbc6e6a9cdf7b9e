"""What the tests of the recipes share; importing it puts the recipes on the path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
sys.path.insert(0, str(RECIPES))

TINY: dict[str, Any] = {
    "threads": 1,
    "data": {"patch": 32, "batch": 2},
    "model": {"options": {"num_feat": 4, "num_conv": 1, "upscale": 4}, "weights": None},
    "loss": {"critics": {"gmsd": 0.5}, "shift": 0, "budget": {}},
    "train": {"warmup": 2, "lr": 0.001, "ema": 0.9},
    "val": {"every": 0, "judges": ["haarpsi"], "guests": [], "best": "psnr-y"},
    "log": {"every": 1},
}


def photograph(path: Path, seed: int, height: int, width: int) -> None:
    """Smooth colour fields with an edge: compressible, and no two alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
    image[:, width // 3 : width // 2] = 255 - image[:, width // 3 : width // 2]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
