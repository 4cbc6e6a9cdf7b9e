"""What a step cost and what its losses were, averaged over micro-steps and processes."""

from __future__ import annotations

import math
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from perceptloss import CriticLoss
from perceptloss.output.versions import versions

__all__ = ["Clock", "Meter", "flat_numbers", "peak_memory_mb", "run_facts"]

_COLUMNS = ("score", "loss", "weight", "weighted", "share")


class Clock:
    """Time of steps, without what happens between them."""

    def __init__(self) -> None:
        self._since, self.steps = time.perf_counter(), 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count as time of steps."""
        before = time.perf_counter()
        yield
        self._since += time.perf_counter() - before

    def seconds_per_step(self) -> float:
        """Since the last call; starts again."""
        seconds = (time.perf_counter() - self._since) / self.steps
        self._since, self.steps = time.perf_counter(), 0
        return seconds


class Meter(Clock):
    """Collects one optimizer step; waits for the device only in steps that are logged.

    Attributes:
        grad_norm: Of the network.
        learned: What `CriticLoss.learn` gave: losses of joint critics.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self.accelerator = accelerator
        self.grad_norm: float | None = None
        self.learned: dict[str, dict[str, float]] = {}
        self._losses: list[Tensor] = []
        self._reports: list[dict[str, dict[str, Any]]] = []
        self._is_logged = False

    def start(self, *, is_logged: bool) -> None:
        """Begin a step."""
        self._losses, self._reports, self._is_logged, self.learned = [], [], is_logged, {}
        self.steps += 1

    def add(self, loss: Tensor, pixel: Tensor, critics: CriticLoss | None) -> None:
        """Note one forward and backward."""
        if self._is_logged:
            self._losses.append(torch.stack([loss.detach(), pixel.detach()]))
            self._reports.append(critics.report if critics is not None else {})

    def summary(self) -> dict[str, Any]:
        """The step as plain values, the same on all processes; call on all of them, and resets the clock."""
        loss, pixel = self._mean(torch.stack(self._losses).mean(0)).tolist()
        return {
            "loss": loss,
            "pixel": pixel,
            "terms": self._terms(),
            **({"joint": self._joint()} if self.learned else {}),
            "grad_norm": self.grad_norm,
            "seconds_per_step": self.seconds_per_step(),
            "peak_memory_mb": peak_memory_mb(),
        }

    def _terms(self) -> dict[str, dict[str, Any]]:
        labels = list(self._reports[0])
        if not labels:
            return {}
        rows = [[[report[label][c] for c in _COLUMNS] for label in labels] for report in self._reports]
        cells = [[[math.nan if cell is None else cell for cell in row] for row in report] for report in rows]
        means = self._mean(torch.tensor(cells, device=self.accelerator.device).mean(0)).tolist()
        counts = torch.tensor([self._reports[-1][label]["skipped"] for label in labels], device=self.accelerator.device)
        skipped = self.accelerator.reduce(counts, "sum").tolist()
        named = [dict(zip(_COLUMNS, row, strict=True)) for row in means]
        return {label: {**row, "skipped": n} for label, row, n in zip(labels, named, skipped, strict=True)}

    def _joint(self) -> dict[str, dict[str, float]]:
        """Means over the processes that have a part: a labelled set may bring one of them no label in a step."""
        everywhere = gather_object([self.learned])
        parts = {label: dict.fromkeys(part for found in everywhere for part in found[label]) for label in self.learned}
        return {
            label: {part: fmean(found[label][part] for found in everywhere if part in found[label]) for part in named}
            for label, named in parts.items()
        }

    def _mean(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, "mean")


def peak_memory_mb() -> float:
    """Largest memory so far, MiB: allocated on the GPU, or resident in this process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def flat_numbers(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a nested record under names such as `train/terms/ssim/score`."""
    flat: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= flat_numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            flat[prefix + key] = value
    return flat


def run_facts(accelerator: Accelerator) -> dict[str, Any]:
    """On what a run ran."""
    is_gpu, cpu = accelerator.device.type == "cuda", f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        **versions("torch", "accelerate"),
        "device": torch.cuda.get_device_name() if is_gpu else cpu,
        "num_processes": accelerator.num_processes,
        "distributed_type": accelerator.distributed_type.value,
        "mixed_precision": accelerator.mixed_precision,
    }
