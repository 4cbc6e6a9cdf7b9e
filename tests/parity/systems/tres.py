"""TReS on its three ResNets, and the losses that taught it."""

from __future__ import annotations

from torch import Tensor

from perceptloss.networks.layers import unit_norm
from perceptloss.teach.objectives.listwise import extreme_triplets, tres_loss

from ..case import Row
from ..run import Run, System, once


def _map(run: Run, tokens: Tensor) -> Tensor:
    """Tokens (N, cells, width) as a map (N, width, rows, columns)."""
    return tokens.mT.unflatten(2, (run.critic.cells, run.critic.cells))


def _encoded(run: Run, row: Row) -> Tensor:
    return run.critic.encode(run.taps(run.pair(row.input)[0]))


@once
def _sides(run: Run, name: str) -> list[Tensor]:
    """Scores as they are and mirrored, and the consistency of each image."""
    x = run.image(name)
    return [run.critic(x), run.critic(x.flip(-1)), run.critic.consistency(x)]


def _loss(run: Run, row: Row, which: str) -> Tensor:
    """Parts of the loss with the help of its weights: what is left of it where all others are 0."""
    y = run.tensor(run.case.listed("Training labels of batch"))
    q, mirrored, unlike = _sides(run, row.input)
    side = mirrored if which.endswith("mirror") else q
    if which.startswith("triplet"):
        low, high = extreme_triplets(side, y)
        return low if "low" in which else high
    if which.startswith("l1"):
        return tres_loss(side, side, y, ranking=0, agreement=0) / 2
    if which == "ranking_agreement":
        return tres_loss(q, mirrored, y, ranking=0, agreement=1) - tres_loss(q, mirrored, y, ranking=0, agreement=0)
    if which.startswith("consistency"):
        return unlike.mean()
    # theirs takes the consistency twice, each time with the other side held
    return tres_loss(q, mirrored, y) + unlike.mean() + unlike.mean().detach()


_FORMS = "l1|consistency|triplet_low|triplet_high"
_READERS = {
    r"score|score_per_crop": lambda run, row: run.score(row.input),
    "score_mirror": lambda run, row: run.critic(run.image(row.input).flip(-1)),
    "score_mean_over_crops": lambda run, row: run.score(row.input).mean(),
    "consistency": lambda run, row: run.critic.consistency(run.image(row.input)).mean(),
    "position_encoding": lambda run, row: _map(run, run.critic.positions[None]),
    r"(layer[1-4])": lambda run, row, tap: run.tap(row, tap),
    r"l2pool([1-4])": lambda run, row, n: run.critic.pools[int(n) - 1](unit_norm(run.tap(row, f"layer{n}"))),
    "encoder_out": lambda run, row: _map(run, _encoded(run, row)),
    "fc2": lambda run, row: run.critic.reduce(_encoded(run, row).mean(1)),
    rf"loss_((?:{_FORMS})(?:_mirror)?|ranking_agreement|total)": _loss,
}
SYSTEMS = {
    "tres": System("tres", _READERS),
    **{f"tres_resnet{depth}": System(f"tres-resnet{depth}", _READERS) for depth in (18, 34)},
}
