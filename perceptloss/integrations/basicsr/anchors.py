"""Labelled images for the joint critics of a BasicSR training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from basicsr.utils.dist_util import get_dist_info

from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.learning import Anchors

__all__ = ["find_anchors"]


def find_anchors(
    entries: Any, loss: CriticLoss, opt: Mapping[str, Any], problems: list[str]
) -> Callable[[int], Anchors] | None:
    """An iteration to the labelled images of `critic_opt.anchors`; None, with its problems noted, if they will not do.

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

        return AnchorSets(entries, learners, int(opt.get("manual_seed") or 0), device, *get_dist_info()).at
    except ConfigError as error:
        problems += [f"train.critic_opt.anchors: {problem}" for problem in error.problems]
    except PerceptlossError as error:
        problems.append(f"train.critic_opt.anchors: {error}")
    return None
