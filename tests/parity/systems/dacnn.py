"""DACNN: the maps of its two trunks, their blocks of several scales, and the gates between them."""

from __future__ import annotations

from torch import Tensor, nn

from ..case import Row
from ..run import Run, System

_TAPS = {2: "block2", 3: "block4", 4: "block10", 5: "head"}
_TRUNKS = {"s": "synthetic", "a": "authentic"}


def _level(run: Run, row: Row, trunk: str, level: str) -> Tensor:
    return run.tap(row, f"{_TRUNKS[trunk]}.{_TAPS[int(level)]}")


def _linear(run: Run, row: Row, number: str) -> Tensor:
    """One of the linear layers of the head, counted from 1."""
    layers = [layer for layer in run.critic.head if isinstance(layer, nn.Linear)]
    h = run.critic.vector(run.taps(run.pair(row.input)[0]))
    for layer in run.critic.head:
        h = layer(h)
        if layer is layers[int(number) - 1]:
            break
    return h


def _part(name: str, number: str) -> str:
    return f"{name}.{int(number) - 1}"


SYSTEM = System(
    "dacnn",
    readers={r"([sa])da_level([2-5])": _level, r"fc([1-3])": _linear},
    parts={
        **{f"msfb1{n}": _part("authentic", str(n)) for n in range(1, 5)},
        **{f"msfb2{n}": _part("synthetic", str(n)) for n in range(1, 5)},
        **{f"wgb{n}": _part("gates", str(n)) for n in range(1, 5)},
        **{f"msfb_{n}": _part("fused", str(n)) for n in range(1, 5)},
    },
)
