"""URanker: histogram, serial and parallel blocks, heads, and the losses with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perceptloss import CriticLoss
from perceptloss.critics.uranker.critic import histogram, padded
from perceptloss.teach.objectives.comparison import rank_hinge

from ..case import Row
from ..run import Run, System


def _histogram(run: Run, row: Row) -> Tensor:
    return histogram(padded(run.image(row.input)))[:, None]


def _for_generator(run: Run, row: Row) -> Tensor:
    return CriticLoss([{"critic": run.critic, "weight": 1.0, "shape": "sigmoid"}], grad="autograd")(
        run.image(row.input)
    )


def _margin(run: Run, row: Row) -> Tensor:
    """Of a ranking such as `a_better_than_b`."""
    scores = torch.cat([run.score(name) for name in row.input.split("_better_than_")])
    return rank_hinge(scores, torch.tensor([1, 0]), 0.5, clamp=5)


def _first(out: Any) -> Tensor:
    return out[0]


_STAGES = {2: 0, 3: 1, 4: 2}  # places in what a parallel block returns
SYSTEM = System(
    "uranker",
    readers={
        "histogram": _histogram,
        "histogram_sums_per_channel": lambda run, row: _histogram(run, row).unflatten(2, (3, -1)).sum(3),
        "padded_shape": lambda run, row: list(padded(run.image(row.input)).shape),
        "padded_image": lambda run, row: padded(run.image(row.input)),
        r"head([2-4])": lambda run, row, n: run.critic.read_outs(run.image(row.input))[:, int(n) - 2],
        "loss_for_generator": _for_generator,
        "loss_margin": _margin,
    },
    parts={
        **{f"patch_embed{n}": f"stages.{n - 1}.proj" for n in range(1, 5)},
        **{f"serial{n}": (f"stages.{n - 1}", _first) for n in range(1, 5)},
        **{
            rf"parallel(\d)_stage{n}": ("parallel.{0}", lambda out, place=place: out[place])
            for n, place in _STAGES.items()
        },
    },
)
