"""Pixel weights from quality maps: direction, mean, geometry, and that nothing of the critic's gradient is used."""

from __future__ import annotations

import pytest
import torch
import toys
from images import pair
from small import build_small
from torch import Tensor

from perceptloss import create_critic, list_critics
from perceptloss.errors import InputError, PerceptlossError
from perceptloss.maps.pixel_weights import pixel_weights

NATIVE = ["ssim", "gmsd", "fsim", "vsi", "haarpsi", "mdsi", "sr-sim", "gsn", "pmos", "pmos-map", "wresnet", "reblur"]


class Mapped(toys.Toy):
    """A toy whose map is its image's first channel, averaged over cells."""

    cell = 1

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        return torch.nn.functional.avg_pool2d(x[:, :1], self.cell)


def mapped(better: str = "higher", bounds: tuple[float, float] = (0.0, 1.0), cell: int = 1) -> Mapped:
    critic = Mapped(toys.toy("mapped", lambda x, y: x, better=better, bounds=bounds).card, lambda x, y: x)
    critic.cell, critic.overshoot = cell, "pass"
    return critic


IMAGE = torch.tensor([[0.8, 0.6], [0.2, 0.4]]).expand(1, 3, 2, 2)


@pytest.mark.parametrize(
    ("better", "bounds", "badness"),
    [
        ("higher", (0.0, 1.0), [[0.2, 0.4], [0.8, 0.6]]),
        ("lower", (0.0, 1.0), [[0.8, 0.6], [0.2, 0.4]]),
        ("higher", (0.0, float("inf")), [[0.0, 0.2], [0.6, 0.4]]),
        ("lower", (float("-inf"), 1.0), [[0.6, 0.4], [0.0, 0.2]]),
    ],
)
def test_weight_is_the_distance_from_the_best_value_over_its_mean(better, bounds, badness):
    badness = torch.tensor(badness)
    weights = pixel_weights(mapped(better, bounds), IMAGE)
    torch.testing.assert_close(weights, (badness / badness.mean())[None, None])


def test_a_map_that_goes_against_the_score_is_measured_from_its_own_best():
    critic = mapped("lower", (0.0, 0.5))
    critic.map_direction = "higher"
    badness = torch.tensor([[0.0, 0.2], [0.6, 0.4]])
    torch.testing.assert_close(pixel_weights(critic, IMAGE), (badness / badness.mean())[None, None])
    critic.turn("higher")
    torch.testing.assert_close(pixel_weights(critic, IMAGE), pixel_weights(mapped("higher", (0.0, 0.5)), IMAGE))


def test_floor_is_the_share_that_all_pixels_have_alike():
    weights = pixel_weights(mapped(), IMAGE)
    torch.testing.assert_close(pixel_weights(mapped(), IMAGE, floor=0.25), 0.25 + 0.75 * weights)
    assert torch.equal(pixel_weights(mapped(), IMAGE, floor=1), torch.ones(1, 1, 2, 2))
    for floor in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"in \[0, 1\]"):
            pixel_weights(mapped(), IMAGE, floor=floor)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, float("inf"))])
def test_an_image_without_faults_weighs_evenly(bounds):
    image = torch.cat([torch.ones(1, 3, 4, 4), torch.rand(1, 3, 4, 4)])
    weights = pixel_weights(mapped(bounds=bounds), image)
    assert torch.equal(weights[0], torch.ones(1, 4, 4))
    assert weights[1].std() > 0


def test_values_beyond_the_bound_are_not_worse_than_the_best():
    image = torch.tensor([[1.2, 0.5], [0.5, 0.5]]).expand(1, 3, 2, 2)
    assert pixel_weights(mapped(), image)[0, 0, 0, 0] == 0


def test_small_maps_are_stretched_over_the_image():
    image = torch.zeros(1, 3, 8, 16)
    image[..., :8] = 1
    weights = pixel_weights(mapped(cell=4), image)[0, 0]
    assert weights.shape == (8, 16)
    assert (weights[:, :6] == 0).all()
    assert (weights[:, 10:] == weights.max()).all()
    assert (weights.diff(dim=1) >= 0).all(), "bilinear, so it neither steps back nor overshoots"


@pytest.mark.parametrize("name", NATIVE)
def test_every_native_map_gives_weights(name):
    critic = build_small(name) if name in ("gsn", "pmos", "pmos-map", "wresnet") else create_critic(name)
    x, y = pair(2, 64, 96)
    x.requires_grad_()
    weights = pixel_weights(critic, x, y if critic.card.needs_reference else None)
    assert weights.shape == (2, 1, 64, 96)
    assert not weights.requires_grad
    assert torch.isfinite(weights).all()
    assert weights.min() >= 0
    assert (weights.flatten(1).std(1) > 0).all()
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(2), rtol=1e-5, atol=0)


FORMULAS = [card.name for card in list_critics(weight_free=True)]
BLIND = ("piqe",)  # it looks for noise and blocks, and a flat square has neither


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in BLIND and create_critic(name).has_maps])
def test_damaged_places_weigh_most(name):
    """Whichever way map and score go."""
    critic = create_critic(name)
    side = max(192, critic.card.min_size)
    _, y = pair(1, side)
    x = y.clone()
    x[..., 64:128, 64:128] = x[..., 64:128, 64:128].mean((2, 3), keepdim=True)
    weights = pixel_weights(critic, x, y if critic.card.needs_reference else None)[0, 0]
    inside = weights[80:112, 80:112].mean()
    weights[48:144, 48:144] = 0
    outside = weights.sum() / (side**2 - 96**2)
    assert inside > 1.3 * outside


def test_a_weighted_loss_has_the_gradient_of_constant_weights():
    x, y = pair(2, 48, dtype=torch.float64)
    critic = create_critic("ssim")
    weights = pixel_weights(critic, x, y)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((pixel_weights(critic, x, y) * (x - y).square()).mean(), x)
    torch.testing.assert_close(gradient, (2 * weights * (x.detach() - y) / x.numel()))


def test_autocast_and_low_precision_images():
    x, y = pair(1, 48)
    critic = build_small("gsn")
    x, y = x[..., :32, :32], y[..., :32, :32]
    expected = pixel_weights(critic, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pixel_weights(critic, x, y), expected)
    assert pixel_weights(critic, x.bfloat16(), y.bfloat16()).dtype == torch.bfloat16


def test_refusals():
    x, y = pair(1, 48)
    with pytest.raises(PerceptlossError, match="no quality map"):
        pixel_weights(create_critic("psnr"), x, y)
    with pytest.raises(InputError, match="compares with a reference"):
        pixel_weights(create_critic("ssim"), x)
    with pytest.raises(InputError, match="needs finite x"):
        pixel_weights(mapped(), torch.full((1, 3, 4, 4), float("nan")))
    critic = mapped()
    critic.quality_map = lambda x, y: x[:, :1] * float("nan")
    with pytest.raises(InputError, match="a map that is not finite"):
        pixel_weights(critic, x)
