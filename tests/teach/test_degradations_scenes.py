"""Known answers of the degradations of special scenes: underwater, night, stereo, screen."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from images import photographs

from perceptloss.errors import InputError
from perceptloss.teach.degradations import degrade, get_degradation, list_degradations
from perceptloss.teach.degradations.operations import luma, shift_rows, to_linear
from perceptloss.teach.degradations.screen import palette, screen_picture
from perceptloss.teach.degradations.stereo import stereo_pair
from perceptloss.teach.degradations.underwater import COASTAL, OCEANIC, attenuation, formation

STEREO = list_degradations("stereo", channels=6)


def raw(x, name, value, seed=0):
    """A degradation at a value of its parameter, not at a level."""
    return get_degradation(name).function(x, value, torch.Generator().manual_seed(seed))


class TestUnderwater:
    def test_water_takes_red_first_and_the_open_sea_blue_last(self):
        red, green, blue = attenuation(OCEANIC).unbind(1)
        assert (red > green).all() and (green > blue).all() and (blue > 0).all()
        red, green, blue = attenuation(COASTAL).unbind(1)
        assert (green < blue).all() and (green < red).all()

    def test_formation_at_no_distance_and_at_any(self):
        x = photographs(48)
        lost = attenuation(OCEANIC)[1][None, :, None, None]
        veil = torch.tensor([0.02, 0.2, 0.3])[None, :, None, None]
        zero = torch.zeros(3, 1, 48, 48)
        torch.testing.assert_close(formation(x, zero, lost, lost, veil), x, rtol=0, atol=1e-5)
        far = to_linear(formation(x, zero + 1e4, lost, lost, veil))
        torch.testing.assert_close(far, veil.expand_as(far), rtol=0, atol=1e-4)
        half = math.log(2) / lost[0, 2, 0, 0]
        seen = to_linear(formation(x, zero + half, lost, lost, 0 * veil))
        torch.testing.assert_close(seen[:, 2], to_linear(x)[:, 2] / 2, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize(("name", "strongest"), [("underwater-green-cast", 1), ("underwater-blue-cast", 2)])
    def test_casts_have_their_colour(self, name, strongest):
        grey = torch.full((6, 3, 48, 48), 0.5)
        means = degrade(grey, name, 4, seed=0).mean((2, 3))
        assert (means.argmax(1) == strongest).all()
        assert (means[:, 0] < means[:, 1]).all()

    def test_attenuation_darkens_red_most(self):
        grey = torch.full((2, 3, 48, 48), 0.5)
        red, green, blue = degrade(grey, "underwater-attenuation", 3, seed=0).mean((2, 3)).unbind(1)
        assert (red < green).all() and (green < blue).all() and (blue < 0.5).all()

    def test_a_veil_lowers_contrast(self):
        x = photographs(64)
        spread = [degrade(x, "underwater-veil", level, seed=1).std((2, 3)) for level in range(6)]
        assert all((b < a).all() for a, b in itertools.pairwise(spread))

    def test_over_enhancement_stretches_saturates_and_reddens(self):
        x = photographs(64) * 0.4 + 0.3
        out = raw(x, "over-enhanced", 0.5)
        assert (out.std((2, 3)) > 1.2 * x.std((2, 3))).all()
        assert ((out - x).mean((2, 3)).argmax(1) == 0).all()


class TestNight:
    def test_a_stop_halves_the_light(self):
        x = torch.full((1, 3, 64, 64), 0.8)
        light = [to_linear(raw(x, "low-light", stops)).mean().item() for stops in (0.0, 1.0, 3.0)]
        assert light[0] / light[1] == pytest.approx(2, rel=0.02)
        assert light[0] / light[2] == pytest.approx(8, rel=0.02)

    def test_gain_gives_the_light_back_but_not_the_photons(self):
        x = torch.full((1, 3, 96, 96), 0.7)
        light = to_linear(raw(x, "low-light-noise", 4.0))
        photons = 10_000 / 16
        assert light.mean().item() == pytest.approx(to_linear(x).mean().item(), rel=0.02)
        read = (3 / photons) ** 2 * (1 + 0.4**2)
        expected = math.sqrt(to_linear(x).mean().item() / photons + read)
        assert light.std().item() == pytest.approx(expected, rel=0.1)

    def test_lights_only_add_light_and_black_does_not_bloom(self):
        x = photographs(64)
        for name in ("bloom", "glare"):
            assert (degrade(x, name, 4, seed=0) >= x - 1e-5).all()
        black = torch.zeros(1, 3, 48, 48)
        assert torch.equal(degrade(black, "bloom", 5, seed=0), black)
        assert degrade(black, "glare", 5, seed=0).max() > 0.5

    def test_uneven_light_brightens_here_and_darkens_there(self):
        x = torch.full((1, 3, 64, 64), 0.4)
        light = to_linear(raw(x, "uneven-light", 1.0)) / to_linear(x)
        assert light.max().item() == pytest.approx(2, rel=0.01)
        assert light.min().item() == pytest.approx(0.5, rel=0.01)


def pairs(side=64, disparity=6):
    return stereo_pair(photographs(side + disparity)[..., :side, :], 1, disparity)[0]


class TestStereo:
    @pytest.mark.parametrize("name", STEREO)
    def test_the_contract_of_pairs(self, name):
        x = pairs()
        assert torch.equal(degrade(x, name, 0, seed=1), x)
        assert torch.equal(degrade(x, name, 2.5, seed=3), degrade(x, name, 2.5, seed=3))
        ladder = torch.stack([degrade(x, name, level, seed=7) for level in (0, 0.5, 1, 2, 3, 4, 5)])
        assert ladder.min() >= 0 and ladder.max() <= 1
        assert ((ladder - x).square().mean((2, 3, 4)).diff(dim=0) > 0).all()
        flat = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 6, 32, 45)
        assert degrade(flat, name, 5, seed=0).isfinite().all()
        with pytest.raises(InputError, match=r"\(N, 6, H, W\)"):
            degrade(photographs(48), name, 1, seed=0)

    @pytest.mark.parametrize("name", sorted(set(STEREO) - {"crosstalk"}))
    def test_only_one_view_changes_and_either_may(self, name):
        x = pairs()
        out = torch.cat([degrade(x, name, 4, seed=seed) - x for seed in range(6)])
        left, right = (out.abs().amax((2, 3)).unflatten(1, (2, 3)).amax(2) > 0).unbind(1)
        assert (left ^ right).all()
        assert left.any() and right.any()

    def test_vertical_misalignment_moves_whole_rows(self):
        x = pairs()
        out = raw(x, "vertical-misalignment", 3.0)
        for pair, moved in zip(x, out, strict=True):
            view = slice(0, 3) if not torch.equal(pair[:3], moved[:3]) else slice(3, 6)
            down = torch.equal(moved[view, 3:], pair[view, :-3])
            up = torch.equal(moved[view, :-3], pair[view, 3:])
            assert down != up

    def test_shifts_of_half_a_row_are_the_mean(self):
        x = photographs(48)
        moved = shift_rows(x, torch.full((3, 1, 1, 1), 0.5))
        torch.testing.assert_close(moved[..., 1:, :], (x[..., 1:, :] + x[..., :-1, :]) / 2)

    def test_crosstalk_mixes_and_leaves_equal_views(self):
        x = pairs()
        left, right = x.split(3, 1)
        out = raw(x, "crosstalk", 0.25)
        torch.testing.assert_close(out, torch.cat([0.75 * left + 0.25 * right, 0.75 * right + 0.25 * left], 1))
        same = torch.cat([left, left], 1)
        assert torch.equal(degrade(same, "crosstalk", 5, seed=0), same)

    def test_a_pair_without_disparity_is_twice_the_same(self):
        x = photographs(48)
        pair, disparity = stereo_pair(x, 0, 0)
        assert torch.equal(pair, torch.cat([x, x], 1)) and not disparity.any()

    def test_a_given_disparity_is_a_shift(self):
        x = photographs(64)
        for d in (1, 5):
            pair, _ = stereo_pair(x, 0, 8, torch.full((3, 1, 64, 56), float(d)))
            assert torch.equal(pair[:, :3], x[..., :56])
            assert torch.equal(pair[:, 3:], x[..., d : 56 + d])

    def test_a_drawn_pair_matches_its_disparity_and_invents_no_border(self):
        line = torch.arange(96.0) / 95
        x = line.expand(2, 3, 64, 96).contiguous()
        pair, disparity = stereo_pair(x, 5, 12.5)
        assert pair.shape == (2, 6, 64, 83) and disparity.shape == (2, 1, 64, 83)
        assert disparity.amin() == 0 and disparity.amax() == pytest.approx(12.5)
        moved = (pair[:, 3:] - pair[:, :3]) * 95  # exact up to the last column: nothing was clamped
        torch.testing.assert_close(moved, disparity.expand_as(moved), rtol=0, atol=1e-3)
        assert torch.equal(stereo_pair(x, 5, 12.5)[0], pair)
        assert not torch.equal(stereo_pair(x, 6, 12.5)[1], disparity)
        assert (disparity.diff(dim=3).abs() > 1).any()  # surfaces in front of each other
        assert (disparity.diff(dim=3).abs() < 0.5).float().mean() > 0.8  # smooth within

    @pytest.mark.parametrize("bad", [-1, math.nan, math.inf, 20])
    def test_impossible_disparities_are_refused(self, bad):
        with pytest.raises(InputError, match="max_disparity"):
            stereo_pair(photographs(48), 0, bad)

    def test_a_map_that_does_not_fit_is_refused(self):
        with pytest.raises(InputError, match=r"disparity: expected \(3, 1, 64, 60\)"):
            stereo_pair(photographs(64), 0, 4, torch.zeros(3, 1, 64, 64))
        with pytest.raises(InputError, match=r"in \[0, 4\]"):
            stereo_pair(photographs(64), 0, 4, torch.full((3, 1, 64, 60), 5.0))


class TestScreen:
    def test_pages_are_deterministic_sharp_and_varied(self):
        page = screen_picture(192, 160, 4)
        assert page.shape == (1, 3, 192, 160) and page.min() >= 0 and page.max() <= 1
        assert torch.equal(page, screen_picture(192, 160, 4))
        assert not torch.equal(page, screen_picture(192, 160, 5))
        grey = luma(page)[0, 0]
        assert (grey.diff(dim=1).abs() > 0.25).float().mean() > 0.02  # strokes
        assert (grey.diff(dim=1).abs() < 1e-4).float().mean() > 0.3  # paper
        with pytest.raises(InputError, match="at least 32 x 32"):
            screen_picture(31, 64, 0)

    @pytest.mark.parametrize("seed", range(6))
    def test_every_size_and_seed_renders(self, seed):
        page = screen_picture(32 + 17 * seed, 32 + 29 * seed, seed)
        assert page.isfinite().all() and page.std() > 0.02

    @pytest.mark.parametrize("name", list_degradations("screen"))
    def test_damage_rises_on_pages_too(self, name):
        x = torch.cat([screen_picture(96, 128, seed) for seed in (1, 2)])
        errors = torch.stack([(degrade(x, name, v, seed=0) - x).square().mean((1, 2, 3)) for v in range(6)])
        assert (errors.diff(dim=0) > 0).all()

    def test_a_palette_has_so_many_colours_and_keeps_few(self):
        x = photographs(64)
        for colours in (2, 7, 32):
            counts = [len(image.flatten(1).T.unique(dim=0)) for image in palette(x, colours)]
            assert max(counts) <= colours and min(counts) >= max(2, colours // 2)
        flag = torch.zeros(1, 3, 32, 32)
        flag[:, 0, :16], flag[:, 2, 16:] = 1, 0.5
        torch.testing.assert_close(palette(flag, 2), flag)

    def test_fringes_move_red_and_blue_apart_and_leave_green(self):
        x = screen_picture(64, 64, 0)
        out = raw(x, "subpixel-colour-fringe", 1.0)
        assert torch.equal(out[:, 1], x[:, 1])
        shifted = [torch.equal(out[:, 0, :, 1:], x[:, 0, :, :-1]), torch.equal(out[:, 0, :, :-1], x[:, 0, :, 1:])]
        other = [torch.equal(out[:, 2, :, :-1], x[:, 2, :, 1:]), torch.equal(out[:, 2, :, 1:], x[:, 2, :, :-1])]
        assert shifted == other and sum(shifted) == 1

    @pytest.mark.parametrize("name", ["text-blur", "text-jpeg-mosquito"])
    def test_text_is_hurt_and_smooth_areas_are_not(self, name):
        x = torch.full((1, 3, 64, 128), 0.9)
        x[..., 8:24:3] = 0.1
        x[..., 64:] += torch.linspace(0, 0.05, 64)
        change = (degrade(x, name, 4, seed=0) - x).abs()
        assert change[..., 8:24].mean() > 0.03 and change[..., 64:].max() < 0.02
