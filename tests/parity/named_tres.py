"""How the cases of TReS are read; this one is that of ResNet-50."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.tres import TReS
from perceptloss.parts.layers import unit_norm

from .named import NamedCase, Reader, System, gradient

_TRAINING = "a training objective, not part of the critic"


def _map(tokens: Tensor) -> Tensor:
    """Tokens (N, cells, width) as a map (N, width, rows, columns)."""
    return tokens.mT.unflatten(2, (7, 7))


def _of_taps(part: Callable[[TReS, dict[str, Tensor]], Tensor]) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, TReS)
        with torch.no_grad():
            return part(critic, critic.trunk(case.image(name), critic.taps))

    return read


def _consistency(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, TReS)
    with torch.no_grad():
        return critic.consistency(case.image(name)).mean()


READERS: dict[str, Reader] = {
    "score": lambda critic, case, name: critic(case.image(name))[:, None],
    "score_mirror": lambda critic, case, name: critic(case.image(name).flip(-1))[:, None],
    "consistency": _consistency,
    "position_encoding": lambda critic, case, name: _map(critic.positions[None]),
    "layer1": _of_taps(lambda critic, taps: taps["layer1"]),
    "layer4": _of_taps(lambda critic, taps: taps["layer4"]),
    "l2pool1": _of_taps(lambda critic, taps: critic.pools[0](unit_norm(taps["layer1"]))),
    "encoder_out": _of_taps(lambda critic, taps: _map(critic.encode(taps))),
    "fc2": _of_taps(lambda critic, taps: critic.reduce(critic.encode(taps).mean(1))),
    "grad_score": gradient(lambda critic, x: critic(x)),
}
LEFT = {r"loss_.*": _TRAINING, r"grad_loss_.*": _TRAINING}

SYSTEM = System("tres", READERS, LEFT)
