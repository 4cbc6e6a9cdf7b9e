"""The learning rate as a function of the step, so that there is no scheduler to restore."""

from __future__ import annotations

import math

from perceptloss.runs.options import Train

__all__ = ["learning_rate"]


def learning_rate(train: Train, step: int) -> float:
    """Linear warm-up, then half a cosine; steps count from 1."""
    if step <= train.warmup:
        return train.lr * step / train.warmup
    progress = (step - train.warmup) / (train.steps - train.warmup)
    return train.lr_end + (train.lr - train.lr_end) * (1 + math.cos(math.pi * progress)) / 2
