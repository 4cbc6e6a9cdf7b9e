"""The terms of a loss: what they say, their schedule, and how a score becomes a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, Direction, Shape
from perceptloss.critic import Critic, Precision
from perceptloss.errors import ConfigError
from perceptloss.loss.joint.options import Joint, JointOptions
from perceptloss.networks.each_view import EachView
from perceptloss.registry import DEFAULT, Default, Weights, create_critic, set_precision

__all__ = [
    *("GradMode", "Grey", "OnNonFinite", "Term", "TermOptions", "TermSpec", "Terms"),
    *("build_terms", "shaped"),
]

GradMode = Literal["autograd", "checkpoint", "fused"]
OnNonFinite = Literal["skip", "raise"]
Grey = Literal["refuse", "replicate"]


class TermOptions(TypedDict, total=False):
    """One term as it is written in Python, YAML or JSON.

    `critic` must be given in a list, and `weight` or `share` unless the term is a monitor.
    """

    critic: str | Critic
    """Registered name, or a critic that exists already; in a mapping of terms its key stands for it."""
    weight: float
    """Factor of the term's loss; 0 makes it a monitor."""
    share: float
    """Instead of a weight: its part of the gradient at the restored image, which the weight follows; the shares of all
    terms leave something below 1 to the mean absolute error beside them."""
    joint: bool | JointOptions
    """Whether, and how, the critic goes on learning beside the restorer; see `CriticLoss.learn`."""
    monitor: bool
    """Whether it only watches: scored and reported on the same run of a trunk, with no part in loss and gradient."""
    name: str
    """Unique name under which it is reported; the critic's unless given."""
    shape: Shape
    """How the score becomes a loss; the card's default unless given."""
    tolerance: float
    """Score difference that `hinge` forgives."""
    start: int
    """First step at which the term counts."""
    ramp: int
    """Steps over which its weight grows linearly to full."""
    crop: int | None
    """Side of the random square it looks at, None for the whole image."""
    precision: Precision
    """Of the critic's trunk."""
    weights: Weights
    """As for `create_critic`."""
    better: Direction
    """As for `create_critic`."""
    grey: Grey
    """What happens to images of one channel; as for the loss unless given."""
    options: Mapping[str, object]
    """As for `create_critic`."""


Terms = Mapping[str, float | TermOptions] | Sequence[TermOptions]
"""`{name: weight}`, `{name: {term}}`, or a list of `{critic: name, weight: w, ...}`."""


@dataclass(frozen=True, kw_only=True)
class TermSpec:
    """One validated term, before its critic is built: `TermOptions` with nothing left open, and the card."""

    critic: str | Critic
    weight: float
    label: str
    card: Card
    shape: Shape
    tolerance: float = 0.0
    start: int = 0
    ramp: int = 0
    crop: int | None = None
    precision: Precision = "fp32"
    weights: Weights | Default = DEFAULT
    better: Direction | None = None
    monitor: bool = False
    grey: Grey = "refuse"
    options: Mapping[str, object] = field(default_factory=dict)
    share: float | None = None
    joint: Joint | None = None


@dataclass(frozen=True, eq=False)
class Term:
    """A term with its critic built."""

    spec: TermSpec
    critic: Critic

    @property
    def label(self) -> str:
        """Unique name under which the term is reported."""
        return self.spec.label

    @property
    def signature(self) -> str:
        """That of its critic, and what else changes its scores."""
        return self.critic.signature + ("|grey:replicate" if self.spec.grey == "replicate" else "")

    @property
    def is_timed(self) -> bool:
        """Whether its weight follows a schedule."""
        return bool(self.spec.start or self.spec.ramp)

    def runs_at(self, step: int) -> bool:
        """Whether it is scored at a training step: from `start` on."""
        return step >= self.spec.start

    def weight_at(self, step: int) -> float:
        """Weight at a training step: 0 before `start`, then linear over `ramp` steps, then full; 0 of a monitor."""
        spec = self.spec
        if spec.monitor or not self.runs_at(step):
            return 0.0
        return spec.weight * min(1.0, (step - spec.start + 1) / spec.ramp) if spec.ramp else spec.weight

    @property
    def is_relative(self) -> bool:
        """Whether its loss compares the score with that of the reference."""
        return self.spec.shape in ("hinge", "softplus")


def shaped(spec: TermSpec, score: Tensor, anchor: Tensor | float) -> Tensor:
    """Turn natural scores (N,) into losses (N,), lower is better; `anchor` is the references', for relative shapes."""
    low, high = spec.card.bounds
    sign = 1.0 if spec.card.better == "higher" else -1.0
    if spec.shape == "distance":
        return score
    if spec.shape == "deficit":
        return (high - score if sign > 0 else score - low) / (high - low)
    if spec.shape == "sigmoid":
        return (-sign * score).sigmoid()
    deficit = sign * (anchor - score)
    return F.softplus(deficit) if spec.shape == "softplus" else F.relu(deficit - spec.tolerance)


def build_terms(specs: Sequence[TermSpec], *, stereo: bool = False) -> list[Term]:
    """Build the critics; where images are stereo pairs, those of single images judge each view."""
    terms: list[Term] = []
    for spec in specs:
        if isinstance(spec.critic, Critic):
            critic = spec.critic
            set_precision(critic, spec.precision)
        else:
            critic = create_critic(
                spec.critic, spec.weights, precision=spec.precision, better=spec.better, options=spec.options
            )
            if spec.shape == "distance" and critic.card.better == "higher":
                problem = "shape 'distance' minimises the score, but its weights say that higher is better"
                raise ConfigError([f"{spec.label}: {problem}"], "critics")
            spec = replace(spec, card=critic.card)  # its weight file may say another direction
        if stereo and critic.card.channels == 3:
            critic = EachView(critic)
            spec = replace(spec, card=critic.card)
        terms.append(Term(spec, critic))
    return terms
