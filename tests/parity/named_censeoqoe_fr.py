"""How the case of CenseoQoE with a reference is read; its outputs are scores over 5."""

from __future__ import annotations

from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.censeoqoe import CenseoQoEFR

from .named import NamedCase, Reader, System, gradient
from .named_censeoqoe_nr import CLIPS, LOSS_READERS, clips


def _images(case: NamedCase, name: str) -> tuple[Tensor, Tensor]:
    """A judged image and its reference."""
    return case.image(name), case.image("oddref" if name == "odd" else "ref")


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return critic(*_images(case, name))


def _maps(tap: str) -> Reader:
    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, CenseoQoEFR)
        return critic.trunk(critic.pair(*_images(case, name)), (tap,))[tap]

    return read


def _gradient(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return gradient(lambda critic, x: critic(x, case.image("ref")) / 5)(critic, case, name)


def _gradient_of_reference(critic: Critic, case: NamedCase, name: str) -> Tensor:
    """Of the score of `a`; a critic never sends one to its reference, but the formula has it."""
    return gradient(lambda critic, y: critic.score(case.image("a"), y) / 5)(critic, case, name)


def _clips(case: NamedCase) -> tuple[Tensor, Tensor]:
    return clips(case, *CLIPS), clips(case, *(("ref",) * 3,) * 2)


def _frames(critic: Critic, case: NamedCase, name: str) -> Tensor:
    x, y = _clips(case)
    return critic(x.flatten(0, 1), y.flatten(0, 1)) / 5


def _clip_scores(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, CenseoQoEFR)
    return critic.score_clip(*_clips(case)) / 5


def _fed_rgb(critic: Critic, case: NamedCase, name: str) -> Tensor:
    x, y = _images(case, name)
    return critic(x.flip(1), y.flip(1)) / 5


SYSTEM = System(
    "censeoqoe-fr",
    readers={
        "output": lambda *case: _score(*case) / 5,
        "output_distorted_equals_reference": lambda *case: _score(*case) / 5,
        "score_5": _score,
        "layer1": _maps("layer1"),
        "layer4": _maps("layer4"),
        "pooled": lambda *case: _maps("layer4")(*case).mean((2, 3), keepdim=True),
        "logit": lambda critic, case, name: critic.linear(*_images(case, name)),
        "grad_output": _gradient,
        "grad_output_wrt_reference": _gradient_of_reference,
        "clip_frame_outputs": _frames,
        "clip_scores": _clip_scores,
        "output_if_fed_RGB_by_mistake": _fed_rgb,
        **LOSS_READERS,
    },
)
