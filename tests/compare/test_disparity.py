"""Disparity errors and warp errors with known answers."""

from __future__ import annotations

import math

import pytest
import torch

from perceptloss.compare.disparity import disparity_errors, match_blocks, visible, warp_error, warped
from perceptloss.errors import InputError
from perceptloss.teach.degradations.stereo import stereo_pair


def test_a_constant_offset_is_the_end_point_error():
    true = torch.linspace(2, 60, 40).view(5, 8)
    errors = disparity_errors(true + 1.5, true)
    assert errors.epe == pytest.approx(1.5, abs=1e-5)
    assert (errors.over1, errors.over2, errors.over3, errors.d1, errors.coverage) == (1, 0, 0, 0, 1)


@pytest.mark.parametrize(("true", "is_outlier"), [(100.0, 0.0), (50.0, 1.0)])
def test_an_outlier_is_more_than_three_pixels_and_five_percent(true, is_outlier):
    errors = disparity_errors(torch.tensor([true + 3.5]), torch.tensor([true]))
    assert (errors.d1, errors.over3) == (is_outlier, 1.0)


def test_what_is_unknown_or_not_found_is_not_counted():
    true = torch.tensor([0.0, 200.0, math.inf, math.nan, 10.0, 20.0, 30.0])
    found = torch.tensor([5.0, 5.0, 5.0, 5.0, 12.0, math.nan, 30.0])
    errors = disparity_errors(found, true)
    assert errors.epe == pytest.approx(1.0) and errors.coverage == pytest.approx(2 / 3)
    only = disparity_errors(found, true, mask=torch.tensor([True] * 6 + [False]))
    assert only.epe == pytest.approx(2.0)
    with pytest.raises(InputError, match="no place"):
        disparity_errors(torch.full((3,), math.nan), torch.ones(3))
    with pytest.raises(InputError, match="one shape"):
        disparity_errors(torch.ones(3), torch.ones(4))


def test_warping_by_a_constant_moves_columns():
    right = torch.rand(1, 3, 4, 20)
    left = warped(right, torch.full((1, 4, 20), 3.0))
    torch.testing.assert_close(left[..., 3:], right[..., :-3])
    half = warped(right, torch.full((1, 4, 20), 2.5))
    torch.testing.assert_close(half[..., 3:], (right[..., :-3] + right[..., 1:-2]) / 2)


def test_a_pair_of_one_surface_has_no_warp_error_and_its_border_is_not_visible():
    wide = torch.rand(1, 3, 6, 40)
    left, right = wide[..., :-8], wide[..., 8:]  # the right view at u shows the left one at u + 8
    disparity = torch.full((1, 6, 32), 8.0)
    mask = visible(disparity)
    assert not mask[..., :8].any() and mask[..., 8:].all()
    assert float(warp_error(left, right, disparity)) < 1e-6
    assert float(warp_error(left, right, disparity - 1)) > 0.1


def test_what_lies_behind_something_nearer_is_not_visible():
    disparity = torch.full((1, 1, 40), 4.0)
    disparity[..., 20:26] = 10.0  # covers columns 10 to 15 of the right view: 14 to 19 of the left one
    mask = visible(disparity)[0, 0]
    assert not mask[15:19].any() and mask[20:26].all() and mask[5:13].all() and mask[27:].all()


def test_the_warp_error_sends_its_gradient_to_both_views():
    views = [torch.rand(1, 3, 6, 32, requires_grad=True) for _ in range(2)]
    warp_error(*views, torch.full((1, 6, 32), 4.3)).sum().backward()
    assert all(float(view.grad.norm()) > 0 for view in views)


def test_the_matcher_finds_the_disparity_of_a_made_pair():
    pytest.importorskip("cv2")
    photo = torch.rand(1, 3, 96, 288, generator=torch.Generator().manual_seed(0))
    flat = torch.full((1, 1, 96, 256), 12.0)
    pair, _ = stereo_pair(photo, 0, 32.0, flat)
    found = match_blocks(pair[0], 64)
    errors = disparity_errors(found, flat[0, 0], mask=visible(flat[:, 0])[0])
    assert errors.epe < 0.2 and errors.coverage > 0.7
    with pytest.raises(InputError, match="multiple of 16"):
        match_blocks(pair[0], 60)
