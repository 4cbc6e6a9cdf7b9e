"""RADN beyond parity and contract: who decides the offsets, what they move, and the attention among patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import are_apart
from small import build_small
from torch import Tensor

from perceptloss import create_critic
from perceptloss.critics.radn import RADN, AcrossPatches
from perceptloss.errors import WeightsError
from perceptloss.networks.patches import cut
from perceptloss.weights.convert import convert, load_states


@pytest.fixture
def radn() -> RADN:
    critic = build_small("radn").double()
    assert isinstance(critic, RADN)
    return critic


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return pair(1, 64, 96, dtype=torch.float64)


def offsets(critic: RADN, x: Tensor, y: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = critic.offset.register_forward_hook(lambda module, given, out: found.append(out))
    critic(x, y)
    handle.remove()
    assert len(found) == 1
    return found[0]


def shuffled(image: Tensor, order: Tensor) -> Tensor:
    """The 32x32 patches of one 64x96 image in another order."""
    patches = cut(image, (0, 32), (0, 32, 64), 32)[order]
    return patches.view(2, 3, 3, 32, 32).permute(2, 0, 3, 1, 4).reshape(1, 3, 64, 96)


def test_has_as_many_parameters_as_published():
    assert sum(p.numel() for p in create_critic("radn", weights=None).parameters()) == 21_881_812


class TestOffsets:
    def test_come_from_the_reference_and_carry_no_gradient(self, radn, images):
        x, y = images
        given = offsets(radn, x.requires_grad_(), y)
        assert given.shape == (6, 18, 8, 8)
        assert given.abs().max() > 0.1
        assert not given.requires_grad
        assert torch.equal(offsets(radn, 1 - x, y), given)
        assert not torch.equal(offsets(radn, x, 1 - y), given)

    def test_of_nothing_leave_two_ordinary_convolutions(self, radn, images):
        for parameter in radn.offset.parameters():
            parameter.data.zero_()
        moved: list[Tensor] = []
        radn.ladder[-1].register_forward_pre_hook(lambda module, given: moved.append(given[0]))
        radn(*images)
        for image, deform, given in zip(images, (radn.deform_x, radn.deform_y), moved, strict=True):
            h = radn.ladder[:-1](cut(image, (0, 32), (0, 32, 64), 32))
            torch.testing.assert_close(given, F.conv2d(h, deform.weight, deform.bias, padding=1))

    def test_learn_when_unfrozen(self, radn, images):
        radn.unfreeze()
        radn(*images).sum().backward()
        assert radn.offset.weight.grad.any()
        assert radn.offset.bias.grad.any()


class TestAttention:
    def test_without_queries_adds_the_same_to_every_patch(self):
        across = AcrossPatches(6, 4).double()
        across.theta.weight.data.zero_()
        across.theta.bias.data.zero_()
        v = torch.randn(2, 5, 6, dtype=torch.float64)
        mean = across.W(across.g(v).mean(1, keepdim=True))
        torch.testing.assert_close(across(v), v + mean)

    def test_is_not_scaled(self):
        across = AcrossPatches(1, 4).double()
        for layer in (across.theta, across.phi, across.g):
            layer.weight.data.fill_(1)
            layer.bias.data.zero_()
        across.W.weight.data.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        across.W.bias.data.zero_()
        v = torch.tensor([[[0.5], [1.0]]], dtype=torch.float64)
        far = torch.sigmoid(4 * v * 0.5)  # softmax of (4 v v', ...) over v' = 0.5 and 1
        torch.testing.assert_close(across(v), v + 0.5 + 0.5 * far)

    def test_lets_patches_see_each_other(self, radn, images):
        x, y = images
        changed = x.clone()
        changed[..., :32, :32] = 1 - changed[..., :32, :32]
        assert are_apart(radn.maps(changed, y), radn.maps(x, y)).all()
        for across in (radn.across_x, radn.across_y):
            across.W.weight.data.zero_()
        differ = (radn.maps(changed, y) != radn.maps(x, y))[0, 0]
        assert differ.nonzero().tolist() == [[0, 0]]

    def test_does_not_depend_on_where_the_patches_lie(self, radn, images):
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        moved = [shuffled(image, order) for image in images]
        torch.testing.assert_close(radn(*moved), radn(*images), rtol=1e-10, atol=1e-12)
        values = radn.maps(*images).flatten()
        torch.testing.assert_close(radn.maps(*moved).flatten(), values[order], rtol=1e-10, atol=1e-12)

    def test_stays_within_an_image(self, radn):
        x, y = pair(3, 64, dtype=torch.float64)
        alone = torch.cat([radn(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(radn(x, y), alone, rtol=1e-10, atol=1e-12)


def test_is_not_symmetric(radn, images):
    x, y = images
    assert (radn(x, y) - radn(y, x)).abs() > 1e-6


def test_foreign_and_missing_keys_are_named(radn):
    features, inner = radn.across_x.g.in_features, radn.across_x.g.out_features
    theirs = {
        "Nonlocal1.g.weight": torch.rand(inner, features, 1, 1),
        "conv22.bias": torch.rand(features),
        "deform2.bias": torch.rand(radn.deform_y.out_channels),
        "conv_offset.bias": torch.rand(18),
    }
    found = convert(radn, theirs)
    names = ("across_x.g.weight", "tail.2.bias", "deform_y.bias", "offset.bias")
    for name, tensor in zip(names, theirs.values(), strict=True):
        torch.testing.assert_close(found[name], tensor.reshape(found[name].shape).double())
    with pytest.raises(WeightsError, match=r"bp1\.filter: unknown key"):
        convert(radn, {"bp1.filter": torch.rand(3)})
    with pytest.raises(WeightsError, match=r"across_y\.W\.weight: in no file"):
        load_states(radn, [{k: v for k, v in radn.state_dict().items() if k != "across_y.W.weight"}])
