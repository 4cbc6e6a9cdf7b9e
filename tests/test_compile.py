"""torch.compile makes one graph of a score, with plain scores and gradients, for one critic of each construction."""

from __future__ import annotations

import math
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest
import torch
from test_contract import equal, images, judge

import perceptloss.critics
import perceptloss.networks
from perceptloss.registry import find_entry

# Tracing takes seconds a critic. Behind these are all parts; most have one, or a trunk, that no other here has.
_QUICK = (
    *("brisque", "ddbnet", "dfss", "flip", "fpr", "fsim", "haarpsi", "jspl"),
    *("lpips-squeeze", "mini-fr", "mini-nr", "mini-underwater", "monotonic-strict", "radn", "ssim"),
)
_SLOW = (
    *("biqa4k", "iqt", "maniqa", "uranker"),
    *("aesop", "gradient-variance", "hsluv", "ilniqe", "ldl", "mini-stereo", "stereo-matching", "stereo-srqa"),
)
AROUND = {"perceptloss.networks.each_view", "perceptloss.networks.tiles"}  # what calls critics
COMPILED = (*_QUICK, *_SLOW)
RECURRENT = ("fpr",)  # torch does not trace a GRU


@pytest.mark.parametrize(
    "critic", [*_QUICK, *(pytest.param(name, marks=pytest.mark.thorough) for name in _SLOW)], indirect=True
)
def test_compiles(critic):
    torch._dynamo.reset()
    x, y = images(critic, 1)
    graphs = []

    def kept(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(critic.score, backend=kept)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    score, expected = compiled(ours, y if critic.card.needs_reference else None), judge(critic, theirs, y)
    assert len(graphs) == 1 or critic.card.name in RECURRENT, torch._dynamo.utils.counters["graph_break"]
    equal(score, expected, 1e-6)
    score.sum().backward()
    expected.sum().backward()
    scale = theirs.grad.abs().max().item()
    assert math.isfinite(scale)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * scale)


def used(module: str, found: set[str]) -> set[str]:
    """The module, and what of our own its functions and classes come from, all the way down."""
    if module not in found:
        found.add(module)
        for value in list(vars(sys.modules[module]).values()):
            origin = getattr(value, "__module__", None) or ""
            if origin.startswith("perceptloss."):
                used(origin, found)
    return found


def packages_of(room: ModuleType) -> set[str]:
    return {part.name for part in pkgutil.iter_modules(room.__path__, f"{room.__name__}.") if part.ispkg}


def test_every_part_is_compiled_somewhere():
    found: set[str] = set()
    for name in COMPILED:
        build = find_entry(name).build
        used(getattr(build, "func", build).__module__, found)
    rooms = [perceptloss.networks, *(import_module(name) for name in packages_of(perceptloss.critics))]
    parts = {part.name for room in rooms for part in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")}
    parts -= {name for name in parts if hasattr(import_module(name), "ENTRIES")}  # whole critics
    assert parts - packages_of(perceptloss.networks) - AROUND <= found, "compile a critic that uses them"
