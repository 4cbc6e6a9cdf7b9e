"""Several processes that a launcher started: each has its share of the images, and all know all scores in the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from torch import distributed

from perceptloss.compare.jobs import file_jobs
from perceptloss.compare.panel import Scorer
from perceptloss.compare.plan import Plan
from perceptloss.compare.provenance import describe_inputs
from perceptloss.compare.scoring import Progress, Slot, score_jobs
from perceptloss.compare.store import Store
from perceptloss.errors import ConfigError

__all__ = ["Launched"]

T = TypeVar("T")
_BY_ACCELERATE: Final = "ACCELERATE_MIXED_PRECISION"  # set for a single process, too
_PATIENCE: Final = timedelta(days=7)  # shares may take longer than each other


@dataclass(frozen=True)
class Launched:
    """The place of this process among those that `accelerate launch` or torchrun started.

    Attributes:
        rank: From 0, which alone prints and writes.
        count: Of processes.
        local: Rank among those of this machine: the number of its GPU.
        is_on_cpu: Whether the launcher was told so.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    is_on_cpu: bool = False

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Launched | None:
        """What the variables of a launcher say, or None where there was none."""
        if "LOCAL_RANK" not in environment and _BY_ACCELERATE not in environment:
            return None
        rank, count, local = (
            int(environment.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
        return cls(rank, count, local, environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"))

    def device(self, asked: str | None) -> str | None:
        """The device asked for; by default the own GPU, if there is one and the launcher did not say CPU."""
        if asked is not None:
            return asked
        return "cpu" if self.is_on_cpu or not torch.cuda.is_available() else f"cuda:{self.local}"

    def scores(self, plan: Plan) -> int:
        """Number of scores in the share of this process."""
        return len(range(self.rank, len(plan.images), self.count)) * len(plan.systems) * len(plan.asked)

    def score(
        self,
        plan: Plan,
        scorers: Sequence[Scorer],
        device: torch.device,
        stores: Sequence[Store],
        decoded: dict[str, str],
        report: Progress,
    ) -> dict[Slot, float]:
        """What `score_jobs` gives for the files of a plan, the same bits for any number of processes of one device.

        Args:
            plan: What all of them planned.
            scorers: The critics.
            device: Of this process.
            stores: As of `score_jobs`; each process has files of its own.
            decoded: Gets the sha256 of what any of them read, by the path of the file.
            report: Called with the number of scores that this process just did.

        Raises:
            ConfigError: if the processes planned different things.
        """
        with self._joined():
            plans = self._told([*map(repr, plan.asked), *(str(s["sha256"]) for s in describe_inputs(plan).values())])
            if any(other != plans[0] for other in plans):
                raise ConfigError(["processes see different images or critics"], "the launched processes")
            mine = [job for job in file_jobs(plan, decoded) if job.image % self.count == self.rank]
            with _one_thread(device):
                found = score_jobs(mine, scorers, plan.settings, device, stores, report, is_apart=True)
            shares = self._told((found, decoded))
        together: dict[Slot, float] = {}
        for scores, read in shares:
            together.update(scores)
            decoded.update(read)
        return together

    def _told(self, mine: T) -> list[T]:
        """What each process says, by rank."""
        if self.count == 1:
            return [mine]
        everyone: list[Any] = [None] * self.count
        distributed.all_gather_object(everyone, mine)
        return everyone

    @contextmanager
    def _joined(self) -> Iterator[None]:
        """Connected with the others, over the CPU: what they tell each other are a few numbers."""
        if self.count == 1:
            yield
            return
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        try:
            yield
        finally:
            distributed.destroy_process_group()


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU sums of several threads would be rounded by their number."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
