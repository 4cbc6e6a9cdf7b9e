"""Losses that belong to one published system, each with what it looks at besides the score of its critic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss import Critic
from perceptloss.critics.dfss.critic import DFSS
from perceptloss.critics.fpr.critic import FPR
from perceptloss.critics.mini.fr import MiniFR
from perceptloss.critics.mini.viewing import LiteCritic, readings_of
from perceptloss.critics.reqa import REQA
from perceptloss.critics.tres import TReS
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import weighted_mean
from perceptloss.teach.objectives import comparison
from perceptloss.teach.objectives.listwise import tres_loss
from perceptloss.teach.objectives.regression import reqa_loss, triplet_margin
from perceptloss.teach.run.judged import Judged, Objective, Reads, own

__all__ = ["SYSTEMS", "of_images", "of_kind"]

C = TypeVar("C", bound=Critic)


def of_kind(kind: type[C], critic: Critic, objective: str) -> C:
    """The critic, which an objective knows.

    Raises:
        ConfigError: if it is of another kind.
    """
    if not isinstance(critic, kind):
        raise ConfigError([f"{objective}: is for critics {kind.__name__}, not {critic.card.name!r}"], "objectives")
    return critic


def of_images(x: Tensor, objective: str) -> Tensor:
    """Images, of which an objective needs more than what a trunk says.

    Raises:
        ConfigError: if only that is remembered.
    """
    if x.ndim != 4:
        raise ConfigError([f"{objective}: looks at images: leave out critic.remember"], "objectives")
    return x


def _mirrored(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    x = of_images(x, "tres")
    quality = reader.quality(x.flip(-1), None if y is None else y.flip(-1))
    return (quality, of_kind(TReS, reader.critic, "tres").consistency(x)) if options.get("consistency") else (quality,)


def tres(judged: Judged, ranking: float = 0.05, agreement: float = 0.5, consistency: float = 0.0) -> Tensor:
    """TReS's loss of the images and their mirror images; any critic has all but the consistency.

    Args:
        judged: The images, and what was said of their mirror images.
        ranking: Weight of the triplets of extremes.
        agreement: Weight of what the triplets of the two differ by.
        consistency: Weight of what the maps of the two differ by, 1 as published; costs two more passes.
    """
    q, target, known = judged.labelled()
    mirrored, *differences = judged.looked
    loss = tres_loss(q, mirrored[known], target, ranking=ranking, agreement=agreement)
    return loss + consistency * differences[0].mean() if differences else loss


def _stages(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    critic = of_kind(REQA, reader.critic, "reqa")
    linear = critic.refined(reader.taps(x), x)
    return (reader.sign * (linear if reader.read == "linear" else critic.squash(linear)).float(),)


def reqa(
    judged: Judged, tolerances: Sequence[float] = (0.05, 0.025, 0.0), weights: Sequence[float] = (0.5, 1.0, 1.5)
) -> Tensor:
    """REQA's loss of its predictions, coarse to fine; tolerances are in the unit of the targets."""
    _, target, known = judged.labelled()
    return reqa_loss(judged.looked[0][known].unbind(1), target, tolerances, weights)


