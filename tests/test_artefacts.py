"""LDL's map: where errors vary, and where the averaged weights do better."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import pair, photographs

from perceptloss import create_critic
from perceptloss.errors import InputError
from perceptloss.maps.artefacts import artefact_weights
from perceptloss.networks.artefacts import artefact_map


def published(x, y, steady, window=7):
    """The formula with every window unfolded."""
    residual, other = ((image - y).abs().sum(1, keepdim=True) for image in (x, steady))
    whole = residual.var((1, 2, 3), keepdim=True) ** 0.2
    padded = F.pad(residual, (window // 2,) * 4, mode="reflect")
    local = padded.unfold(2, window, 1).unfold(3, window, 1).var((-1, -2))
    return torch.where(residual < other, 0, whole * local)


def test_is_the_published_formula():
    x, y = (image.double() for image in pair(3, 24, 31))
    steady = 0.7 * x + 0.3 * y + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(artefact_map(x, y, steady), published(x, y, steady))
    everywhere = published(x, y, x)
    torch.testing.assert_close(artefact_map(x, y), everywhere)
    torch.testing.assert_close(artefact_weights(x, y), everywhere)


def test_weights_have_no_gradient_and_equal_images_none():
    x, y = pair(2, 32)
    assert not artefact_weights(x.requires_grad_(), y).requires_grad
    assert (artefact_weights(y, y) == 0).all()


def test_speckles_weigh_more_than_a_shift():
    y = photographs(48)
    speckles = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    shift = y + (speckles - y).abs().mean()
    assert (artefact_weights(speckles, y).mean((1, 2, 3)) > 100 * artefact_weights(shift, y).mean((1, 2, 3))).all()


def test_refuses_other_shapes_and_windows():
    x, y = pair(1, 16)
    with pytest.raises(InputError, match="of one shape"):
        artefact_weights(x, y[..., :8])
    with pytest.raises(InputError, match="odd window"):
        artefact_weights(x, y, window=6)


def test_critic_follows_its_weights_only_if_it_is_told_to():
    x, y = pair(2, 24)
    slopes = []
    for options in ({}, {"constant": False}):
        critic = create_critic("ldl", options=options)
        leaf = x.clone().requires_grad_()
        score = critic(leaf, y)
        torch.testing.assert_close(score, (artefact_map(x, y) * (x - y).abs()).mean((1, 2, 3)))
        slopes.append(torch.autograd.grad(score.sum(), leaf)[0])
    weights = artefact_map(x, y)
    torch.testing.assert_close(slopes[0], weights * (x - y).sign() / x[0].numel())
    assert not torch.allclose(*slopes)
