"""The figures the project promises, checked: counts are measured here, seconds come from the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.cases import FIVE, THREE, images, ours, size_text
from benchmarks.costs import Row
from benchmarks.flops import count, least
from benchmarks.memory import MIB, footprint
from benchmarks.peers import PEERS, offline
from perceptloss.critics.lpips import LPIPS
from perceptloss.networks.trunks.plain import PlainTrunk
from perceptloss.output.tables import counted
from perceptloss.registry import create_critic

__all__ = ["Check", "count_checks", "peak_checks", "tile_check", "time_checks"]

_TIMED = (4, 192, 192)
_AT = size_text(_TIMED)


@dataclass(frozen=True)
class Check:
    """A promise, whether it is kept, the figure with its unit, and its bound."""

    what: str
    passed: bool
    measured: str
    required: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.what}: {self.measured} ({self.required})"


def peak_checks(size: tuple[int, int, int], device: torch.device) -> Iterator[Check]:
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


def tile_check(device: torch.device) -> Check:
    """With tiles, what grows with the image is the gradient, not what a critic needs."""
    loss = ours(("haarpsi", "ssim-full"), device, tile=128)
    few, many = (1, 128, 256), (1, 256, 512)
    growth = footprint(loss, *images(many, device)).peak - footprint(loss, *images(few, device)).peak
    added = growth / (images(many)[0].nbytes - images(few)[0].nbytes)
    what = f"peak of tiles of 128, from {size_text(few)} to {size_text(many)}"
    return Check(what, added <= 1.5, f"{added:.2f} x", "at most 1.5 x the bytes of x added")


def count_checks(device: torch.device) -> Iterator[Check]:
    """All promises that are counts, at the sizes for which they were made."""
    x, y = images(_TIMED, device)
    terms: tuple[str, ...]
    for terms in (("lpips-vgg",), FIVE):
        held = footprint(ours(terms, device, micro_batch=1), x, y).held / x.nbytes
        yield Check(f"held by fused, {_of(terms)}", held <= 1.05, f"{held:.4f} x", "at most 1.05 x the bytes of x")
    for name in ("lpips", "DISTS-pytorch"):  # whether the counter sees what the peers hold
        with offline():
            peer = PEERS[name](device)
        held = footprint(peer, x, y).held / MIB
        yield Check(f"held by {name}, {_AT}", 340 <= held <= 380, f"{held:.1f} MiB", "340 to 380 MiB")
    # no mode does more convolutions than forward(x) + forward(y) + gradient(x), shared by all terms of a trunk
    critic = create_critic("lpips-vgg", weights=None)
    assert isinstance(critic, LPIPS) and isinstance(critic.trunk, PlainTrunk)
    bound = least(critic.trunk, x.shape)
    for terms in (("lpips-vgg",), THREE):
        for mode, options in (("autograd", {"grad": "autograd"}), ("fused", {"micro_batch": 1})):
            got = count(ours(terms, device, **options), x, y)
            text = f"{got.convolutions / 1e9:.1f} GFLOP (+{100 * (got.total / bound - 1):.1f}% outside the trunk)"
            what = f"convolutions of {mode}, {_of(terms)}"
            yield Check(what, got.convolutions == bound, text, f"exactly {bound / 1e9:.1f}")
    share = count(ours(("lpips-vgg",), device, grad="checkpoint"), x, y).convolutions / bound
    yield Check(f"convolutions of checkpoint, {_AT}", share <= 4 / 3, f"{share:.3f} x", "at most 4/3 x fused")
    yield from peak_checks((4, 96, 96), device)
    yield tile_check(device)


def _of(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'term')}, {_AT}"


def time_checks(rows: Sequence[Row]) -> Iterator[Check]:
    """Promised ratios of seconds, for those rows that were measured; they depend on the machine."""
    found = {(row.case, row.label): row.timing for row in rows if row.size == _TIMED}
    for label, bound in (("fused", 0.75), ("fused bf16", 0.45)):
        if time := found.get(("lpips-vgg", label)):
            measured = f"{time.ratio:.2f} x (CPU seconds {time.cpu_ratio:.2f} x)"
            required = f"at most {bound} x the lpips package"
            yield Check(f"seconds of lpips-vgg, {label}, {_AT}", time.ratio <= bound, measured, required)
    three, one = found.get(("three-terms", "fused")), found.get(("three-terms", "fused, lpips-vgg alone"))
    if three and one:
        ratio, cpu = three.ratio / one.ratio, three.cpu_ratio / one.cpu_ratio
        measured = f"{ratio:.2f} x (CPU seconds {cpu:.2f} x)"
        yield Check(f"seconds of three terms on one trunk, {_AT}", ratio <= 1.3, measured, "at most 1.3 x one")
