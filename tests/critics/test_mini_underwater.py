"""What mini-underwater sees of water, and what its shipped weights know."""

from functools import lru_cache

import pytest
import torch
from skimage import data

from perceptloss import create_critic
from perceptloss.critics.mini.nr import QualityHead
from perceptloss.critics.mini.water_bank import WaterBank
from perceptloss.teach.degradations import degrade
from perceptloss.teach.degradations.enhancers import ENHANCERS, enhanced

AWKWARD = {
    "black": torch.zeros(1, 3, 65, 48),
    "white": torch.ones(1, 3, 64, 64),
    "flat": torch.full((1, 3, 32, 33), 0.4),
    "red": torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 40, 40),
    "overshoot": 1.4 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.2,
}


@lru_cache(maxsize=1)
def photo():
    return torch.from_numpy(data.astronaut()[:192, 96:288].copy()).permute(2, 0, 1)[None].float() / 255


def under_water(level=3.0):
    return degrade(photo(), "underwater-green-cast", level, seed=2)


# --- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AWKWARD)
def test_statistics_and_their_slopes_are_of_ordinary_size_on_any_image(name):
    bank, x = WaterBank(), AWKWARD[name].clone().requires_grad_()
    found = bank(x)
    assert found.shape == (1, bank.features) and found.isfinite().all() and found.abs().max() < 5
    (slope,) = torch.autograd.grad(found.square().sum(), x)
    assert slope.isfinite().all() and slope.abs().max() < 2


def test_statistics_have_the_gradient_that_differences_confirm():
    bank = WaterBank().double()
    x = torch.rand(1, 3, 40, 52, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(bank.features, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (slope,) = torch.autograd.grad((bank(x) @ weights).sum(), x)
    step = 1e-6 * torch.randn_like(x)
    with torch.no_grad():
        measured = ((bank(x + step) - bank(x - step)) @ weights).sum() / 2
    assert measured.item() == pytest.approx((slope * step).sum().item(), rel=1e-5)


def test_water_veil_and_cast_move_statistics_that_noise_leaves_alone():
    bank, x = WaterBank(), photo()

    def moved(name, level):
        return (bank(degrade(x, name, level, seed=1)) - bank(x)).abs().max()

    noise = moved("white-noise", 1.0)
    for name in ("underwater-attenuation", "underwater-veil", "underwater-blue-cast", "colour-cast"):
        assert moved(name, 4.0) > noise, name


def test_a_head_does_without_some_features_only_while_it_learns():
    torch.manual_seed(0)
    head = QualityHead(6, 4, hidden=8, drop=0.9)
    features, statistics = torch.randn(2, 16, 6), torch.randn(16, 4)
    assert not torch.equal(head(features[0], statistics), head(features[0], statistics))
    head.eval()
    assert torch.equal(head(features[0], statistics), head(features[0], statistics))
    head.train().drop = 1.0
    assert torch.equal(head(features[0], statistics), head(features[1], statistics))


# --- enhancers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancers_change_nothing_at_strength_0_and_more_with_more(name):
    x = under_water()
    change = [float((enhanced(x, name, s) - x).abs().mean()) for s in (0.0, 0.5, 1.0, 2.0)]
    assert change[0] < 1e-4 and change[0] < change[1] < change[2] < change[3]
    black = enhanced(torch.zeros(1, 3, 48, 48), name, 1.5)
    assert black.isfinite().all() and black.min() >= 0 and black.max() <= 1


def test_balancing_takes_the_cast_away():
    casts = [x.mean((2, 3)).std() for x in (under_water(5.0), enhanced(under_water(5.0), "balanced", 1.0))]
    assert casts[1] < 0.5 * casts[0]


# --- what the shipped weights know --------------------------------------------------------------


@pytest.mark.parametrize("name", ["underwater-green-cast", "underwater-blue-cast", "underwater-veil"])
def test_more_water_is_worse(name):
    water = torch.cat([degrade(photo(), name, level, seed=2) for level in (0, 1.5, 3, 5)])
    quality = create_critic("mini-underwater")(water)
    assert (quality.diff() < 0).all(), quality


def test_an_enhanced_picture_is_better_than_the_raw_one_and_than_an_overdone_one():
    raw = under_water(4.0)
    for name in ("fused", "corrected"):
        images = torch.cat([raw, enhanced(raw, name, 0.8), enhanced(raw, name, 2.2)])
        before, well, too_much = create_critic("mini-underwater")(images).tolist()
        assert before < well > too_much, (name, before, well, too_much)


@pytest.mark.parametrize("name", ["saturation-up", "over-enhanced", "white-noise", "contrast-down", "jpeg"])
def test_damage_that_indices_like_is_worse(name):
    images = torch.cat([degrade(photo(), name, level, seed=3) for level in (0, 3, 5)])
    quality = create_critic("mini-underwater")(images)
    assert (quality.diff() < 0).all(), quality
