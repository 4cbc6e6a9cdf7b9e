"""Exams of critics that compare: which of two damaged versions of one cut is better, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from perceptloss import Critic
from perceptloss.errors import PerceptlossError
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.exams.rows import Array, figure_of, floats, shared

__all__ = ["accuracy", "calibration_error", "pairs_to_compare", "preferences"]

_PAIRS = 400
_BINS = 10


def accuracy(probability: Array, outcome: Array) -> float:
    """Share of pairs in which the more probable one is the better one, in [0, 1]; 1/2 counts half.

    Args:
        probability: That the first is better, (K,).
        outcome: 1 if it is, else 0, (K,).
    """
    said = np.sign(np.asarray(probability) - 0.5)
    return float((0.5 + 0.5 * said * np.where(np.asarray(outcome) > 0.5, 1, -1)).mean())


def calibration_error(probability: Array, outcome: Array, bins: int = _BINS) -> float:
    """Expected calibration error, in [0, 1], 0 is best: how far confidence is from the share of right answers.

    Pairs fall into equal bins of confidence `max(p, 1 - p)`, from 1/2 to 1; bins count by their pairs. After Naeini,
    Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.

    Args:
        probability: That the first is better, (K,).
        outcome: 1 if it is, else 0, (K,).
        bins: Number of bins.
    """
    p, truth = np.asarray(probability, dtype=float), np.asarray(outcome, dtype=float)
    confidence = np.maximum(p, 1 - p)
    right = np.where(p == 0.5, 0.5, (p > 0.5) == (truth > 0.5))
    place = np.clip(((confidence - 0.5) * 2 * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def pairs_to_compare(exam: Exam, rows: Array, limit: int = _PAIRS, seed: int = 0) -> Array:
    """Pairs of damaged versions of one cut whose order is known, the better one first, (K, 2).

    Those that the exam asks for; where it asks for none, those of unequal targets that a user would compare (`within`,
    else one cut), drawn at random if there are more than `limit`.
    """
    if exam.asked:
        pairs = np.unique(np.concatenate(list(exam.asked.values())), axis=0)
        pairs = pairs[np.isin(pairs, rows).all(1)]
    else:
        pairs = _of_targets(exam, rows)
    if len(pairs) > limit:
        pairs = pairs[np.sort(np.random.default_rng([seed, 13]).permutation(len(pairs))[:limit])]
    return pairs


def _of_targets(exam: Exam, rows: Array) -> Array:
    damaged = rows[(exam.level[rows] != 0) & np.isfinite(exam.target[rows])]
    place = (exam.reference if exam.within is None else exam.within)[damaged]
    found = [np.empty((0, 2), dtype=int)]
    for value in np.unique(place):
        members = damaged[place == value]
        members = members[np.argsort(-exam.target[members], kind="stable")]
        first, second = np.triu_indices(len(members), 1)
        both = np.stack([members[first], members[second]], 1)
        found.append(both[exam.target[both[:, 0]] > exam.target[both[:, 1]]])
    return np.concatenate(found)


@torch.no_grad()
def preferences(
    accelerator: Accelerator,
    critic: Critic,
    exam: Exam,
    rows: Array,
    rounds: int,
    *,
    limit: int = _PAIRS,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures `prefer` (accuracy) and `prefer_ece` (calibration error) of a critic's `prefer(a, b, y)`.

    Args:
        accelerator: Of the run.
        critic: Its `prefer` takes two versions and their reference (None if it needs none), (N, C, H, W) in [0, 1],
            and gives the probability that the first is better, (N,).
        exam: With the pairs.
        rows: Those that are examined.
        rounds: Of the bootstrap over photographs; 0: no intervals.
        limit: Most pairs.
        seed: Of the pairs and of which one comes first.

    Returns:
        No figures if the critic has no `prefer`, or the exam no such pairs.

    Raises:
        PerceptlossError: for what is no probability.
    """
    prefer = getattr(critic, "prefer", None)
    pairs = pairs_to_compare(exam, rows, limit, seed) if prefer is not None else np.empty((0, 2), dtype=int)
    if prefer is None or not len(pairs):
        return {}
    turned = np.random.default_rng([seed, 17]).random(len(pairs)) < 0.5
    shown = np.where(turned[:, None], pairs[:, ::-1], pairs)

    def said(number: int, part: Array) -> list[float]:
        (a, y), (b, _) = ([floats(accelerator, i) for i in exam.images(part[:, side])] for side in (0, 1))
        found = prefer(a, b, y if critic.card.needs_reference else None)
        return found.double().tolist()

    probability = shared(accelerator, [shown[i : i + exam.batch] for i in range(0, len(shown), exam.batch)], said)
    wrong = probability[~((probability >= 0) & (probability <= 1))]
    if len(wrong):
        raise PerceptlossError(
            f"{critic.card.name!r}: prefer must give probabilities in [0, 1], got {wrong[0]:g} in exam {exam.name!r}."
        )
    outcome, content = (~turned).astype(float), exam.content[pairs[:, 0]]
    return {
        "prefer": figure_of(accuracy, probability, outcome, content, rounds),
        "prefer_ece": figure_of(calibration_error, probability, outcome, content, rounds),
    }
