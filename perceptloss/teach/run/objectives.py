"""The objectives by their names in the configuration, each given what it reads of a batch.

Functions of `perceptloss.teach.objectives` on (qualities, targets) enter as they are, with their options;
those that pair images by photograph or by damage, or that have parameters, are fitted in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss import Card
from perceptloss.errors import ConfigError
from perceptloss.networks.monotone import MonotoneHead
from perceptloss.teach.objectives import comparison, correlation, listwise, regression
from perceptloss.teach.objectives.anchors import class_proxies, level_similarity
from perceptloss.teach.objectives.proxies import ProxyHead
from perceptloss.teach.run.judged import Judged, Objective, own, plain
from perceptloss.teach.run.pairs import order, pairwise
from perceptloss.teach.run.papers import PAPERS
from perceptloss.teach.run.sources import Source
from perceptloss.teach.run.systems import SYSTEMS

__all__ = ["OBJECTIVES"]

_LEVELS = 5


# --- single images ------------------------------------------------------------------------------


class _Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, q: Tensor) -> Tensor:
        return self.gain * q + self.offset


class _Exponential(nn.Module):
    def forward(self, q: Tensor) -> Tensor:
        return torch.exp(q.clamp(max=1.0))


_HEADS: Mapping[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "affine": _Affine,
    "monotone": MonotoneHead,
    "exponential": _Exponential,
}
_ERRORS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "huber": lambda q, t, delta: F.huber_loss(q, t, delta=delta),
    "l1": lambda q, t, delta: F.l1_loss(q, t),
    "l2": lambda q, t, delta: F.mse_loss(q, t),
}


def _head(options: Mapping[str, Any], source: Source, width: int) -> nn.Module:
    problems = [
        f"{source.options.label}: regression.{key}: one of {', '.join(known)}, got {options[key]!r}"
        for key, known in (("head", _HEADS), ("error", _ERRORS))
        if options.get(key, next(iter(known))) not in known
    ]
    if problems:
        raise ConfigError(problems, "objectives")
    return _HEADS[options.get("head", "none")]()


def regress(
    judged: Judged,
    head: nn.Module,
    error: Literal["huber", "l1", "l2"] = "huber",
    delta: float = 0.1,
    onto: Literal["targets", "card"] = "targets",
) -> Tensor:
    """Distance of mapped qualities to targets.

    Args:
        judged: The images.
        head: Maps qualities: none, affine or monotone (both learned per source), or exponential (a distance d has the
            quality exp(-d)).
        error: Kind of distance.
        delta: Of the Huber loss.
        onto: `card`: targets from 0 to 1 are put onto the bounds of the card, which a score cannot leave.
    """
    q, target, _ = judged.labelled()
    if onto != "targets":
        target = _onto(judged.card, target, onto)
    return _ERRORS[error](head(q), target, delta) if len(q) else judged.q.sum() * 0


def _onto(card: Card, target: Tensor, onto: str) -> Tensor:
    low, high = card.bounds
    if onto != "card" or card.better != "higher" or not math.isfinite(low + high):
        wanted = f"`card` for a critic of finite bounds, higher is better; {card.name!r} has {card.bounds}"
        raise ConfigError([f"regression: onto: `targets`, or {wanted}, got {onto!r}"], "objectives")
    return low + (high - low) * target


def identity(judged: Judged, value: float | None = None, error: Literal["l1", "l2"] = "l1") -> Tensor:
    """Scores of clean images are `value` (nothing: what the card says of equal images), in natural units."""
    wanted = judged.card.identity if value is None else value
    if wanted is None:
        raise ConfigError([f"identity: the card of {judged.card.name!r} names no score; give a value"], "objectives")
    clean = judged.q[judged.level == 0] * (1 if judged.card.better == "higher" else -1)
    if not len(clean):
        return judged.q.sum() * 0
    return _ERRORS[error](clean, torch.full_like(clean, wanted), 1.0)


def tolerant(judged: Judged, tolerance: float = 0.05) -> Tensor:
    """Distance to the targets beyond a tolerance, within which there is no slope."""
    q, target, _ = judged.labelled()
    return regression.tolerance_loss([q], target, (tolerance,), (1.0,))


# --- with parts ---------------------------------------------------------------------------------


def _dataset_head(options: Mapping[str, Any], source: Source, width: int) -> nn.Module:
    return MonotoneHead(int(options.get("steps", 8)))


def to_dataset(judged: Judged, head: MonotoneHead, steps: int = 8) -> Tensor:
    """SmoothL1 and norm-in-norm of qualities after the source's own monotone map, of so many `steps`.

    After Feng, Zhang, Jia, Chen, Wang: "Learning from Mixed Datasets: A Monotonic Image Quality Assessment Model",
    Electronics Letters 59(3), 2023. Maps keep the order, so that datasets of different scales teach one quality.
    """
    q, target, _ = judged.labelled()
    if not len(q):
        return judged.q.sum() * 0
    mapped = head(q)
    return F.smooth_l1_loss(mapped, target) + regression.norm_in_norm(mapped, target)


def _proxy_head(options: Mapping[str, Any], source: Source, width: int) -> nn.Module:
    if not width:
        raise ConfigError(["proxies: read features; name a module of the critic in critic.tap"], "objectives")
    steps = _LEVELS if options.get("levels", False) else 1
    classes = [(kind, float(level)) for kind in source.kinds for level in range(1, steps + 1)]
    likeness = level_similarity([k for k, _ in classes], [level for _, level in classes])
    return ProxyHead(width, class_proxies(len(classes), int(options.get("bits", 32)), similarity=likeness))


def proxies(
    judged: Judged,
    head: ProxyHead,
    bits: int = 32,
    levels: bool = False,
    triplets: float = 0.0,
    margin: float = 0.0,
) -> Tensor:
    """Side task on the features of `critic.tap`: which kind of damage, and how strong.

    Args:
        judged: The images.
        head: Embedding and proxies.
        bits: Length of the embedding.
        levels: Whether whole levels of a kind are classes of their own.
        triplets: Weight of the triplets.
        margin: Of the triplets, in bits.
    """
    assert judged.features is not None  # the head was made for them
    known = judged.kind >= 0
    labels = judged.kind[known]
    if levels:
        step = judged.level[known].nan_to_num(1.0).ceil().clamp(1, _LEVELS).long()
        labels = labels * _LEVELS + step - 1
    return head.loss(judged.features[known], labels, triplets=triplets, margin=margin)


OBJECTIVES: Mapping[str, Objective] = {
    "regression": Objective(
        lambda judged, head, given: regress(judged, head, **{k: v for k, v in given.items() if k != "head"}),  # type: ignore[arg-type]
        ("error", "delta", "onto", "head"),
        part=_head,
    ),
    "pearson": plain(correlation.pearson_loss),
    "ccc": plain(correlation.ccc_loss),
    "spearman": plain(correlation.spearman_loss),
    "kendall": plain(correlation.kendall_loss),
    "pairwise": own(pairwise, "target"),
    "elo": plain(comparison.elo_mse),
    "order": own(order, "levels"),
    "kl": plain(listwise.batch_kl),
    "relative_kl": plain(listwise.relative_distance_kl),
    "rank_surrogate": plain(listwise.surrogate_rank_loss),
    "asna": plain(listwise.asna_loss),
    "extremes": plain(listwise.batch_extremes),
    "norm_in_norm": plain(regression.norm_in_norm),
    "rank_gradient": plain(regression.rank_gradient_loss),
    "tolerance": own(tolerant, "target"),
    "difference": plain(comparison.difference_mse),
    "identity": own(identity, "clean"),
    "heads": own(to_dataset, "target", _dataset_head),
    "proxies": own(proxies, "kinds", _proxy_head, is_classification=True),
    **SYSTEMS,
    **PAPERS,
}
