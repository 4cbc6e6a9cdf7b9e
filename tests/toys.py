"""Critics small enough to compute by hand, critics that misbehave, and short forms to put them into a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perceptloss import CriticLoss
from perceptloss.card import Card
from perceptloss.critic import Critic

MODES = ["autograd", "checkpoint", "fused"]


def term(critic: Critic | str, weight: float = 1.0, **keys: Any) -> dict[str, Any]:
    """A row of a loss's list of terms."""
    return {"critic": critic, "weight": weight, **keys}


def flat(value: float, n: int = 2, side: int = 8) -> Tensor:
    """Images of one colour, (n, 3, side, side)."""
    return torch.full((n, 3, side, side), value)


def gradient(loss_fn: CriticLoss, x: Tensor, y: Tensor | None = None, **keys: Any) -> Tensor:
    """d loss / d x."""
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(loss_fn(x, y, **keys), x)
    return grad


_FACTS: dict[str, Any] = {
    "summary": "A toy of the tests.",
    "bounds": (0.0, 1.0),
    "licence_code": "Apache-2.0",
    "paper": "none, 2025",
    "source": "tests",
}


class Toy(Critic):
    """Scores by a function of (x, y); no parameters unless given."""

    def __init__(self, card: Card, function: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        super().__init__(card)
        self.function = function
        self.calls = 0

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.function(x, y)


def toy(name: str, function: Callable[[Tensor, Tensor | None], Tensor], **facts: Any) -> Toy:
    """A critic; no reference, higher better and shape `hinge` unless `facts` say otherwise."""
    card = {"kind": "nr", "better": "higher", "identity": None, "shape": "hinge", **_FACTS, **facts}
    return Toy(Card(name=name, **card), function)


def brightness(**facts: Any) -> Toy:
    """Mean of the image: its gradient is 1 / (3 H W) everywhere."""
    return toy("brightness", lambda x, y: x.mean((1, 2, 3)), **facts)


def difference(**facts: Any) -> Toy:
    """Mean squared difference from the reference; lower is better."""
    known = {"kind": "fr", "better": "lower", "identity": 0.0, "shape": "distance"}
    return toy("difference", lambda x, y: (x - y).square().mean((1, 2, 3)), **{**known, **facts})


def nan_loss() -> Toy:
    """NaN as soon as an image holds a pixel above 0.9."""

    def score(x: Tensor, y: Tensor | None) -> Tensor:
        return x.mean((1, 2, 3)) + 0 / (x.detach().amax((1, 2, 3)) <= 0.9).to(x.dtype)

    return toy("nan-loss", score, shape="sigmoid")


def nan_gradient() -> Toy:
    """Finite scores with a NaN gradient, as of a bare square root at 0."""
    return toy("nan-gradient", lambda x, y: (x * 0).sqrt().mean((1, 2, 3)), shape="sigmoid")


def dead() -> Toy:
    """Sends no gradient to the image."""
    return toy("dead", lambda x, y: x.detach().mean((1, 2, 3)), shape="sigmoid")
