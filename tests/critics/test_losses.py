"""Losses without networks: agreement with their authors' packages, and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import pair, photographs

from perceptloss import create_critic
from perceptloss.critics.consistency import chroma
from perceptloss.critics.ffl import FocalFrequency
from perceptloss.critics.hsluv import hsluv
from perceptloss.critics.ms_swd import pyramid
from perceptloss.critics.swt import bands
from perceptloss.errors import ConfigError
from perceptloss.networks.colour import from_opponent, lab_of_light, light, opponent
from perceptloss.networks.sobel import sobel

FOCAL = ({}, {"alpha": 0.5}, {"alpha": 2.0}, {"log_matrix": True}, {"patch_factor": 2}, {"ave_spectrum": True})


def damaged(side: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs with grain, blur and another gain, and themselves."""
    y = photographs(side).to(dtype)
    grain = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return (0.95 * F.avg_pool2d(y + 0.05 * grain, 3, 1, 1)).clamp(0, 1), y


class TestCharbonnier:
    def test_is_that_of_basicsr(self):
        pytest.importorskip("perceptloss.integrations.basicsr")
        losses = pytest.importorskip("basicsr.losses.basic_loss")
        x, y = pair(2, 16, 20)
        theirs = losses.CharbonnierLoss(eps=1e-12)(x, y)
        torch.testing.assert_close(create_critic("charbonnier")(x, y).mean(), theirs)

    def test_options_reach_from_squares_to_sizes(self):
        x, y = pair(2, 16)
        sizes, squares = (create_critic("charbonnier", options={"criterion": c})(x, y) for c in ("l1", "l2"))
        torch.testing.assert_close(sizes, (x - y).abs().mean((1, 2, 3)))
        torch.testing.assert_close(squares, (x - y).square().mean((1, 2, 3)))
        round_bottom = create_critic("charbonnier", options={"eps": 1e-4})
        assert round_bottom(y, y).tolist() == pytest.approx([0.01, 0.01])
        assert round_bottom.card.identity == pytest.approx(0.01)

    def test_clipped_differences_lie_between_two_levels(self):
        y = torch.full((3, 3, 8, 8), 0.0)
        x = y + torch.tensor([0.001, 0.5, 0.999]).view(3, 1, 1, 1)
        critic = create_critic("charbonnier", options={"criterion": "clipped"})
        assert critic(x, y).tolist() == pytest.approx([0.003921, 0.5, 0.996078])
        assert critic.card.identity == 0.003921

    def test_refuses_other_options(self):
        for options in ({"eps": 0}, {"criterion": "smooth"}):
            with pytest.raises(ConfigError, match="options"):
                create_critic("charbonnier", options=options)


class TestFocalFrequency:
    @pytest.mark.parametrize("options", [*FOCAL, {"batch_matrix": True}], ids=str)
    def test_is_that_of_its_authors(self, options):
        theirs = pytest.importorskip("focal_frequency_loss").FocalFrequencyLoss(**options)
        critic = create_critic("ffl", options=options)
        values, slopes = [], []
        for loss in (theirs, lambda x, y: critic(x, y).mean()):
            x, y = damaged(48)
            value = loss(x.requires_grad_(), y)
            values.append(value.detach())
            slopes.append(torch.autograd.grad(value, x)[0])
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-9)

    def test_one_wave_costs_the_square_of_its_amplitude(self):
        """A cosine of amplitude a has two coefficients of a sqrt(H W) / 2 of weight 1: a^2 / 2 over both."""
        wave = 0.1 * torch.cos(2 * torch.pi * 3 * torch.arange(32, dtype=torch.float64) / 32)
        y = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
        score = create_critic("ffl").double()(y + wave, y)
        torch.testing.assert_close(score, torch.full_like(score, 0.1**2 / 2))

    def test_what_couples_a_batch_says_so(self):
        card = create_critic("ffl", options={"ave_spectrum": True}).card
        assert card.couples_batch
        assert not create_critic("ffl").card.couples_batch

    def test_sides_must_be_cut_evenly(self):
        critic = create_critic("ffl", options={"patch_factor": 4})
        assert isinstance(critic, FocalFrequency)
        assert (critic.card.multiple_of, critic.card.min_size) == (4, 8)


