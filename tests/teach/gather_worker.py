"""One process of the gathering test: a small critic on its own part of a batch, a loss of the whole batch."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perceptloss.errors import InputError
from perceptloss.teach.objectives.gather import gather_list

SIZES = (5, 2)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 4, generator=generator), torch.randn(7, generator=generator)


def critic() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))


def loss(q: Tensor, y: Tensor) -> Tensor:
    """One that no average over parts of the batch equals."""
    q, y = q - q.mean(), y - y.mean()
    return 1 - (q * y).sum() / (q.square().sum() * y.square().sum()).sqrt()


def gradient(net: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def run(rank: int, world: int, folder: str) -> None:
    """Save what this process found as `<folder>/<rank>.pt`."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world, timeout=limit)
    x, y = (part.split(SIZES)[rank] for part in data())
    found = {"alone": gather_list(y, dist.new_group([0], timeout=limit)) if rank == 0 else y}

    net = critic()
    loss(gather_list(net(x)), gather_list(y)).backward()
    found["gradient"] = gradient(net)
    dist.all_reduce(found["gradient"])  # what DistributedDataParallel does, which takes a second to import
    found["gradient"] /= world

    half = x.bfloat16().requires_grad_()
    (gather_list(half).float() * torch.arange(7.0)[:, None] * (rank + 1)).sum().backward()
    found["half"] = half.grad

    # one process with nothing to add, whose list has no graph: the other still gets its gradient
    mine = x.clone().requires_grad_() if rank == 0 else x[:0]
    gathered = gather_list(mine)
    gathered.square().sum().backward()
    found["lonely"], found["lonely gradient"] = gathered.detach(), mine.grad if rank == 0 else None

    found["numbers"] = gather_list(torch.arange(SIZES[rank]) + 10 * rank)
    found["flags"] = gather_list(torch.tensor([True, False, False][: rank + 1]))
    found["nothing"] = gather_list(y[:0])
    with torch.no_grad():
        found["no graph"] = gather_list(x.clone().requires_grad_())
    found["errors"] = []
    for wrong in (torch.zeros(2, rank + 1), torch.zeros(2, dtype=(torch.float32, torch.float64)[rank])):
        try:
            gather_list(wrong)
        except InputError as error:
            found["errors"].append(str(error))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # a thread of torch can abort a process that ends in order
