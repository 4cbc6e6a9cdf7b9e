"""The critics of our own: what their construction promises, and what their shipped weights know."""

from functools import lru_cache

import pytest
import torch
from safetensors import safe_open
from skimage import data
from torch.utils.flop_counter import FlopCounterMode

from perceptloss import create_critic
from perceptloss.critics.mini.pair_distance import Positive, RisingHead
from perceptloss.critics.mini.similarity_bank import SimilarityBank
from perceptloss.critics.mini.statistics_bank import StatisticsBank
from perceptloss.critics.mini.stereo import row_attention
from perceptloss.networks.trunks import Ladder
from perceptloss.teach.degradations import degrade
from perceptloss.teach.degradations.stereo import stereo_pair
from perceptloss.weights.manifest import shipped

MINI = ("mini-fr", "mini-nr", "mini-stereo", "mini-underwater")
LADDERS = ("gaussian-blur", "white-noise", "jpeg", "bicubic-resize")


@lru_cache(maxsize=1)
def photo():
    return torch.from_numpy(data.astronaut()[:192, 96:288].copy()).permute(2, 0, 1)[None].float() / 255


def picture(channels):
    return photo() if channels == 3 else stereo_pair(photo(), seed=1, max_disparity=12)[0]


def ladder(name, levels):
    return torch.cat([degrade(photo(), name, level, seed=3) for level in levels])


# --- construction -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MINI)
def test_is_small(name):
    critic = create_critic(name)
    assert sum(p.numel() for p in critic.parameters()) <= 1_500_000
    path = shipped() / f"{name}.safetensors"
    assert path.stat().st_size < 7_000_000
    with safe_open(path, "pt") as file:
        assert '"critic"' in file.metadata()["perceptloss"]
    assert (shipped() / f"{name}.md").is_file()


def test_all_weights_together_stay_small():
    assert sum(path.stat().st_size for path in shipped().glob("*.safetensors")) <= 20_000_000


def flops(critic, side=256):
    x = torch.rand(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        critic(x, x)
    return counter.get_total_flops()


def test_mini_fr_costs_a_tenth_of_lpips_vgg():
    assert 10 * flops(create_critic("mini-fr")) < flops(create_critic("lpips-vgg", weights=None))


@pytest.mark.parametrize("name", ["mini-fr", "mini-stereo"])
def test_distance_of_equal_images_is_exactly_zero_whatever_the_weights(name):
    for weights in ({}, {"weights": None}):
        critic = create_critic(name, **weights)
        image = picture(critic.card.channels)
        assert critic(image, image).item() == 0
        assert (critic(torch.rand_like(image), image) > 0).all()


def test_a_rising_head_rises_with_every_distance():
    torch.manual_seed(1)
    head = RisingHead(5, 4)
    v = torch.rand(64, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(head(v).sum(), v)
    assert (slope > 0).all()
    assert (head(torch.zeros(2, 5)) == 0).all()


def test_positive_weights_start_at_the_sum_asked_for():
    assert Positive(500, 3, start=4.0).weight.sum(1).mean().item() == pytest.approx(4, rel=0.2)
    assert (Positive(3, 2).weight > 0).all()


def test_similarity_bank_has_bounded_distances():
    bank = SimilarityBank(2)
    x, y = torch.rand(2, 2, 3, 40, 33)
    found = bank(x, y)
    assert found.shape == (2, bank.features) and (found >= -1e-6).all() and found.max() <= 2
    assert (bank(y, y) == 0).all()


def test_similarity_bank_holds_its_edge_weights_unless_told():
    bank = SimilarityBank(1).double()
    x, y = torch.rand(2, 1, 3, 24, 24, dtype=torch.float64)
    x.requires_grad_()
    held, exact = (torch.autograd.grad(bank(x, y, hold=hold).sum(), x)[0] for hold in (True, False))
    assert not torch.allclose(held, exact)
    step = 1e-6 * torch.randn_like(x)
    measured = (bank(x + step, y, hold=False) - bank(x - step, y, hold=False)).sum() / 2
    assert measured.item() == pytest.approx((exact * step).sum().item(), rel=1e-4)


def test_statistics_are_of_ordinary_size_on_any_image():
    bank = StatisticsBank(3)
    for image in (photo(), torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64), torch.rand(1, 3, 64, 64)):
        found = bank(image)
        assert found.shape == (1, bank.features) and found.isfinite().all() and found.abs().max() < 20


def test_ladder_reads_every_pixel_equally_often():
    trunk = Ladder((8, 8))
    for layer in trunk.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.constant_(layer.weight, 0.1)
    x = torch.full((1, 3, 64, 64), 0.9, requires_grad=True)
    trunk(x, ["stage2"])["stage2"].sum().backward()
    inner = x.grad[..., 16:-16, 16:-16]
    assert inner.max() / inner.min() < 1 + 1e-5
    assert trunk.starts(7) == [4]


# --- stereo -------------------------------------------------------------------------------------


def test_exchanging_the_views_changes_nothing():
    critic = create_critic("mini-stereo")
    y = picture(6)
    x = degrade(y, "asymmetric-noise", 4.0, seed=0)
    swapped = critic(x.roll(3, 1), y.roll(3, 1))
    torch.testing.assert_close(swapped, critic(x, y), rtol=1e-5, atol=1e-6)


def test_both_views_get_a_gradient():
    y = picture(6)
    x = degrade(y, "asymmetric-blur", 3.0, seed=0).requires_grad_()
    create_critic("mini-stereo")(x, y).sum().backward()
    assert (x.grad[:, :3].abs().sum() > 0) and (x.grad[:, 3:].abs().sum() > 0)


def test_row_attention_finds_a_shift():
    torch.manual_seed(2)
    left = torch.randn(1, 32, 3, 12)
    right = torch.roll(left, -2, -1)  # what is at column w of the left view is at w - 2 of the right one
    shares = row_attention(left, right, sharpness=200.0)
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 3, 12))
    assert (shares.argmax(-1)[..., 2:] == torch.arange(10)).all()


# --- what the shipped weights know --------------------------------------------------------------


@pytest.mark.parametrize("name", [*LADDERS, "contrast-down", "saturation-down", "banding"])
def test_more_damage_is_further_from_the_reference(name):
    images = ladder(name, (0, 1.5, 3, 5))
    distance = create_critic("mini-fr")(images, photo().expand_as(images))
    assert (distance.diff() > 0).all(), distance


@pytest.mark.parametrize("name", LADDERS)
def test_more_damage_is_worse_without_a_reference(name):
    quality = create_critic("mini-nr")(ladder(name, (0, 1.5, 3)))  # ruins are all alike to it
    assert (quality.diff() < 0).all(), quality


@pytest.mark.parametrize("name", ["asymmetric-blur", "asymmetric-noise", "vertical-misalignment", "crosstalk"])
def test_more_stereo_damage_is_worse(name):
    y = picture(6)
    x = torch.cat([degrade(y, name, level, seed=3) for level in (0, 1.5, 3, 5)])
    distance = create_critic("mini-stereo")(x, y.expand_as(x))
    assert (distance.diff() > 0).all(), distance


@pytest.mark.parametrize("name", ["underwater-attenuation", "underwater-veil", "underwater-blur"])
def test_more_water_is_worse(name):
    quality = create_critic("mini-underwater")(ladder(name, (0, 2.5, 5)))
    assert (quality.diff() < 0).all(), quality
