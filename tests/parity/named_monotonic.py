"""How the case of MonotonicIQA is read: `grid` are 13 qualities, `groups` are twelve images in two rows of six."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.monotonic import DATASETS, Monotonic, bilinear

from .named import DTYPES, NamedCase, Reader, System, gradient


def _maps(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, Monotonic)
    return critic.trunk(case.image(name), critic.taps)["layer4"]


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    """All images at once, where the authors judge one by one."""
    return critic(case.image("groups_flat" if name == "groups" else name))


def _first_layer(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, Monotonic)
    return critic.fc[0](bilinear(_maps(critic, case, name)))


def _head(number: int) -> Reader:
    """The score on the scale of one dataset, as a critic built for it gives it."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, Monotonic)
        critic.dataset = DATASETS[number - 1]
        try:
            return critic(case.image(name))
        finally:
            critic.dataset = None

    return read


def _on_grid(number: int) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, Monotonic)
        return critic.heads[DATASETS[number - 1]](torch.linspace(-3, 3, 13, dtype=DTYPES[case.dtype]))

    return read


def _heads(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, Monotonic)
    columns = _score(critic, case, name).view(2, 6).unbind(1)
    return torch.stack([critic.heads[name](q) for name, q in zip(DATASETS, columns, strict=True)], 1)


def _slope(critic: Critic, x: Tensor) -> Tensor:
    assert isinstance(critic, Monotonic)
    critic.floor = 1e-8  # the exact derivative
    return critic(x)


SYSTEM = System(
    "monotonic",
    readers={
        "q": _score,
        "head_1": _head(1),
        "head_3": _head(3),
        "layer4": _maps,
        "bilinear": lambda *case: bilinear(_maps(*case)),
        "fc0": _first_layer,
        "grad_q": gradient(_slope),
        **{f"head_{number}_on_grid": _on_grid(number) for number in range(1, 7)},
        "heads": _heads,
    },
    left={
        r"(grad_)?loss_.*": "a training objective, not part of the critic",
        r"norm_in_norm_.*": "a training objective, not part of the critic",
    },
)
