"""The guarded image operations under the formula critics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from rounding import assert_same
from torch import Tensor

from perceptloss.critics.haarpsi import haar
from perceptloss.critics.vif import window_moments
from perceptloss.networks.functional import blur, bounded_power, gaussian, halve, root, soften


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


def test_guarded_functions_keep_values_and_bound_slopes() -> None:
    v = torch.tensor([0.0, 1e-12, 1e-4, 0.04, 2.0], dtype=torch.float64, requires_grad=True)
    roots = root(v)
    assert torch.equal(roots, v.sqrt())
    assert torch.autograd.grad(roots.sum(), v)[0][0] == 0
    powers = bounded_power(v, 0.25, 1e-3)
    torch.testing.assert_close(powers, v**0.25, rtol=1e-15, atol=0)
    slopes = torch.autograd.grad(powers.sum(), v)[0]
    assert slopes[:3].tolist() == pytest.approx([0.25 * 1e-3**-0.75] * 3)
    assert slopes[3:].tolist() == pytest.approx([0.25 * 0.04**-0.75, 0.25 * 2**-0.75])
    size = torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    value = torch.ones(4, dtype=torch.float64, requires_grad=True)
    softened = soften(value, size, 1.0)
    assert torch.equal(softened, value)
    assert torch.autograd.grad(softened.sum(), value)[0].tolist() == pytest.approx([0, 0.25, 1, 1], rel=1e-13)


def test_haar_and_halving() -> None:
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., 4:, :] = 1  # one horizontal edge
    vertical, horizontal = haar(x, 4)[0]
    assert vertical[3, 3].item() == pytest.approx(2)
    assert horizontal[2:6, 2:5].abs().max() == 0
    assert halve(torch.ones(1, 1, 5, 4)).flatten().tolist() == pytest.approx([1, 1, 1, 1, 0.5, 0.5])


def test_window_moments_do_not_cancel_in_float32() -> None:
    luminance = torch.cat([torch.full((1, 1, 40, 30), 250.1), 255 * noise(1, 1, 40, 30).float()], -1)
    xx, yy, xy = window_moments(luminance, luminance, gaussian(9, 1.8))
    assert xx[..., :20].abs().max() < 1e-8
    exact, _, _ = window_moments(luminance.double(), luminance.double(), gaussian(9, 1.8))
    torch.testing.assert_close(xx.double(), exact, rtol=1e-5, atol=1e-8)
    assert_same(yy, xx)
    assert_same(xy, xx)
