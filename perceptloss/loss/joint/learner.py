"""A critic of a loss that learns: its own optimiser, and one step of its own after a step of the restorer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError
from perceptloss.loss.clock import ignored
from perceptloss.loss.joint.ladder import Draws, damaged, mixed, ranked, swapped
from perceptloss.loss.joint.options import Joint
from perceptloss.loss.joint.replay import Replay
from perceptloss.loss.processes import are_several
from perceptloss.networks.each_view import EachView
from perceptloss.networks.monotone import MonotoneHead
from perceptloss.networks.trunks import TrunkCritic

__all__ = ["Learner"]

_STEP = 1e-2  # of the finite difference in the input, per pixel
_BETA = 0.1  # of the smooth l1 on labels


class Learner:
    """Teaches one critic beside the restorer.

    Between its steps the critic is frozen, as every other of the loss: the restorer's step reaches no parameter,
    buffer or `.grad` of it, and its own step nothing of the restorer.

    Args:
        critic: Whose parameters learn; batch normalisation and dropout stay in evaluation mode.
        joint: How.
        seed: Of all draws.

    Attributes:
        parameters: Those that learn.
        heads: Monotone map of each labelled set.
        is_skipped: Whether its last step was left out, because its gradient was not finite.

    Raises:
        ConfigError: if nothing of the critic can learn, or regions are asked of a critic without maps.
    """

    def __init__(self, critic: Critic, joint: Joint, seed: int = 0) -> None:
        self.critic, self.joint, self.seed = critic, joint, seed
        fixed = {id(p) for p in self._fixed()}
        self.parameters = [p for p in critic.parameters() if id(p) not in fixed]
        if not self.parameters:
            raise ConfigError([f"nothing of {critic.card.name!r} can learn: it has no parameters"], "joint")
        if joint.swap and not critic.has_maps:
            raise ConfigError([f"joint.swap: {critic.card.name!r} has no map to say where; say swap: 0"], "joint")
        self.start = [p.detach().clone() for p in self.parameters] if joint.stay else []
        self.shadow = [p.detach().clone() for p in self.parameters] if joint.ema else []
        self.heads: dict[str, MonotoneHead] = {}
        self.optimizer = torch.optim.AdamW(self.parameters, joint.lr, joint.betas, weight_decay=joint.weight_decay)
        ignored.add(self.optimizer)
        self.replay = Replay(joint.replay, joint.buffer)
        self.steps, self.origin, self.is_skipped = 0, critic.weights_id, False

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        ignored.add(self.optimizer)

    @torch.no_grad()
    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Take what it keeps beside the critic to where the critic went."""
        self.start, self.shadow = ([fn(tensor) for tensor in tensors] for tensors in (self.start, self.shadow))
        for head in self.heads.values():
            head._apply(fn)
        for kept in self.optimizer.state.values():
            kept.update({k: fn(v) for k, v in kept.items() if isinstance(v, Tensor) and k != "step"})
        self.replay.move(fn)

    def _fixed(self) -> list[nn.Parameter]:
        """Parameters that do not learn."""
        if self.joint.learns == "all":
            return []
        if not isinstance(self.critic, TrunkCritic):
            raise ConfigError([f"joint.learns: {self.critic.card.name!r} has no trunk; say 'all'"], "joint")
        return [*self.critic.trunk.parameters()]

    def learn(
        self, x: Tensor, y: Tensor, step: int, anchors: Mapping[str, tuple[Tensor, Tensor | None, Tensor]] | None = None
    ) -> dict[str, float]:
        """One step, if it is its turn.

        Args:
            x: Outputs, (N, C, H, W), in [0, 1].
            y: Ground truth, same shape.
            step: Of the training.
            anchors: Name of a labelled set to images, references or None, and labels (N,); each set has its own
                monotone map from qualities to labels.

        Returns:
            Its losses by name; empty if it is not its turn.
        """
        self.is_skipped = False
        if step % self.joint.every or not len(x):
            return {}
        x, y = x.detach(), y.detach()
        draws = Draws(self.seed, step, _rank() * len(x))
        x, y = self.replay.exchange(x, y, draws)
        self._prepare_heads(anchors or {})  # in all processes, though a set may bring one of them nothing in a step
        labelled = {name: given for name, given in (anchors or {}).items() if len(given[2])}
        with self._learning(), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            parts = {"rank": self._ladder(x, y, draws)}
            if self.joint.swap:
                parts |= self._swap(x, y, draws)
            if self.joint.penalty and self.steps % self.joint.penalty_every == 0:
                pieces = [x, y] if self.joint.checkpoint else [torch.cat([x, y])]
                penalty = torch.stack([self._penalty(piece, y) for piece in pieces]).mean()
                parts["penalty"] = self.joint.penalty * self.joint.penalty_every * penalty
            if self.joint.stay:
                parts["stay"] = self.joint.stay * self._distance_from_start()
            for name, (ax, ay, labels) in labelled.items():
                opinions = self.heads[name](self._run(self._quality, ax, ay))
                loss = F.smooth_l1_loss(opinions, labels.to(opinions), beta=_BETA)
                parts[f"anchor {name}"] = self.joint.anchor * loss
            self._update(torch.stack([*parts.values()]).sum(), step)
        self.steps += 1
        self._sign()
        return {name: float(part.detach()) for name, part in parts.items()}

    def _sign(self) -> None:
        self.critic.weights_id = f"{self.origin} and {self.steps} joint steps" if self.steps else self.origin

    def _ladder(self, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        rungs = [y, mixed(x, y, draws), x] if self.joint.mix else [y, x]
        if self.joint.damage:
            rungs.append(damaged(x, self.joint.damage, draws))
        if self.joint.checkpoint:
            cells = [self._run(self._cells, rung, y) for rung in rungs]
        else:
            together = self._cells(torch.cat(rungs), y.repeat(len(rungs), 1, 1, 1))
            cells = list(together.chunk(len(rungs)))
        top, bottom = 0, 2 if self.joint.mix else 1
        pairs = {(i, i + 1) for i in range(len(rungs) - 1)} | {(top, bottom)}
        losses = [ranked(cells[i], cells[j], self._margin(rungs[i], rungs[j], cells[i])) for i, j in sorted(pairs)]
        return torch.stack(losses).mean()

    def _margin(self, a: Tensor, b: Tensor, cells: Tensor) -> Tensor:
        """How far apart two rungs must be, in every cell."""
        apart = (a - b).abs().mean(1, keepdim=True)
        found = _pooled(apart, cells) if cells.ndim == 4 else apart.mean((1, 2, 3))
        return self.joint.margin * found

    def _swap(self, x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        image, mask = swapped(x, y, draws)
        cells = self._run(self._cells, image, y)
        if cells.ndim < 4:
            raise ConfigError([f"joint.swap: the map of {self.critic.card.name!r} teaches nothing; say 0"], "joint")
        share = _pooled(mask, cells)
        kept, replaced = ((cells * w).sum((1, 2, 3)) / w.sum((1, 2, 3)) for w in (1 - share, share))
        return {"swap": self.joint.swap * F.relu(self._margin(x, y, kept) - (kept - replaced)).mean()}

    def _penalty(self, images: Tensor, y: Tensor) -> Tensor:
        """Squared l1 norm of the input gradient, by a finite difference along its sign.

        Yang, Chen, Ma, Wang: "Defense against adversarial attacks on no-reference image quality models with gradient
        norm regularization", CVPR 2024.
        """
        references = y.repeat(len(images) // len(y), 1, 1, 1)
        leaf = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._quality(leaf, references).sum(), leaf)
        both = (images + _STEP * slope.sign(), images)
        runs = both if self.joint.checkpoint else (torch.cat(both),)
        found = [self._run(self._quality, run, y.repeat(len(run) // len(y), 1, 1, 1)) for run in runs]
        ahead, here = torch.cat(found).chunk(2)
        return ((ahead - here) / _STEP).square().mean()

    def _distance_from_start(self) -> Tensor:
        apart = [(p - s).square().sum() for p, s in zip(self.parameters, self.start, strict=True)]
        return torch.stack(apart).sum() / sum(p.numel() for p in self.parameters)

    def _run(self, part: Callable[..., Tensor], *images: Tensor | None) -> Tensor:
        """A part of its step, whose activations are not kept where they are recomputed."""
        return checkpoint(part, *images, use_reentrant=False) if self.joint.checkpoint else part(*images)

    def _cells(self, x: Tensor, y: Tensor) -> Tensor:
        """Qualities of parts, (N, 1, h, w), where the critic has maps, else of images, (N,)."""
        if not self.critic.has_maps:
            return self._quality(x, y)
        image, reference = self.critic.admit(x, y if self.critic.card.needs_reference else None, check_range=False)
        cells = self.critic.quality_map(image, reference)
        if not cells.requires_grad:  # a map that is only for looking at
            return self._quality(x, y)
        return cells if self.critic.map_better == "higher" else -cells

    def _quality(self, x: Tensor, y: Tensor | None) -> Tensor:
        card = self.critic.card
        if card.needs_reference and y is None:
            raise InputError(f"anchors of {card.name!r}: it compares with a reference, so they need references.")
        x, reference = self.critic.admit(x, y if card.needs_reference else None, check_range=False)
        return (1.0 if card.better == "higher" else -1.0) * self.critic.linear(x, reference)

    def _prepare_heads(self, labelled: Mapping[str, Any]) -> None:
        for name in labelled:
            if name not in self.heads:
                self.heads[name] = MonotoneHead().to(self.parameters[0])
                self.optimizer.add_param_group({"params": [*self.heads[name].parameters()]})

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Its parameters ask for gradients inside, and nothing of this is left outside."""
        self.critic.is_frozen = False
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.grad = None
            self.critic.freeze()

    def _update(self, loss: Tensor, step: int) -> None:
        learning = [*self.parameters, *(p for head in self.heads.values() for p in head.parameters())]
        found = torch.autograd.grad(loss, learning, allow_unused=True)
        grads = [torch.zeros_like(p) if g is None else g for p, g in zip(learning, found, strict=True)]
        if are_several():
            flat = torch.cat([g.flatten() for g in grads])
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            grads = [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in grads]), grads, strict=True)]
        for parameter, grad in zip(learning, grads, strict=True):
            parameter.grad = grad
        norm = nn.utils.clip_grad_norm_(learning, self.joint.clip or float("inf"))
        self.is_skipped = not torch.isfinite(norm)
        if not self.is_skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = self.joint.rate_at(step)
            self.optimizer.step()
            if self.shadow:
                decay = min(self.joint.ema, (1 + self.steps) / (10 + self.steps))
                torch._foreach_lerp_(self.shadow, [p.detach() for p in self.parameters], 1 - decay)
        self.optimizer.zero_grad()

    def averaged(self) -> dict[str, Tensor]:
        """The critic's state with the averages of what learns, where they are kept; of views: that of single images."""
        names = {id(p): name for name, p in self.critic.named_parameters()}
        shadow = {names[id(p)]: s for p, s in zip(self.parameters, self.shadow, strict=False)}
        prefix = "of_view." if isinstance(self.critic, EachView) else ""
        return {name.removeprefix(prefix): tensor for name, tensor in {**self.critic.state_dict(), **shadow}.items()}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors and plain values."""
        return {
            "steps": self.steps,
            "parameters": [p.detach() for p in self.parameters],
            "shadow": self.shadow,
            "start": self.start,
            "heads": {name: head.state_dict() for name, head in self.heads.items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "replay": self.replay.state(),
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            ConfigError: if it is of another critic.
        """
        here, there = ([tuple(t.shape) for t in of] for of in (self.parameters, state.get("parameters", ())))
        if here != there:
            problem = f"the checkpoint holds another critic than {self.critic.card.name!r}, or another learns"
            raise ConfigError([problem], "joint")
        self._prepare_heads(state["heads"])
        for name, head in state["heads"].items():
            self.heads[name].load_state_dict(head)
        for parameter, value in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(value)
        if self.joint.ema:
            self.shadow = self._copies(state["shadow"] or state["parameters"])
        if self.joint.stay and state["start"]:
            self.start = self._copies(state["start"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.replay.load_state(state["replay"], self.parameters[0].device)
        self.steps = int(state["steps"])
        self._sign()

    def _copies(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.detach().to(p, copy=True) for t, p in zip(tensors, self.parameters, strict=True)]


def _pooled(image: Tensor, cells: Tensor) -> Tensor:
    """Means of an image over what each cell covers."""
    return F.adaptive_avg_pool2d(image, (cells.shape[-2], cells.shape[-1]))


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
