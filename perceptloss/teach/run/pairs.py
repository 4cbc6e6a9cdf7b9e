"""Objectives on pairs of images: which of two is better, by their targets or by how much damage they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.teach.objectives import comparison
from perceptloss.teach.run.judged import Judged

__all__ = ["order", "pairwise"]

_CHAIN = 6.0  # for images whose damage has no level: worse than clean is all that is used of it
_PAIRS: Mapping[str, Callable[..., Tensor]] = {
    "hinge": comparison.rank_hinge,
    "bce": comparison.pairwise_bce,
    "fidelity": comparison.fidelity_loss,
}
_MARGIN = {"hinge": "margin", "bce": "temperature"}


def _compare(
    q: Tensor, labels: Tensor, mask: Tensor | None, kind: str, scale: float | str | None, **hinge: Any
) -> Tensor:
    problems = [] if kind in _PAIRS else [f"kind: one of {', '.join(_PAIRS)}, got {kind!r}"]
    if problems or (scale is not None and kind not in _MARGIN) or (scale == "gaps" and kind != "hinge"):
        raise ConfigError(problems or [f"scale: {kind} has none such, got {scale!r}"], "objectives")
    given: dict[str, Any] = {name: value for name, value in hinge.items() if kind == "hinge"}
    if scale is not None:
        given[_MARGIN[kind]] = comparison.gaps(labels) if scale == "gaps" else scale
    return _PAIRS[kind](q, labels, mask=mask, **given)


def pairwise(
    judged: Judged,
    kind: Literal["bce", "hinge", "fidelity"] = "bce",
    within: Literal["all", "content", "reference"] = "all",
    scale: float | Literal["gaps"] | None = None,
    max_gap: float | None = None,
    over: Literal["active", "all"] = "active",
    clamp: float | None = None,
) -> Tensor:
    """Which of two images is better, by their targets.

    Args:
        judged: The images.
        kind: Of comparison.
        within: Which pairs count: all, those of one photograph, or those of one cut of it.
        scale: Margin of the hinge (`gaps`: what their targets differ by), temperature of the cross entropy.
        max_gap: Pairs whose targets differ by as much or more are left out, as CenseoQoE does.
        over: Of the hinge; see `rank_hinge`.
        clamp: Of the hinge; URanker and the ranker of RankSRGAN have 5, with a scale of 0.5.
    """
    q, target, known = judged.labelled()
    key = {"all": None, "content": judged.content, "reference": judged.reference}.get(within, ...)
    if key is ...:
        raise ConfigError([f"within: one of all, content, reference, got {within!r}"], "objectives")
    mask = None if key is None else key[known][:, None] == key[known]
    if max_gap is not None:
        near = comparison.gaps(target) < max_gap
        mask = near if mask is None else mask & near
    return _compare(q, target, mask, kind, scale, over=over, clamp=clamp)


def order(
    judged: Judged,
    kind: Literal["hinge", "bce", "fidelity"] = "hinge",
    scale: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """More of one damage is worse, and any damage is worse than none: pairs of a group, and clean against damaged.

    Args:
        judged: The images.
        kind: Of comparison.
        scale: Margin of the hinge, temperature of the cross entropy.
        clamp: Of the hinge; see `rank_hinge`.
    """
    level = torch.where(torch.isnan(judged.level), _CHAIN, judged.level)
    in_group = (judged.group[:, None] == judged.group) & (judged.group >= 0)
    is_clean = level == 0
    at_one_place = judged.reference[:, None] == judged.reference
    mask = (in_group | (at_one_place & (is_clean[:, None] | is_clean))) & (level[:, None] != level)
    return _compare(judged.q, -level.to(judged.q), mask, kind, scale, clamp=clamp)