def _contents(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    critic, x = of_kind(DFSS, reader.critic, "dfss"), of_images(x, "dfss")
    return tuple(critic.vectors(critic.patches(image))[0].mean(1) for image in (x, y) if image is not None)


def dfss(judged: Judged, margin: float = 1.0) -> Tensor:
    """DFSS's triplet: what a reference shows is nearer to what its damaged version shows than to another photograph."""
    x, y = judged.looked
    is_other = judged.content[:, None] != judged.content
    has_other = is_other.any(1)
    other = is_other.int().argmax(1)[has_other]
    return triplet_margin(y[has_other], x[has_other], y[other], margin)


def _branches(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Qualities by the branch that sees the reference, real and hallucinated, and the mean triplet, (N,) each."""
    critic, x = of_kind(FPR, reader.critic, "fpr"), of_images(x, "fpr")
    assert y is not None  # the objective needs references
    distorted = critic.patches(x)
    real = critic.encode_reference(critic.patches(y)), critic.encode_reference(distorted)
    fake_distorted, fake_reference = critic.hallucinate(distorted)
    fake = fake_reference, fake_distorted
    scores = (weighted_mean(*critic.judge(*pair, len(x), critic.reference_reader)) for pair in (real, fake))
    triplets = triplet_margin(real[1], fake[1], real[0]) + triplet_margin(real[0], fake[0], real[1])
    return (*(reader.sign * score.float() for score in scores), triplets.float().expand(len(x)))


def fpr(judged: Judged, triplets: float = 20.0) -> Tensor:
    """FPR's loss: absolute errors of the blind score and of both of the other branch, and what ties their features."""
    q, target, known = judged.labelled()
    *others, triplet = judged.looked
    errors = [(score - target).abs().mean() for score in (q, *(other[known] for other in others))]
    return sum(errors, start=triplets * triplet.mean())


def _utilities(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Of each image beside its reference, and beside what stands in for it, (N,) each."""
    critic = of_kind(MiniFR, reader.critic, "prefer")
    if x.ndim != 3:
        raise ConfigError(["prefer: learns from readings alone: set critic.remember"], "objectives")
    return tuple(critic.utility(reading).float() for reading in x[:, :2].unbind(1))


def prefer(judged: Judged, scale: float = 0.15) -> Tensor:
    """Which of two versions of one cut is better, and by how much: cross entropy with soft labels.

    Args:
        judged: The images, and their utilities.
        scale: Difference of the targets at which people are sure: there the label is 0.73, at twice that 0.88.
    """
    _, target, known = judged.labelled()
    places = judged.reference[known]
    first, second = torch.triu_indices(len(target), len(target), 1, device=target.device)
    together = places[first] == places[second]
    first, second = first[together], second[together]
    label = torch.sigmoid((target[first] - target[second]) / scale)
    losses = [
        F.binary_cross_entropy_with_logits(u[first] - u[second], label, reduction="sum")
        for u in (utility[known] for utility in judged.looked)
    ]
    return torch.stack(losses).sum() / max(len(first) * len(losses), 1)


def _after_attacks(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Qualities after each of the attacks, (N,); NaN of images that were not attacked."""
    critic = of_kind(LiteCritic, reader.critic, "steady")
    attacks = x[:, readings_of(critic) :].unbind(1) if x.ndim == 3 else ()
    if not attacks:
        raise ConfigError(["steady: nothing is attacked: set critic.remember and critic.attackers"], "objectives")
    found = []
    for reading in attacks:
        is_there = torch.isfinite(reading[:, 0])
        quality = reader.sign * critic.judge(torch.where(is_there[:, None], reading, x[:, 0])).float()
        found.append(torch.where(is_there, quality, torch.nan))
    return tuple(found)


def steady(judged: Judged, scale: float = 0.1) -> Tensor:
    """Attacked images are judged as before, and in the same order.

    The first part estimates the norm of the gradient by a step along it, as Liu et al., "Defense Against Adversarial
    Attacks on No-Reference Image Quality Models with Gradient Norm Regularization", CVPR 2024; the second ranks what
    was attacked by its targets.

    Args:
        judged: The images, and their qualities after attacks.
        scale: Temperature of the ranking.
    """
    losses = [judged.q.sum() * 0]
    for after in judged.looked:
        known = torch.isfinite(after) & torch.isfinite(judged.target)
        if known.sum() > 1:
            losses.append((after[known] - judged.q[known]).abs().mean())
            losses.append(comparison.pairwise_bce(after[known], judged.target[known], scale))
    return torch.stack(losses).sum() / max(len(judged.looked), 1)


SYSTEMS: Mapping[str, Objective] = {
    "tres": own(tres, "target", look=_mirrored),
    "reqa": own(reqa, "target", look=_stages),
    "dfss": own(dfss, "references", look=_contents),
    "steady": own(steady, "target", look=_after_attacks),
    "prefer": own(prefer, "target", look=_utilities),
    "fpr": own(fpr, "target references", look=_branches),
}
