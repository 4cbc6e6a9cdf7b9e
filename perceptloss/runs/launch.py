"""Starting a run: the process group, the threads, and the right to write to a folder."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin, ProjectConfiguration, broadcast_object_list

from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.output.files import unwritable, write_atomically
from perceptloss.output.names import visible
from perceptloss.runs import config as options
from perceptloss.runs.options import RunOptions
from perceptloss.runs.state import checkpoints

__all__ = [
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
_FILES = ("config.yaml", "results.json", "results.md", "picture.png", "log.jsonl")
_FOLDERS = ("checkpoints", "models", "images", "trackers", "l1")
_FREE_TO_CHANGE = ("output", "resume", "overwrite", "threads", "data.workers", "data.cache_mb", "data.check", "log.")


def make_accelerator(config: RunOptions, folder: Path, accumulate: int, trackers: Sequence[str]) -> Accelerator:
    """An Accelerator for one training; processes and devices are what the launcher said."""
    accelerator = Accelerator(
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


def sharding_problems(accelerator: Accelerator, *, has_baseline: bool, has_ema: bool) -> list[str]:
    """What DeepSpeed and FSDP cannot do here."""
    problems: list[str] = []
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.FSDP) and has_baseline:
        problems.append(f"baseline: not with {kind.value}; train it as a run of its own with --loss.critics '{{}}'")
    if kind == DistributedType.DEEPSPEED and has_ema and accelerator.state.deepspeed_plugin.zero_stage == 3:
        problems.append("train.ema: ZeRO stage 3 scatters the parameters; use stage 1 or 2, FSDP, or --train.ema 0")
    return problems


def claim(config: RunOptions, folder: Path, free: Sequence[str] = ()) -> bool:
    """Save the configuration in the folder; True if a run with it has finished there already. Main process only.

    `free` are prefixes of options that may change between the parts of a run, besides those of every recipe.

    Raises:
        ConfigError: if another run is there, or checkpoints that `resume=none` would ignore, or if something in the
            folder could not be written.
    """
    if locked := unwritable_run(folder):
        raise ConfigError(locked, "output")
    if config.overwrite:
        for name in (*_FILES, *_FOLDERS):  # nothing else: the folder may be anything
            target = folder / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    saved, is_finished = folder / "config.yaml", (folder / "results.json").exists()
    if is_finished or any(checkpoints(home / "checkpoints") for home in (folder, folder / "l1")):
        before = options.from_mapping(type(config), options.read_yaml(saved), str(saved))
        if changed := options.differences(before, config, (*_FREE_TO_CHANGE, *free)):
            hint = "give another --output, or --overwrite to replace that run"
            raise ConfigError([*changed, hint], f"{folder}, which holds a run with other options")
        if config.resume == "none" and not is_finished:
            raise ConfigError(
                ["it holds checkpoints; drop --resume none to go on, or add --overwrite to start again"], str(folder)
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(saved, options.dump(config))
    return is_finished


def unwritable_run(folder: Path) -> list[str]:
    """Why the files of a run could not be put in a folder; nothing in it changes."""
    whys = {folder: unwritable(folder, is_folder=True)}
    if not whys[folder]:
        whys |= {folder / name: unwritable(folder / name) for name in _FILES}
        whys |= {folder / name: unwritable(folder / name, is_folder=True) for name in _FOLDERS}
    return [f"{path} {why}" for path, why in whys.items() if why]


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
    """The checkpoint to go on from: the newest of the folder, else the one that `resume` names."""
    own = checkpoints(folder / "checkpoints")
    if own:
        return own[-1]
    return None if resume in ("auto", "none") else Path(resume)


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
