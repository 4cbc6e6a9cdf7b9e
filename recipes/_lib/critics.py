"""The critics of a run: building them, letting the joint ones learn, and holding the budget on strips of the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from _lib.lora import FIRST
from perceptloss import Critic, CriticLoss, create_critic
from perceptloss.errors import ConfigError
from perceptloss.integrations.probe import probe
from perceptloss.loss.budget import Budget, walk_back
from perceptloss.networks.each_view import EachView
from perceptloss.output.files import replacing
from perceptloss.runs import loop
from perceptloss.runs.inventory import Item
from perceptloss.runs.launch import on_main
from perceptloss.runs.options import Loss
from perceptloss.teach.run.anchors import AnchorSets

__all__ = [
    "Spender",
    "Strips",
    "build_critics",
    "deliver_critics",
    "keeps_budget",
    "let_learn",
    "open_anchors",
    "settle_budget",
    "watch_budget",
]

_STRIPS = 24  # images that the budget is measured on
_KEPT = 0.02  # beyond a budget: as near as the way back to the start comes


def build_critics(
    loss: Loss, device: torch.device, *, side: int, share_every: int, seed: int, stereo: bool = False
) -> CriticLoss | None:
    """The critics, outside of all that Accelerate prepares or saves; each proves that it sends gradient.

    Args:
        loss: Options.
        device: Of the run.
        side: Of the patches.
        share_every: As in `CriticLoss`.
        seed: Of the run.
        stereo: As in `CriticLoss`.
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
        tile=loss.tile,
        budget=Budget(loss.budget, loss.budget_most, loss.budget_room) if loss.budget else None,
        seed=seed,
        stereo=stereo,
        domain=loss.domain,
    ).to(device)
    critics.check_gradient(*probe(critics, device, side))
    return critics


def open_anchors(loss: Loss, critics: CriticLoss | None, seed: int, accelerator: Accelerator) -> AnchorSets | None:
    """The labelled images that joint critics also learn from; None without any.

    Raises:
        ConfigError: listing what is wrong with them.
    """
    if critics is None or not loss.anchors:
        return None
    learners = [learner.critic for learner in critics.learners.values()]
    place = accelerator.device, accelerator.process_index, accelerator.num_processes
    return AnchorSets(loss.anchors, learners, seed, *place, partial(on_main, accelerator))


