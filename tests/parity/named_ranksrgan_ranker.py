"""The RankSRGAN ranker: scores, the outputs of two convolutions before their normalisation, and what taught it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.critic import Critic
from perceptloss.critics.ranker import Ranker
from perceptloss.teach.objectives.comparison import rank_hinge

from .named import NamedCase, Reader, System, gradient


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return critic(case.image(name))


def _convolution(name: str, before: str) -> Reader:
    """Output of a convolution alone; the trunk joins it with what follows."""

    def read(critic: Critic, case: NamedCase, image: str) -> Tensor:
        assert isinstance(critic, Ranker)
        layer = getattr(critic.trunk, name)
        assert isinstance(layer, nn.Conv2d)
        h = critic.trunk(case.image(image), (before,))[before]
        return F.conv2d(h, layer.weight, layer.bias, layer.stride, layer.padding)

    return read


def _margin(first: int, second: int, label: int) -> Reader:
    """With label +1 the first of two images is the worse one: it should have the larger score."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        quality = -critic(case.image(name))[[first, second]]
        return rank_hinge(quality, torch.tensor([-label, 0]), 0.5, clamp=5)

    return read


SYSTEM = System(
    critic="ranker",
    readers={
        "score": _score,
        "conv0_1": _convolution("conv0_1", "conv0_0"),
        "conv4_1": _convolution("conv4_1", "conv4_0"),
        "grad_score": gradient(lambda critic, x: critic(x)),
        "loss_margin_ab_label+1": _margin(0, 1, 1),
        "loss_margin_ab_label-1": _margin(0, 1, -1),
        "loss_margin_ac_label+1": _margin(0, 2, 1),
        "loss_margin_bc_label-1": _margin(1, 2, -1),
    },
    left={
        r"(grad_)?loss_for_generator": "the authors' training objective; ours averages over the batch",
        r"score_batch_statistics": "a score must not depend on the rest of the batch",
    },
)
