"""Co-occurrence: known matrices, scikit-image's numbers, and the texture of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from images import photographs

from perceptloss.critics.biqa4k import texture
from perceptloss.critics.biqa4k.texture import ANGLES, STATISTICS, cell_texture, cooccurrence, grey_levels

L = 16
FLAT = {"contrast": 0.0, "dissimilarity": 0.0, "homogeneity": 1.0, "energy": 1.0, "entropy": 0.0}


def per_angle(grey: torch.Tensor, statistic: str = "contrast", levels: int = L) -> dict[int, float]:
    """A statistic of one image at each angle."""
    measure, _ = STATISTICS[statistic]
    return dict(zip(ANGLES, measure(cooccurrence(grey[None], levels))[0].tolist(), strict=True))


def stripes(side: int = 12) -> torch.Tensor:
    """Columns of 0 and L - 1 in turn."""
    return ((L - 1) * (torch.arange(side) % 2)).expand(side, side)


def board(side: int = 12) -> torch.Tensor:
    return (L - 1) * ((torch.arange(side)[:, None] + torch.arange(side)) % 2)


def random_grey(levels: int = L, n: int = 1, height: int = 37, width: int = 52) -> torch.Tensor:
    return torch.randint(levels, (n, height, width), generator=torch.Generator().manual_seed(1))


class TestAgainstScikitImage:
    @pytest.mark.parametrize("levels", [2, 8, 16])
    @pytest.mark.parametrize("picture", ["noise", "photograph"])
    def test_matrices_and_statistics(self, levels, picture):
        skimage = pytest.importorskip("skimage.feature")
        grey = random_grey(levels) if picture == "noise" else grey_levels(photographs(96)[:1], levels)
        angles = [math.radians(angle) for angle in ANGLES]
        theirs = skimage.graycomatrix(
            grey[0].numpy().astype(np.uint8), [1], angles, levels=levels, symmetric=True, normed=True
        )
        ours = cooccurrence(grey, levels)
        np.testing.assert_allclose(ours[0].numpy(), theirs[:, :, 0].transpose(2, 0, 1), rtol=0, atol=1e-12)
        for name, theirs_name in {**{n: n for n in FLAT if n != "entropy"}, "energy": "ASM"}.items():
            expected = skimage.graycoprops(theirs, theirs_name)[0]
            np.testing.assert_allclose(STATISTICS[name][0](ours)[0].numpy(), expected, rtol=1e-12, atol=1e-12)

    def test_entropy_in_bits(self):
        scipy = pytest.importorskip("scipy.stats")
        p = cooccurrence(random_grey())[0]
        expected = [scipy.entropy(matrix.flatten().numpy(), base=2) for matrix in p]
        np.testing.assert_allclose(texture.entropy(p).numpy(), expected, rtol=1e-12)


class TestKnownAnswers:
    @pytest.mark.parametrize(("statistic", "expected"), FLAT.items())
    def test_flat_cells(self, statistic, expected):
        values = per_angle(torch.full((9, 9), 5), statistic)
        assert values == pytest.approx(dict.fromkeys(ANGLES, expected), rel=1e-13)

    def test_vertical_stripes(self):
        expected = {0: (L - 1) ** 2, 45: (L - 1) ** 2, 90: 0, 135: (L - 1) ** 2}
        assert per_angle(stripes()) == pytest.approx(expected, rel=1e-13)

    def test_checkerboard(self):
        expected = {0: (L - 1) ** 2, 45: 0, 90: (L - 1) ** 2, 135: 0}
        assert per_angle(board()) == pytest.approx(expected, rel=1e-13)

    @pytest.mark.parametrize(("grey", "angles"), [(stripes(), (0, 45, 135)), (board(), (0, 90))])
    def test_energy_is_a_half_where_all_pairs_differ(self, grey, angles):
        values = per_angle(grey, "energy")
        assert [values[angle] for angle in angles] == pytest.approx([0.5] * len(angles), rel=1e-13)
        assert per_angle(grey, "entropy")[angles[0]] == pytest.approx(1, rel=1e-13)

    def test_horizontal_ramp(self):
        values = per_angle(torch.arange(L).expand(10, L))
        assert values[0] == pytest.approx(1, abs=1e-14)
        assert values[90] == 0

    def test_matrices_are_symmetric_and_sum_to_one(self):
        p = cooccurrence(random_grey(n=3))
        assert p.shape == (3, 4, L, L)
        assert p.dtype == torch.float64
        assert torch.equal(p, p.mT)
        torch.testing.assert_close(p.sum((-2, -1)), torch.ones(3, 4, dtype=torch.float64), rtol=0, atol=1e-14)

    def test_inversion_leaves_contrast_and_transposition_swaps_angles(self):
        grey = random_grey()[0]
        values = per_angle(grey)
        assert per_angle(L - 1 - grey) == pytest.approx(values, rel=1e-13)
        turned = per_angle(grey.T)
        assert [turned[a] for a in (0, 90, 45)] == pytest.approx([values[a] for a in (90, 0, 45)], rel=1e-13)
        assert values[0] != pytest.approx(values[90], rel=1e-3)

    def test_images_of_a_batch_do_not_mix(self):
        grey = random_grey(n=3)
        assert torch.equal(cooccurrence(grey), torch.cat([cooccurrence(image[None]) for image in grey]))


class TestGreyLevels:
    def test_of_luma_in_equal_steps(self):
        grey = torch.tensor([0.0, 0.06, 0.07, 0.51, 0.99, 1.0, 1.3, -0.2])
        image = grey.expand(1, 3, 1, -1)
        assert grey_levels(image.double()).tolist() == [[[0, 0, 1, 8, 15, 15, 15, 0]]]
        assert grey_levels(image, 2).tolist() == [[[0, 0, 0, 1, 1, 1, 1, 0]]]
        red, green, blue = torch.eye(3, dtype=torch.float64)[:, :, None, None].expand(3, 3, 1, 1)
        levels = [int(grey_levels(colour[None], 1000)) for colour in (red, green, blue)]
        assert levels == [299, 587, 114]


class TestCells:
    def test_texture_is_the_mean_over_angles_of_each_cell(self):
        image = photographs(100)[:2, :, :70]
        found, corners = cell_texture(image, 32)
        assert corners.tolist() == [[0, 0], [0, 32], [0, 64], [32, 0], [32, 32], [32, 64]]
        grey = grey_levels(image)
        for number, (top, left) in enumerate(corners.tolist()):
            cell = grey[:, top : top + 32, left : left + 32]
            expected = texture.contrast(cooccurrence(cell)).mean(1)
            torch.testing.assert_close(found[:, number], expected, rtol=1e-13, atol=0)  # sums of L^2 terms

    def test_grid_may_start_elsewhere(self):
        image = photographs(100)[:1]
        found, corners = cell_texture(image, 32, offset=(5, 3))
        shifted, plain = cell_texture(image[:, :, 5:, 3:], 32)
        assert torch.equal(found, shifted)
        assert torch.equal(corners, plain + torch.tensor([5, 3]))
        assert found.shape == (1, 6), "95 by 97 pixels hold 2 by 3 cells"

    @pytest.mark.parametrize("statistic", STATISTICS)
    def test_more_is_more_texture_by_every_statistic(self, statistic):
        grain = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
        flat, faint = torch.full((3, 32, 32), 0.5), 0.5 + 0.1 * (grain - 0.5)
        (found,), _ = cell_texture(torch.cat([flat, grain, faint], 2)[None], 32, statistic=statistic)
        assert found.argsort(descending=True).tolist() == [1, 2, 0]

    def test_no_gradient_leads_through(self):
        image = photographs(64).requires_grad_()
        assert not cell_texture(image, 32)[0].requires_grad
