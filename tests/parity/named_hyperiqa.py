"""How the case of HyperIQA is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.hyperiqa import HyperIQA
from perceptloss.networks.trunks import IMAGENET

from .named import NamedCase, Reader, System, gradient


def _taps(critic: Critic, case: NamedCase, name: str) -> tuple[HyperIQA, dict[str, Tensor]]:
    assert isinstance(critic, HyperIQA)
    return critic, critic.trunk(case.image(name), critic.taps)


def _distortions(stage: int | None) -> Reader:
    """The vector of local features of one stage, or of all."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        critic, taps = _taps(critic, case, name)
        if stage is None:
            return critic.distortions(taps)[..., None, None]
        return critic.local[str(stage)](taps[f"layer{stage}"])

    return read


def _generated(layer: int, kind: str) -> Reader:
    """Weights of one layer of the small network."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        critic, taps = _taps(critic, case, name)
        matrix, bias = critic.layers[str(layer)].weights(critic.content(taps["layer4"]))  # type: ignore[operator]
        return bias if kind == "b" else matrix[..., None, None]

    return read


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return critic(case.image(name))


@dataclass(frozen=True)
class _Exact(System):
    """Builds with mean and deviation of the input in the case's type.

    A trunk keeps them in float32, which is 1e-8 off in float64: enough to pass a kink of the gradient here.
    """

    def build(self, case: NamedCase) -> Critic:
        critic = super().build(case)
        assert isinstance(critic, HyperIQA)
        trunk = critic.trunk
        trunk.mean, trunk.std = (torch.tensor(c, dtype=trunk.mean.dtype).view(1, 3, 1, 1) for c in IMAGENET)
        return critic


SYSTEM = _Exact(
    critic="hyperiqa",
    readers={
        "score": _score,
        "score_per_crop": _score,
        "score_mean": lambda critic, case, name: _score(critic, case, name).mean(),
        "layer4": lambda critic, case, name: _taps(critic, case, name)[1]["layer4"],
        "lda1": _distortions(1),
        "target_in_vec": _distortions(None),
        **{
            f"target_fc{n}{kind}": _generated(n, kind) for n, kind in ((1, "w"), (1, "b"), (4, "w"), (5, "w"), (5, "b"))
        },
        "grad_score": gradient(lambda critic, x: critic(x)),
    },
)
