"""How the case of CenseoQoE without a reference is read; its outputs are scores over 5."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.censeoqoe import CenseoQoENR
from perceptloss.teach.objectives.comparison import gaps as gaps_of
from perceptloss.teach.objectives.comparison import rank_hinge

from .named import DTYPES, NamedCase, Reader, System, gradient

CLIPS = (("a", "b", "ref"), ("b", "b", "a"))
_PREDICTIONS, _LABELS = (0.62, 0.31, 0.66, 0.58, 0.2), (0.7, 0.3, 0.65, 0.8, 0.3)


def _loss(l1: float, rank: float, has_margin: bool, threshold: float) -> dict[bool, Reader]:
    """Readers of a loss on fixed lists (false) and its derivative (true); pairs differ by less than the threshold."""

    def read(critic: Critic, case: NamedCase, name: str, *, is_derivative: bool) -> Tensor:
        q, y = (torch.tensor(v, dtype=DTYPES[case.dtype], requires_grad=True) for v in (_PREDICTIONS, _LABELS))
        gaps = gaps_of(y)
        hinge = rank_hinge(q, y, gaps if has_margin else 0.0, mask=gaps < threshold, over="all")
        loss = l1 * (q - y.detach()).abs().mean() + rank * hinge
        return torch.autograd.grad(loss, q)[0] if is_derivative else loss

    return {which: partial(read, is_derivative=which) for which in (False, True)}


LOSS_READERS: dict[str, Reader] = {
    f"loss_{name}{'_derivative' if is_derivative else ''}": read
    for name, settings in {
        "l1": (1, 0, False, 1),
        "l1_rank": (1, 1, False, 1),
        "l1_rank_margin": (1, 1, True, 1),
        "l1_rank_weighted": (2, 0.5, True, 0.3),
    }.items()
    for is_derivative, read in _loss(*settings).items()
}


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
        **LOSS_READERS,
    },
)
