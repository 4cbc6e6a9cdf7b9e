"""The watch over a small network that learns to enlarge: L1 alone is honest, a known printer of grids is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from honest import photograph
from torch import Tensor

from perceptloss import create_critic
from perceptloss.honesty.watch import Watch
from perceptloss.networks.restorers.compact import Compact

TRAIN = [photograph(name, 384) for name in ("astronaut", "brick", "coffee", "grass", "gravel")]
HELD_OUT = [photograph(name) for name in ("chelsea", "rocket")]


def shrunk(y: Tensor) -> Tensor:
    return F.interpolate(y, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)


def trained(watch: Watch, weight: float, steps: int = 300) -> None:
    network, side = Compact(num_feat=24, num_conv=4, upscale=4), 64
    optimizer = torch.optim.Adam(network.parameters())
    (critic,) = watch.trained.values()
    for step in range(steps + 1):
        if step % 100 == 0:
            with torch.no_grad():
                outputs = [network(shrunk(y))[0].clamp(0, 1) for y in HELD_OUT]
            watch.look(step, [(x, y[0]) for x, y in zip(outputs, HELD_OUT, strict=True)], {})
        corners = [(y, *torch.randint(y.shape[-1] - side, (2,)).tolist()) for y in TRAIN]
        y = torch.cat([y[..., top : top + side, left : left + side] for y, top, left in corners])
        x = network(shrunk(y))
        loss = F.l1_loss(x, y) + (weight * critic(x, y).mean() if weight else 0)
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / (steps + 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.thorough
@pytest.mark.parametrize(("weight", "rings"), [(0.0, False), (1.0, True)])
def test_l1_is_honest_and_squeezenet_prints_its_stride(weight, rings):
    watch = Watch({"lpips-squeeze": create_critic("lpips-squeeze").freeze()}, {}, reaction="freeze")
    trained(watch, weight)
    grids = {alarm.about for alarm in watch.alarms if alarm.about.startswith("grid")}
    assert (grids >= {"grid quarter", "grid half"}) is rings
    assert rings or watch.alarms == ()
