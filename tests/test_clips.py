"""Clips are judged frame by frame, and by how they change."""

from __future__ import annotations

import pytest
import torch
from images import pair

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError, InputError
from perceptloss.loss.clips import ClipLoss, flicker


def clips(n=2, t=3, side=40):
    x, y = pair(n * t, side)
    return x.unflatten(0, (n, t)), y.unflatten(0, (n, t))


@pytest.mark.parametrize("grad", ["fused", "checkpoint", "autograd"])
def test_frames_are_averaged_and_flicker_is_added(grad):
    x, y = clips()
    x.requires_grad_()
    loss = ClipLoss({"gmsd": 1.0, "charbonnier": 0.5}, temporal=0.25, grad=grad)
    value = loss(x, y)
    (gradient,) = torch.autograd.grad(value, x)
    images = CriticLoss({"gmsd": 1.0, "charbonnier": 0.5}, grad="autograd")
    wanted = images(x.flatten(0, 1), y.flatten(0, 1)) + 0.25 * ((x - y).diff(dim=1)).abs().mean()
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, x)[0])
    again, slope = loss.value_and_gradient(x.detach(), y)
    torch.testing.assert_close(again, value.detach())
    torch.testing.assert_close(slope, gradient)


def test_a_still_error_does_not_flicker_and_a_changing_one_does():
    _, y = clips()
    still = y + 0.1
    trembling = y + 0.1 * torch.tensor([1.0, -1.0, 1.0])[:, None, None, None]
    assert float(flicker(still, y)) == pytest.approx(0, abs=1e-6)
    assert float(flicker(trembling, y)) == pytest.approx(0.2, abs=1e-6)
    assert float(flicker(still[:, :1], y[:, :1])) == 0


def test_flicker_counts_alike_in_every_range():
    x, y = clips()
    plain, signed = (ClipLoss({"gmsd": 1.0}, temporal=0.5, input_range=r) for r in ((0, 1), (-1, 1)))
    torch.testing.assert_close(signed(2 * x - 1, 2 * y - 1), plain(x, y))
    torch.testing.assert_close(
        *(f.value_and_gradient(*i)[0] for f, i in ((signed, (2 * x - 1, 2 * y - 1)), (plain, (x, y))))
    )


def test_a_frame_that_is_not_finite_spoils_nothing(caplog):
    x, y = clips()
    x[0, 1, 0, 3, 5] = torch.nan
    x.requires_grad_()
    value = ClipLoss({"gmsd": 1.0}, temporal=0.5)(x, y)
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == 0 and not gradient.any(), "passed over, as by critics alone"
    assert "1 of" in caplog.text


def test_what_is_no_clip_is_refused():
    x, y = clips()
    loss = ClipLoss({"gmsd": 1.0}, temporal=0.1)
    with pytest.raises(InputError, match="x of shape \\(N, T, 3, H, W\\)"):
        loss(x[0], y[0])
    with pytest.raises(InputError, match="of one shape"):
        loss(x, y[:, :2])
    with pytest.raises(InputError, match="flicker is compared"):
        loss(x)
    with pytest.raises(ConfigError, match="temporal must be"):
        ClipLoss({"gmsd": 1.0}, temporal=-1)


def test_joint_critics_learn_from_the_frames():
    x, y = clips(side=64)
    loss = ClipLoss({"patch": {"weight": 0.1, "weights": None, "joint": {"mix": False}}})
    assert "rank" in loss.learn(x, y, step=0)["patch"]
