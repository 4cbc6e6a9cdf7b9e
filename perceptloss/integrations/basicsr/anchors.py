"""Labelled images for the joint critics of a BasicSR training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor

from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.learning import Anchors

__all__ = ["Labelled", "find_anchors"]


class Labelled(Protocol):
    """Labelled images, as `AnchorSets` has them, which is imported only where it is needed."""

    held: dict[str, tuple[Tensor, Tensor | None, Tensor]]

    def at(self, step: int) -> Anchors:
        """Those that joint critics also learn from in an iteration."""


def find_anchors(entries: Any, loss: CriticLoss, opt: Mapping[str, Any], problems: list[str]) -> Labelled | None:
    """The labelled images of `critic_opt.anchors`; None, with its problems noted, if they will not do.

    Args:
        entries: Of `critic_opt.anchors`.
        loss: With the critics that learn.
        opt: BasicSR's options.
        problems: To add to.
    """
    if not isinstance(entries, (list, tuple)):
        problems.append(f"train.critic_opt.anchors: expected a list of sources, got {entries!r}")
        return None
    learners = [learner.critic for learner in loss.learners.values()]
    device = torch.device("cuda" if opt.get("num_gpu") else "cpu")
    try:
        from perceptloss.teach.run.anchors import AnchorSets

        seed, (rank, world) = int(opt.get("manual_seed") or 0), get_dist_info()
        return AnchorSets(entries, learners, seed, device, rank, world, _on_first, loss.input_range)
    except ConfigError as error:
        problems += [f"train.critic_opt.anchors: {problem}" for problem in error.problems]
    except PerceptlossError as error:
        problems.append(f"train.critic_opt.anchors: {error}")
    return None


def _on_first(act: Callable[[], Any]) -> Any:
    """Run on the first process; its result, or its error, on all."""
    rank, world = get_dist_info()
    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = act()
        except PerceptlossError as error:
            outcome[1] = error
    if world > 1:
        dist.broadcast_object_list(outcome, 0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
