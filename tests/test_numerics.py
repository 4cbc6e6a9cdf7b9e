"""Hard images, precision and refusals, for every registered critic: finite, bounded, exact, and clear."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from rounding import assert_same
from small import PACKAGES
from test_contract import equal, images, judge, side
from torch import Tensor

from perceptloss import Critic
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.layers import unit_distance, unit_norm
from perceptloss.registry import set_precision

STEEPEST = 1e3  # norm of a gradient per image; ordinary ones are below 10, and clipping at 1 is usual


def hard_pairs(critic: Critic) -> dict[str, tuple[Tensor, Tensor]]:
    """Judged image and reference, each (channels, H, W), where careless formulas divide by zero."""
    size = side(critic.card)
    (picture,) = images(critic, 1)[1]
    shape = (critic.card.channels, size, picture.shape[-1])
    black, white, grey = torch.zeros(shape), torch.ones(shape), torch.full(shape, 0.5)
    grain = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    board = (torch.arange(size)[:, None] + torch.arange(shape[-1])) % 2 + black
    step, dot, half = grey.clone(), black.clone(), picture.clone()
    step[:, :, shape[-1] // 2 :] = 0.5 + 1 / 255
    dot[:, size // 2, size // 2] = 1 / 255
    half[:, : size // 2] = 0
    tinted = torch.tensor([1.0, 0.0, 0.0]).repeat(shape[0] // 3)[:, None, None].expand(shape)
    return {
        "equal": (picture, picture),
        "both black": (black, black),
        "both white": (white, white),
        "black against an image": (black, picture),
        "an image against black": (picture, black),
        "white against an image": (white, picture),
        "black against white": (black, white),
        "two flat greys": (grey, torch.full(shape, 0.25)),
        "equal flat greys": (grey, grey),
        "one-pixel step": (step, grey),
        "one faint dot on black": (dot, black),
        "almost black": (1e-6 * grain, black),
        "checkerboard against itself": (board, board),
        "checkerboard against its negative": (board, 1 - board),
        "half black": (half, picture),
        "pure red": (tinted, picture),
        "noise against noise": (grain, grain.flip(1)),
        "contrast raised": (picture, 0.3 * picture + 0.3),
        "overshoot": (1.6 * picture - 0.3, picture),
    }


@pytest.mark.every_name
def test_hard_images_give_finite_bounded_scores_and_gradients(critic):
    pairs = hard_pairs(critic)
    low, high = critic.card.bounds
    x = torch.stack([a for a, _ in pairs.values()]).requires_grad_()
    y = torch.stack([b for _, b in pairs.values()])
    score = judge(critic, x, y)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    norms = gradient.flatten(1).norm(dim=1)
    wrong = []
    for name, s, norm in zip(pairs, score.tolist(), norms.tolist(), strict=True):
        slack = 0.5 if name == "overshoot" else 1e-4  # bounds hold for images inside [0, 1]
        if not (abs(s) < 1e6 and low - slack <= s <= high + slack):
            wrong.append(f"{name}: score {s}")
        if not norm < STEEPEST:
            wrong.append(f"{name}: gradient norm {norm}")
    assert not wrong


def test_one_hard_image_does_not_disturb_its_neighbours(critic64):
    if critic64.card.couples_batch:
        pytest.skip("couples the images of a batch, as its card says")
    tolerance = 1e-5 if critic64.card.name in PACKAGES else 1e-9
    x, y = images(critic64, 2, torch.float64)
    alone = x.clone().requires_grad_()
    beside = torch.cat([torch.zeros_like(x[:1]), x]).requires_grad_()
    (expected,) = torch.autograd.grad(judge(critic64, alone, y).sum(), alone)
    (gradient,) = torch.autograd.grad(judge(critic64, beside, torch.cat([y[:1], y])).sum(), beside)
    equal(gradient[1:], expected, tolerance)


class TestUnitVectors:
    """Of features, as in LPIPS: the published slope is infinite where all channels are zero."""

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-8, 1e-4])
    def test_slope_is_bounded_near_zero(self, scale):
        v = (scale * torch.randn(2, 8, 3, 3)).requires_grad_()
        incoming = torch.randn(v.shape)
        (gradient,) = torch.autograd.grad(unit_norm(v), v, incoming)
        (distance,) = torch.autograd.grad(unit_distance(v, torch.randn(v.shape), torch.ones(8)).sum(), v)
        assert (gradient.norm(dim=1) <= 1001 * incoming.norm(dim=1)).all()
        assert distance.norm() < 1e4

    def test_slope_is_the_true_one_elsewhere(self):
        v, w = torch.randn(2, 1, 4, 2, 2, dtype=torch.float64).unbind()
        weight = torch.rand(4, dtype=torch.float64)
        v.requires_grad_()
        assert torch.autograd.gradcheck(unit_norm, v)
        assert torch.autograd.gradcheck(lambda v: unit_distance(v, w, weight), v)
        assert torch.autograd.gradgradcheck(lambda v: unit_distance(v, w, weight), v)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
    def test_low_precision_images_are_judged_in_fp32(self, critic, dtype):
        x, y = (image.to(dtype) for image in images(critic))
        score = judge(critic, x, y)
        assert score.dtype == torch.float32
        assert torch.equal(score, judge(critic, x.float(), y.float()))

    def test_float64_needs_a_float64_critic(self, critic, critic64):
        x, y = images(critic, 2, torch.float64)
        score = judge(critic64, x, y)
        assert score.dtype == torch.float64
        single = judge(critic, x.float(), y.float())
        torch.testing.assert_close(single.double(), score, rtol=1e-3, atol=1e-4)
        if critic.dtype is None:
            assert judge(critic, x, y).dtype == torch.float64
        else:
            with pytest.raises(InputError, match=r"(?s)float32.*float64.*critic\.double\(\)"):
                judge(critic, x, y)

    def test_autocast_around_it_changes_nothing(self, critic):
        x, y = images(critic)
        expected = judge(critic, x, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(judge(critic, x, y), expected)

    def test_trunk_precision_is_near_fp32_and_only_where_declared(self, critic):
        ours = copy.deepcopy(critic)
        if not critic.card.low_precision:
            with pytest.raises(ConfigError, match="fp32 only"):
                set_precision(ours, "bf16")
            return
        set_precision(ours, "bf16")
        x, y = images(critic)
        score, expected = judge(ours, x, y), judge(critic, x, y)
        assert score.dtype == torch.float32
        assert not torch.equal(score, expected), "precision='bf16' had no effect"
        torch.testing.assert_close(score, expected, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_validation_before_training_does_not_spoil_it(critic, precision):
    """Constants that are made and cached under inference_mode could never be saved for a backward."""
    if precision != "fp32" and not critic.card.low_precision:
        pytest.skip("the card allows fp32 only")
    ours = copy.deepcopy(critic)
    set_precision(ours, precision)
    for name, module in list(sys.modules.items()):
        if name.startswith("perceptloss."):
            for cached in [f for f in vars(module).values() if hasattr(f, "cache_clear")]:
                cached.cache_clear()
    x, y = images(critic, 1)
    with torch.inference_mode():
        expected = judge(ours, x, y)
    x.requires_grad_()
    score = judge(ours, x, y)
    score.sum().backward()
    assert x.grad.abs().sum() > 0
    assert_same(score.detach(), expected)


class TestRefusals:
    def test_wrong_images(self, critic):
        x, y = images(critic, 1)
        channels = critic.card.channels
        wrong = {
            rf"\(N, {channels}, H, W\).*got \(1, {channels + 1}, ": torch.cat([x, x[:, :1]], 1),
            rf"\(N, {channels}, H, W\).*got \({channels}, ": x[0],
            r"got ndarray": x.numpy(),
            r"floating-point x.*got torch\.uint8.*255": (x * 255).byte(),
        }
        for message, image in wrong.items():
            with pytest.raises(InputError, match=message):
                judge(critic, image, y)

    def test_wrong_range(self, critic):
        x, y = images(critic, 1)
        for x_wrong, y_wrong, name in ((2 * x - 1, y, "x"), (255 * x, y, "x"), (x, 2 * y - 1, "y")):
            if name == "y" and not critic.card.needs_reference:
                continue
            with pytest.raises(InputError, match=rf"needs {name} in \[0, 1\], got values from .* to .*Rescale"):
                judge(critic, x_wrong, y_wrong)

    def test_overshoot_is_refused_only_while_scoring(self, critic):
        x, y = images(critic, 1)
        wide = 1.4 * x - 0.2
        judge(critic, wide.clone().requires_grad_(), y)
        with pytest.raises(InputError, match="overshoot"):
            judge(critic, wide, y)
        ours = copy.deepcopy(critic)
        ours.overshoot = "clamp"
        assert torch.equal(judge(ours, wide, y), judge(critic, wide.clamp(0, 1), y))

    def test_wrong_reference(self, critic):
        x, y = images(critic, 1)
        if critic.card.needs_reference:
            with pytest.raises(InputError, match=r"reference.*critic\(x, y\)"):
                critic(x)
        with pytest.raises(InputError, match=r"(?s)one shape.*got \(1, .*Crop or resize"):
            critic(x, y[..., : -critic.card.multiple_of])
