"""How the cases of TReS are read, and the losses that taught it; this one is that of ResNet-50."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.tres import TReS
from perceptloss.networks.layers import unit_norm
from perceptloss.teach.objectives.listwise import extreme_triplets, tres_loss

from .losses import Losses, loss_readers
from .named import NamedCase, Reader, System, gradient

_LABELS = (62.5, 11.25, 40.0, 87.75)
_LOSSES = (
    "loss_l1",
    "loss_l1_mirror",
    "loss_consistency",
    "loss_consistency_mirror",
    "loss_triplet_low",
    "loss_triplet_high",
    "loss_triplet_low_mirror",
    "loss_triplet_high_mirror",
    "loss_ranking_agreement",
    "loss_total",
)


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


def _teach(critic: Critic, case: NamedCase, images: Mapping[str, Tensor]) -> Losses:
    """Parts of the loss with the help of its weights: what is left of it where all others are 0."""
    assert isinstance(critic, TReS)

    x = images["abcd"]
    q, mirrored = critic.score(x), critic.score(x.flip(-1))
    consistency = critic.consistency(x).mean()  # theirs is taken twice, each time with the other side held
    y = torch.tensor(_LABELS, dtype=q.dtype)
    low, high = extreme_triplets(q, y)
    low_mirror, high_mirror = extreme_triplets(mirrored, y)
    alone = tres_loss(q, mirrored, y, ranking=0, agreement=0)
    found = {
        "loss_l1": tres_loss(q, q, y, ranking=0, agreement=0) / 2,
        "loss_l1_mirror": tres_loss(mirrored, mirrored, y, ranking=0, agreement=0) / 2,
        "loss_consistency": consistency,
        "loss_consistency_mirror": consistency.detach(),
        "loss_triplet_low": low,
        "loss_triplet_high": high,
        "loss_triplet_low_mirror": low_mirror,
        "loss_triplet_high_mirror": high_mirror,
        "loss_ranking_agreement": tres_loss(q, mirrored, y, ranking=0, agreement=1) - alone,
    }
    total = tres_loss(q, mirrored, y) + found["loss_consistency"] + found["loss_consistency_mirror"]
    return found | {"loss_total": total}


LOSS_READERS = loss_readers(
    _teach,
    ("abcd",),
    _LOSSES,
    "grad_loss_total",
    {
        "grad_loss_total_wrt:fc.weight": "head.weight",
        "grad_loss_total_wrt:transformer.encoder.layers.0.linear1.weight": "layers.0.linear1.weight",
    },
)

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
SYSTEM = System(
    "tres",
    READERS,
    {r"(grad_)?loss_.*": "read with ResNet-18, whose arithmetic is a tenth; the code is the same"},
    types=("float64",),  # the same code runs in float32 with ResNet-18
)