class TestGradientVariance:
    def test_is_the_variance_of_each_patch(self):
        x, y = (image.double() for image in pair(2, 26, 33))
        kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
        grey = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)

        def variances(image, kernel):
            gradient = F.conv2d((image * grey).sum(1, keepdim=True), kernel[None, None], padding=1)
            return F.unfold(gradient, 8, stride=8).var(1)

        wanted = sum((variances(x, k) - variances(y, k)).square().mean(1) for k in (kernel, kernel.T))
        torch.testing.assert_close(create_critic("gradient-variance").double()(x, y), wanted)

    def test_options_change_the_patch_and_the_criterion(self):
        y = photographs(64)
        x = F.avg_pool2d(y, 3, 1, 1)
        inner = create_critic("gradient-variance", options={"patch_size": 16, "criterion": "l1"})
        assert inner.card.min_size == 16
        assert (inner(x, y) > create_critic("gradient-variance")(x, y)).all(), (
            "differences below 1 have smaller squares"
        )
        with pytest.raises(ConfigError, match="patch_size"):
            create_critic("gradient-variance", options={"patch_size": 1})

    def test_sobel_of_a_ramp_and_of_a_step(self):
        ramp = torch.arange(6.0).expand(1, 1, 5, 6)
        right, down = sobel(ramp)
        assert (right[..., 1:-1, 1:-1] == 8).all()
        assert (down[..., 1:-1, 1:-1] == 0).all()


class TestStationaryWavelets:
    @pytest.mark.parametrize("wavelet", ["haar", "sym7", "sym19"])
    def test_bands_are_those_of_pywavelets(self, wavelet):
        pywt = pytest.importorskip("pywt")
        plane = photographs(48)[0, 0].double()
        bank = pywt.Wavelet(wavelet)
        low = [tap / sum(bank.dec_lo) for tap in bank.dec_lo]
        normalised = pywt.Wavelet("normalised", [low, bank.dec_hi, low, bank.dec_hi])
        ((approximation, details),) = pywt.swt2(plane.numpy(), normalised, 1)
        for ours, theirs in zip(bands(plane, wavelet), (approximation, *details), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)

    def test_a_shift_of_the_luma_costs_its_weight_of_the_approximation(self):
        y = torch.full((1, 3, 40, 40), 0.5, dtype=torch.float64)
        critic = create_critic("swt").double()
        assert float(critic(y + 0.1, y)) == pytest.approx(0.05 * 0.1 * (65.481 + 128.553 + 24.966) / 255, rel=1e-9)
        assert create_critic("swt", options={"weights": [0, 1, 1, 1]})(y.float() + 0.1, y.float()).item() < 1e-7

    @pytest.mark.parametrize("options", [{"wavelet": "db4"}, {"weights": [1, 1]}, {"weights": [0, 0, 0, 0]}], ids=str)
    def test_refuses_other_options(self, options):
        with pytest.raises(ConfigError, match="options"):
            create_critic("swt", options=options)


class TestFLIP:
    @pytest.mark.parametrize("ppd", [67.0, 30.0])
    def test_map_and_score_are_those_of_its_authors(self, ppd):
        flip = pytest.importorskip("flip_evaluator")
        x, y = damaged(48)
        critic = create_critic("flip", options={"pixels_per_degree": ppd})
        ours = critic.maps(x, y)
        for i in range(len(x)):
            planes = [np.ascontiguousarray(image[i].permute(1, 2, 0).numpy()) for image in (y, x)]
            theirs, mean, _ = flip.evaluate(*planes, "LDR", True, False, True, {"ppd": ppd})
            np.testing.assert_allclose(ours[i, 0].numpy(), theirs[..., 0], atol=2e-4)
            assert critic(x[i : i + 1], y[i : i + 1]).item() == pytest.approx(mean, abs=2e-5)

    def test_the_farther_the_screen_the_less_is_seen(self):
        _x, y = damaged(64)
        grain = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        near, far = (create_critic("flip", options={"pixels_per_degree": p})(grain.clamp(0, 1), y) for p in (30, 120))
        assert (far < near).all()
        with pytest.raises(ConfigError, match="pixels_per_degree"):
            create_critic("flip", options={"pixels_per_degree": 0})

    def test_opposite_colours_are_far_apart(self):
        blue, green = (torch.zeros(1, 3, 16, 16) for _ in range(2))
        blue[:, 2], green[:, 1] = 1, 1
        assert float(create_critic("flip")(blue, green)) == pytest.approx(1, abs=1e-4)


