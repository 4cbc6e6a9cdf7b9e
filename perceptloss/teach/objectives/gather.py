"""One list over all processes, so that correlations and comparisons see the whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from perceptloss.errors import InputError

__all__ = ["gather_list"]

_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
# how a type travels: not all backends send halves, and a sum of gradients wants float32
_CARRIED = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.bool: torch.uint8}


class _Gather(torch.autograd.Function):
    """Concatenation over processes; backward, each element's gradients of all processes are summed."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, sizes: list[int], group: dist.ProcessGroup | None) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        padded = t.new_zeros((max(sizes), *t.shape[1:]))
        padded[: len(t)] = t
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total.split(ctx.sizes)[dist.get_rank(ctx.group)], None, None


def _facts(t: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Of each process, (world, 5): dimensions, length, numbers per element, type, and whether it has a graph."""
    wants = t.requires_grad and torch.is_grad_enabled()
    count = t[0].numel() if len(t) else t.new_empty((1, *t.shape[1:])).numel()
    own = torch.tensor([t.ndim, len(t), count, _DTYPES.index(t.dtype), wants], device=t.device)
    facts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(facts, own, group=group)
    return torch.stack(facts).cpu()


def gather_list(t: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The lists of all processes as one, in the order of their ranks and the same everywhere.

    The gradient crosses processes: an element gets what the losses of all of them ask. When every process takes the
    same loss of the gathered list, its gradient is thus as many times too large as there are processes, which the
    averaging of DistributedDataParallel undoes: parameters move as if one process had it all.
    Every process must call it, and backward through it, in the same order. Lists may differ in length, even be empty.

    Args:
        t: (N, ...), alike in all processes but for N, on the device of the backend.
        group: Processes; None for all.

    Returns:
        (sum of N, ...); `t` itself without torch.distributed or with one process.

    Raises:
        InputError: if this is no list of numbers; in all processes, if lists differ in more than length.
    """
    if t.ndim == 0 or t.dtype not in _DTYPES:
        raise InputError(f"expected a list (N, ...) of numbers, got shape {tuple(t.shape)} of {t.dtype}")
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return t
    facts = _facts(t, group)
    if (facts[:, [0, 2, 3]] != facts[0, [0, 2, 3]]).any():
        found = "; ".join(
            f"rank {rank}: {count} numbers of {_DTYPES[kind]} per element, {ndim} dimensions"
            for rank, (ndim, _, count, kind, _) in enumerate(facts.tolist())
        )
        raise InputError(f"lists to gather may differ in length only, got {found}")
    if facts[:, 4].any() and not t.requires_grad:
        # a process whose list is empty or constant takes part in the sum of the gradients too, or the others wait
        t = t.detach().requires_grad_()
    carried = t.to(_CARRIED.get(t.dtype, t.dtype))
    gathered: Tensor = _Gather.apply(carried, facts[:, 1].tolist(), group)
    return gathered.to(t.dtype)
