"""The guarded image operations under the formula critics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rounding import assert_same
from torch import Tensor

from perceptloss.critics.haarpsi import haar
from perceptloss.critics.pixel import total_variation
from perceptloss.critics.vif import window_moments
from perceptloss.networks.functional import (
    PREWITT,
    SCHARR,
    YIQ,
    blur,
    bounded_power,
    edge_magnitude,
    gaussian,
    halve,
    mix_channels,
    root,
    similarity,
    soften,
)
from perceptloss.networks.layers import mean_and_variance
from perceptloss.networks.pointwise import power_above, root_lifted


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_blur_is_the_separable_convolution() -> None:
    x, window = noise(2, 1, 15, 18), gaussian(5, 1.1)
    kernel = torch.outer(torch.tensor(window, dtype=torch.float64), torch.tensor(window, dtype=torch.float64))
    torch.testing.assert_close(blur(x, window), F.conv2d(x, kernel[None, None]))
    skewed = (0.1, 0.2, 0.7)
    assert torch.autograd.gradcheck(lambda t: blur(t, skewed), noise(1, 1, 5, 6).requires_grad_())
    assert torch.autograd.gradgradcheck(lambda t: blur(t, skewed).square(), noise(1, 1, 4, 5).requires_grad_())
    assert sum(window) == pytest.approx(1, abs=1e-15)


def test_lifted_roots_let_nothing_through_below_zero() -> None:
    v = torch.tensor([-1.0, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(root_lifted(v, 0.25), (v.clamp_min(0) + 0.25).sqrt())
    assert torch.autograd.grad(root_lifted(v, 0.25).sum(), v)[0][:2].tolist() == [0, 1]
    inner = v[2:].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: root_lifted(t, 0.25), inner)
    assert torch.autograd.gradgradcheck(lambda t: root_lifted(t, 0.25), inner)


def test_mean_and_variance_are_those_of_torch() -> None:
    maps = [noise(2, channels, 4, 3, seed=channels).requires_grad_() for channels in (1, 3)]
    mean, variance = mean_and_variance(*maps)
    both = torch.cat(maps, 1)
    torch.testing.assert_close(mean, both.mean((2, 3)))
    torch.testing.assert_close(variance, both.var((2, 3), correction=0))
    unlike = [maps[0], noise(2, 2, 2, 5).requires_grad_()]
    for group in (maps, unlike):
        assert torch.autograd.gradcheck(mean_and_variance, group)
        assert torch.autograd.gradgradcheck(mean_and_variance, group)


def test_guarded_functions_keep_values_and_bound_slopes() -> None:
    v = torch.tensor([0.0, 1e-12, 1e-4, 0.04, 2.0], dtype=torch.float64, requires_grad=True)
    roots = root(v)
    assert torch.equal(roots, v.sqrt())
    assert torch.autograd.grad(roots.sum(), v)[0][0] == 0
    powers = bounded_power(v, 0.25, 1e-3)
    torch.testing.assert_close(powers, v**0.25, rtol=1e-15, atol=0)
    torch.testing.assert_close(bounded_power(v.float(), 0.25, 1e-3), v.float() ** 0.25, rtol=1e-6, atol=0)
    slopes = torch.autograd.grad(powers.sum(), v)[0]
    assert slopes[:3].tolist() == pytest.approx([0.25 * 1e-3**-0.75] * 3)
    assert slopes[3:].tolist() == pytest.approx([0.25 * 0.04**-0.75, 0.25 * 2**-0.75])
    size = torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    value = torch.ones(4, dtype=torch.float64, requires_grad=True)
    softened = soften(value, size, 1.0)
    assert torch.equal(softened, value)
    assert torch.autograd.grad(softened.sum(), value)[0].tolist() == pytest.approx([0, 0.25, 1, 1], rel=1e-13)


def mixed_by_einsum(x: Tensor) -> Tensor:
    return torch.einsum("nchw,rc->nrhw", x, torch.tensor([[0.2, -0.4, 0.1], [1.0, 2.0, 3.0]], dtype=x.dtype))


def edges_by_convolution(x: Tensor) -> Tensor:
    taps = torch.outer(torch.tensor([3, 10, 3.0]), torch.tensor([-1, 0, 1.0])).to(x) / 16
    kernels = torch.stack([taps, taps.T])[:, None]
    return F.conv2d(x.flatten(0, 1)[:, None], kernels, padding=1).square().sum(1).sqrt().view_as(x)


def haar_by_pooling(x: Tensor) -> Tensor:
    found = []
    for size in (2, 4, 8):
        half = size // 2
        p = F.pad(x[:, :1], (half - 1, half, half - 1, half))
        found.append(F.avg_pool2d(p[..., :-half, :] - p[..., half:, :], (half, size), stride=1))
        found.append(F.avg_pool2d(p[..., :-half] - p[..., half:], (size, half), stride=1))
        found[-2:] = [half * size * f for f in found[-2:]]
    return torch.cat(found, 1).abs()


def variation_by_shifts(x: Tensor) -> Tensor:
    down, across = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    return (down.square().sum((1, 2, 3)) + across.square().sum((1, 2, 3))).sqrt()


def test_haar_and_halving() -> None:
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., 4:, :] = 1  # one horizontal edge
    vertical, horizontal = haar(x)[0, 2:4]  # of side 4, times 4
    assert vertical[3, 3].item() == pytest.approx(4 * 2)
    assert horizontal[2:6, 2:5].abs().max() == 0
    assert halve(torch.ones(1, 1, 5, 4)).flatten().tolist() == pytest.approx([1, 1, 1, 1, 0.5, 0.5])


def by_branches(v: Tensor) -> Tensor:
    return torch.where(v > 0.04045, ((v.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, v / 12.92)


def curve(v: Tensor) -> Tensor:
    return power_above(v, 0.04045, 2.4, (1 / 1.055, 0.055 / 1.055), (1 / 12.92, 0))


WRITTEN_OUT: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], int]] = {
    "curve": (curve, by_branches, 1),
    "halve": (halve, lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2), 1),
    "mix": (lambda x: mix_channels(x, ((0.2, -0.4, 0.1), (1.0, 2.0, 3.0))), mixed_by_einsum, 1),
    "edges": (lambda x: edge_magnitude(x, SCHARR), edges_by_convolution, 1),
    "similarity": (lambda a, b: similarity(a, b, 0.1), lambda a, b: (2 * a * b + 0.1) / (a**2 + b**2 + 0.1), 2),
    "masked": (
        lambda a, b: similarity(a, b, 0.1, 0.5),
        lambda a, b: (1.5 * a * b + 0.1) / (a**2 + b**2 - 0.5 * a * b + 0.1),
        2,
    ),
    "haar": (lambda x: haar(x[:, :1]), haar_by_pooling, 1),
    "variation": (lambda x: total_variation(x, "l2"), variation_by_shifts, 1),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_written_out_gradients_are_those_of_the_plain_form_twice(name: str) -> None:
    ours, plain, count = WRITTEN_OUT[name]
    inputs = [noise(2, 3, 5, 7, seed=3 + n).requires_grad_() for n in range(count)]
    found, expected = ours(*inputs), plain(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    single = ours(*(x.float() for x in inputs))
    torch.testing.assert_close(single.double(), found, rtol=1e-5, atol=1e-6)
    weight = noise(*found.shape, seed=9)
    slopes = [torch.autograd.grad((s**2 * weight).sum(), inputs, create_graph=True) for s in (found, expected)]
    fast = torch.autograd.grad((ours(*inputs) ** 2 * weight).sum(), inputs)
    for slope, again, wanted in zip(slopes[0], fast, slopes[1], strict=True):
        torch.testing.assert_close(slope, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(again, wanted, rtol=1e-12, atol=1e-12)
    twice = [torch.autograd.grad(sum(s.square().sum() for s in slope), inputs, allow_unused=True) for slope in slopes]
    for found, expected in zip(*twice, strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_flat_areas_have_no_gradient_and_no_nan() -> None:
    x = torch.full((1, 3, 8, 8), 0.3, requires_grad=True)
    for function in (lambda x: edge_magnitude(x, PREWITT)[..., 1:-1, 1:-1], total_variation, lambda x: root(x - x)):
        assert torch.equal(torch.autograd.grad(function(x).sum(), x)[0], torch.zeros_like(x))
    for function in (root, lambda x: edge_magnitude(x, PREWITT), lambda x: similarity(x, x, 1.0)):
        assert torch.isnan(function(torch.full((1, 1, 3, 3), torch.nan))).all()  # nothing hides one


def test_window_moments_do_not_cancel_in_float32() -> None:
    luminance = torch.cat([torch.full((1, 1, 40, 30), 250.1), 255 * noise(1, 1, 40, 30).float()], -1)
    xx, yy, xy = window_moments(luminance, luminance, gaussian(9, 1.8))
    assert xx[..., :20].abs().max() < 1e-8
    exact, _, _ = window_moments(luminance.double(), luminance.double(), gaussian(9, 1.8))
    torch.testing.assert_close(xx.double(), exact, rtol=1e-5, atol=1e-8)
    assert_same(yy, xx)
    assert_same(xy, xx)


def test_mixing_several_images_is_one_graph() -> None:
    """Planes are parts of a tensor, and have gaps only where there are two images or more."""
    torch._dynamo.reset()
    x = torch.rand(2, 3, 9, 8).requires_grad_()
    compiled = torch.compile(lambda x: mix_channels(x, YIQ), backend="eager", fullgraph=True)
    found, expected = compiled(x), mix_channels(x, YIQ)
    assert torch.equal(found, expected)
    slopes = [torch.autograd.grad(out.square().sum(), x)[0] for out in (found, expected)]
    assert torch.equal(*slopes)
