"""Starting a run: the process group, the threads, and the right to write to a folder."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    broadcast_object_list,
)

from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.output.files import unwritable, write_atomically
from perceptloss.output.locks import give_back, hold
from perceptloss.output.names import visible
from perceptloss.runs import config as options
from perceptloss.runs.options import RunOptions, Train
from perceptloss.runs.state import checkpoints
from perceptloss.runs.whole import damage

__all__ = [
    "alone_in_folder",
    "claim",
    "make_accelerator",
    "on_main",
    "resume_point",
    "run_as_script",
    "sharding_problems",
    "unwritable_run",
    "use_threads",
]

T = TypeVar("T")
_FILES = ("config.yaml", "results.json", "results.md", "picture.png", "report.html", "log.jsonl", "data.json")
_FOLDERS = ("checkpoints", "models", "images", "scores", "trackers", "l1")
_OF_THE_START = ("output", "resume", "overwrite")
_FREE_TO_CHANGE = (*_OF_THE_START, "threads", "data.workers", "data.cache_mb", "data.check", "log.")
_log = logging.getLogger("perceptloss.runs")


def make_accelerator(
    config: RunOptions, folder: Path, accumulate: int, trackers: Sequence[str], *, rests: bool = False
) -> Accelerator:
    """An Accelerator for one training; processes and devices are what the launcher said.

    Args:
        config: Of the run.
        folder: Of the training.
        accumulate: Backwards per step.
        trackers: Their names.
        rests: Whether parts of the network have no gradient in some steps, for which processes must look.
    """
    accelerator = Accelerator(
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)] if rests else None,
        mixed_precision=config.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulate, sync_with_dataloader=False),
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "trackers")),
        step_scheduler_with_optimizer=False,
    )
    if trackers:  # nested values are refused by some trackers
        flat = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in options.flatten(config).items()}
        accelerator.init_trackers("perceptloss", config=flat)
    return accelerator


def use_threads(wanted: int, accelerator: Accelerator) -> None:
    """Set the threads of a CPU process; 0 shares the cores out."""
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(wanted or max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def sharding_problems(accelerator: Accelerator, train: Train, *, has_baseline: bool) -> list[str]:
    """What DeepSpeed and FSDP cannot do here."""
    problems: list[str] = []
    kind = accelerator.distributed_type
    is_sharded = kind in (DistributedType.DEEPSPEED, DistributedType.FSDP)
    if is_sharded and has_baseline:
        problems.append(f"baseline: not with {kind.value}; train it as a run of its own with --loss.critics '{{}}'")
    if is_sharded and train.optimizer == "muon":
        problems.append(f"train.optimizer: muon needs whole matrices, and {kind.value} keeps parts of them; use adamw")
    if kind == DistributedType.DEEPSPEED and train.ema > 0 and accelerator.state.deepspeed_plugin.zero_stage == 3:
        problems.append("train.ema: ZeRO stage 3 scatters the parameters; use stage 1 or 2, FSDP, or --train.ema 0")
    return problems


def claim(config: RunOptions, folder: Path, free: Sequence[str] = ()) -> bool:
    """Save the configuration in the folder; True if a run with it has finished there already. Main process only.

    `free` are prefixes of options that may change between the parts of a run, besides those of every recipe.

    Raises:
        ConfigError: if another run is there, at work or not, or checkpoints that `resume=none` would ignore, or if
            something in the folder could not be written.
    """
    if locked := unwritable_run(folder):
        raise ConfigError(locked, "output")
    folder.mkdir(parents=True, exist_ok=True)
    if not hold(folder):
        problem = "another run is at work there: wait for its end, stop it, or give another --output"
        raise ConfigError([problem], str(folder))
    if config.overwrite:
        _clear(folder)
    saved, is_finished = folder / "config.yaml", (folder / "results.json").exists()
    if is_finished or any(checkpoints(home / "checkpoints") for home in (folder, folder / "l1")):
        before = options.from_mapping(type(config), options.read_yaml(saved), str(saved))
        if changed := options.differences(before, config, (*_FREE_TO_CHANGE, *free)):
            hint = "give another --output, or --overwrite to replace that run"
            raise ConfigError([*changed, hint], f"{folder}, which holds a run with other options")
        if (free_to := options.differences(before, config, _OF_THE_START)) and not is_finished:
            _log.warning("%s goes on with other options: %s", folder, ", ".join(free_to))
        if config.resume == "none" and not is_finished:
            raise ConfigError(
                ["it holds checkpoints; drop --resume none to go on, or add --overwrite to start again"], str(folder)
            )
    write_atomically(saved, options.dump(config))
    return is_finished


def unwritable_run(folder: Path) -> list[str]:
    """Why the files of a run could not be put in a folder; nothing in it changes."""
    whys = {folder: unwritable(folder, is_folder=True)}
    if not whys[folder]:
        whys |= {folder / name: unwritable(folder / name) for name in _FILES}
        whys |= {folder / name: unwritable(folder / name, is_folder=True) for name in _FOLDERS}
    return [f"{path} {why}" for path, why in whys.items() if why]


def _clear(folder: Path) -> None:
    """Delete a run, and nothing else: the folder may be anything, and links may lead anywhere.

    Raises:
        ConfigError: if there are folders that a run would have, but no run.
    """
    *others, record = [folder / name for name in (*_FOLDERS, *reversed(_FILES))]  # the last tells a run from others
    there = [path for path in others if path.is_dir() and not path.is_symlink()]
    if there and not record.exists():
        names = ", ".join(path.name for path in there)
        problem = f"it holds {names}, but no {record.name} of a run, so nothing was deleted; give another --output"
        raise ConfigError([problem], str(folder))
    for path in (*others, record):
        if path.is_symlink():
            _log.warning("%s was a link to %s, which stays as it is", path, path.readlink())
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def alone_in_folder(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """A recipe's `main` that gives the folder which `claim` took back at its end."""

    @wraps(main)
    def held(argv: Sequence[str]) -> None:
        try:
            main(argv)
        finally:
            give_back()

    return held


def run_as_script(main: Callable[[Sequence[str]], None], config: type[Any], doc: str) -> NoReturn:
    """Run a recipe with the command line; `--help` and errors on purpose end without a traceback."""
    try:
        main(sys.argv[1:])
    except options.HelpRequested:
        sys.stdout.write(options.help_text(config, doc) + "\n")
    except PerceptlossError as error:
        is_first = os.environ.get("RANK", "0") == "0"
        if is_first or not isinstance(error, ConfigError):  # which all processes find
            sys.stderr.write(visible(str(error), keep="\n") + "\n")
        sys.exit(2)
    sys.exit(0)


def resume_point(folder: Path, resume: str) -> Path | None:
    """The checkpoint to go on from: the newest whole one of the folder, else the one that `resume` names.

    Raises:
        ConfigError: naming them, if all are damaged.
    """
    own = checkpoints(folder / "checkpoints")
    problems = []
    for path in reversed(own or ([] if resume in ("auto", "none") else [Path(resume)])):
        if not (why := damage(path)):
            return path
        problems.append(f"{path} is damaged: {why}")
        if len(own) > len(problems) and os.environ.get("RANK", "0") == "0":
            _log.warning("%s; going on from the one before", problems[-1])
    if problems:
        raise ConfigError(
            [*problems, "start again with --overwrite, or from another checkpoint with --resume"], "resume"
        )
    return None


def on_main(accelerator: Accelerator, act: Callable[[], T]) -> T:
    """Run on the main process; its result, or its error, on all."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = act()
        except PerceptlossError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
