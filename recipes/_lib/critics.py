"""The critics of a run: building them, letting the joint ones learn, and holding the budget on strips of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from _lib.data import strip_of
from perceptloss import CriticLoss, create_critic
from perceptloss.integrations.probe import probe
from perceptloss.loss.budget import Budget, walk_back
from perceptloss.runs.images import Pair
from perceptloss.runs.options import Loss

__all__ = ["Strips", "build_critics", "settle_budget", "walk"]

_STRIPS = 24  # images that the budget is measured on


def build_critics(loss: Loss, device: torch.device, *, side: int, share_every: int, seed: int) -> CriticLoss | None:
    """The critics, outside of all that Accelerate prepares or saves; each proves that it sends gradient.

    Args:
        loss: Options.
        device: Of the run.
        side: Of the patches.
        share_every: As in `CriticLoss`.
        seed: Of the run.
    """
    if not loss.critics:
        return None
    critics = CriticLoss(
        loss.critics,
        grad=loss.grad,
        micro_batch=loss.micro_batch,
        on_nonfinite=loss.on_nonfinite,
        share_every=share_every,
        pixel_weight=loss.pixel_weight or 1.0,
        shift=loss.shift,
        budget=loss.budget or None,
        budget_most=loss.budget_most,
        seed=seed,
    ).to(device)
    critics.check_gradient(*probe(critics, device, side))
    return critics


@dataclass(frozen=True)
class Strips:
    """Parts of the training images that no patch comes from, on which a budget is measured.

    Attributes:
        pairs: Low-quality parts, (3, h, w), and ground truth.
        names: Critics of the budget.
    """

    pairs: Sequence[tuple[Tensor, Tensor]]
    names: Sequence[str]

    @classmethod
    def cut(cls, images: Sequence[Pair], budget: Mapping[str, Any], scale: int, patch: int) -> Strips:
        """Of as many images as are enough, evenly chosen; none without a budget."""
        chosen = images[:: max(1, len(images) // _STRIPS)][:_STRIPS] if budget else []
        return cls([strip_of(pair, scale, patch) for pair in chosen], tuple(budget))

    @torch.no_grad()
    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean scores of a network on them, by critic; the network is left in training mode."""
        network.eval()
        critics = {name: create_critic(name).to(device) for name in self.names}
        totals = dict.fromkeys(self.names, 0.0)
        for lq, gt in self.pairs:
            x, y = network(lq[None].to(device)).float().clamp(0, 1), gt[None].to(device)
            for name, critic in critics.items():
                totals[name] += float(critic(x, y)) / len(self.pairs)
        network.train()
        return totals


def walk(network: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Leave a network a share of the way from the weights of its start to its own."""
    state = network.state_dict()
    network.load_state_dict(
        {n: torch.lerp(start[n].to(t), t, share) if t.is_floating_point() else t for n, t in state.items()}
    )


def settle_budget(
    strips: Strips, budget: Budget, network: nn.Module, start: Mapping[str, Tensor], device: torch.device
) -> tuple[float, dict[str, float]]:
    """Bring a trained network within its budget, by interpolating its weights with those of the start.

    Returns:
        The share of the way from the start that is kept, and the scores there.
    """
    end = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def go(share: float) -> dict[str, float]:
        network.load_state_dict(end)
        walk(network, start, share)
        return strips.scores(network, device)

    share = walk_back(lambda share: budget.spent_of(go(share)))
    return share, go(share)
