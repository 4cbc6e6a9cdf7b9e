"""What the processes of a training agree on; alone, a process agrees with itself."""

from __future__ import annotations

import torch
import torch.distributed as dist

__all__ = ["agreed", "are_several", "is_first", "summed"]


def are_several() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process speaks for all."""
    return not are_several() or dist.get_rank() == 0


def summed(values: list[float]) -> list[float]:
    """Sums over the processes, each of which gives as many values."""
    if not are_several():
        return values
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()  # type: ignore[no-any-return]


def agreed(is_so: bool) -> bool:
    """Whether it is so in every process."""
    return summed([float(not is_so)]) == [0.0]
