"""Stereo pairs: restorers with what passes between their views and their losses, and a critic of several scores."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.critics.multi_score_siqa import HEADS
from perceptloss.networks.restorers.ipassr import IPASSR, ipassr_losses
from perceptloss.networks.restorers.nafssr import NAFSSR

from ..case import Case, Row, refuse
from ..run import Run, System, once


def _names(run: Run, name: str) -> tuple[str, str]:
    """The views that an input means: `L,R`, `batch` for batch_L and batch_R, or one view of a listed pair."""
    if "," in name:
        left, right = name.split(",")
        return left, right
    if f"{name}_L" in run.case.inputs:
        return f"{name}_L", f"{name}_R"
    if match := re.fullmatch(r"(.*)[LR](\d*)", name):
        return f"{match[1]}L{match[2]}", f"{match[1]}R{match[2]}"
    refuse(f"{run.case.system}: {name!r} is no pair of views")


def _target(name: str) -> str:
    return re.sub(r"([LR])(\d*)$", r"H\1\2", name)


def _pair(run: Run, row: Row) -> Tensor:
    return torch.cat([run.image(name) for name in _names(run, row.input)], 1)


def _truth(run: Run, row: Row) -> Tensor:
    return torch.cat([run.image(_target(name)).detach() for name in _names(run, row.input)], 1)


def _view(pair: Tensor, side: str | None) -> Tensor:
    return pair if side is None else pair.chunk(2, 1)[side == "right"]


# ---- NAFSSR


def _nafssr(case: Case, row: Row) -> nn.Module:
    state = case.state()
    network = NAFSSR.like(state)
    network.load_state_dict(state)
    return network.eval()


def _window(case: Case) -> tuple[int, int]:
    match = case.noted(r"training size (\d+)x(\d+)")
    factor = float(case.noted(r"window = ([\d.]+) x")[1])
    return int(int(match[1]) * factor), int(int(match[2]) * factor)


def _enlarged(run: Run, row: Row, statistics: str | None = None) -> Tensor:
    kind = (statistics or "global").removeprefix("_local_statistics_")
    run.critic.average_over(_window(run.case) if kind in ("exact", "fast") else None, fast=kind == "fast")
    try:
        return run.critic(_pair(run, row))
    finally:
        run.critic.average_over(None)


def _inner(run: Run, row: Row, part: str, side: str) -> Tensor:
    """What a block, its attention, or all of them give for one view."""
    network, number = run.critic, re.sub(r"\D", "", part)
    found: list[Any] = []
    kind = part.rstrip("0123456789")
    if kind == "block":
        module = network.body[int(number)].module.blk  # called for the left view, then for the right one
    else:
        module = network.body[int(number) if number else -1].module.fusion
    handle = module.register_forward_hook(lambda m, given, out: found.append(out))
    try:
        network(_pair(run, row))
    finally:
        handle.remove()
    views = found if kind == "block" else found[0]
    return views[side == "right"]


def _squared(run: Run, row: Row) -> Tensor:
    return F.mse_loss(run.critic(_pair(run, row)), _truth(run, row))


# ---- iPASSR


def _ipassr(case: Case, row: Row) -> nn.Module:
    state = case.state()
    network = IPASSR.like(state)
    network.load_state_dict(state)
    return network.eval()


@once
def _restored(run: Run, name: str) -> Any:
    return run.critic.with_parallax(torch.cat([run.image(view) for view in _names(run, name)], 1))


def _super_resolved(run: Run, row: Row, side: str | None, own: str | None) -> Tensor:
    if own is None:
        return _view(_restored(run, row.input)[0], side)
    run.critic.pam.own_statistics = True
    try:
        return _view(run.critic(_pair(run, row)), side)
    finally:
        run.critic.pam.own_statistics = False


def _loss(run: Run, row: Row, name: str) -> Tensor:
    restored, parallax = _restored(run, row.input)
    return ipassr_losses(restored, parallax, _pair(run, row), _truth(run, row))[name]


def _loss_of_view(run: Run, row: Row, name: str, side: str) -> Tensor:
    """A loss whose gradient in one view is listed."""
    views = re.sub(r"_?[LR]\d*$", "", row.input)
    named = views if views and f"{views}_L" in run.case.inputs else ",".join(_names(run, row.input))
    return _loss(run, Row(row.quantity, named, row.kind, row.facts), name)


# ---- Multi-score-SIQA


def _heads(run: Run, row: Row) -> Tensor:
    """Scores of every patch, (patches, 4)."""
    return F.relu(run.critic.linear_heads(_pair(run, row)))[0]


def _of_head(run: Run, row: Row, head: str, what: str, change: str | None = None) -> Tensor:
    run.critic.all_cells = change == "_all_cells"
    try:
        scores = _heads(run, row)[:, HEADS.index(head)]
    finally:
        run.critic.all_cells = False
    return scores if what == "per_patch" else scores.mean()


def _sum_of_head(run: Run, row: Row, head: str, side: str) -> Tensor:
    """What gradients are of: the sum of an image's patch scores."""
    return _of_head(run, row, head, "per_patch").sum()


