"""Earlier outputs, so that a joint critic does not forget what the restorer did before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perceptloss.loss.joint.ladder import Draws

__all__ = ["Replay"]


class Replay:
    """Keeps outputs of every place of the batch, with their references, and exchanges a share of new ones for them.

    Every place has a reservoir of its own, so that two processes with half the batch each keep the same.

    Args:
        share: Of the outputs that are exchanged, 0 to 1.
        size: Outputs kept of each place.
    """

    def __init__(self, share: float, size: int) -> None:
        self.share, self.size = share, size
        self._kept: list[list[tuple[Tensor, Tensor]]] = []
        self._seen = 0

    def exchange(self, x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Pairs of which some are earlier ones; remembers the new ones.

        Args:
            x: Outputs, (N, C, H, W).
            y: References, same shape.
            draws: Of the step.
        """
        if not self.share:
            return x, y
        pairs = list(zip(x.unbind(), y.unbind(), strict=True))
        self._kept += [[] for _ in range(len(self._kept), len(pairs))]
        given = []
        for i, pair in enumerate(pairs):
            kept = [p for p in self._kept[i] if p[0].shape == pair[0].shape and p[0].dtype == pair[0].dtype]
            generator = draws.generator(i, 7)
            is_old = kept and float(torch.rand((), generator=generator)) < self.share
            given.append(kept[int(torch.randint(len(kept), (), generator=generator))] if is_old else pair)
            self._remember(i, pair, generator)
        self._seen += 1
        xs, ys = zip(*given, strict=True)
        return torch.stack(xs), torch.stack(ys)

    def _remember(self, place: int, pair: tuple[Tensor, Tensor], generator: torch.Generator) -> None:
        kept, copy = self._kept[place], (pair[0].detach().clone(), pair[1].detach().clone())
        if len(kept) < self.size:
            kept.append(copy)
            return
        slot = int(torch.randint(self._seen + 1, (), generator=generator))
        if slot < self.size:
            kept[slot] = copy

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"seen": self._seen, "kept": [[list(pair) for pair in kept] for kept in self._kept]}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from what `state` gave."""
        self._seen = int(state["seen"])
        self._kept = [[(x, y) for x, y in kept[: self.size]] for kept in state["kept"]]
        self.move(lambda tensor: tensor.to(device))

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Take what is kept to another device."""
        self._kept = [[(fn(x), fn(y)) for x, y in kept] for kept in self._kept]
