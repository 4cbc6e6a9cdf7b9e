"""What an interrupted run needs to go on as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perceptloss.errors import PerceptlossError
from perceptloss.output.files import write_atomically
from perceptloss.runs.whole import damage, seal

__all__ = [
    "Ema",
    "RunLog",
    "StopSignal",
    "checkpoints",
    "finite",
    "load_checkpoint",
    "read_progress",
    "save_checkpoint",
]


class Ema:
    """Exponential moving average of parameters, in fp32 or better, sharded as they are.

    Args:
        parameters: Of the prepared network.
        decay: Of the average; smaller during the first steps, so that the initial weights fade.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.shadow = [p.detach().clone().to(torch.promote_types(p.dtype, torch.float32)) for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the parameters after a step (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = [p.detach().to(s.dtype) for p, s in zip(self.parameters, self.shadow, strict=True)]
        torch._foreach_lerp_(self.shadow, now, 1 - decay)

    def adopt(self) -> None:
        """Take the parameters as they are now for the averages."""
        for shadow, parameter in zip(self.shadow, self.parameters, strict=True):
            shadow.copy_(parameter.detach())

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The network holds the averages inside this context."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in self.parameters]
            self._fill(self.shadow)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def save(self, path: Path) -> None:
        """Write this process's part of the averages."""
        save_file({str(i): _local(tensor).contiguous() for i, tensor in enumerate(self.shadow)}, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Read back what `save` wrote."""
        state = load_file(path)
        for i, tensor in enumerate(self.shadow):
            _local(tensor).copy_(state[str(i)])


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a shard under FSDP


class RunLog:
    """One JSON object per line, each written at once.

    Args:
        path: The file.
        through: Last step to keep of what an interrupted run wrote; a line cut off in the middle goes too.
    """

    def __init__(self, path: Path, through: int) -> None:
        whole = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        kept = [line for line in whole if _step(line) <= through]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; numbers that are not finite become null."""
        self._file.write(json.dumps(finite(record), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(line: str) -> float:
    """Step of a record; that of a damaged one is never kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def finite(value: Any) -> Any:
    """A nested record in which numbers that JSON does not have are None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class StopSignal:
    """In this context SIGTERM and SIGINT are remembered, so that a step can end and be saved; a second SIGINT kills."""

    number = 0

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number:
            raise KeyboardInterrupt
        self.number = number

    def agreed(self, accelerator: Accelerator) -> int:
        """The signal that any process received; every process must ask at the same step."""
        if accelerator.num_processes == 1:
            return self.number
        mine = torch.tensor(self.number, device=accelerator.device)
        return int(accelerator.gather(mine.reshape(1)).max())


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first; an interrupted write never has such a name."""
    return sorted(folder.glob("step_????????"))


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    progress: dict[str, Any],
    ema: Ema | None,
    critics: nn.Module | None,
    keep: int,
) -> None:
    """Save everything under a hidden name and rename it when it is on the disk; call on all processes.

    Args:
        accelerator: With network and optimizer prepared.
        folder: Shared by all processes; `last` in it points to the newest checkpoint.
        progress: Plain values, kept as `progress.json`; `step` among them names the checkpoint.
        ema: Averages.
        critics: The loss, for its own counters.
        keep: Newest checkpoints that stay.
    """
    name = f"step_{progress['step']:08d}"
    final, partial = folder / name, folder / f".partial_{name}"
    if final.exists() and not damage(final):
        return
    accelerator.wait_for_everyone()  # all have looked before the name appears
    if accelerator.is_main_process:
        for leftover in folder.glob(".partial_*"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    torch.save(_random_state(), partial / f"random_{accelerator.process_index}.pt")
    if ema is not None and (accelerator.is_main_process or _is_sharded(accelerator)):
        ema.save(partial / f"ema_{accelerator.process_index}.safetensors")
    if critics is not None:
        state = critics.state_dict()
        if accelerator.is_main_process or "joint" in state:  # what joint critics keep of their outputs is of each
            torch.save(state, _critics_file(partial, accelerator.process_index))
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps(progress, indent=1), encoding="utf-8")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        seal(partial)
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        if final.exists():  # and damaged
            shutil.rmtree(final)
        os.replace(partial, final)
        _point(folder / "last", final.name)
        _sync(folder)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def read_progress(path: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.

    Raises:
        PerceptlossError: if the path is no complete checkpoint.
    """
    if not (path / "progress.json").is_file():
        raise PerceptlossError(f"{path} is not a checkpoint of this recipe: it holds no progress.json.")
    try:
        return json.loads((path / "progress.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise PerceptlossError(f"{path / 'progress.json'} is damaged: {error}.") from error


def load_checkpoint(accelerator: Accelerator, path: Path, ema: Ema | None, critics: nn.Module | None) -> None:
    """Restore what `save_checkpoint` saved; call on all processes."""
    accelerator.load_state(str(path))
    if ema is not None:
        ema.load(path / f"ema_{accelerator.process_index if _is_sharded(accelerator) else 0}.safetensors")
    if critics is not None:
        mine = _critics_file(path, accelerator.process_index)
        file = mine if mine.exists() else _critics_file(path, 0)
        critics.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    own = path / f"random_{accelerator.process_index}.pt"
    if own.exists():  # more processes than before: the additional ones keep their seeds
        _set_random_state(torch.load(own, weights_only=True))


def _critics_file(folder: Path, process: int) -> Path:
    return folder / (f"critics_{process}.pt" if process else "critics.pt")


def _is_sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def _random_state() -> dict[str, Any]:
    """Of python, numpy and torch. Accelerate saves these too, but only logs it when it fails to restore them."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)  # which `legacy=False` promises
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()  # plain types load with weights_only
    return {
        "python": random.getstate(),
        "numpy": numpy_state,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _point(link: Path, target: str) -> None:
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target, target_is_directory=True)
    os.replace(partial, link)
