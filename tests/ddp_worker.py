"""One process of the data-parallel test: a restorer under DDP, a critic loss outside it."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from images import pair
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic
from perceptloss.critic import Critic


def data() -> tuple[Tensor, Tensor]:
    return pair(4, 40)


def restorer() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1), nn.Sigmoid())


def loss(critic: Critic, mode: str) -> CriticLoss:
    terms = [{"critic": critic, "weight": 1.0}, {"critic": "ssim", "weight": 0.1}]
    return CriticLoss(terms, grad=mode, micro_batch=1)


def joint_loss() -> CriticLoss:
    """A critic that learns, by its share, beside one that does not."""
    patch = {"critic": "patch", "weights": None, "options": {"width": 4}, "share": 0.2}
    joint = {"replay": 0.5, "buffer": 2, "swap": 1.0, "penalty": 1e-3}
    return CriticLoss([{**patch, "joint": joint}, {"critic": "gmsd", "share": 0.2}]).double()


def joint_step(loss_fn: CriticLoss, mine: slice, step: int) -> None:
    """A step of the restorer, and one of the critic, on a part of the batch."""
    x, y = (images.double() for images in pair(4, 32, seed=step))
    loss_fn(x[mine].requires_grad_(), y[mine], step=step).backward()
    loss_fn.learn(x[mine], y[mine], step=step)


def learn(rank: int, world: int, folder: str) -> None:
    """Save what the critic learned as `<folder>/learn-<rank>.pt`; bad images of one process then change nothing."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    loss_fn, half = joint_loss(), slice(2 * rank, 2 * rank + 2)
    for step in range(3):
        joint_step(loss_fn, half, step)
    torch.save([p.detach() for p in loss_fn.terms[0].critic.parameters()], f"{folder}/learn-{rank}.pt")
    x, y = (images[half].double() for images in pair(4, 32))
    x = x / (1 - rank)  # infinite in the second process
    loss_fn(x.requires_grad_(), y, step=100).backward()
    assert not loss_fn.learn(x, y, step=100)["patch"]
    assert not loss_fn.learn(x[:0] if rank else x, y[:0] if rank else y, step=101)["patch"]
    dist.destroy_process_group()
    os._exit(0)  # a thread of torch can abort a process that ends in order


def run(rank: int, world: int, folder: str) -> None:
    """Save the averaged gradient of each mode as `<folder>/<mode>-<rank>.pt`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    x, y = (images[rank::world] for images in data())
    critic = create_critic("lpips-squeeze", weights=None)
    for mode in ("autograd", "checkpoint", "fused"):
        net = nn.parallel.DistributedDataParallel(restorer())
        loss(critic, mode)(net(x), y).backward()
        gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        torch.save(gradient, f"{folder}/{mode}-{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # a thread of torch can abort a process that ends in order
