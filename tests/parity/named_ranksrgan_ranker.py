"""The RankSRGAN ranker: scores, and the outputs of two convolutions before their normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.critic import Critic
from perceptloss.critics.ranker import Ranker

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


SYSTEM = System(
    critic="ranker",
    readers={
        "score": _score,
        "conv0_1": _convolution("conv0_1", "conv0_0"),
        "conv4_1": _convolution("conv4_1", "conv4_0"),
        "grad_score": gradient(lambda critic, x: critic(x)),
    },
    left={
        r"loss_margin_.*": "a training objective, not part of the critic",
        r"(grad_)?loss_for_generator": "the authors' training objective; ours averages over the batch",
        r"score_batch_statistics": "a score must not depend on the rest of the batch",
    },
)
