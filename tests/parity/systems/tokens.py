"""Transformers over tokens of images: IQT, IQA-Conformer, AHIQ, MANIQA."""

from __future__ import annotations

import torch
from torch import Tensor

from ..run import Run, System


def _joined(run: Run, image: Tensor, start: str) -> Tensor:
    """All taps of one part of a joined trunk, side by side."""
    taps = run.taps(image, *(tap for tap in run.critic.taps if tap.startswith(start)))
    return torch.cat(list(taps.values()), 1)


def _offsets(run: Run, name: str) -> Tensor:
    side = _joined(run, run.pair(name)[0][:1], "resnet.").shape[-2:]
    return run.critic.deform_net.offset(_joined(run, run.pair(name)[1], "vit."), tuple(side))


def _deformed(run: Run, name: str) -> Tensor:
    return run.critic.deform_net(_joined(run, run.pair(name)[0], "resnet."), _offsets(run, name))


_AHIQ = {
    r"ViT features, distorted .*": lambda run, row: _joined(run, run.pair(row.input)[0], "vit."),
    r"ViT features, reference .*": lambda run, row: _joined(run, run.pair(row.input)[1], "vit."),
    r"ResNet features, distorted .*": lambda run, row: _joined(run, run.pair(row.input)[0], "resnet."),
    r"ResNet features, reference .*": lambda run, row: _joined(run, run.pair(row.input)[1], "resnet."),
    r"deformable offsets \(from the reference\)": lambda run, row: _offsets(run, row.input),
    "deformable branch output, distorted": lambda run, row: _deformed(run, row.input),
}


def _tokens(run: Run, name: str) -> list[Tensor]:
    """Joined taps of the judged image and of its reference."""
    return [run.critic.joined(taps) for taps in run.features(name)]


def _encoded(run: Run, name: str) -> Tensor:
    fx, fy = _tokens(run, name)
    return run.critic.encode(fy - fx)


def _projected(run: Run, name: str) -> Tensor:
    fx, fy = _tokens(run, name)
    return run.critic.conv_proj(fy - fx)


_IQT = {
    r"backbone features, distorted .*": lambda run, row: _tokens(run, row.input)[0],
    r"backbone features, reference .*": lambda run, row: _tokens(run, row.input)[1],
    "encoder output": lambda run, row: _encoded(run, row.input),
}
_CONFORMER = {
    **_IQT,
    "projected difference features": lambda run, row: _projected(run, row.input),
    "decoder output": lambda run, row: run.critic.decode(_tokens(run, row.input)[1], _encoded(run, row.input)),
}
_MANIQA = {
    r"ViT block (\d+) output": "trunk.blocks.{0}",
    "after the first channel-attention stage and 1x1 convolution": "conv1",
    "after the second channel-attention stage and 1x1 convolution": "conv2",
    "first Swin stage output": "swintransformer1",
    "second Swin stage output": "swintransformer2",
}

SYSTEMS = {
    "ahiq": System("ahiq", _AHIQ),
    "iqt": System("iqt-port", _IQT),
    "iqa-conformer": System("iqa-conformer", _CONFORMER),
    "maniqa": System("maniqa", parts=_MANIQA),
}
