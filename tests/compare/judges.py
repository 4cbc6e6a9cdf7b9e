"""Toy critics whose scores are known."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic


class MeanError(Critic):
    """Mean absolute error; counts the images it has scored."""

    scored = 0

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        type(self).scored += len(x)
        assert y is not None
        return (x - y).abs().mean((1, 2, 3))


class Brightness(Critic):
    """Mean brightness; not a number for white images."""

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.where(mean > 0.999, torch.nan, mean)


def _card(name: str, **facts: object) -> Card:
    given = {
        "summary": "a toy",
        "bounds": (0.0, 1.0),
        "identity": None,
        "licence_code": "MIT",
        "paper": "none",
        "source": "none",
        **facts,
    }
    return Card(name=name, **given)


CARDS = {
    "toy-error": _card("toy-error", kind="fr", better="lower", shape="distance", tiling="exact", identity=0.0),
    "toy-light": _card("toy-light", kind="nr", better="higher", shape="deficit", tiling="never", min_size=8),
}
