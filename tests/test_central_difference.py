"""Central difference convolutions: in a trunk, by their definition, and against their authors' code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.parity import distort, fill_state, image, load_case
from test_backbones_more import agree, pictures, resnet_taps, torchvision_resnet
from torch import Tensor, nn

from perceptloss.networks.lean import central_difference, conv
from perceptloss.networks.trunks import ResNet


class CentralDifference(nn.Module):
    """A 3x3 convolution and, as its own convolution of the centre, what is subtracted."""

    def __init__(self, layer: nn.Conv2d, theta: float) -> None:
        super().__init__()
        self.layer, self.theta = layer, theta

    def forward(self, h: Tensor) -> Tensor:
        centre = self.layer.weight.sum((2, 3), keepdim=True)
        return self.layer(h) - self.theta * F.conv2d(h, centre, stride=self.layer.stride)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_trunk_of_central_differences_is_torchvisions_with_them(depth):
    theta = (0.7, 0.0, 0.35, 1.0)
    peer, trunk = torchvision_resnet(depth), ResNet(depth, theta=theta).double()
    trunk.load_state_dict({k: t for k, t in peer.state_dict().items() if not k.startswith("fc.") and "num_b" not in k})
    x = pictures(64, 50, 1).requires_grad_()
    plain = resnet_taps(peer, x)
    for stage, share in enumerate(theta, 1):
        for block in getattr(peer, f"layer{stage}"):
            for name, layer in list(block.named_children()):
                if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                    setattr(block, name, CentralDifference(layer, share))
    expected = resnet_taps(peer, x)
    agree(trunk(x, trunk.tap_at), expected, x)
    assert not torch.allclose(expected["layer1"], plain["layer1"], rtol=0.1)
    assert torch.equal(expected["stem"], plain["stem"]), "the stem has no central difference"


def test_pure_differences_see_no_constant():
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    flat = torch.full((1, 3, 9, 9), 0.7, dtype=torch.float64)
    out = F.conv2d(flat, central_difference(weight, 1.0))
    torch.testing.assert_close(out, torch.zeros_like(out))
    assert torch.equal(central_difference(weight, 0.0), weight)


CDC = load_case(Path(__file__).parent / "parity" / "parts" / "cdc")
CDC_LAYERS = {  # name: (stride, padding, groups, theta), as the notes of the case say
    "a": (1, 1, 1, 0.7),
    "b": (2, 1, 1, 0.7),
    "c": (1, 1, 2, 0.0),
    "d": (1, 2, 1, 0.35),
}


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("row", CDC["expected"], ids=[row["input"] for row in CDC["expected"]])
def test_central_differences_are_the_authors(row, lean):
    """In their code the subtracted centre term carries the bias too, so a bias counts 1 - theta times."""
    x, y = cdc_images(row["input"])
    outputs = {name: [] for name in CDC_LAYERS}
    ends = []
    for h in (y, x.requires_grad_()):
        for name, layer in cdc_layers().items():
            h = conv(h, layer, theta=CDC_LAYERS[name][3], lean=lean)
            outputs[name].append(h)
        ends.append(h)
    score = (ends[0] - ends[1]).square().mean((1, 2, 3))
    torch.testing.assert_close(score, torch.tensor(row["score"], dtype=x.dtype), rtol=1e-9, atol=1e-12)
    for theirs in row["intermediate"]:
        ours = outputs[re.fullmatch(r"output of layer (\w), distorted", theirs["name"])[1]][1]
        assert list(ours.shape) == theirs["shape"]
        found = torch.stack([ours.mean(), ours.std(unbiased=False), *ours.flatten()[: len(theirs["first"])]])
        wanted = torch.tensor([theirs["mean"], theirs["std"], *theirs["first"]], dtype=x.dtype)
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    facts = row["gradient"]
    found = [gradient.norm(), gradient.mean(), *(gradient[tuple(place)] for place in facts["index"])]
    wanted = torch.tensor([facts["norm"], facts["mean"], *facts["value"]], dtype=x.dtype)
    torch.testing.assert_close(torch.stack(found), wanted, rtol=1e-9, atol=1e-12)


def cdc_images(name: str) -> tuple[Tensor, Tensor]:
    (entry,) = [entry for entry in CDC["inputs"] if entry["name"] == name]
    originals = [image(**item["image"]) for item in entry["items"]]
    facts = [item["distort"] for item in entry["items"]]
    distorted = [distort(p, **d) if d else p for p, d in zip(originals, facts, strict=True)]
    return tuple(torch.from_numpy(np.stack(planes)).double() for planes in (distorted, originals))


def cdc_layers() -> dict[str, nn.Conv2d]:
    state = {
        key: torch.from_numpy(value).double() for key, value in fill_state(CDC["layout"], seed=CDC["seed"]).items()
    }
    layers = {}
    for name, (stride, padding, groups, theta) in CDC_LAYERS.items():
        weight, bias = state[f"{name}.conv.weight"], state.get(f"{name}.conv.bias")
        shape = weight.shape[1] * groups, weight.shape[0], weight.shape[2]
        layer = nn.Conv2d(*shape, stride, padding, groups=groups, bias=bias is not None).double().requires_grad_(False)
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_((1 - theta) * bias)
        layers[name] = layer
    return layers
