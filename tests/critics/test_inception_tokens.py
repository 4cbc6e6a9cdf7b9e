"""What IQT, its port and IQA-Conformer share: maps, crops, no fixed score at identity, nothing random."""

from __future__ import annotations

import pytest
import torch
from images import pair
from rounding import assert_same
from small import build_small

from perceptloss import CriticLoss
from perceptloss.networks.inception_tokens import InceptionTokens, map_side
from perceptloss.networks.trunks import InceptionResNet

NAMES = ("iqa-conformer", "iqt", "iqt-port")
SIDE = 64


@pytest.fixture(scope="module", params=NAMES)
def ours(request) -> InceptionTokens:
    return build_small(request.param).double()


@pytest.mark.parametrize(("side", "maps"), [(64, 5), (192, 21), (256, 29)])
@torch.no_grad()
def test_map_side_is_that_of_the_trunk(side, maps):
    trunk = InceptionResNet(blocks=2)
    taps = trunk(torch.zeros(1, 3, side, side), ("mixed_5b", "block35_2"))
    assert {tap.shape for tap in taps.values()} == {(1, 320, maps, maps)}
    assert map_side(side) == maps


def test_published_taps():
    assert InceptionTokens(build_small("iqt").card, 192, 10).taps == (
        *("mixed_5b", "block35_2", "block35_4"),
        *("block35_6", "block35_8", "block35_10"),
    )


def test_one_trunk_serves_all_critics_of_one_loss():
    first, second = build_small("iqt"), build_small("iqa-conformer")
    assert first.trunk.same_as(second.trunk)
    assert not first.trunk.same_as(InceptionResNet(blocks=4))
    x, y = pair(2, SIDE)
    terms = [{"critic": critic, "weight": 1.0, "shape": "softplus"} for critic in (first, second)]
    alone = [CriticLoss([term], share_every=0)(x, y) for term in terms]
    both = CriticLoss(terms, share_every=0)
    assert both.terms[0].critic.trunk is both.terms[1].critic.trunk
    torch.testing.assert_close(both(x, y), sum(alone))


@torch.no_grad()
def test_larger_images_are_the_mean_of_evenly_spaced_crops(ours):
    x, y = pair(2, 130, 70, dtype=torch.float64)
    windows = [(..., slice(top, top + SIDE), slice(left, left + SIDE)) for top in (0, 33, 66) for left in (0, 6)]
    expected = torch.stack([ours(x[window], y[window]) for window in windows]).mean(0)
    torch.testing.assert_close(ours(x, y), expected)


def test_an_image_of_one_crop_is_not_copied(ours):
    image = torch.rand(1, 3, SIDE, SIDE)
    assert ours.prepare(image) is image


@torch.no_grad()
def test_the_encoder_cannot_tell_identical_pairs_apart(ours):
    """Their difference is 0, whatever the image, so only positions and biases are left."""
    images = pair(3, SIDE, dtype=torch.float64)[1]
    maps = ours.joined(ours.trunk(images, ours.taps))
    encoded = ours.encode(maps - maps)
    assert_same(encoded[1:], encoded[:1].expand_as(encoded[1:]))
    assert not torch.allclose(ours.encode(maps[:1] - maps[1:2]), encoded[:1])


@torch.no_grad()
def test_is_not_symmetric(ours):
    x, y = pair(2, SIDE, dtype=torch.float64)
    assert ((ours(x, y) - ours(y, x)).abs() > 1e-6).all()


def test_the_gradient_reaches_the_image_through_the_frozen_trunk(ours):
    x, y = pair(2, SIDE, dtype=torch.float64)
    ours(x.requires_grad_(), y).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.flatten(1).norm(dim=1) > 1e-6).all()
    assert all(p.grad is None for p in ours.parameters())


def test_learning_changes_no_score_by_itself():
    """No dropout, no statistics of the batch: scores in training mode are those of evaluation."""
    x, y = pair(2, SIDE)
    for name in NAMES:
        ours = build_small(name)
        before = {key: value.clone() for key, value in ours.state_dict().items()}
        expected = ours(x, y)
        assert_same(ours.unfreeze().train()(x, y), expected)
        assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
