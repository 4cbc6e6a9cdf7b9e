"""Bytes that a loss really occupies, counted on live storages.

Saved-tensor hooks see only what one graph packs; they miss caches, results held elsewhere and
what is merely alive for a moment. Here a dispatch mode sees every operation, notes each storage
that an operation creates, and asks after each operation which of them are still alive.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["MIB", "Footprint", "LiveStorage", "Loss", "footprint"]

MIB = 2**20

Loss = Callable[[Tensor, Tensor], Tensor]


class LiveStorage(TorchDispatchMode):
    """Counts the storages created while it is active.

    A storage that existed before (weights, images) is never counted, nor is a view of one. A
    storage counts with all its bytes from the operation that returns it until its last owner,
    tensor or graph, lets go. Working memory that an operation allocates and frees inside (blocked
    copies of oneDNN, cuDNN workspaces) is invisible; on a GPU the allocator's own peak shows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[StorageWeakRef, int] = {}
        self.peak = 0

    @property
    def live(self) -> int:
        """Bytes alive now."""
        self._alive = {ref: size for ref, size in self._alive.items() if not ref.expired()}
        return sum(self._alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in known:
                storage = tensor.untyped_storage()
                self._alive[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, self.live)
        return out


@dataclass(frozen=True)
class Footprint:
    """Memory of one training step of a loss, in bytes, beyond weights, x and y.

    Attributes:
        held: Alive between forward and backward, hence while all other losses of a step and the
            backward up to the judged image need memory too. Includes the loss itself.
        peak: Most that was alive at any time, the gradient of x included.
    """

    held: int
    peak: int


def footprint(loss: Loss, x: Tensor, y: Tensor) -> Footprint:
    """Count one forward and backward, after one that fills caches such as low-precision weights.

    Args:
        loss: Maps judged and reference images to a scalar.
        x: Judged images.
        y: References.
    """
    x = x.detach().requires_grad_()
    loss(x, y).backward()
    x.grad = None
    gc.collect()
    with LiveStorage() as storages:
        value = loss(x, y)
        gc.collect()
        held = storages.live
        value.backward()
    return Footprint(held, storages.peak)
