"""One process of the data-parallel test: a restorer under DDP, a critic loss outside it."""

from __future__ import annotations

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
