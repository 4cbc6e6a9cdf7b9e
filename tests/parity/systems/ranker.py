"""The RankSRGAN ranker, with the authors' pooling, and the losses that taught it and that it teaches with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.registry import create_critic
from perceptloss.teach.objectives.comparison import rank_hinge

from ..case import Case, Row
from ..run import Run, System


def _build(case: Case, row: Row) -> nn.Module:
    critic = create_critic("ranker", weights=case.state())
    critic.pool = "published"
    return critic


def _convolution(run: Run, row: Row, name: str) -> Tensor:
    """Output of a convolution alone; the trunk joins it with what follows."""
    trunk, at = run.critic.trunk, run.critic.trunk.tap_at
    before = next((tap for tap in at if at[tap] == at[name] - 1), None)
    h = run.image(row.input) if before is None else run.tap(row, before)
    layer = getattr(trunk, name)
    return F.conv2d(h, layer.weight, layer.bias, layer.stride, layer.padding)


def _margin(run: Run, row: Row, first: str, second: str, label: str) -> Tensor:
    """With label +1 the first of two images is the worse one: it should have the larger score."""
    places = [run.case.entry(row.input)["stack"].index(name) for name in (first, second)]
    return rank_hinge(-run.score(row.input)[places], torch.tensor([-int(label), 0]), 0.5, clamp=5)


def _for_generator(run: Run, row: Row) -> Tensor:
    """Their objective: the sum of what shape `sigmoid` gives for each image, moved by a bias."""
    return (run.score(row.input) - float(run.case.noted(r"bias (\d+(?:\.\d+)?)")[1])).sigmoid().sum()


def _batch_statistics(run: Run, row: Row) -> Tensor:
    """The score in which the images decide the statistics together; ours never is, so the layers are run here."""
    h = run.image(row.input)
    for layer, *norms in run.critic.trunk.parts():
        h = layer(h)
        for norm in norms:
            h = F.batch_norm(h, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        h = F.leaky_relu(h, 0.2)
    return run.critic.classifier(h.mean((2, 3)))


SYSTEM = System(
    _build,
    readers={
        r"(conv\d_\d)": _convolution,
        r"loss_margin_(\w)(\w)_label([+-]1)": _margin,
        "loss_for_generator": _for_generator,
        "score_batch_statistics": _batch_statistics,
    },
)
