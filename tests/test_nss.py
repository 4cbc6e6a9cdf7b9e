"""Natural-scene statistics: ratios and shapes with known answers, exact inverse, published table, and flat areas."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import gamma

from perceptloss.networks.nss import NEIGHBOURS, SHAPES, fits, log_ratio, mscn, offset, rounded, shape_of


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SPREAD = torch.logspace(math.log10(0.21), math.log10(9.9), 40, dtype=torch.float64)


class TestShape:
    def test_known_ratios(self):
        torch.testing.assert_close(log_ratio(doubles(2, 1)).exp(), doubles(2 / math.pi, 0.5), rtol=1e-12, atol=0)
        torch.testing.assert_close(offset(doubles(2)), doubles(math.sqrt(2 / math.pi)), rtol=1e-12, atol=0)

    def test_exact_inverse(self):
        torch.testing.assert_close(shape_of(log_ratio(SPREAD)), SPREAD, rtol=1e-9, atol=0)

    def test_slope_is_that_of_the_inverse_to_second_order(self):
        target = log_ratio(SPREAD).requires_grad_()
        assert torch.autograd.gradcheck(shape_of, target, eps=1e-7, rtol=1e-4)
        assert torch.autograd.gradgradcheck(shape_of, log_ratio(SPREAD[:25]).requires_grad_(), eps=1e-7, rtol=1e-3)

    @pytest.mark.parametrize("table", [True, False])
    def test_constant_beyond_the_table(self, table):
        target = doubles(-50, math.log(0.06), math.log(0.742), 0, 50).requires_grad_()
        alpha = shape_of(target, table=table)
        torch.testing.assert_close(alpha.detach(), doubles(0.2, 0.2, 10, 10, 10))
        assert not torch.autograd.grad(alpha.sum(), target)[0].any()

    def test_steepest_slope(self):
        target = log_ratio(doubles(0.201, 9.999)).requires_grad_()
        (slope,) = torch.autograd.grad(shape_of(target).sum(), target)
        torch.testing.assert_close(slope, doubles(0.0774, 444.66), rtol=1e-3, atol=0)

    @pytest.mark.parametrize("inverse", [True, False])
    def test_the_table_is_searched_as_published(self, inverse):
        ratio = 0.05 + 0.7 * torch.rand(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        shapes = 0.2 + 0.001 * torch.arange(9801, dtype=torch.float64)
        entries = torch.from_numpy(
            gamma(2 / shapes.numpy()) ** 2 / (gamma(1 / shapes.numpy()) * gamma(3 / shapes.numpy()))
        )
        wanted, entries = (1 / ratio, 1 / entries) if inverse else (ratio, entries)
        expected = shapes[(wanted[:, None] - entries).abs().argmin(1)]
        torch.testing.assert_close(shape_of(ratio.log(), table=True, inverse=inverse), expected, rtol=0, atol=1e-9)

    def test_the_table_keeps_the_slope(self):
        slopes = []
        for table in (True, False):
            target = log_ratio(SPREAD).requires_grad_()
            slopes.append(torch.autograd.grad(shape_of(target, table=table).sum(), target)[0])
        assert torch.equal(*slopes)


class TestFits:
    def test_gaussian_samples_have_shape_two(self):
        f = fits(noise(320, 320))
        assert f.alpha[0].item() == pytest.approx(2, abs=0.05)
        assert f.left[0].item() == pytest.approx(1, abs=0.01) == f.right[0].item()
        assert (f.alpha[1:] < 1).all()  # products of independent Gaussians peak at 0
        assert shape_of(f.ratio[0], inverse=True).item() == pytest.approx(2, abs=0.05)

    def test_laplacian_samples_have_shape_one(self):
        uniform = torch.rand(320, 320, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
        f = fits(-uniform.sign() * (1 - 2 * uniform.abs()).log())
        assert f.alpha[0].item() == pytest.approx(1, abs=0.03)
        assert f.power[0].item() == pytest.approx(2, rel=0.02)

    def test_sides_of_unequal_width(self):
        """In each bin of an asymmetric Gaussian the wider side holds more samples."""
        v = noise(400, 400).abs()
        is_left = torch.rand(400, 400, generator=torch.Generator().manual_seed(1)) < 1 / 3
        f = fits(torch.where(is_left, -v, 2 * v))
        assert f.left[0].item() == pytest.approx(1, rel=0.02)
        assert f.right[0].item() == pytest.approx(2, rel=0.02)
        assert f.alpha[0].item() == pytest.approx(2, abs=0.06)

    def test_products_are_those_of_neighbours_around_the_ends(self):
        v = noise(6, 7)
        f = fits(v)
        for place, (down, across) in enumerate(NEIGHBOURS, 1):
            rows, columns = (torch.arange(6) - down) % 6, (torch.arange(7) - across) % 7
            product = v * v[rows][:, columns]
            assert f.power[place].item() == pytest.approx(product.square().mean().item(), rel=1e-12)
            negative = product[product < 0]
            assert f.left[place].item() == pytest.approx(negative.square().mean().sqrt().item(), rel=1e-12)

    @pytest.mark.parametrize("sign", [1, -1, 0])
    def test_a_side_without_samples(self, sign):
        v = (sign * noise(8, 8).abs()).requires_grad_()
        f = fits(v)
        assert f.alpha[0].item() == SHAPES[0]
        assert (f.has_left[0].item(), f.has_right[0].item()) == (sign < 0, sign > 0)
        total = f.alpha.sum() + f.left.sum() + f.right.sum() + f.ratio.sum()
        assert torch.isfinite(torch.autograd.grad(total, v)[0]).all()

    @pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 1e-1, 1.0])
    def test_slopes_are_bounded_however_faint_the_samples(self, size):
        v = (size * noise(48, 48)).requires_grad_()
        f = fits(v)
        reference = fits(noise(48, 48))
        torch.testing.assert_close(f.alpha, reference.alpha, rtol=1e-6, atol=0)
        (gradient,) = torch.autograd.grad((f.alpha + f.ratio + f.left + f.right).sum(), v)
        assert gradient.norm() < 40


class TestNormalisation:
    @pytest.mark.parametrize("level", [0.0, 17.3, 200.0, 255.0])
    def test_flat_images_are_exactly_zero(self, level):
        grey = torch.full((1, 1, 20, 24), level, dtype=torch.float64)
        assert not mscn(grey, "replicate").any()
        assert not mscn(grey, "constant")[..., 3:-3, 3:-3].any()

    def test_flat_areas_beside_edges_are_exactly_zero(self):
        grey = torch.full((1, 1, 20, 24), 0.7 * 255, dtype=torch.float64)
        grey[..., 12:] += 40.3
        v = mscn(grey, "replicate")
        assert not v[..., :9].any() and not v[..., 15:].any()
        assert (v[..., 9:12] < 0).all() and (v[..., 12:15] > 0).all()

    def test_contrast_counts_only_where_it_is_small(self):
        """The 1 in the denominator: brightness never matters, contrast does unless it is large."""
        grey = 100 + noise(1, 1, 40, 40)
        normal = mscn(grey, "replicate")
        torch.testing.assert_close(mscn(grey + 31, "replicate"), normal, rtol=0, atol=1e-9)
        assert mscn(3 * grey, "replicate").square().mean() > 1.5 * normal.square().mean()
        large = mscn(1e5 * grey, "replicate")
        torch.testing.assert_close(mscn(3e5 * grey, "replicate"), large, rtol=1e-4, atol=0)

    def test_window_is_the_published_one(self):
        impulse = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
        impulse[..., 7, 7] = 1e-4  # so faint that the deviation is next to nothing
        row = torch.exp(-(torch.arange(-3.0, 4.0, dtype=torch.float64) ** 2) / (2 * (7 / 6) ** 2))
        window = row[:, None] * row / (row[:, None] * row).sum()
        inside = -mscn(impulse, "replicate")[0, 0, 4:11, 4:11] / 1e-4
        inside[3, 3] += 1 / (1 + 1e-4 * (window[3, 3] - window[3, 3] ** 2).sqrt())
        torch.testing.assert_close(inside, window, rtol=1e-3, atol=0)

    def test_rounding_passes_the_gradient(self):
        grey = doubles(1.2, 1.7, -0.4).requires_grad_()
        assert rounded(grey).tolist() == [1, 2, 0]
        (gradient,) = torch.autograd.grad(rounded(grey).square().sum(), grey)
        assert gradient.tolist() == pytest.approx([2, 4, 0], rel=1e-13)
