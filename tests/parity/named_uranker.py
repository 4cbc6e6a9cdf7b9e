"""How the case of URanker is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from perceptloss import CriticLoss
from perceptloss.critic import Critic
from perceptloss.critics.uranker.critic import URanker, histogram, padded
from perceptloss.teach.objectives.comparison import rank_hinge

from .named import NamedCase, Reader, System, gradient


def _output(part: Callable[[URanker], nn.Module], then: Callable[[Any], Tensor] = lambda out: out) -> Reader:
    """What a part of the critic returns while it scores."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, URanker)
        found: list[Any] = []
        handle = part(critic).register_forward_hook(lambda module, given, out: found.append(out))
        critic(case.image(name))
        handle.remove()
        return then(found[0])

    return read


def _histogram(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return histogram(padded(case.image(name)))[:, None]


def _read_out(number: int) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, URanker)
        return critic.read_outs(case.image(name))[:, number]

    return read


def _for_generator(critic: Critic, x: Tensor) -> Tensor:
    return CriticLoss([{"critic": critic, "weight": 1.0, "shape": "sigmoid"}], grad="autograd")(x)


def _margin(critic: Critic, case: NamedCase, name: str) -> Tensor:
    """Of a ranking such as `a_better_than_b`."""
    better, worse = name.split("_better_than_")
    scores = torch.cat([critic(case.image(image)) for image in (better, worse)])
    return rank_hinge(scores, torch.tensor([1, 0]), 0.5, clamp=5)


SYSTEM = System(
    "uranker",
    readers={
        "histogram": _histogram,
        "histogram_sums_per_channel": lambda *case: _histogram(*case).unflatten(2, (3, -1)).sum(3),
        "padded_shape": lambda critic, case, name: torch.tensor(padded(case.image(name)).shape),
        "padded_image": lambda critic, case, name: padded(case.image(name)),
        "patch_embed1": _output(lambda critic: critic.stages[0].proj),
        "serial1": _output(lambda critic: critic.stages[0], lambda out: out[0]),
        "serial4": _output(lambda critic: critic.stages[3], lambda out: out[0]),
        "parallel0_stage2": _output(lambda critic: critic.parallel[0], lambda out: out[0]),
        "parallel0_stage4": _output(lambda critic: critic.parallel[0], lambda out: out[2]),
        "head2": _read_out(0),
        "head3": _read_out(1),
        "head4": _read_out(2),
        "score": lambda critic, case, name: critic(case.image(name)),
        "grad_score": gradient(lambda critic, x: critic(x)),
        "loss_for_generator": lambda critic, case, name: _for_generator(critic, case.image(name)),
        "grad_loss_for_generator": gradient(_for_generator),
        "loss_margin": _margin,
    },
)
