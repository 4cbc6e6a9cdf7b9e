"""Trunks against torchvision's networks with the same weights, and the losses that are read off them."""

from __future__ import annotations

import pytest
import torch
import torchvision

from perceptloss import create_critic
from perceptloss.networks.trunks import IMAGENET, Trunk, alexnet, squeezenet, vgg16

PEERS = {"vgg16": (vgg16, "vgg16"), "alexnet": (alexnet, "alexnet"), "squeezenet": (squeezenet, "squeezenet1_1")}


def torchvision_taps(trunk: Trunk, peer: str, image: torch.Tensor) -> dict[str, torch.Tensor]:
    features = getattr(torchvision.models, peer)(weights=None).features
    missing, unexpected = features.load_state_dict(trunk.features.state_dict(), strict=False)
    assert list(unexpected) == []
    assert all(int(key.split(".")[0]) > max(trunk.tap_at.values()) for key in missing)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)
    h, found = (image - mean) / std, {}
    for position, layer in enumerate(features.eval()):
        h = layer(h)
        found |= {name: h.clone() for name, at in trunk.tap_at.items() if at == position}
    return found


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 67, 80, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_every_tap_is_that_of_torchvision(name, image):
    build, peer = PEERS[name]
    trunk = build()
    expected = torchvision_taps(trunk, peer, image)
    got = trunk(image, trunk.tap_at)
    assert set(got) == set(expected) == set(trunk.tap_at)
    for tap, value in expected.items():
        torch.testing.assert_close(got[tap], value, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_content_and_style_are_the_papers_formulas(image):
    x, y = image, image.flip(0)
    content, style = (create_critic(name, weights=None) for name in ("vgg-content", "vgg-style"))
    fx, fy = (torchvision_taps(content.trunk, "vgg16", side) for side in (x, y))
    expected = [((a - b) ** 2).mean() for a, b in zip(fx["relu3_3"], fy["relu3_3"], strict=True)]
    torch.testing.assert_close(content(x, y), torch.stack(expected), rtol=1e-4, atol=1e-7)

    def gram(f: torch.Tensor) -> torch.Tensor:
        rows = f.reshape(f.shape[0], -1)
        return rows @ rows.T / f.numel()

    taps = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    distances = [sum(((gram(fx[t][i]) - gram(fy[t][i])) ** 2).sum() for t in taps) for i in range(len(x))]
    torch.testing.assert_close(style(x, y), torch.stack(distances), rtol=1e-3, atol=1e-9)
