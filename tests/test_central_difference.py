"""Central difference convolutions in a trunk and by their definition; the authors' numbers are in a parity case."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_trunks_residual import agree, pictures, resnet_taps, torchvision_resnet
from torch import Tensor, nn

from perceptloss.networks.lean import central_difference
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
