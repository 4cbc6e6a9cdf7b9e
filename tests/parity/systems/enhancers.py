"""Restorers of underwater pictures: SGUIE-Net with its regions, NU2Net with its stretch, and their losses."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.restorers import NU2Net, SGUIENet
from perceptloss.networks.restorers.sguie import Enhanced, regions_of, sguie_loss

from ..case import Case, Row, refuse
from ..run import Run, System, once

_CLASSES = 8


def _sguie(case: Case, row: Row) -> SGUIENet:
    network = SGUIENet()
    network.load_state_dict(case.state(), strict=True)
    return network.eval()


def _semantics(run: Run, name: str) -> Tensor | None:
    """The mask of an input as a plane for each class; later rectangles are cut out of the first one's class."""
    masks = [entry for entry in run.case.inputs.values() if entry.get("of") == name and "rectangles" in entry]
    if not masks:
        return None
    planes = torch.zeros(_CLASSES, *run.image(name).shape[2:], dtype=torch.bool)
    (first, *_), *later = masks[0]["rectangles"]
    for number, top, left, height, width in masks[0]["rectangles"]:
        planes[number, top : top + height, left : left + width] = True
    for _, top, left, height, width in later:
        planes[first, top : top + height, left : left + width] = False
    return planes[None]


@once
def _made(run: Run, name: str) -> Enhanced:
    return run.critic.enhance(run.image(name), _semantics(run, name))


@once
def _with_own_statistics(run: Run, name: str) -> Enhanced:
    """As the authors' test script leaves the network: in training."""
    return copy.deepcopy(run.critic).train().enhance(run.image(name), _semantics(run, name))


def _target(run: Run, name: str) -> Tensor:
    size = run.image(name).shape
    for entry in run.case.inputs:
        if entry.startswith("target") and run.image(entry).shape == size:
            return run.image(entry).detach()
    refuse(f"{run.case.system}: no target for {name!r}")


def _losses(run: Run, row: Row) -> tuple[Tensor, Tensor, Tensor]:
    return sguie_loss(_made(run, row.input), _target(run, row.input))


def _listed(run: Run, row: Row) -> list[list[int]]:
    planes = _semantics(run, row.input)
    return [[r.number, r.left, r.top, r.width, r.height] for r in regions_of(planes[0])]


def _trunk(run: Run, row: Row) -> Tensor:
    return run.critic.trunk(_fused(run, row.input))


def _fused(run: Run, name: str) -> Tensor:
    raw, network, planes = 2 * run.image(name) - 1, run.critic, _semantics(run, name)
    return network.guided(raw, network.fab(network.conv1(raw)), None if planes is None else planes[0])[0]


def _fusion_weights(run: Run, row: Row, which: str) -> Tensor:
    region = regions_of(_semantics(run, row.input)[0])[int(which) if which.isdigit() else 0]
    raw = 2 * run.image(row.input) - 1
    return run.critic.fusion_weights(run.critic.fa(raw[..., region.box[0], region.box[1]])[1])


def _nu2net(case: Case, row: Row) -> NU2Net:
    network = NU2Net()
    network.load_state_dict(case.state(), strict=True)
    return network.eval()


def _stage(run: Run, row: Row, number: str) -> Tensor:
    return run.critic.encoder(run.image(row.input))[int(number) - 1]


def _decoded(run: Run, row: Row, number: str) -> Tensor:
    decoder, (*skips, h) = run.critic.decoder, run.critic.encoder(run.image(row.input))
    for n in range(4, int(number) - 1, -1):
        h = getattr(decoder, f"d_stage{n}")(h if n == 4 else h + skips[n - 1])
    return h


def _l1(run: Run, row: Row) -> Tensor:
    x, _, y = row.input.rpartition("_")
    return F.l1_loss(run.critic(run.image(x)), run.image(y).detach())


def _extremes(run: Run, row: Row) -> Tensor:
    return torch.stack(run.critic.unstretched(run.image(row.input)).aminmax())


SYSTEMS = {
    "sguie_net": System(
        _sguie,
        readers={
            "regions_class_x_y_w_h": _listed,
            "output": lambda run, row: 2 * _made(run, row.input).image - 1,
            "output_batch_statistics": lambda run, row: 2 * _with_own_statistics(run, row.input).image - 1,
            "output_without_regions": lambda run, row: 2 * run.critic(run.image(row.input)) - 1,
            r"region_image_(\d)": lambda run, row, n: 2 * _made(run, row.input).region_images[0][int(n)] - 1,
            r"region_image_(\d)_batch_statistics": lambda run, row, n: (
                2 * _with_own_statistics(run, row.input).region_images[0][int(n)] - 1
            ),
            "trunk": _trunk,
            r"fusion_weights_(first|\d)": _fusion_weights,
            "loss_total": lambda run, row: _losses(run, row)[0],
            "loss_full": lambda run, row: _losses(run, row)[1],
            "loss_regions": lambda run, row: _losses(run, row)[2],
            r"loss_region_(\d)": lambda run, row, n: _losses(run, row)[2][int(n)],
        },
    ),
    "nu2net": System(
        _nu2net,
        readers={
            r"encoder_stage(\d)": _stage,
            r"decoder_stage(\d)": _decoded,
            "before_stretch": lambda run, row: run.critic.unstretched(run.image(row.input)),
            "before_stretch_min_max": _extremes,
            "output": lambda run, row: run.critic(run.image(row.input)),
            "loss_l1": _l1,
        },
    ),
}
