"""Predictions and labels for the tests of the protocol."""

from __future__ import annotations

import numpy as np


def opinions(count=200, seed=0, noise=5.0):
    """Predictions and labels, in a saturating relation with noise."""
    draw = np.random.default_rng(seed)
    pred = draw.normal(size=count)
    return pred, 50 + 20 * np.tanh(pred) + noise * draw.normal(size=count)


def tied(count=200, seed=1):
    """The same with many equal numbers on both sides."""
    pred, mos = opinions(count, seed)
    return np.round(pred * 2), np.round(mos / 10)