def _opinion_loss(run: Run, row: Row, head: str) -> Tensor:
    notes = run.case.notes
    labels = {}
    for names, value in re.findall(r"((?:global|left|right|stereo)(?:=(?:global|left|right|stereo))*)=([\d.]+)", notes):
        labels |= dict.fromkeys(names.split("="), float(value))
    apart = {name: (_of_head(run, row, name, "per_patch") - labels[name]).abs().mean() for name in HEADS}
    return apart[head] if head in apart else sum(apart.values()) + apart["global"]


def _part(run: Run, row: Row, kind: str, number: str, letter: str) -> Tensor:
    """A layer of one stream."""
    stream = getattr(run.critic, {"L": "left", "R": "right", "S": "stereo"}[letter])
    index = int(number) - 1
    layers = {"conv": stream.convs, "bn": stream.norms, "fc": (stream.inner, stream.vector, stream.outer)}
    found: list[Tensor] = []
    handle = layers[kind][index].register_forward_hook(lambda module, given, out: found.append(out.clone()))
    try:
        run.critic.linear_heads(_pair(run, row))
    finally:
        handle.remove()
    return found[0]


SYSTEMS = {
    "multi_score_siqa": System(
        "multi-score-siqa",
        {
            r"(global|left|right|stereo)_(per_patch|mean)(_views_swapped|_all_cells)?": _of_head,
            r"(global|stereo|left|right)_(left|right)": _sum_of_head,
            r"loss_(global|left|right|stereo|total)": _opinion_loss,
            r"(conv|bn|fc)(\d)_?([LRS])": _part,
        },
        channels=3,
    ),
    "nafssr": System(
        _nafssr,
        {
            r"output_(left|right)": lambda run, row, side: _view(_enlarged(run, row), side),
            r"output(_local_statistics_(?:fast|exact)|_global_statistics|_other)?": _enlarged,
            r"(block\d+|scam\d+|body)_(left|right)": _inner,
            r"loss(?:_mse)?(?:_left|_right)?": _squared,
        },
    ),
    "ipassr": System(
        _ipassr,
        {
            r"SR_(left|right)(_batch_statistics)?": _super_resolved,
            "M_right_to_left": lambda run, row: _restored(run, row.input)[1].to_left,
            "M_left_to_right": lambda run, row: _restored(run, row.input)[1].to_right,
            r"V_(left|right)": lambda run, row, side: getattr(_restored(run, row.input)[1], f"valid_{side}"),
            r"loss_(\w+)_(left|right)": _loss_of_view,
            r"loss_(SR|photo|smooth|cycle|cons|total)": _loss,
        },
    ),
}
