"""The figures the project promises, checked: counts are measured here, seconds come from the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.cases import FIVE, THREE, images, ours
from benchmarks.flops import count, least
from benchmarks.memory import Loss, footprint
from benchmarks.peers import PEERS, offline
from benchmarks.table import MIB, Row, size_text
from perceptloss.critics.lpips import LPIPS
from perceptloss.networks.trunks.plain import PlainTrunk
from perceptloss.registry import create_critic

__all__ = ["Check", "count_checks", "flop_checks", "held_checks", "peak_checks", "peer_checks", "time_checks"]

Size = tuple[int, int, int]
_TIMED = (4, 192, 192)


@dataclass(frozen=True)
class Check:
    """One promised figure.

    Attributes:
        what: The promise.
        passed: Whether it is kept.
        measured: The figure, with its unit.
        required: The bound.
    """

    what: str
    passed: bool
    measured: str
    required: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.what}: {self.measured} ({self.required})"


def _held(loss: Loss, size: Size, device: torch.device) -> int:
    return footprint(loss, *images(size, device)).held


def held_checks(size: Size, device: torch.device) -> Iterator[Check]:
    """Fused keeps one tensor of the size of x between forward and backward, for one term and for five."""
    nbytes = images(size)[0].nbytes
    for names in (("lpips-vgg",), FIVE):
        held = _held(ours(names, device, micro_batch=1), size, device)
        what = f"held by fused, {len(names)} term{'s' * (len(names) > 1)}, {size_text(size)}"
        yield Check(what, held <= 1.05 * nbytes, f"{held / nbytes:.4f} x", "at most 1.05 x the bytes of x")


def peer_checks(size: Size, device: torch.device) -> Iterator[Check]:
    """The counter sees what the peers hold."""
    for name in ("lpips", "DISTS-pytorch"):
        with offline():
            peer = PEERS[name](device)
        held = _held(peer, size, device) / MIB
        yield Check(f"held by {name}, {size_text(size)}", 340 <= held <= 380, f"{held:.1f} MiB", "340 to 380 MiB")


def flop_checks(size: Size, device: torch.device) -> Iterator[Check]:
    """No mode does more convolutions than forward(x) + forward(y) + gradient(x), shared by all terms of a trunk."""
    critic = create_critic("lpips-vgg", weights=None)
    assert isinstance(critic, LPIPS) and isinstance(critic.trunk, PlainTrunk)
    bound = least(critic.trunk, torch.Size((size[0], 3, *size[1:])))
    x, y = images(size, device)
    for names in (("lpips-vgg",), THREE):
        for mode, options in (("autograd", {"grad": "autograd"}), ("fused", {"micro_batch": 1})):
            got = count(ours(names, device, **options), x, y)
            text = f"{got.convolutions / 1e9:.1f} GFLOP (+{100 * (got.total / bound - 1):.1f}% outside the trunk)"
            what = f"convolutions of {mode}, {len(names)} term{'s' * (len(names) > 1)}, {size_text(size)}"
            yield Check(what, got.convolutions == bound, text, f"exactly {bound / 1e9:.1f}")
    got = count(ours(("lpips-vgg",), device, grad="checkpoint"), x, y)
    what = f"convolutions of checkpoint, {size_text(size)}"
    yield Check(what, got.convolutions <= bound * 4 // 3, f"{got.convolutions / bound:.3f} x", "at most 4/3 x fused")


def peak_checks(size: Size, device: torch.device) -> Iterator[Check]:
    """Fused with micro_batch=1 needs the memory of one image, whatever the batch."""
    one = ours(("lpips-vgg",), device, micro_batch=1)
    alone, batch = (footprint(one, *images((n, *size[1:]), device)).peak for n in (1, size[0]))
    image = images((1, *size[1:]))[0].nbytes
    growth = (batch - alone) / ((size[0] - 1) * image)
    what = f"peak of fused, one at a time, from 1 to {size[0]} images"
    required = "at most the bytes of x per image added"
    yield Check(what, growth <= 1.05, f"{growth:.2f} x ({alone / MIB:.1f} to {batch / MIB:.1f} MiB)", required)
    for lean, bound in ((False, 30), (True, 20)):
        peak = footprint(ours(THREE, device, micro_batch=1, lean=lean), *images(size, device)).peak / MIB
        what = f"peak of three VGG16 terms, {'lean, ' if lean else ''}one at a time, {size_text(size)}"
        yield Check(what, peak <= bound, f"{peak:.1f} MiB", f"at most {bound} MiB")


def count_checks(device: torch.device) -> Iterator[Check]:
    """All promises that are counts, at the sizes for which they were made."""
    yield from held_checks(_TIMED, device)
    yield from peer_checks(_TIMED, device)
    yield from flop_checks(_TIMED, device)
    yield from peak_checks((4, 96, 96), device)


def time_checks(rows: Sequence[Row]) -> Iterator[Check]:
    """Promised ratios of seconds, for those rows that were measured; they depend on the machine."""
    found = {(row.case, row.label): row for row in rows if row.size == _TIMED}
    for label, bound in (("fused", 0.75), ("fused bf16", 0.45)):
        row = found.get(("lpips-vgg", label))
        if row is not None:
            what = f"seconds of lpips-vgg, {label}, {size_text(_TIMED)}"
            yield Check(
                what,
                row.ratio <= bound,
                f"{row.ratio:.2f} x (CPU seconds {row.cpu_ratio:.2f} x)",
                f"at most {bound} x the lpips package",
            )
    three, one = found.get(("three-terms", "fused")), found.get(("three-terms", "fused, lpips-vgg alone"))
    if three is not None and one is not None:
        ratio, cpu = three.ratio / one.ratio, three.cpu_ratio / one.cpu_ratio
        what = f"seconds of three terms on one trunk, {size_text(_TIMED)}"
        yield Check(what, ratio <= 1.3, f"{ratio:.2f} x (CPU seconds {cpu:.2f} x)", "at most 1.3 x one")
