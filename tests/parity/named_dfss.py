"""DFSS: scores, the network from its stem to the deviations, and the classifier that is trained along."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from perceptloss import get_card
from perceptloss.critic import Critic
from perceptloss.critics.dfss.critic import DFSS
from perceptloss.teach.objectives.regression import triplet_margin
from perceptloss.weights.convert import load_states

from .named import DTYPES, NamedCase, Reader, System, gradient


def _output(part: Callable[[DFSS], nn.Module]) -> Reader:
    """What a part of the critic returns while it scores, patches in the authors' order: down the columns."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, DFSS)
        found: list[Tensor] = []
        handle = part(critic).register_forward_hook(lambda layer, given, out: found.append(out.clone()))
        critic.vectors(_columns(critic, case.image(name)))
        handle.remove()
        return found[0]

    return read


def _columns(critic: DFSS, image: Tensor) -> Tensor:
    rows = image.shape[2] // 32
    return critic.patches(image).unflatten(1, (rows, -1)).transpose(1, 2).flatten(1, 2)


@lru_cache(maxsize=1)
@torch.no_grad()
def _stacks(critic: DFSS, case: NamedCase, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Content and statistics of the first six patches of two images, (2, 6, C) each."""
    return critic.vectors(torch.cat([_columns(critic, case.image(name))[:, :6] for name in names]))


def _of_stacks(first: str, second: str, read: Callable[[DFSS, Tensor, Tensor], Tensor]) -> Reader:
    def reader(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, DFSS)
        return read(critic, *_stacks(critic, case, (first, second)))

    return reader


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, DFSS)
    if name != "triples":
        return critic(case.image(name))
    content, statistics = _stacks(critic, case, ("dist", "dist2"))
    return critic.rate(content, statistics)


def _content(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, DFSS)
    return critic.vectors(critic.patches(case.image(name)))[0].mean(1)


def _gated(critic: Critic, case: NamedCase, name: str) -> Tensor:
    assert isinstance(critic, DFSS)
    return critic.gate(_content(critic, case, name)) * critic.deviation(case.image(name))


def _logits(critic: Critic, case: NamedCase, name: str) -> Tensor:
    """Of a critic that keeps the classifier."""
    whole = DFSS(get_card("dfss"), classes=50)
    load_states(whole, [case.state()])
    whole = whole.freeze().to(DTYPES[case.dtype])
    return whole.classify(_stacks(whole, case, ("dist", "dist2"))[1])


def _triplet(critic: Critic, case: NamedCase, name: str) -> Tensor:
    """The reference's content should be nearer to the distorted image's than to that of another reference."""
    assert isinstance(critic, DFSS)
    stacks = (_stacks(critic, case, (image, f"{image}2")) for image in ("ref", "dist", "other"))
    return triplet_margin(*(content.mean(1) for content, _ in stacks), margin=1.0)


SYSTEM = System(
    "dfss",
    readers={
        "score": _score,
        "stem_before_activation": _output(lambda critic: critic.mix),
        "last_stage": _output(lambda critic: critic.stages[-1]),
        "patch_vectors": _output(lambda critic: critic.aggregate),
        "deviation": lambda critic, case, name: critic.deviation(case.image(name)),
        "semantic_mean": _content,
        "gated_deviation": _gated,
        "grad_score": gradient(lambda critic, x: critic(x)),
        "semantic_dist": _of_stacks("dist", "dist2", lambda critic, content, statistics: content.mean(1)),
        "semantic_ref": _of_stacks("ref", "ref2", lambda critic, content, statistics: content.mean(1)),
        "semantic_other": _of_stacks("other", "other2", lambda critic, content, statistics: content.mean(1)),
        "statistics_dist": _of_stacks("dist", "dist2", lambda critic, content, statistics: statistics),
        "statistics_ref": _of_stacks("ref", "ref2", lambda critic, content, statistics: statistics),
        "deviation_ref": _of_stacks("ref", "ref2", lambda critic, content, statistics: critic.deviate(statistics)),
        "deviation_other": _of_stacks(
            "other", "other2", lambda critic, content, statistics: critic.deviate(statistics)
        ),
        "class_logits": _logits,
        "loss_triplet": _triplet,
    },
    left={
        r"loss_(?!triplet).*|grad_loss_.*": "terms on the statistics and classes inside the network: its own training",
    },
)
