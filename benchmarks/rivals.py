"""Our critics beside those of whatever other package is installed: seconds, held and peak bytes of a training step.

Libraries are called as in a training loop, with their own defaults: definitions differ (luma or channels, windows,
sizes shrunk first), and so does the work. A row that could not be run says why. Networks are built offline with random
weights, see `benchmarks.peers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from benchmarks.cases import images, ours
from benchmarks.lines import lines
from benchmarks.memory import MIB, Loss, footprint
from benchmarks.peers import PEERS, offline
from benchmarks.timing import interleaved

__all__ = ["LIBRARIES", "RIVALS", "RivalRow", "add", "installed", "lost", "measure", "render"]

Build = Callable[[torch.device], Loss]
T = TypeVar("T")
LIBRARIES: Final = (
    "piq",
    "piqa",
    "torchmetrics",
    "kornia",
    "frame_analytics",
    "pyiqa",
    "sensecraft",
    "fused_ssim",
    "fussim",
    "lpips",
    "DISTS_pytorch",
)


def _function(module: str, name: str, **options: Any) -> Build:
    """The mean of a function of a module."""

    def build(device: torch.device) -> Loss:
        function = getattr(__import__(module, fromlist=["_"]), name)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            found = function(x, y, **options)
            found = found[0] if isinstance(found, tuple) else found
            return found.mean()

        return loss

    return build


def _module(module: str, name: str, *arguments: Any, **options: Any) -> Build:
    """The mean of what an instance gives."""

    def build(device: torch.device) -> Loss:
        made = getattr(__import__(module, fromlist=["_"]), name)(*arguments, **options).to(device)
        return lambda x, y: made(x, y).mean()

    return build


def _pyiqa(name: str) -> Build:
    def build(device: torch.device) -> Loss:
        import pyiqa

        made = pyiqa.create_metric(name, as_loss=True, device=device)
        return lambda x, y: made(x, y).mean()

    return build


def _row(piq: str = "", piqa: str = "", frame: str = "", pyiqa: str = "", /, **more: Build) -> dict[str, Build]:
    """Builders by package from the names that a critic has there."""
    found: dict[str, Build] = {}
    if piq:
        found["piq"] = _function("piq", piq, data_range=1.0)
    if piqa:
        found["piqa"] = _module("piqa", piqa)
    if frame:
        found["frame_analytics"] = _function("frame_analytics", frame)
    if pyiqa:
        found["pyiqa"] = _pyiqa(pyiqa)
    return found | more


_TORCHMETRICS = "torchmetrics.functional.image"
RIVALS: Final[Mapping[str, Mapping[str, Build]]] = {
    "ssim-full": _row(
        *("ssim", "SSIM", "ssim", "ssimc"),
        torchmetrics=_function(_TORCHMETRICS, "structural_similarity_index_measure", data_range=1.0),
        kornia=_module("kornia.losses", "SSIMLoss", 11),
        sensecraft=_module("sensecraft.loss", "SSIMLoss", 1.0),
        fused_ssim=_function("fused_ssim", "fused_ssim"),
        fussim=_function("fussim", "fused_ssim"),
    ),
    "ms-ssim": _row(
        *("multi_scale_ssim", "MS_SSIM", "ms_ssim", "ms_ssim"),
        torchmetrics=_function(_TORCHMETRICS, "multiscale_structural_similarity_index_measure", data_range=1.0),
        kornia=_module("kornia.losses", "MS_SSIMLoss"),
        sensecraft=_module("sensecraft.loss", "MSSSIMLoss", 1.0),
    ),
    "gmsd": _row("gmsd", "GMSD", "gmsd", "gmsd"),
    "ms-gmsd": _row("multi_scale_gmsd", "MS_GMSD", "ms_gmsd"),
    "mdsi": _row("mdsi", "MDSI", "mdsi"),
    "haarpsi": _row("haarpsi", "HaarPSI", "haarpsi"),
    "vsi": _row("vsi", "VSI", "vsi", "vsi"),
    "fsimc": _row("fsim", "FSIM", "fsimc", "fsim"),
    "vif": _row("vif_p", "", "vifp", "vif", torchmetrics=_function(_TORCHMETRICS, "visual_information_fidelity")),
    "dss": _row("dss", "", "dss"),
    "sr-sim": _row("srsim", "", "srsim"),
    "iw-ssim": _row("information_weighted_ssim", "", "iw_ssim"),
    "nlpd": _row("", "", "nlpd", "nlpd"),
    "ssimulacra2": _row("", "", "ssimulacra2"),
    "cw-ssim": _row("", "", "", "cw_ssim"),
    "mad": _row("", "", "", "mad"),
    "lpips-alex": _row("", "", "lpips", "lpips", lpips=PEERS["lpips alex"]),
    "lpips-vgg": _row("", "", "", "lpips-vgg", lpips=PEERS["lpips"], piq=PEERS["piq LPIPS"]),
    "dists": _row("", "", "", "dists", DISTS_pytorch=PEERS["DISTS-pytorch"], piq=PEERS["piq DISTS"]),
}
"""Critic to package to what builds its loss; the libraries' names are those of their modules."""