class TestColour:
    def test_lab_is_that_of_kornia_and_opponents_come_back(self):
        from kornia.color import rgb_to_lab

        image = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(lab_of_light(light(image)), rgb_to_lab(image), atol=0.1, rtol=1e-2)
        torch.testing.assert_close(from_opponent(opponent(image)), image, atol=1e-6, rtol=0)

    def test_hsluv_is_that_of_its_author(self):
        package = pytest.importorskip("hsluv")
        image = torch.rand(1, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        image[..., 0, :3] = torch.eye(3, dtype=torch.float64)
        hue, saturation, lightness = (t.flatten() for t in hsluv(image))
        theirs = np.array([package.rgb_to_hsluv(p.tolist()) for p in image[0].flatten(1).T])
        np.testing.assert_allclose((360 * hue.numpy()) % 360, theirs[:, 0], atol=1e-6)
        np.testing.assert_allclose(100 * saturation.numpy(), theirs[:, 1], atol=1e-6)
        np.testing.assert_allclose(100 * lightness.numpy(), theirs[:, 2], atol=1e-6)

    def test_chroma_of_primaries_is_that_of_oklab(self):
        """Known values of red, green and blue."""
        primaries = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
        known = [[0.22486, 0.12585], [-0.23389, 0.17950], [-0.03246, -0.31153]]
        found = chroma(primaries).flatten(1)
        torch.testing.assert_close(found, torch.tensor(known, dtype=torch.float64), atol=2e-5, rtol=0)

    def test_consistency_of_greys_is_their_lightness(self):
        """Greys of 0.5 and 0.25 have an L* of 53.389 and 26.983."""
        x, y = (torch.full((1, 3, 24, 24), grey, dtype=torch.float64) for grey in (0.25, 0.5))
        score = create_critic("consistency", options={"cosim": False}).double()(x, y)
        assert score.item() == pytest.approx(0.53389 - 0.26983, abs=3e-5)
        brighter = create_critic("consistency", options={"cosim": False, "brightness": 1.1}).double()
        assert brighter(x, y).item() == pytest.approx(1.1 * 0.53389 - 0.26983, abs=3e-5)

    def test_angles_count_where_they_are_small(self):
        y = photographs(64)
        with_angles, without = (create_critic("consistency", options={"cosim": c}) for c in (True, False))
        near, far = 0.99 * y + 0.002, 1 - y
        assert (with_angles(near, y) > without(near, y)).all()
        assert torch.equal(with_angles(far, y), without(far, y))

    def test_each_weight_sees_its_own(self):
        red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 16, 16).contiguous()
        grey = torch.full((1, 3, 16, 16), 0.5)
        green = red[:, [1, 0, 2]]
        off = dict.fromkeys(("hue_weight", "saturation_weight", "lightness_weight"), 0.0)
        hue, saturation, lightness = (create_critic("hsluv", options={**off, name: 1.0}) for name in off)
        assert float(hue(green, red)) > 0.3
        assert float(hue(grey * 0.9, grey)) < 1e-6
        assert float(saturation(grey, red)) > 0.3
        assert float(lightness(grey * 0.8, grey)) > 0.05
        assert float(saturation(grey * 0.8, grey)) < 1e-3

    def test_smoothing_hides_grain(self):
        y = photographs(64)
        grain = (y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
        smooth, sharp = (create_critic("hsluv", options={"downscale_factor": f})(grain, y) for f in (4, 1))
        assert (smooth < 0.5 * sharp).all()

    def test_pyramid_keeps_a_ramp(self):
        ramp = torch.arange(32.0).expand(1, 1, 32, 32)
        small = pyramid(ramp, 3)
        assert [level.shape[-1] for level in small] == [32, 16, 8]
        torch.testing.assert_close(small[2][..., 2:-2], (4 * torch.arange(8.0)).expand(1, 1, 8, 8)[..., 2:-2])

    def test_sliced_distance_sees_colours_and_not_places(self):
        y = photographs(96)
        critic = create_critic("ms-swd", options={"num_proj": 16, "num_scale": 3})
        moved, tinted = y.roll(24, -1), (y * torch.tensor([1.0, 0.8, 0.8]).view(3, 1, 1)).clamp(0, 1)
        colour = create_critic("lab-chroma")
        assert (critic(moved, y) < 0.5 * critic(tinted, y)).all()
        assert (colour(moved, y) > colour(tinted, y)).any(), "pixel by pixel the places count"

    def test_sliced_distance_of_a_shift_of_lightness(self):
        """The projections of a shifted flat colour move by the shift times their sums."""
        critic = create_critic("ms-swd", options={"num_proj": 8, "num_scale": 1}).double()
        greys = [torch.full((1, 3, 24, 24), level, dtype=torch.float64) for level in (0.5, 0.6)]
        rise = lab_of_light(light(greys[1])) - lab_of_light(light(greys[0]))
        sums = critic.projections.sum((2, 3)) @ rise[0, :, 0, 0]
        torch.testing.assert_close(critic(greys[1], greys[0]), sums.abs().mean()[None])


class TestCorrelation:
    def test_gain_and_offset_cost_nothing_and_negatives_everything(self):
        y = photographs(32)
        critic = create_critic("ncc")
        assert critic(0.2 + 0.5 * y, y).tolist() == pytest.approx([0.0] * len(y), abs=1e-5)
        assert critic(1 - y, y).tolist() == pytest.approx([1.0] * len(y), abs=1e-5)

    def test_flat_channels(self):
        flat, y = torch.full((1, 3, 16, 16), 0.5), photographs(16)[:1]
        critic = create_critic("ncc")
        assert critic(0 * flat, flat).item() == 0, "as alike as flat channels are"
        assert critic(flat, y).item() == pytest.approx(0.5, abs=1e-2), "no correlation"


def test_divergence_of_channels_is_blind_to_grey_and_adds_up():
    x, y = pair(2, 8, 12)
    critic = create_critic("channel-kl")
    assert critic(0.5 * y + 0.2, 0.5 * y).tolist() == pytest.approx([0, 0], abs=1e-6)
    whole = create_critic("channel-kl", options={"total": True})
    torch.testing.assert_close(whole(x, y), 96 * critic(x, y))
    assert whole.card.tiling == "never"


def test_gradient_weighted_error_of_a_step():
    """Off by 0.1 on the right half: Sobel's difference is 0.4 beside the step and the border, the weight 2.6."""
    y = torch.zeros(1, 3, 5, 8)
    x = y.clone()
    x[..., 4:] = 0.1
    right = create_critic("gradient-weighted", options={"corner": False}).quality_map(x, y)[0, 0, 2]
    torch.testing.assert_close(right, torch.tensor([0, 0, 0, 0, 0.26, 0.1, 0.1, 0.26]))
    corners = create_critic("gradient-weighted").quality_map(x, y)[0, 0, 2]
    torch.testing.assert_close(corners[4:6], torch.tensor([0.1 * 2.6**2, 0.1]))
    for name, options in (("gradient-weighted", {"corner": 1}), ("channel-kl", {"total": "yes"})):
        with pytest.raises(ConfigError, match="must be true or false"):
            create_critic(name, options=options)
