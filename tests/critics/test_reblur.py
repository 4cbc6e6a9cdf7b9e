"""Reblur: its bounds, what it is blind to, what it orders, and how its map adds up."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from images import ladder, pair, photographs

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.reblur import reblur
from perceptloss.networks.functional import blur, gaussian

WINDOW = gaussian(9, 1.5)


@pytest.fixture
def photos() -> torch.Tensor:
    return photographs(96).double()


def blurred(x: torch.Tensor) -> torch.Tensor:
    return blur(x, WINDOW)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_images_score_zero_without_slope(level):
    x = torch.full((1, 3, 20, 24), level, dtype=torch.float64, requires_grad=True)
    score = reblur(x)
    assert score.item() == 0
    assert not torch.autograd.grad(score.sum(), x)[0].any()


def test_straight_ramps_score_zero():
    """Blurring does not change a constant slope."""
    ramp = torch.linspace(0, 1, 40, dtype=torch.float64)
    x = (0.3 * ramp[:, None] + 0.7 * ramp).expand(1, 3, -1, -1)
    assert reblur(x).item() == pytest.approx(0, abs=1e-9)


def test_a_single_step_keeps_the_sum_of_its_slopes():
    """Total variation in one dimension: a blur spreads a monotone edge and takes nothing of it, a line loses."""
    step, line = torch.zeros(2, 1, 3, 40, 40, dtype=torch.float64)
    step[..., 20:] = 1
    line[..., 20] = 1
    assert reblur(step).item() == pytest.approx(0, abs=1e-9)
    peak = WINDOW[4]  # the blurred line rises to its peak and falls again: from 2 to 2 * peak
    assert reblur(line).item() == pytest.approx(1 - peak, abs=1e-9)


def test_a_wave_loses_what_the_window_does_to_it():
    wave = 0.5 + 0.4 * torch.sin(torch.arange(200, dtype=torch.float64) * 2 * math.pi / 8)
    share = sum(tap * math.cos(2 * math.pi * (i - 4) / 8) for i, tap in enumerate(WINDOW))
    x = wave.expand(1, 3, 30, -1)[..., : 8 * 20 + 9]
    assert reblur(x).item() == pytest.approx(1 - share, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_stays_between_zero_and_one(seed):
    grain = torch.rand(2, 3, 10 + 7 * seed, 33, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    images = torch.cat([grain, (grain > 0.5).double(), grain**8])
    score = reblur(images)
    assert ((score > 0) & (score < 1)).all()
    assert (score[:2] > 0.5).all()


def test_blurring_lowers_it_again_and_again(photos):
    scores = [reblur(x) for x in ladder("blur", photos)]
    assert all((sharper > softer).all() for sharper, softer in pairwise(scores))
    assert (reblur(blurred(blurred(photos))) < reblur(blurred(photos))).all()


def test_noise_raises_it(photos):
    """Which is why its default shape asks for the reference's sharpness and no more."""
    scores = [reblur(x) for x in ladder("noise", photos)]
    assert (scores[-1] > scores[0]).all()


def test_brightness_contrast_and_sign_do_not_matter(photos):
    for scale, shift in ((0.5, 0.2), (-1.0, 1.0), (1e-2, 0.9)):
        torch.testing.assert_close(reblur(scale * photos + shift), reblur(photos), rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 1.0])
def test_slope_is_bounded_however_faint_the_edges(size, photos):
    x = (0.5 + size * (photos - 0.5)).requires_grad_()
    (gradient,) = torch.autograd.grad(reblur(x).sum(), x)
    assert gradient.norm() < 5


def test_map_adds_up_to_the_score(photos):
    critic = create_critic("reblur")
    sharpness = critic.maps(photos)
    assert sharpness.shape == (3, 1, 87, 87)
    assert ((sharpness >= -1e-12) & (sharpness <= 1)).all()
    luma = (photos * photos.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    down, across = (luma[:, 1:, :-1] - luma[:, :-1, :-1]), (luma[:, :-1, 1:] - luma[:, :-1, :-1])
    edges = blurred((down**2 + across**2).sqrt())
    weighted = (edges * sharpness[:, 0]).sum((1, 2)) / edges.sum((1, 2))
    torch.testing.assert_close(weighted, critic(photos), rtol=1e-9, atol=0)


def test_map_shows_where_it_is_sharp(photos):
    half = photos.clone()
    half[..., 48:] = ladder("blur", photos)[2][..., 48:]
    sharpness = create_critic("reblur").maps(half)
    assert (sharpness[..., :36].mean((1, 2, 3)) > sharpness[..., 52:].mean((1, 2, 3))).all()


class TestLoss:
    def test_asks_for_the_sharpness_of_the_reference_and_no_more(self, photos):
        loss_fn = CriticLoss([{"critic": "reblur", "weight": 1.0}])
        soft, noisy = ladder("blur", photos)[1], ladder("noise", photos)[3]
        for x, wanted in ((soft, True), (noisy, False), (photos, False)):
            x = x.clone().requires_grad_()
            loss = loss_fn(x, photos)
            (gradient,) = torch.autograd.grad(loss, x)
            assert (loss.item() > 0) == wanted
            assert gradient.any().item() == wanted

    def test_descent_sharpens(self):
        _, y = pair(1, 48, dtype=torch.float64)
        critic = create_critic("reblur")
        x = ladder("blur", y)[1].requires_grad_()
        before = critic(x).item()
        for _ in range(5):
            (gradient,) = torch.autograd.grad(critic(x).sum(), x)
            x = (x + 0.1 * gradient / gradient.norm()).detach().requires_grad_()
        assert critic(x).item() > before + 0.005
