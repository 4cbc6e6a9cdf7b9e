"""What a step of any recipe shares: the state of a run, its update, its records, its checkpoints and its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from perceptloss.errors import NonFiniteLoss
from perceptloss.output.progress import bar
from perceptloss.runs.meters import flat_numbers
from perceptloss.runs.options import Log, Train
from perceptloss.runs.state import Ema, RunLog, StopSignal, load_checkpoint, save_checkpoint

__all__ = [
    "BAD_STEPS",
    "Run",
    "averaged",
    "close",
    "is_due",
    "keep_or_stop",
    "learning_rate",
    "restore",
    "set_rate",
    "steps",
    "update",
    "write",
]

BAD_STEPS = 50  # in a row, before giving up
ASK_EVERY = 10  # steps between two agreements of several processes on stopping


class _Config(Protocol):
    @property
    def train(self) -> Train: ...
    @property
    def log(self) -> Log: ...


@dataclass(kw_only=True)
class Run:
    """State that every recipe has, and the functions of this module work on; a recipe adds its own.

    Attributes:
        config: Of the recipe.
        folder: Of the run.
        accelerator: Of the run.
        optimizer: Prepared; a group's `pace` is its learning rate in units of the run's.
        ema: Averages of the weights.
        loss: Whose counters and parameters go into checkpoints.
        log: The file of records; None but on the main process, and before `steps`.
        bar: The bar of progress; None before `steps`.
        step: Steps done, or the one that is on.
        skipped: Steps whose gradient was not finite.
        skipped_in_a_row: Those up to now.
        best: Figure of the weights that are kept as the best.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("step", "skipped", "skipped_in_a_row", "best")

    config: _Config
    folder: Path
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    loss: nn.Module | None
    log: RunLog | None = None
    bar: Any = None
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None

    @property
    def progress(self) -> dict[str, Any]:
        """The plain values that a checkpoint keeps."""
        return {key: getattr(self, key) for key in self.KEPT}


def restore(run: Run, point: Path | None) -> None:
    """Go on from a checkpoint, if there is one."""
    if point is not None:
        load_checkpoint(run.accelerator, point, run.ema, run.loss)
        run.accelerator.print(f"going on from {point}: step {run.step} of {run.config.train.steps}")


def steps(run: Run, name: str) -> Iterator[int]:
    """The steps that are left, counted in `run.step` and shown as a bar; opens the log."""
    last, accelerator = run.config.train.steps, run.accelerator
    if accelerator.is_main_process:
        run.log = RunLog(run.folder / "log.jsonl", through=run.step)
    with bar(name, last, show=accelerator.is_local_main_process, done=run.step) as run.bar:
        for run.step in range(run.step + 1, last + 1):  # noqa: B020
            yield run.step
            run.bar.update()


def is_due(run: Run, every: int) -> bool:
    """Whether it is the turn of what is done every so many steps, and at the end."""
    return run.step % every == 0 or run.step == run.config.train.steps


def learning_rate(train: Train, step: int) -> float:
    """Linear warm-up, then half a cosine; steps count from 1, so that there is no scheduler to restore."""
    if step <= train.warmup:
        return train.lr * step / train.warmup
    progress = (step - train.warmup) / (train.steps - train.warmup)
    return train.lr_end + (train.lr - train.lr_end) * (1 + math.cos(math.pi * progress)) / 2


def set_rate(run: Run) -> None:
    """The learning rate of this step."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.config.train, run.step) * group.get("pace", 1.0)


def update(run: Run, parameters: Iterable[nn.Parameter], patience: int = BAD_STEPS) -> float | None:
    """Clip and step, unless the gradient is not finite; returns its norm, which DeepSpeed may keep to itself.

    Raises:
        NonFiniteLoss: after as many bad gradients in a row as the patience; a scaler of fp16 gets `BAD_STEPS`.
    """
    accelerator = run.accelerator
    norm = accelerator.clip_grad_norm_(parameters, run.config.train.clip or math.inf)
    norm = None if norm is None else float(norm)
    is_finite = norm is None or math.isfinite(norm)
    has_scaler = accelerator.scaler is not None  # it skips such steps itself and lowers its scale
    if is_finite or has_scaler:
        run.optimizer.step()
    is_skipped = not is_finite or accelerator.optimizer_step_was_skipped
    run.skipped += is_skipped
    run.skipped_in_a_row = run.skipped_in_a_row + 1 if is_skipped else 0
    if run.skipped_in_a_row >= (BAD_STEPS if has_scaler else patience):
        raise NonFiniteLoss(
            f"step {run.step}: the gradient is not finite, {run.skipped_in_a_row} in a row. "
            "Lower train.lr or the weights of the loss."
        )
    if run.ema is not None and not is_skipped:
        run.ema.update(run.step)
    return norm


def write(run: Run, kind: str, record: dict[str, Any]) -> None:
    """One record to log.jsonl and, flattened, to the trackers; its loss to the bar."""
    if run.log is not None:
        run.log.write({"kind": kind, "step": run.step, **record})
    if run.bar is not None and "loss" in record:
        run.bar.set_postfix(loss=record["loss"], refresh=False)
    run.accelerator.log(flat_numbers(record, f"{kind}/"), step=run.step)


def keep_or_stop(run: Run, stop: StopSignal) -> None:
    """Write a checkpoint where one is due, or where a process was told to stop.

    Raises:
        SystemExit: after it, if one was told to.
    """
    is_asked = run.accelerator.num_processes == 1 or run.step % ASK_EVERY == 0
    told = stop.agreed(run.accelerator) if is_asked else 0
    if told or is_due(run, run.config.log.checkpoint_every):
        kept = run.config.log.keep
        save_checkpoint(run.accelerator, run.folder / "checkpoints", run.progress, run.ema, run.loss, kept)
    if told:
        raise SystemExit(128 + told)


def averaged(run: Run) -> AbstractContextManager[None]:
    """The weights are their averages inside this context, where there are any."""
    return nullcontext() if run.ema is None else run.ema.swapped_in()


def close(run: Run) -> None:
    """The trackers have everything."""
    for tracker in run.accelerator.trackers:
        tracker.finish()
