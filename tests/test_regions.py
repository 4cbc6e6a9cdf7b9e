"""Critics of regions: their boxes, where their gradient goes, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError, InputError
from perceptloss.loss.regions import RegionLoss, boxes_of

SIZE = (1, 3, 96, 128)


def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SIZE, generator=generator).requires_grad_(), torch.rand(SIZE, generator=generator)


def test_boxes_surround_classes_in_the_order_of_their_numbers():
    classes = torch.full((2, 1, 64, 80), -1)
    classes[0, 0, 3:40, 10:60] = 6
    classes[0, 0, 20:60, 30:70] = 1
    classes[0, 0, 62:64] = 7  # too low
    assert boxes_of(classes) == [[(20, 30, 40, 40), (3, 10, 37, 50)], []]
    assert boxes_of(classes, smallest=2)[0] == [(20, 30, 40, 40), (3, 10, 37, 50), (62, 0, 2, 80)]


def test_the_gradient_is_zero_outside_the_boxes_and_a_critics_own_inside():
    x, y = pair()
    loss = RegionLoss({"gmsd": 0.5})(x, y, [[(8, 16, 40, 48)]])
    (gradient,) = torch.autograd.grad(loss, x)
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[..., 8:48, 16:64] = True
    assert gradient[~inside].abs().max() == 0
    part = x.detach()[..., 8:48, 16:64].clone().requires_grad_()
    alone = CriticLoss({"gmsd": 0.5})(part, y[..., 8:48, 16:64])
    assert torch.allclose(loss, alone)
    assert torch.allclose(gradient[..., 8:48, 16:64], torch.autograd.grad(alone, part)[0])


def test_a_small_box_counts_as_much_as_a_large_one():
    x, y = pair()
    loss_fn, small, large = RegionLoss({"gmsd": 1.0}), (0, 0, 32, 32), (0, 40, 96, 88)
    apart = [loss_fn(x, y, [[box]]) for box in (small, large)]
    assert torch.allclose(loss_fn(x, y, [[small, large]]), sum(apart) / 2)
    both = torch.cat([x, x]), torch.cat([y, y])
    assert torch.allclose(loss_fn(*both, [[small], []]), apart[0])  # images without boxes do not count
    assert loss_fn(x, y, [[(0, 0, 31, 96)]]) == 0


def test_boxes_are_cut_to_what_critics_accept():
    x, y = pair()
    loss_fn = RegionLoss({"gmsd": 1.0})
    loss_fn.multiple = 8
    assert torch.equal(loss_fn(x, y, [[(3, 5, 47, 41)]]), loss_fn(x, y, [[(3, 5, 40, 40)]]))


def test_what_cannot_be_asked_of_regions():
    x, y = pair()
    with pytest.raises(InputError, match="1 images, but 2 lists"):
        RegionLoss({"gmsd": 1.0})(x, y, [[], []])
    with pytest.raises(ConfigError, match="share_every"):
        RegionLoss({"gmsd": {"share": 0.2}})
    with pytest.raises(ConfigError, match="does not learn"):
        RegionLoss({"patch": {"weight": 0.1, "weights": None, "joint": True, "options": {"width": 4}}})


def test_a_critic_of_other_pictures_warns_once(caplog, monkeypatch):
    monkeypatch.setattr("perceptloss.loss.domains._told", set())
    for _ in range(2):
        CriticLoss({"uiqm": 0.1, "gmsd": 1.0})
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'uiqm' was made for underwater pictures" in said and "domain: underwater" in said
    caplog.clear()
    CriticLoss({"uiqm": 0.1}, domain="underwater")
    assert not caplog.records
    CriticLoss({"uiqm": 0.1}, domain="night")
    assert "underwater" in caplog.text
    with pytest.raises(ConfigError, match="domain must be one of natural, underwater, night, screen"):
        CriticLoss({"gmsd": 1.0}, domain="water")
