"""HyperIQA: its local vectors and the weights that it makes for each image."""

from __future__ import annotations

from torch import Tensor

from ..case import Row
from ..run import Run, System


def _taps(run: Run, row: Row) -> dict[str, Tensor]:
    return run.taps(run.pair(row.input)[0])


def _generated(run: Run, row: Row, layer: str, kind: str) -> Tensor:
    """Weights of one layer of the small network."""
    matrix, bias = run.critic.layers[layer].weights(run.critic.content(_taps(run, row)["layer4"]))
    return bias if kind == "b" else matrix[..., None, None]


SYSTEM = System(
    "hyperiqa",
    readers={
        "score_per_crop": lambda run, row: run.score(row.input),
        "score_mean": lambda run, row: run.score(row.input).mean(),
        r"(layer[1-4])": lambda run, row, name: _taps(run, row)[name],
        r"lda([1-4])": lambda run, row, n: run.critic.local[n](_taps(run, row)[f"layer{n}"]),
        "target_in_vec": lambda run, row: run.critic.distortions(_taps(run, row))[..., None, None],
        r"target_fc([1-5])([wb])": _generated,
    },
)
