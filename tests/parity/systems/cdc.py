"""Central differences, the layer of which the gradient Siamese network is built: a chain that the notes describe."""

from __future__ import annotations

import re

from torch import Tensor, nn

from perceptloss.networks.lean import conv

from ..case import Case, Row, refuse
from ..run import System

_WORDS = {"two": 2, "three": 3, "four": 4, "six": 6, "eight": 8}
_LAYER = r"(\w) \(\d+ to \d+, (\d+)x\d+,([^)]*)\)"


class _Chain(nn.Module):
    """The layers one after the other; its score is the mean squared difference of what comes out."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        state, self.thetas = case.state(), {}
        for name, size, rest in re.findall(_LAYER, case.notes):
            facts = dict(re.findall(r"(stride|padding|theta) ([\d.]+)", rest))
            groups = re.search(r"(\w+) groups", rest)
            weight, bias = state.pop(f"{name}.conv.weight"), state.pop(f"{name}.conv.bias", None)
            shape = weight.shape[1] * (_WORDS[groups[1]] if groups else 1), weight.shape[0], int(size)
            theta, stride = float(facts["theta"]), int(facts.get("stride", 1))
            padding = int(facts.get("padding", int(size) // 2))
            layer = nn.Conv2d(*shape, stride, padding, groups=shape[0] // weight.shape[1], bias=bias is not None)
            layer.weight.data = weight
            if bias is not None:  # in their code the subtracted centre term carries it too
                layer.bias.data = (1 - theta) * bias.double()
            self.add_module(name, layer.requires_grad_(False))
            self.thetas[name] = theta
        if state or not self.thetas:
            refuse(f"{case.system}: the notes describe no layer for {sorted(state)}")

    def outputs(self, h: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, layer in self.named_children():
            h = found[name] = conv(h, layer, theta=self.thetas[name], lean=h.requires_grad)
        return found

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        ends = [list(self.outputs(image).values())[-1] for image in (x, y)]
        return (ends[0] - ends[1]).square().mean((1, 2, 3))


def _build(case: Case, row: Row) -> nn.Module:
    return _Chain(case)


SYSTEM = System(
    _build,
    readers={
        r"output of layer (\w), distorted": lambda run, row, name: run.critic.outputs(run.pair(row.input)[0])[name],
        r"output of layer (\w), reference": lambda run, row, name: run.critic.outputs(run.pair(row.input)[1])[name],
    },
)