def let_learn(t: Spender, output: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """A step of the joint critics whose turn it is, after that of the restorer; their losses."""
    if t.loss is None or not t.loss.learners:
        return {}
    anchors = t.anchors.at(t.step) if t.anchors is not None and t.loss.learns_at(t.step) else None
    return t.loss.learn(output.detach(), target, step=t.step, anchors=anchors)


@dataclass(frozen=True)
class Strips:
    """Parts of the training images that no patch comes from, on which a budget is measured.

    Attributes:
        pairs: Low-quality parts, (C, h, w), and ground truth.
        critics: Of the budget, by name.
        restored: Enlarges a low-quality part by a network.
    """

    pairs: Sequence[tuple[Tensor, Tensor]]
    critics: Mapping[str, Critic]
    restored: Callable[[nn.Module, Tensor], Tensor]

    @classmethod
    def cut(
        cls,
        images: Sequence[Item],
        budget: Mapping[str, Any],
        strip: Callable[[Any], tuple[Tensor, Tensor]],
        restored: Callable[[nn.Module, Tensor], Tensor],
    ) -> Strips:
        """Of as many images as are enough, evenly chosen; none without a budget.

        Raises:
            ConfigError: if there is a budget, and no image that it could be measured on.
        """
        if budget and not images:
            problem = "loss.budget is measured on images whose ground truth is known: --loss.budget '{}', or give some"
            raise ConfigError([problem], "data.train")
        chosen = images[:: max(1, len(images) // _STRIPS)][:_STRIPS] if budget else []
        pairs = [strip(item) for item in chosen]
        channels = pairs[0][1].shape[0] if pairs else 3
        critics = {name: _fitting(create_critic(name), channels) for name in budget}
        return cls(pairs, critics, restored)

    @torch.no_grad()
    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean scores of a network on them, by critic; the network is left in training mode."""
        network.eval()
        totals = dict.fromkeys(self.critics, 0.0)
        for lq, gt in self.pairs:
            x, y = self.restored(network, lq.to(device))[None].clamp(0, 1), gt[None].to(device)
            for name, critic in self.critics.items():
                totals[name] += float(critic.to(device)(x, y)) / len(self.pairs)
        network.train()
        return totals


def _fitting(critic: Critic, channels: int) -> Critic:
    """A critic of single images judges each view of a stereo pair."""
    return EachView(critic) if critic.card.channels < channels else critic


@dataclass(kw_only=True)
class Spender(loop.Run):
    """A training whose critics may have a budget; its configuration has a section `loss`."""

    KEPT = (*loop.Run.KEPT, "kept")

    config: Any
    network: nn.Module
    loss: CriticLoss | None
    strips: Strips
    anchors: AnchorSets | None = None
    kept: float = 1.0


def watch_budget(t: Spender, *, begins: bool = False) -> None:
    """Tell the critics what of their budget is spent, where it is time: every so many steps, and first at the start.

    Args:
        t: After a step.
        begins: Whether it is before the first, here or after an interruption, which measured its last step already.
    """
    if t.loss is None or t.loss.budget is None:
        return
    if not t.loss.budget.start if begins else t.step % t.config.loss.budget_every == 0:
        with loop.averaged(t):
            t.loss.budget.note(t.strips.scores(t.accelerator.unwrap_model(t.network), t.accelerator.device))
        _ = t.loss.budget.changes  # refuses a start that leaves nothing to spend, before anything is trained


def keeps_budget(t: Spender) -> bool:
    """Whether what was last spent of a budget is within it; always without one."""
    if t.loss is None or t.loss.budget is None:
        return True
    return t.loss.budget.spent <= 1 + min(_KEPT, t.loss.budget.near)


def settle_budget(t: Spender, build: Callable[[], nn.Module]) -> None:
    """Keep as much of the way from the start as the budget allows, in the averages and in the weights themselves.

    Args:
        t: At its end.
        build: Makes the network of the start.
    """
    if t.loss is None or t.loss.budget is None:
        return
    budget, network, start = t.loss.budget, t.accelerator.unwrap_model(t.network), build().state_dict()

    with loop.averaged(t):
        end = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

        def scores(share: float) -> dict[str, float]:
            network.load_state_dict(end)
            _walk(network, start, share)
            return t.strips.scores(network, t.accelerator.device)

        t.kept = share = walk_back(lambda share: budget.spent_of(scores(share)), min(_KEPT, budget.near))
        found = scores(share)
        if t.ema is not None:
            t.ema.adopt()
    if t.ema is not None:
        _walk(network, start, share)
    budget.spent = budget.spent_of(found)
    loop.write(t, "budget", {"kept": share, "spent": budget.spent, "scores": found})


def deliver_critics(t: Spender) -> None:
    """What joint critics have learned, as files of models/ that a critic of their name loads."""
    if t.loss is None or not t.accelerator.is_main_process:
        return
    for label, learner in t.loss.learners.items():
        path = t.folder / "models" / f"{label}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.averaged().items()}
        with replacing(path) as draft:
            save_file(state, draft, {"format": "pt", "critic": learner.critic.card.name, "step": str(t.step)})


def _walk(network: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Leave a network a share of the way from the weights of its start to its own."""
    state = network.state_dict()
    stays = {name for name, tensor in state.items() if FIRST in name or not tensor.is_floating_point()}
    moved = {n: t if n in stays else torch.lerp(start[n].to(t), t, share) for n, t in state.items()}
    network.load_state_dict(moved)
