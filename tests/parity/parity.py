"""Deterministic weights and images, so that two implementations of one network can be compared by numbers alone.

A parity case names a network's state-dict layout (key, shape, dtype), how every tensor is filled, the input images and
the outputs that the authors' own code gave for them. Fill a state dict with `fill_state`, load it through the project's
converter for that network's published checkpoints, feed `image(...)`, and compare with `expected`.

Only numpy is needed; every stream is PCG64, which numpy keeps stable between versions and platforms.
"""

from __future__ import annotations

import json
import math
import pathlib
import zlib

import numpy as np


def _stream(seed: int, key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))


def fill_tensor(key: str, shape: list[int], dtype: str = "float32", *, seed: int = 0, gain: float = 1.0) -> np.ndarray:
    """One tensor of a state dict, decided by its key, its shape and the seed.

    * integer dtypes: zeros (step counters);
    * keys ending in `running_var`: 0.5 + |n| ;
    * keys ending in `running_mean`: 0.1 n ;
    * 1-D (or 0-D) keys ending in `weight` / `gamma` / `alpha`: 1 + 0.1 n (norm scales); PReLU slopes are
      0.25 + 0.05 n when the key holds `prelu`;
    * other 0-D and 1-D tensors (biases): 0.1 n ;
    * everything else: gain * n * sqrt(2 / fan_in), fan_in = the product of all dimensions but the first.
    """
    if not dtype.startswith(("float", "bfloat")):
        return np.zeros(shape, dtype=dtype)
    n = _stream(seed, key).standard_normal(tuple(shape))
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        value = 0.5 + np.abs(n)
    elif leaf == "running_mean":
        value = 0.1 * n
    elif len(shape) <= 1 and "prelu" in key.lower():
        value = 0.25 + 0.05 * n
    elif len(shape) <= 1 and leaf in ("weight", "gamma", "alpha"):
        value = 1.0 + 0.1 * n
    elif len(shape) <= 1:
        value = 0.1 * n
    else:
        value = gain * n * math.sqrt(2.0 / max(1, int(np.prod(shape[1:]))))
    return value.astype(np.float32)


def fill_state(layout: list[dict], *, seed: int = 0) -> dict[str, np.ndarray]:
    """A whole state dict from a case's `layout`: a list of {key, shape, dtype[, gain][, value | same_as]}."""
    state = {}
    for row in layout:
        if "same_as" in row:  # a tensor that the authors' module stores under two names
            state[row["key"]] = state[row["same_as"]]
        elif "value" in row:  # a constant that the authors' code fixes (a filter, a mean): given, not drawn
            state[row["key"]] = np.asarray(row["value"], dtype=row["dtype"]).reshape(row["shape"])
        else:
            gain = row.get("gain", 1.0)
            state[row["key"]] = fill_tensor(row["key"], row["shape"], row["dtype"], seed=seed, gain=gain)
    return state


def image(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """A picture-like array (channels, height, width), float32 in [0, 1], 8-bit grid: smooth waves, edges and grain."""
    g = _stream(seed, "image")
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(channels):
        plane = np.zeros((height, width))
        for octave in range(6):
            f = 2.0**octave / max(height, width)
            a, p, q = g.uniform(0, 2 * np.pi, 3)
            plane += np.cos(2 * np.pi * f * (x * np.cos(a) + y * np.sin(a)) + p) * np.cos(q) / (octave + 1)
        planes.append(plane)
    picture = np.stack(planes)
    cy, cx, r = g.uniform(0.2, 0.8, 3)
    disc = ((y - cy * height) ** 2 + (x - cx * width) ** 2) < (0.3 * r * min(height, width)) ** 2
    picture += 0.8 * disc
    picture = (picture - picture.min()) / (np.ptp(picture) + 1e-12)
    picture = np.clip(picture + 0.02 * g.standard_normal(picture.shape), 0, 1)
    return (np.round(picture * 255) / 255).astype(np.float32)


def distort(picture: np.ndarray, kind: str, level: float, seed: int = 0) -> np.ndarray:
    """A distorted copy on the 8-bit grid.

    kind: 'noise' (std = level), 'gain' (x * level), 'box' (box blur, level = odd size), 'quant' (level = steps).
    """
    p = picture.astype(np.float64)
    if kind == "noise":
        p = p + level * _stream(seed, "noise").standard_normal(p.shape)
    elif kind == "gain":
        p = p * level
    elif kind == "box":
        k = int(level)
        pad = np.pad(p, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)), mode="edge")
        p = sum(pad[:, i : i + p.shape[1], j : j + p.shape[2]] for i in range(k) for j in range(k)) / k**2
    elif kind == "quant":
        p = np.round(p * level) / level
    else:
        raise ValueError(f"unknown distortion {kind!r}; known: noise, gain, box, quant")
    return (np.round(np.clip(p, 0, 1) * 255) / 255).astype(np.float32)


def load_case(folder: str | pathlib.Path) -> dict:
    return json.loads((pathlib.Path(folder) / "case.json").read_text())
