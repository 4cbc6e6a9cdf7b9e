"""A restorer trained with critics, on one page: x2 super-resolution of photographs that come with scikit-image.

`accelerate launch recipes/minimal.py` takes seconds on a CPU, offline.
"""

from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from skimage import data
from torch import Tensor, nn
from torch.utils.data import DataLoader

from perceptloss import CriticLoss, create_critic
from perceptloss.networks.restorers import Compact

STEPS, BATCH, PATCH = 100, 8, 64
CRITICS = {"mini-fr": 0.015, "gmsd": 0.1}  # name: weight beside L1; `perceptloss list` shows all
JUDGES = ("psnr", "fsim", "dss")  # which only watch


def photograph(name: str) -> Tensor:
    """RGB in [0, 1], (3, H, W)."""
    return torch.from_numpy(getattr(data, name)()).permute(2, 0, 1) / 255


def patch(photo: Tensor) -> Tensor:
    """Somewhere in a photograph, (3, PATCH, PATCH)."""
    top, left = (int(torch.randint(side - PATCH, ())) for side in photo.shape[1:])
    return photo[:, top : top + PATCH, left : left + PATCH]


def shrink(y: Tensor) -> Tensor:
    """(N, 3, H, W) to half of each side."""
    return F.interpolate(y, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


@torch.no_grad()
def scores(network: nn.Module, y: Tensor) -> str:
    """What the judges say of a restored photograph, (1, 3, H, W)."""
    x = network(shrink(y)).clamp(0, 1)
    return "  ".join(f"{name} {create_critic(name).to(y.device)(x, y).item():.4f}" for name in JUDGES)


def main() -> None:
    """Train, and score a photograph that was not trained on before and after."""
    set_seed(0)
    accelerator = Accelerator()
    photographs = [photograph(name) for name in ("astronaut", "coffee", "rocket")]
    patches: Any = [patch(photographs[n % 3]) for n in range(STEPS * BATCH)]  # or a Dataset of your own
    loader: DataLoader[Tensor] = DataLoader(patches, BATCH)
    network = Compact(num_feat=32, num_conv=4, upscale=2)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    critics = CriticLoss(CRITICS).to(accelerator.device)  # frozen: not prepared, not saved
    held_out = photograph("chelsea")[None, :, :300, :450].to(accelerator.device)
    accelerator.print(f"before  {scores(network, held_out)}")
    for step, y in enumerate(loader):
        x = network(shrink(y))
        loss = F.l1_loss(x, y) + critics(x, y, step=step)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"after   {scores(network, held_out)}")


if __name__ == "__main__":
    main()
