"""grid sees what repeats, and next to nothing of what does not."""

from __future__ import annotations

import pytest
import torch

from perceptloss import create_critic
from perceptloss.errors import ConfigError


def patterned(period: int, amplitude: float, side: int = 64) -> torch.Tensor:
    """A pattern of mean 0 and root mean square `amplitude`, (1, 1, side, side)."""
    tile = torch.randn(period, period, generator=torch.Generator().manual_seed(period))
    tile = tile - tile.mean()
    tile = amplitude * tile / tile.square().mean().sqrt()
    return tile.repeat(side // period, side // period)[None, None]


@pytest.mark.parametrize("period", [2, 4])
def test_score_is_the_amplitude(period):
    y = 0.25 + torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 2
    score = create_critic("grid").double()(y + patterned(period, 0.05), y)
    torch.testing.assert_close(score, torch.full_like(score, 0.05), atol=2e-4, rtol=0)


def test_other_differences_cost_little():
    generator = torch.Generator().manual_seed(0)
    y = 0.25 + torch.rand(1, 3, 64, 64, generator=generator) / 2
    critic = create_critic("grid")
    noise = 0.05 * torch.randn(y.shape, generator=generator)
    assert float(critic((y + noise).clamp(0, 1), y)) < 0.2 * 0.05  # 64 blocks average it away
    assert float(critic(y + 0.05, y)) < 1e-4
    ramp = torch.linspace(-0.05, 0.05, 64).expand(1, 3, 64, 64)
    assert float(critic(y + ramp, y)) < 0.002


def test_period_is_an_option():
    y = torch.zeros(1, 3, 48, 48) + 0.5
    x = y + patterned(3, 0.05, 48)
    four, three = (float(create_critic("grid", options={"period": p})(x, y)) for p in (4, 3))
    assert three == pytest.approx(0.05, abs=2e-4)
    assert four < 0.3 * three


def staircase(down: bool, period: int = 4, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A wave of slopes of 0.002 per pixel, up and down, (1, 3, side, side), as stairs and as it is."""
    wave = 0.5 + 0.002 * (torch.arange(side) % 32 - 16).abs()
    stairs = wave.view(-1, period).mean(1).repeat_interleave(period)
    return tuple((v[:, None] if down else v[None]).expand(1, 3, side, side).clone() for v in (stairs, wave))


@pytest.mark.parametrize("down", [False, True])
def test_stairs_show_in_steps_alone(down):
    """Steps of 4 slopes at each fourth place and of 0 at the others; slopes of both signs hide them from a mean."""
    stairs, wave = staircase(down)
    steps = float(create_critic("grid", options={"of": "steps"}).double()(stairs.double(), wave.double()))
    known = 0.002 * 3**0.5 / 2  # deviation of (4, 0, 0, 0) slopes, of one direction of two; less where the wave turns
    assert 0.7 * known < steps < known
    assert float(create_critic("grid")(stairs, wave)) < 0.3 * steps


def test_steps_of_texture_cost_little():
    generator = torch.Generator().manual_seed(1)
    y = 0.25 + torch.rand(1, 3, 64, 64, generator=generator) / 2
    x = 0.25 + torch.rand(1, 3, 64, 64, generator=generator) / 2
    assert float(create_critic("grid", options={"of": "steps"})(x, y)) < 0.02


def test_all_wrong_options_are_told():
    with pytest.raises(ConfigError, match=r"(?s)options.period must.*options.of must be values or steps, got 'slopes'"):
        create_critic("grid", options={"period": 1, "of": "slopes"})
