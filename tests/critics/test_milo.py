"""milo: the formula of mask and score, what its gradient is made of, and what the weights that ship have learned."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from images import pair, photographs

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.milo import VisibilityMask
from perceptloss.errors import ConfigError


@pytest.fixture(scope="module")
def milo():
    return create_critic("milo")


def convolved(layers, image):
    """What the layers make of an image, spelled out: continued, shifted, weighed and summed."""
    for number, layer in enumerate(layers):
        if number % 2:
            image = image.clamp_min(0)
            continue
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        height, width = image.shape[-2:]
        out = layer.bias.view(1, -1, 1, 1).repeat(len(image), 1, height, width)
        for row in range(3):
            for column in range(3):
                part = padded[..., row : row + height, column : column + width]
                out += torch.einsum("nchw,oc->nohw", part, layer.weight[:, :, row, column])
        image = out
    return image


def gathered(image):
    """Squares of 2x2 pixels as channels: of each colour the four corners, row by row."""
    corners = [image[..., row::2, column::2] for row in range(2) for column in range(2)]
    return torch.stack(corners, 2).flatten(1, 2)


def doubled(mask, dim):
    """Twice as long, each half a quarter of the way to the neighbour on its side; the ends are continued."""
    mask = mask.movedim(dim, -1)
    before, after = (
        torch.cat(parts, -1) for parts in ((mask[..., :1], mask[..., :-1]), (mask[..., 1:], mask[..., -1:]))
    )
    halves = torch.stack([0.75 * mask + 0.25 * before, 0.75 * mask + 0.25 * after], -1)
    return halves.flatten(-2).movedim(-1, dim)


def test_has_about_as_many_weights_as_the_paper_says():
    network = create_critic("milo", weights=None).mask
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.layers) == 5
    assert 43_000 < sum(p.numel() for p in network.parameters()) < 47_000


def test_mask_goes_from_coarse_to_fine_by_the_same_layers():
    torch.manual_seed(0)
    network = VisibilityMask(width=3, scales=2).double().requires_grad_(False)
    x, y = pair(2, 12, 16, dtype=torch.float64)
    seen = torch.cat([y - 0.5, 4 * (x - y)], 1)
    small = gathered(seen.unflatten(3, (8, 2)).unflatten(2, (6, 2)).mean((3, 5)))
    coarse = torch.sigmoid(convolved(network.layers, torch.cat([small, torch.full_like(small[:, :1], 0.5)], 1)))
    told = doubled(doubled(coarse, 2), 3)
    fine = torch.sigmoid(convolved(network.layers, torch.cat([gathered(seen), told], 1)))
    torch.testing.assert_close(network(x, y), doubled(doubled(fine, 2), 3))


def test_sides_that_do_not_halve_are_continued(milo):
    x, y = pair(1, 29, 34)
    longer = [F.pad(image, (0, 6, 0, 3), mode="replicate") for image in (x, y)]
    torch.testing.assert_close(milo.mask(x, y), milo.mask(*longer)[..., :29, :34])


def test_score_is_the_scaled_mean_of_the_masked_error(milo):
    x, y = pair(2, 33, 46)
    f, mask = milo.scaler, milo.mask(x, y)
    masked = mask * (x - y).abs().mean(1, keepdim=True)
    torch.testing.assert_close(milo.maps(x, y), masked)
    raised = f(torch.log1p(masked.mean((1, 2, 3)) / 0.01)) - f(torch.zeros(()))
    torch.testing.assert_close(milo.linear(x, y), raised)
    torch.testing.assert_close(milo(x, y), 1 - torch.exp(-raised))


def test_a_mask_of_one_half_leaves_half_of_l1():
    milo = create_critic("milo", weights=None)
    for p in milo.mask.parameters():
        p.zero_()
    x, y = pair(2, 24)
    torch.testing.assert_close(milo.maps(x, y).mean((1, 2, 3)), 0.5 * (x - y).abs().mean((1, 2, 3)))


def test_score_rises_with_the_masked_error_whatever_is_learned():
    torch.manual_seed(0)
    for seed in range(5):
        milo = create_critic("milo", weights=None).double()
        for p in milo.scaler.parameters():
            p.copy_(3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed), dtype=p.dtype))
        error = torch.linspace(0, 0.5, 200, dtype=torch.float64)
        score = milo.squash(milo._risen(error))
        assert score[0] == 0
        assert (score.diff() > 0).all()
        assert score[-1] < 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_images_score_exactly_0_and_their_neighbours_have_a_bounded_slope(milo, value):
    flat = torch.full((2, 3, 24, 24), value)
    for y in (flat, photographs(33)):
        assert (milo(y, y) == 0).all()
        for away in (0.0, 1e-7, 1e-3):
            x = (y + away).requires_grad_()
            (gradient,) = torch.autograd.grad(milo(x, y).sum(), x)
            assert torch.isfinite(gradient).all()
            assert gradient.abs().max() * y[0].numel() < 1000


def test_gradient_is_that_of_l1_under_the_mask(milo):
    x, y = pair(2, 32)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(milo(x, y).sum(), x)
    pulled = milo.mask(x, y) * (x - y).sign()
    size = (gradient * pulled).sum((1, 2, 3), keepdim=True) / pulled.square().sum((1, 2, 3), keepdim=True)
    assert (size > 0).all()
    torch.testing.assert_close(gradient, (size * pulled).detach())
    moving = copy.deepcopy(milo)
    moving.hold_weights = False
    (exact,) = torch.autograd.grad(moving(x, y).sum(), x)
    assert not torch.allclose(exact, gradient, rtol=0.1)


def test_losses_read_what_is_before_the_flat_end(milo):
    x, y = pair(2, 32)
    loss = CriticLoss([{"critic": milo, "weight": 1.0}])
    torch.testing.assert_close(loss(x, y), -torch.log1p(-milo(x, y)).mean())


def test_shipped_weights_see_noise_on_a_smooth_ground_better_than_in_texture(milo):
    generator = torch.Generator().manual_seed(0)
    grain = 0.03 * torch.randn(1, 3, 96, 96, generator=generator)
    smooth = torch.linspace(0.3, 0.7, 96).expand(1, 3, 96, 96)
    texture = (smooth + 0.15 * torch.randn(1, 1, 96, 96, generator=generator)).clamp(0.15, 0.85)
    on_smooth, on_texture = (milo.maps(y + grain, y).mean() for y in (smooth, texture))
    assert on_texture < 0.9 * on_smooth
    assert milo(texture + grain, texture) < milo(smooth + grain, smooth)


def test_shipped_weights_mind_blur_more_than_l1_does(milo):
    y = photographs(96)
    blurred = F.avg_pool2d(F.pad(y, (2, 2, 2, 2), mode="replicate"), 5, 1)
    lighter = (y + (blurred - y).abs().mean((1, 2, 3), keepdim=True)).clamp(0, 1)
    assert ((lighter - y).abs().mean((1, 2, 3)) > 0.9 * (blurred - y).abs().mean((1, 2, 3))).all()
    assert (milo(blurred, y) > milo(lighter, y)).all()


def test_options_are_checked():
    with pytest.raises(ConfigError, match=r"(?s)options.width .* got 0.*options.scales .* got -1"):
        create_critic("milo", weights=None, options={"width": 0, "scales": -1})
