"""How the case of MonotonicIQA is read: `grid` are 13 qualities, `groups` are twelve images in two rows of six."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.monotonic import DATASETS, Monotonic, bilinear
from perceptloss.teach.objectives.regression import norm_in_norm

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


def _norm_in_norm(of: Callable[[Tensor, Tensor], Tensor]) -> Reader:
    """For two columns that the case's notes give."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        p = torch.tensor([2.5, 1, 4.75, 3, 7.25, 6, 5.5], dtype=DTYPES[case.dtype])
        return of(p, torch.tensor([2, 1.5, 6, 3.5, 8, 5, 4], dtype=p.dtype))

    return read


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
        "norm_in_norm_batch_first": _norm_in_norm(lambda p, t: norm_in_norm(p, t, 2, 2)),
        "norm_in_norm_affine": _norm_in_norm(lambda p, t: norm_in_norm(3 * p + 2, t, 2, 2)),
        "norm_in_norm_perfect": _norm_in_norm(lambda p, t: (norm_in_norm(3 * t - 1, t, 2, 2) < 1e-6).double()),
    },
    left={
        r"(grad_)?loss_.*": "by a mistake of shapes their norm-in-norm is a plain L1; ours refuses such shapes",
    },
)
