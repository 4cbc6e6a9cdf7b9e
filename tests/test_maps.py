"""Quality maps of the critics that have one, and the attribution that explains the others, for the whole registry."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from test_contract import images, side
from torch import Tensor
from toys import Toy, brightness, difference, flat, toy

from perceptloss import Critic, create_critic
from perceptloss.errors import InputError, PerceptlossError
from perceptloss.maps.attribution import attribution, sensitivity


def explain(critic: Critic, x: Tensor, y: Tensor) -> Tensor:
    """The map that a user gets of a critic."""
    reference = y if critic.card.needs_reference else None
    return critic.maps(x, reference) if critic.has_maps else attribution(critic, x, reference, steps=1)


def patched(y: Tensor, rows: slice, columns: slice) -> Tensor:
    """The images with one damaged place."""
    x = y.clone()
    grain = torch.rand(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    x[..., rows, columns] = 0.5 * y[..., rows, columns] + 0.5 * grain[..., rows, columns]
    return x


class TestEveryCritic:
    def test_explains_each_image_alone(self, critic):
        x, y = images(critic, 2)
        found = explain(critic, x, y)
        assert found.shape[:2] == (2, 1)
        assert found.ndim == 4
        assert all(1 <= ours <= whole for ours, whole in zip(found.shape[2:], x.shape[2:], strict=True))
        assert torch.isfinite(found).all()
        assert found[0].any()
        assert found[1].any()
        changed = x.clone()
        changed[0] = changed[0].flip(-1) ** 2
        again = explain(critic, changed, y)
        torch.testing.assert_close(again[1], found[1], rtol=1e-3, atol=1e-4 * found[1].abs().max().item())
        assert not torch.allclose(again[0], found[0], rtol=1e-3)

    def test_is_finite_on_flat_images(self, critic):
        x, y = images(critic, 3)
        x, y = x.clone(), y.clone()
        x[0], y[0], x[1], y[1], x[2], y[2] = 0, 0, 0, 0.5, 1, 1
        assert torch.isfinite(explain(critic, x, y)).all()
        if critic.card.needs_reference and not critic.has_maps:
            equal = explain(critic, y, y)
            assert not equal.any()

    def test_direction_of_its_map_is_true(self, critic):
        card = critic.card
        if not critic.has_maps or card.identity is None or not card.needs_reference:
            pytest.skip("no map of its own, or no image that must look perfect")
        height = side(card)
        width = 3 * height
        _, y = pair(2, height, width, channels=card.channels)
        quality = critic.maps(patched(y, slice(None), slice(0, width // 2)), y)
        third = quality.shape[-1] // 3
        damaged, clean = quality[..., :third].mean((1, 2, 3)), quality[..., -third:].mean((1, 2, 3))
        assert ((damaged < clean) if critic.map_better == "higher" else (damaged > clean)).all()


def test_a_critic_tells_whether_it_has_a_map_and_which_way_it_goes():
    ssim, gmsd, lpips, psnr = (create_critic(name, weights=None) for name in ("ssim", "gmsd", "lpips-squeeze", "psnr"))
    assert (ssim.has_maps, ssim.map_better) == (True, "higher")
    assert (gmsd.has_maps, gmsd.map_better, gmsd.card.better) == (True, "higher", "lower")
    assert (lpips.has_maps, lpips.map_better) == (True, "lower")
    assert not psnr.has_maps
    with pytest.raises(PerceptlossError, match=r"'psnr' has no quality map of its own.*attribution"):
        psnr.maps(*pair(1, 32))
    turned = build_small("gsn")
    turned.turn("lower")
    assert turned.map_better == "lower", "a map of opinions goes with the opinions"


class TestOwnMaps:
    ROWS, COLUMNS = slice(40, 56), slice(16, 32)

    @pytest.mark.parametrize("name", ["lpips-alex", "lpips-squeeze", "lpips-vgg", "aipq-lpips-l2pool", "ssim-full"])
    def test_find_a_damaged_place(self, name):
        critic = create_critic(name, weights=None)
        _, y = pair(1, 72, 88)
        found = critic.maps(patched(y, self.ROWS, self.COLUMNS), y)
        loss = found if critic.map_better == "lower" else 1 - found
        row, column = divmod(loss[0, 0].argmax().item(), loss.shape[-1])
        trim = (72 - loss.shape[-2]) // 2  # of windows that must lie inside the image
        assert self.ROWS.start - 8 <= row + trim < self.ROWS.stop + 8
        assert self.COLUMNS.start - 8 <= column + trim < self.COLUMNS.stop + 8

    def test_lpips_is_0_for_equal_images_and_else_close_to_the_score_in_the_mean(self):
        critic = create_critic("lpips-squeeze", weights=None).double()
        x, y = pair(2, 128, 136, dtype=torch.float64)
        assert not critic.maps(y, y).any()
        found = critic.maps(x, y)
        assert found.shape == (2, 1, 128, 136)
        assert found.min() >= 0
        torch.testing.assert_close(found.mean((1, 2, 3)), critic(x, y), rtol=0.1, atol=0)

    def test_lpips_adds_the_enlarged_maps_of_its_taps(self):
        critic = create_critic("lpips-squeeze", weights=None).double()
        x, y = pair(1, 64, dtype=torch.float64)
        whole = critic.maps(x, y)
        heads = [head.clone() for head in critic.heads]
        total = torch.zeros_like(whole)
        for kept, weight in enumerate(heads):
            for number, head in enumerate(critic.heads):
                head.copy_(weight if number == kept else torch.zeros_like(head))
            fx, fy = (critic.trunk(image, critic.taps)[critic.taps[kept]] for image in (x, y))
            one = (F.normalize(fx) - F.normalize(fy)).square().mul(weight[:, None, None]).sum(1, keepdim=True)
            part = F.interpolate(one, (64, 64), mode="bilinear")
            torch.testing.assert_close(critic.maps(x, y), part, rtol=1e-6, atol=1e-9)
            total += part
        torch.testing.assert_close(total, whole, rtol=1e-6, atol=1e-9)

    def test_maps_are_differentiable(self):
        critic = create_critic("lpips-squeeze", weights=None)
        x, y = pair(1, 64)
        critic.maps(x.requires_grad_(), y)[..., 30, 30].sum().backward()
        assert x.grad.any()


class TestAttribution:
    @pytest.mark.parametrize("steps", [1, 2, 8])
    def test_of_a_squared_error_is_its_share_of_the_error(self, steps):
        x, y = pair(2, 16, dtype=torch.float64)
        expected = (x - y).square().sum(1, keepdim=True) / (3 * 16 * 16)
        torch.testing.assert_close(attribution(difference(), x, y, steps=steps), expected)

    def test_of_brightness_is_the_change_itself(self):
        x, y = pair(2, 16, dtype=torch.float64)
        expected = (x - y).sum(1, keepdim=True) / (3 * 16 * 16)
        torch.testing.assert_close(attribution(brightness(), x, y, steps=1), expected)

    @pytest.mark.parametrize(("power", "steps", "is_exact"), [(3, 1, False), (3, 2, True), (7, 3, False), (7, 4, True)])
    def test_nodes_are_exact_up_to_their_degree(self, power, steps, is_exact):
        critic = toy("power", lambda x, y: (x**power).sum((1, 2, 3)))
        x, y = flat(0.9).double(), flat(0.2).double()
        total = attribution(critic, x, y, steps=steps).sum((1, 2, 3))
        assert torch.allclose(total, critic(x) - critic(y), rtol=1e-12) == is_exact

    @pytest.mark.parametrize(
        ("name", "tolerance"), [("ssim-full", 1e-6), ("haarpsi", 0.03), ("lpips-squeeze", 0.02), ("nlpd", 0.02)]
    )
    def test_adds_up_to_the_difference_of_scores(self, name, tolerance):
        critic = create_critic(name, weights=None).double()
        x, y = pair(2, 72, 80, dtype=torch.float64)
        total = attribution(critic, x, y).sum((1, 2, 3))
        torch.testing.assert_close(total, critic(x, y) - critic(y, y), rtol=tolerance, atol=0)

    def test_adds_up_where_learned_weights_pool(self):
        critic = build_small("gsn").double()
        critic.weight[-1].weight.data.mul_(30)
        x, y = pair(2, 64, dtype=torch.float64)
        x = y + 0.1 * (x - y)
        total = attribution(critic, x, y, steps=16).sum((1, 2, 3))
        torch.testing.assert_close(total, critic(x, y) - critic(y, y), rtol=0.05, atol=0)
        assert critic.hold_weights is True, "left as it was"

    @pytest.mark.parametrize("name", ["ssim", "lpips-squeeze", "psnr"])
    def test_finds_a_damaged_place_and_says_which_way_it_pulls(self, name):
        critic = create_critic(name, weights=None)
        _, y = pair(1, 72, 88)
        rows, columns = slice(40, 56), slice(16, 32)
        found = attribution(critic, patched(y, rows, columns), y)
        inside = found[..., rows, columns]
        assert inside.sum().item() == pytest.approx(found.sum().item(), rel=1e-6)
        assert inside.ne(0).float().mean() > 0.9
        outside = found.clone()
        outside[..., rows, columns] = 0
        assert not outside.any()
        assert (found.sum() < 0) == (critic.card.better == "higher")

    def test_is_0_where_images_are_equal(self):
        critic = create_critic("lpips-squeeze", weights=None)
        x, y = pair(2, 64)
        x = torch.cat([x[:1], y[1:]])
        found = attribution(critic, x, y)
        assert found[0].any()
        assert not found[1].any()

    def test_repeats_and_needs_no_graph_around_it(self):
        critic = create_critic("ssim-full")
        x, y = pair(2, 32)
        expected = attribution(critic, x, y)
        assert_same(attribution(critic, x.requires_grad_(), y), expected)
        assert not expected.requires_grad
        assert x.grad is None
        x = x.detach()
        with torch.no_grad():
            assert_same(attribution(critic, x, y), expected)
        with torch.inference_mode():
            assert_same(attribution(critic, x, y), expected)
        for n in range(2):
            torch.testing.assert_close(attribution(critic, x[n : n + 1], y[n : n + 1]), expected[n : n + 1])

    def test_teaches_a_learning_critic_nothing(self):
        critic = create_critic("lpips-squeeze", weights=None).unfreeze()
        attribution(critic, *pair(1, 64), steps=1)
        assert all(p.grad is None for p in critic.parameters())

    def test_refuses(self):
        x, y = pair(2, 32)
        ssim = create_critic("ssim")
        with pytest.raises(InputError, match="one step or more, got 0"):
            attribution(ssim, x, y, steps=0)
        with pytest.raises(InputError, match="compares with a reference"):
            attribution(ssim, x)
        with pytest.raises(InputError, match=r"needs x in \[0, 1\]"):
            attribution(ssim, 2 * x, y)
        with pytest.raises(InputError, match="one image at a time"):
            attribution(difference(couples_batch=True), x, y)
        attribution(difference(couples_batch=True), x[:1], y[:1])


class Saturated(Toy):
    """Brightness behind an end that is flat above 0.1."""

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.function(x, y)

    def squash(self, linear: Tensor) -> Tensor:
        return linear.clamp(max=0.1)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.squash(self.linear(x, y))


class TestSensitivity:
    def test_sum_is_that_of_the_slopes(self):
        x, _ = pair(2, 8, 23, dtype=torch.float64)
        critic = toy("squares", lambda x, y: x.square().sum((1, 2, 3)))
        found = sensitivity(critic, x)
        assert found.shape == (2, 1, 8, 23)
        assert found.min() > 0
        torch.testing.assert_close(found.sum((1, 2, 3)), 2 * x.norm(dim=1).sum((1, 2)))
        assert torch.equal(attribution(critic, x), found)

    def test_spreads_a_point_evenly_around(self):
        x = torch.full((1, 3, 41, 41), 0.5, dtype=torch.float64)
        found = sensitivity(toy("point", lambda x, y: x[..., 20, 20].sum(1)), x)[0, 0]
        assert found.argmax().item() == 20 * 41 + 20
        torch.testing.assert_close(found, found.flip(0))
        torch.testing.assert_close(found, found.T)
        assert found.sum().item() == pytest.approx(math.sqrt(3))
        assert found.count_nonzero() == 11 * 11

    def test_looks_behind_a_saturated_end(self):
        dark, bright = (torch.full((1, 3, 16, 16), level) for level in (0.05, 0.5))
        plain = brightness()
        critic = Saturated(plain.card, plain.function)
        assert critic(bright).item() == pytest.approx(0.1)
        torch.testing.assert_close(sensitivity(critic, bright), sensitivity(critic, dark))
        assert sensitivity(critic, bright).sum().item() == pytest.approx(math.sqrt(3) / 3)

    def test_of_nothing_is_nothing(self):
        critic = toy("square", lambda x, y: x.square().mean((1, 2, 3)))
        assert not sensitivity(critic, torch.zeros(1, 3, 16, 16)).any()