@dataclass(frozen=True)
class RivalRow:
    """A training step of a critic by one package.

    Attributes:
        critic: Our name of it.
        package: Module, or `perceptloss`.
        seconds: Median of a forward and backward.
        ratio: Of its seconds by ours, taken in turns.
        held: Bytes between forward and backward.
        peak: Most bytes at any time.
        problem: Why there are no figures, if there are none.
    """

    critic: str
    package: str
    seconds: float = 0.0
    ratio: float = 0.0
    held: int = 0
    peak: int = 0
    problem: str = ""


def installed() -> list[str]:
    """Libraries that can be imported here."""
    return [name for name in LIBRARIES if find_spec(name) is not None]


def measure(names: Iterable[str], size: tuple[int, int, int], device: torch.device, repeat: int) -> Iterator[RivalRow]:
    """Rows of every critic, ours first."""
    here = installed()
    x, y = images(size, device)
    for name in names:
        losses: dict[str, Loss] = {"perceptloss": ours((name,), device)}
        problems: dict[str, str] = {}
        for package, build in RIVALS[name].items():
            if package in here:
                add(package, build, device, x, y, losses, problems)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = interleaved(losses, x, y, repeat)
            for package, loss in losses.items():
                memory, timing = footprint(loss, x, y), times[package]
                yield RivalRow(name, package, timing.seconds, timing.ratio, memory.held, memory.peak)
        for package, problem in problems.items():
            yield RivalRow(name, package, problem=problem)


def add(
    package: T,
    build: Build,
    device: torch.device,
    x: Tensor,
    y: Tensor,
    losses: dict[T, Loss],
    problems: dict[T, str],
) -> None:
    """Build a loss and try it once: libraries fail in their own ways, which a row tells."""
    try:
        with offline():
            loss = build(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(leaf, y), leaf)
        if not torch.isfinite(gradient).all():
            problems[package] = "its gradient is not finite"
            return
    except Exception as error:
        problems[package] = f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"
        return
    losses[package] = loss


def render(rows: Iterable[RivalRow]) -> Iterator[str]:
    """Lines of a table, as rows come."""
    head = ["critic", "package", "ms", "of ours", "held MiB", "peak MiB"]

    def cells(row: RivalRow) -> list[str]:
        if row.problem:
            return [row.critic, row.package, "-", "-", "-", row.problem]
        figures = (row.seconds * 1e3, row.ratio, row.held / MIB, row.peak / MIB)
        return [row.critic, row.package, *(f"{figure:.2f}" for figure in figures)]

    yield from lines(head, map(cells, rows), (14, 16))


def lost(rows: Iterable[RivalRow]) -> list[str]:
    """Where another package is faster, holds less or peaks lower, by more than a twentieth; a sentence each."""
    found = list(rows)
    mine = {row.critic: row for row in found if row.package == "perceptloss"}
    said = []
    for row in found:
        we = mine.get(row.critic)
        if row is we or we is None or row.problem:
            continue
        worse = [f"is {1 / row.ratio:.2f} times as fast"] if row.ratio < 0.95 else []
        for what, theirs, own in (("holds", row.held, we.held), ("peaks at", row.peak, we.peak)):
            if theirs < 0.95 * own:
                worse.append(f"{what} {theirs / MIB:.1f} MiB instead of {own / MIB:.1f}")
        if worse:
            said.append(f"{row.critic}: {row.package} {', '.join(worse)}")
    return said
