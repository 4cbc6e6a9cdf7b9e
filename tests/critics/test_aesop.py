"""aesop: its auto-encoder, and what it does and does not see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import pair, photographs

from perceptloss import create_critic
from perceptloss.networks.autoencoder import Autoencoder


@pytest.fixture(scope="module")
def critic():
    return create_critic("aesop")


def test_code_is_the_shrunk_image_and_what_is_added_to_it():
    torch.manual_seed(0)
    network = Autoencoder(width=4, depth=1).eval()
    image = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        added = network.encoder(F.pixel_unshuffle(image, 4))
        assert network.encode(image).shape == (2, 3, 4, 6)
        torch.testing.assert_close(network.encode(image), F.avg_pool2d(image, 4) + added)
        torch.testing.assert_close(network(image), network.decoder(network.encode(image)))


def test_score_is_the_l1_distance_of_what_comes_back(critic):
    x, y = pair(2, 32)
    wanted = (critic.network(x) - critic.network(y)).abs().mean((1, 2, 3))
    torch.testing.assert_close(critic(x, y), wanted)
    squared = create_critic("aesop", options={"criterion": "l2"})(x, y)
    torch.testing.assert_close(squared, (critic.network(x) - critic.network(y)).square().mean((1, 2, 3)))


def test_sides_that_are_no_multiple_are_continued(critic):
    x, y = pair(1, 30, 33)
    padded = [F.pad(image, (0, 3, 0, 2), mode="replicate") for image in (x, y)]
    wanted = (critic.network(padded[0]) - critic.network(padded[1]))[..., :30, :33].abs().mean((1, 2, 3))
    torch.testing.assert_close(critic(x, y), wanted)


def test_what_comes_back_is_nearer_than_what_bicubic_enlargement_gives(critic):
    """The shipped weights have learned: more than the code's pixels alone can tell."""
    y = photographs(128)
    small = F.interpolate(y, scale_factor=0.25, mode="bicubic", antialias=True)
    enlarged = F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)
    assert ((critic.network(y) - y).square().mean((1, 2, 3)) < 0.8 * (enlarged - y).square().mean((1, 2, 3))).all()


def test_grain_costs_little_and_a_tint_its_size(critic):
    y = photographs(96)
    grain = (y + 0.08 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    tint = y * torch.tensor([1.0, 0.9, 0.9]).view(3, 1, 1)
    cost = {name: critic(x, y) / (x - y).abs().mean((1, 2, 3)) for name, x in (("grain", grain), ("tint", tint))}
    assert (cost["grain"] < 0.5).all()
    assert (cost["tint"] > 0.8).all()
