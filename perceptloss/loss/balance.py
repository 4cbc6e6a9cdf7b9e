"""Weights as shares of the gradient, and conflict between terms.

A weight says little by itself: the same 0.1 may be nothing for one critic and everything for
another. What a restorer feels is each term's gradient at its output, so shares are measured there
(after Defossez et al., "High Fidelity Neural Audio Compression", 2022, who balance losses so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from perceptloss.errors import ConfigError, near
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.shares import l1_norm

__all__ = ["Balance", "measure_balance", "weights_for_shares"]


@dataclass(frozen=True)
class Balance:
    """Gradients of the terms at one batch.

    Attributes:
        norms: Norm of each term's gradient per unit of weight.
        shares: Part of each term in the sum of weighted norms; they add up to 1.
        cosine: Cosine between the gradients of two terms; below 0 they pull against each other.
    """

    norms: dict[str, float]
    shares: dict[str, float]
    cosine: dict[tuple[str, str], float]


def measure_balance(loss_fn: CriticLoss, x: Tensor, y: Tensor | None = None) -> Balance:
    """Measure all terms but monitors at full weight on one batch, whatever their schedules.

    Args:
        loss_fn: The loss.
        x: Judged images, (N, 3, H, W), ideally what the restorer gives now.
        y: References.

    Raises:
        GradientError: if a term sends no usable gradient.
    """
    gradients = loss_fn.term_gradients(x, y)
    weights = {term.label: term.spec.weight for term in loss_fn.terms if not term.spec.monitor}
    norms = {label: float(g.double().norm()) for label, g in gradients.items()}
    total = sum(weights[label] * norm for label, norm in norms.items())
    cosine = {}
    for a, b in combinations(sorted(gradients), 2):
        dot = float((gradients[a].double() * gradients[b].double()).sum())
        cosine[a, b] = dot / (norms[a] * norms[b])
    return Balance(norms, {label: weights[label] * norm / total for label, norm in norms.items()}, cosine)


def weights_for_shares(
    loss_fn: CriticLoss, shares: Mapping[str, float], x: Tensor, y: Tensor | None = None, *, pixel_weight: float = 1.0
) -> dict[str, float]:
    """Weights at which each term has the wished share of the gradient, relative to a mean absolute error.

    Args:
        loss_fn: The loss whose terms are balanced.
        shares: Label to share; the rest up to 1 belongs to the L1 loss.
        x: Judged images.
        y: References.
        pixel_weight: Weight of the L1 loss beside the critics.

    Returns:
        Label to weight.

    Raises:
        ConfigError: if labels are not those of the terms, or the shares leave nothing to L1.
    """
    labels = [term.label for term in loss_fn.terms if not term.spec.monitor]
    watching = [term.label for term in loss_fn.terms if term.spec.monitor]
    problems = [
        f"term {label!r} only watches and has no share"
        if label in watching
        else f"no term is called {label!r}{near(label, labels)}"
        for label in shares
        if label not in labels
    ]
    problems += [f"no share given for term {label!r}" for label in labels if label not in shares]
    problems += [
        f"share of {label!r} must be positive, got {shares[label]!r}" for label in shares if not shares[label] > 0
    ]
    rest = 1 - sum(shares.values())
    if rest <= 0:
        problems.append(f"the shares add up to {sum(shares.values()):g}; they must leave something below 1 to L1")
    if y is None:
        problems.append("balancing against L1 needs references y")
    if problems:
        raise ConfigError(problems, "shares")
    assert y is not None
    norms = measure_balance(loss_fn, x, y).norms
    l1 = l1_norm(x, y, pixel_weight)
    return {label: share / rest * l1 / norms[label] for label, share in shares.items()}
