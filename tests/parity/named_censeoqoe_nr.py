"""How the case of CenseoQoE without a reference is read; its outputs are scores over 5."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.censeoqoe import CenseoQoENR

from .named import NamedCase, Reader, System, gradient

CLIPS = (("a", "b", "ref"), ("b", "b", "a"))
LOSSES = r"loss_l1.*"
WHY = "a training objective, not part of the critic"


def clips(case: NamedCase, *names: tuple[str, ...]) -> Tensor:
    """Clips of the images of these names, (N, T, 3, H, W)."""
    return torch.stack([torch.cat([case.image(name) for name in clip]) for clip in names])


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return critic(case.image(name))


def _maps(tap: str) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, CenseoQoENR)
        return critic.trunk(critic.prepare(case.image(name)), (tap,))[tap]

    return read


def _clip_scores(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, CenseoQoENR)
    return critic.score_clip(clips(case, *CLIPS)) / 5


SYSTEM = System(
    "censeoqoe-nr",
    readers={
        "output": lambda *case: _score(*case) / 5,
        "score_5": _score,
        "layer1": _maps("layer1"),
        "layer4": _maps("layer4"),
        "pooled": lambda *case: _maps("layer4")(*case).mean((2, 3), keepdim=True),
        "logit": lambda critic, case, name: critic.linear(case.image(name)),
        "grad_output": gradient(lambda critic, x: critic(x) / 5),
        "clip_frame_outputs": lambda critic, case, name: critic(clips(case, *CLIPS).flatten(0, 1)) / 5,
        "clip_scores": _clip_scores,
        "output_if_fed_RGB_by_mistake": lambda critic, case, name: critic(case.image(name).flip(1)) / 5,
    },
    left={LOSSES: WHY},
)
