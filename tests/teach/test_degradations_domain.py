"""Known answers of the degradations by subject: spatial, artefacts, generative, and chains."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from images import photographs

from perceptloss.errors import ConfigError
from perceptloss.teach.degradations import degrade, get_degradation, list_degradations, random_chain
from perceptloss.teach.degradations.artefacts import sinc_kernel
from perceptloss.teach.degradations.chains import STAGES
from perceptloss.teach.degradations.fields import Blocks, local_energy, smooth_field
from perceptloss.teach.degradations.generative import wrong_texture
from perceptloss.teach.degradations.operations import gaussian_blur, luma


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def raw(x, name, value, seed=0):
    """A degradation at a value of its parameter, not at a level."""
    return get_degradation(name).function(x, value, generator(seed))


def ramps(side):
    """Red rises across by 0.5, green down by 0.5, blue is flat."""
    line = torch.linspace(0.25, 0.75, side)
    return torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.full((side, side), 0.5)])[None]


def displacement(x, out, margin=6):
    """How far each inner pixel of `ramps` was moved, in pixels, (H, W)."""
    slope = 0.5 / (x.shape[3] - 1)
    return torch.hypot(*((out - x)[0, :2] / slope))[margin:-margin, margin:-margin]


def test_the_families_are_complete():
    expected = {
        "spatial": {"jitter", "moved-patches", "block-errors"},
        "geometry": {"micro-shift", "micro-rotation", "micro-warp"},
        "sharpening": {"over-sharpening", "halo", "ringing"},
        "generative": {"wrong-texture", "shuffled-texture", "checkerboard", "painterly", "tile-seams"},
        "night": {"low-light", "low-light-noise", "bloom", "glare", "uneven-light"},
        "screen": {"text-blur", "subpixel-colour-fringe", "palette", "text-jpeg-mosquito"},
    }
    for family, names in expected.items():
        assert names <= set(list_degradations(family))
    assert len(list_degradations("underwater")) == 7
    assert len(list_degradations("stereo", channels=6)) == 8


class TestSpatial:
    def test_a_shift_moves_by_its_value(self):
        x = ramps(64)
        for pixels in (0.25, 1.0, 2.5):
            moved = displacement(x, raw(x, "micro-shift", pixels, seed=3))
            torch.testing.assert_close(moved, torch.full_like(moved, pixels), rtol=0, atol=0.06)

    def test_a_rotation_moves_by_angle_times_radius(self):
        x = ramps(65)
        moved = displacement(x, raw(x, "micro-rotation", 1.5), margin=4)
        line = torch.arange(65.0) - 32
        expected = 2 * math.sin(math.radians(0.75)) * torch.hypot(line, line[:, None])
        torch.testing.assert_close(moved, expected[4:-4, 4:-4], rtol=0, atol=0.08)

    def test_a_warp_is_smooth_and_bounded(self):
        x = ramps(64)
        moved = displacement(x, raw(x, "micro-warp", 2.0))
        assert 1.0 < moved.max() <= 2 * math.sqrt(2) + 1e-3
        assert moved.diff(dim=0).abs().max() < 0.5

    def test_blocks_are_hit_in_part_and_nested(self):
        x = photographs(64)
        blocks = Blocks.draw(x, generator(), 16)
        priority = blocks.random(generator(1))
        few, many = blocks.hit(priority, 0.2), blocks.hit(priority, 0.5)
        assert (many >= few).all() and (blocks.hit(priority, 1.0) == 1).all() and (blocks.hit(priority, 0) == 0).all()
        assert ((many > 0) & (many < 1)).any()

    def test_moved_patches_bring_only_colours_that_were_there(self):
        x = photographs(64)[:1]
        out = raw(x, "moved-patches", 1.0)
        known = {tuple(p) for p in x[0].flatten(1).T.tolist()}
        assert {tuple(p) for p in out[0].flatten(1).T.tolist()} <= known
        assert (out != x).any(1).float().mean() > 0.9

    def test_smooth_fields_span_0_to_1(self):
        field = smooth_field(photographs(64), generator(), channels=2)
        torch.testing.assert_close(field.amin((2, 3)), torch.zeros(3, 2))
        torch.testing.assert_close(field.amax((2, 3)), torch.ones(3, 2))
        assert field.diff(dim=3).abs().max() < 0.2


class TestArtefacts:
    @pytest.mark.parametrize("cutoff", [0.7, 1.6, math.pi])
    def test_the_sinc_kernel_passes_below_its_cutoff_and_stops_above(self, cutoff):
        kernel = sinc_kernel(cutoff, 101)
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(kernel, kernel.T)
        response = torch.fft.fft2(kernel).abs()[0]
        frequency = 2 * math.pi * torch.arange(101) / 101
        assert (response[frequency < 0.8 * cutoff] - 1).abs().max() < 0.1
        above = response[(frequency > 1.25 * cutoff) & (frequency <= math.pi)]
        assert above.numel() == 0 or above.max() < 0.1

    def test_ringing_overshoots_beside_an_edge(self):
        x = torch.full((1, 3, 64, 64), 0.3)
        x[..., 32:] = 0.7
        out = raw(x, "ringing", 1.0)
        assert out.max() > 0.72 and out.min() < 0.28

    def test_banding_leaves_few_steps_of_the_height_asked_for(self):
        x = (0.2 + 0.6 * torch.arange(128) / 127).expand(1, 3, 128, 128).contiguous()
        row = luma(raw(x, "banding", 25.5))[0, 0, 64, 8:-8]
        steps = row.diff().abs()
        assert (steps > 0.08).sum() in (5, 6)
        assert steps[steps > 0.08].median().item() == pytest.approx(0.1, abs=0.012)
        assert (steps < 0.005).float().mean() > 0.9

    def test_halo_and_sharpening_leave_flat_images_alone(self):
        x = torch.full((1, 3, 40, 40), 0.37)
        for name in ("halo", "over-sharpening", "jaggies"):
            torch.testing.assert_close(degrade(x, name, 5, seed=0), x, rtol=0, atol=1e-5)

    def test_a_halo_is_bright_on_the_bright_side_and_dark_on_the_dark_one(self):
        x = torch.full((1, 3, 64, 64), 0.3)
        x[..., 32:] = 0.7
        change = (raw(x, "halo", 1.0) - x)[0, 1, 32]
        assert change[32:36].min() > 0.02 and change[28:32].max() < -0.02 and change[:8].abs().max() < 0.01

    def test_jaggies_make_stairs_at_edges_only(self):
        line = torch.arange(64.0)
        x = torch.sigmoid((line - 0.6 * line[:, None] - 10) / 2).expand(1, 3, 64, 64).contiguous()
        out = raw(x, "jaggies", 4.0)
        assert (out - x)[..., :8, 40:].abs().max() < 0.01
        assert (out - x).abs().max() > 0.1


class TestGenerative:
    @pytest.mark.parametrize("name", ["wrong-texture", "shuffled-texture"])
    def test_texture_is_wrong_but_of_the_same_energy(self, name):
        x = photographs(128) * 0.6 + 0.2
        out = raw(x, name, 1.0)
        high, fake = x - gaussian_blur(x, 1.5), out - gaussian_blur(x, 1.5)
        ratio = fake.square().mean((1, 2, 3)) / high.square().mean((1, 2, 3))
        assert ((ratio > 0.5) & (ratio < 1.6)).all()
        near = torch.stack([local_energy(band, 6.0).flatten() for band in (high, fake)])
        assert torch.corrcoef(near)[0, 1] > 0.75
        assert torch.corrcoef(torch.stack([high.flatten(), fake.flatten()]))[0, 1].abs() < 0.3

    def test_no_texture_gives_none(self):
        flat = torch.full((1, 3, 48, 48), 0.5)
        torch.testing.assert_close(wrong_texture(flat, 2.0, generator()), flat, rtol=0, atol=1e-5)

    def test_the_checkerboard_has_period_4_and_mean_0(self):
        flat = torch.full((4, 3, 48, 48), 0.5)
        pattern = raw(flat, "checkerboard", 2.0) - flat
        torch.testing.assert_close(pattern[..., 4:, 4:], pattern[..., :-4, :-4])
        torch.testing.assert_close(F.avg_pool2d(pattern, 4), torch.zeros(4, 3, 12, 12), rtol=0, atol=1e-6)
        assert pattern.abs().amax((1, 2, 3)).min() > 0.01

    def test_paint_keeps_edges_and_loses_noise(self):
        x = torch.full((1, 3, 64, 64), 0.2)
        x[..., 32:] = 0.8
        noisy = x + 0.03 * torch.randn(x.shape, generator=generator())
        out = raw(noisy, "painterly", 4.0)
        assert (out - x).square().mean() < 0.2 * (noisy - x).square().mean()
        assert (out[..., 33] - out[..., 30]).min() > 0.5

    def test_paint_of_radius_0_changes_nothing(self):
        x = photographs(48)
        torch.testing.assert_close(raw(x, "painterly", 0.0), x)

    def test_seams_shift_whole_tiles(self):
        x = photographs(96)
        change = raw(x, "tile-seams", 0.05) - x
        assert change[0].flatten(1).T.mul(1e4).round().unique(dim=0).shape[0] <= 49
        assert ((change[..., 1:] - change[..., :-1]).abs() < 1e-6).float().mean() > 0.85


class TestChains:
    def test_a_generator_fixes_a_chain(self):
        for kind in ("real-world", "mixed"):
            assert random_chain(generator(3), kind=kind) == random_chain(generator(3), kind=kind)
            assert len({random_chain(generator(s), kind=kind) for s in range(8)}) == 8

    def test_real_world_chains_keep_the_order_of_two_rounds(self):
        stage = {name: kind for kind, names in STAGES.items() for name in names}
        ends = set()
        for seed in range(60):
            order = [stage[step.name] for step in random_chain(generator(seed))]
            first, rest = order[:4], order[4:]
            assert first[0] in ("blur", "sinc") and first[1:] == ["resize", "noise", "jpeg"]
            assert rest.count("resize") == rest.count("noise") == rest.count("jpeg") == 1
            noise = rest.index("noise")
            assert rest[noise - 1] == "resize" and set(rest[: noise - 1]) <= {"blur", "sinc"}
            ends.add(tuple(rest[noise + 1 :]))
        assert ends == {("jpeg",), ("sinc", "jpeg"), ("jpeg", "sinc")}

    def test_mixed_chains_have_the_length_asked_for_and_unlike_families(self):
        lengths = set()
        for seed in range(40):
            steps = random_chain(generator(seed), kind="mixed", length=(2, 4))
            families = [get_degradation(step.name).family for step in steps]
            assert len(set(families)) == len(steps) and not {"chain", "network"} & set(families)
            assert all(0.5 <= step.level <= 4.5 for step in steps)
            lengths.add(len(steps))
        assert lengths == {2, 3, 4}
        few = random_chain(generator(), kind="mixed", names=["jpeg", "gaussian-blur"], length=(4, 4))
        assert sorted(step.name for step in few) == ["gaussian-blur", "gaussian-blur", "jpeg", "jpeg"]

    def test_names_and_exclude(self):
        for seed in range(10):
            names = {step.name for step in random_chain(generator(seed), exclude=("jpeg", "ringing"))}
            assert not names & {"jpeg", "ringing"} and names
            steps = random_chain(generator(seed), names=("jpeg", "white-noise"))
            assert [step.name for step in steps] == ["white-noise", "jpeg"] * 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"kind": "realworld"}, "did you mean 'real-world'"),
            ({"names": ["jpg"]}, "did you mean 'jpeg'"),
            ({"exclude": ["crosstalk"]}, "no degradation of three channels"),
            ({"names": ["halo"]}, "leave none of gaussian-blur"),
            ({"kind": "mixed", "names": ["halo"], "exclude": ["halo"]}, "leave no degradation"),
            ({"length": (3, 2)}, "fewest <= most"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            random_chain(generator(), **arguments)
