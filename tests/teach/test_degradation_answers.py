"""Degradations: known answers of blur, noise, compression, resizing, contrast and colour."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import photographs

from perceptloss.teach.degradations import degrade, get_degradation
from perceptloss.teach.degradations.blur import disc_kernel, elliptic_distance, line_kernels, soft_kernels
from perceptloss.teach.degradations.compression import LUMA_TABLE, jpeg, quality_table, wavelet, wavelet_inverse
from perceptloss.teach.degradations.noise import shot
from perceptloss.teach.degradations.operations import (
    filter_images,
    from_lab,
    from_ycbcr,
    gaussian_blur,
    to_lab,
    to_ycbcr,
)
from perceptloss.teach.degradations.resize import resample_matrix, resize


@pytest.mark.parametrize("sigma", [0.8, 2.0, 3.5])
def test_gaussian_blur_spreads_a_point_by_its_variance(sigma):
    x = torch.zeros(1, 1, 65, 65)
    x[..., 32, 32] = 1
    out, place = gaussian_blur(x, sigma)[0, 0], torch.arange(65.0) - 32
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    assert (out.sum(0) * place.square()).sum().item() == pytest.approx(sigma**2, rel=0.01)


def test_kernels_have_sum_one_and_the_right_spread():
    east, diagonal = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.sqrt(0.5)] * 2])
    line = line_kernels(east, 9.0)[0]
    assert line.sum().item() == pytest.approx(1, abs=1e-5)
    place = torch.arange(len(line)) - len(line) // 2
    assert (line.sum(0) * place.square()).sum().item() == pytest.approx(9.0**2 / 12, rel=0.06)  # uniform, plus the taps
    assert line.sum(1)[len(line) // 2].item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(line_kernels(diagonal, 9.0)[0], line_kernels(diagonal, 9.0)[0].T)

    disc = disc_kernel(6.0)
    assert disc.sum().item() == pytest.approx(1, abs=1e-5)
    place = torch.arange(len(disc)) - len(disc) // 2
    assert (disc.sum(0) * place.square()).sum().item() == pytest.approx(6.0**2 / 4, rel=0.03)

    distance = elliptic_distance(12, 3.0, east, torch.tensor([0.5]))
    oval = soft_kernels((-distance / 2).exp(), 3.0)[0]
    place = torch.arange(25) - 12
    assert (oval.sum(0) * place.square()).sum().item() == pytest.approx(9, rel=0.02)
    assert (oval.sum(1) * place.square()).sum().item() == pytest.approx(9 / 4, rel=0.02)


def test_filtering_in_the_frequency_domain_is_convolution():
    x = photographs(48)
    kernels = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (3,) * 4, mode="reflect").transpose(0, 1)
    expected = F.conv2d(padded, kernels.flip(-1, -2)[:, None], groups=3).transpose(0, 1)
    torch.testing.assert_close(filter_images(x, kernels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["white-noise", "correlated-noise", "high-frequency-noise"])
def test_noise_has_its_standard_deviation(name):
    out = degrade(torch.full((4, 3, 96, 96), 0.5), name, 2, seed=0) - 0.5
    assert out.std().item() == pytest.approx(get_degradation(name).value(2), rel=0.02)
    assert abs(out.mean().item()) < 0.2 * out.std().item()


def test_noise_spectra_lie_on_their_sides():
    def neighbours(name):
        noise = degrade(torch.full((4, 3, 96, 96), 0.5), name, 2, seed=0) - 0.5
        return ((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()).item()

    assert abs(neighbours("white-noise")) < 0.02
    assert neighbours("correlated-noise") > 0.4
    assert neighbours("high-frequency-noise") < -0.1


@pytest.mark.parametrize("relative", [0.1, 0.4])
def test_shot_noise_has_the_moments_of_photons(relative):
    light = torch.tensor([0.0, 0.004, 0.1, 0.5, 1.0])[:, None].expand(5, 100_000)
    noise = torch.randn(light.shape, generator=torch.Generator().manual_seed(0))
    out = shot(light, relative, noise)
    torch.testing.assert_close(out.mean(1), light[:, 0], rtol=0.02, atol=2e-4)
    torch.testing.assert_close(out.var(1), relative**2 * light[:, 0], rtol=0.03, atol=0)
    third = (out - light).pow(3).mean(1)
    torch.testing.assert_close(third[2:], relative**4 * light[2:, 0], rtol=0.15, atol=0)


def test_chroma_noise_keeps_luma_and_impulses_hit_their_share():
    grey = torch.full((2, 3, 96, 96), 0.5)
    noisy = to_ycbcr(degrade(grey, "chroma-noise", 1, seed=0))
    assert (noisy[:, 0] - 0.5).abs().amax() < 1e-5
    assert noisy[:, 1:].std().item() == pytest.approx(get_degradation("chroma-noise").value(1), rel=0.02)
    hit = degrade(grey, "impulse-noise", 4, seed=0)
    assert (hit != 0.5).float().mean().item() == pytest.approx(get_degradation("impulse-noise").value(4), rel=0.05)
    assert set(hit[hit != 0.5].tolist()) == {0.0, 1.0}


def test_jpeg_tables_scale_as_in_libjpeg():
    base = torch.tensor(LUMA_TABLE, dtype=torch.float32)
    assert torch.equal(quality_table(LUMA_TABLE, 50), base)
    assert torch.equal(quality_table(LUMA_TABLE, 100), torch.ones(8, 8))
    assert quality_table(LUMA_TABLE, 25)[0, 0] == 32
    assert quality_table(LUMA_TABLE, 75)[0, :3].tolist() == [8, 6, 5]
    assert quality_table(LUMA_TABLE, 1).amax() == 255


def test_jpeg_keeps_flat_grey_exactly():
    assert torch.equal(jpeg(torch.full((1, 3, 40, 40), 128 / 255), 7.0), torch.full((1, 3, 40, 40), 128 / 255))
    steps = torch.arange(256.0).div(255)[:, None, None, None].expand(256, 3, 32, 32)
    torch.testing.assert_close(jpeg(steps, 100.0), steps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("quality", [15, 40, 80])
def test_jpeg_agrees_with_a_real_codec(quality):
    from PIL import Image

    x = (255 * photographs(96)[:1]).round() / 255
    stream = io.BytesIO()
    Image.fromarray((255 * x[0]).round().byte().permute(1, 2, 0).numpy()).save(
        stream, "JPEG", quality=quality, subsampling=2
    )
    real = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)[None] / 255
    # what is left are roundings: integer against exact transforms and colour conversion
    assert (jpeg(x, quality) - real).square().mean() < 0.04 * (real - x).square().mean()


def test_wavelet_is_invertible_and_kills_polynomials():
    x = photographs(48)
    bands = wavelet(x, 3)
    assert [tuple(band.shape[2:]) for band in bands] == [(3, 24, 24), (3, 12, 12), (3, 6, 6), (6, 6)]
    torch.testing.assert_close(wavelet_inverse(bands), x, rtol=0, atol=1e-5)
    ramp = (torch.arange(64.0) / 64).square().expand(64, 64)  # four vanishing moments: exact away from the border
    assert wavelet(ramp, 1)[0][..., 4:-4, 4:-4].abs().amax() < 1e-5
    flat = wavelet(torch.full((32, 32), 0.7), 2)
    torch.testing.assert_close(flat[-1], torch.full((8, 8), 0.7), rtol=0, atol=1e-5)


def test_transmission_errors_leave_the_other_blocks_alone():
    x = photographs(96)
    changed = (degrade(x, "transmission-error", 3, seed=1) != x).any(1)
    blocks = F.max_pool2d(changed.float()[:, None], 8).mean().item()
    assert blocks == pytest.approx(get_degradation("transmission-error").value(3), abs=1 / 144)


def test_resampling_matrices():
    for name in ("nearest", "area", "bilinear", "bicubic", "lanczos"):
        for old, new in ((48, 17), (17, 48), (32, 32)):
            rows = resample_matrix(old, new, name, True)
            torch.testing.assert_close(rows.sum(1), torch.ones(new))
            if old == new:
                torch.testing.assert_close(rows, torch.eye(old), rtol=0, atol=1e-6)
    checkers = ((torch.arange(32) + torch.arange(32)[:, None]) % 2).float()[None, None]
    torch.testing.assert_close(resize(checkers, (16, 16), "area"), torch.full((1, 1, 16, 16), 0.5))
    assert set(resize(checkers, (11, 11), "nearest").unique().tolist()) <= {0.0, 1.0}
    x = photographs(48)
    expected = F.interpolate(x, (20, 20), mode="bicubic", antialias=True)
    torch.testing.assert_close(resize(x, (20, 20), "bicubic"), expected, rtol=0, atol=1e-4)
    expected = F.interpolate(x, (20, 20), mode="nearest-exact")
    torch.testing.assert_close(resize(x, (20, 20), "nearest"), expected, rtol=0, atol=1e-6)


def test_contrast_moves_about_the_mean():
    x = 0.3 + 0.4 * photographs(48)
    out = degrade(x, "contrast-down", 3, seed=0)
    luma = to_ycbcr(x)[:, :1].mean((2, 3), keepdim=True)
    torch.testing.assert_close(to_ycbcr(out)[:, :1].mean((2, 3), keepdim=True), luma)
    torch.testing.assert_close(out - luma, (x - luma) * (1 - get_degradation("contrast-down").value(3)))


def test_brightness_curves_keep_black_and_white_and_go_opposite_ways():
    ends = torch.cat([torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)])
    x = photographs(48)
    for name, way in (("brighten", 1), ("darken", -1)):
        torch.testing.assert_close(degrade(ends, name, 5, seed=0), ends, rtol=0, atol=1e-5)
        assert (way * (degrade(x, name, 2, seed=0) - x).mean((1, 2, 3)) > 0.02).all()


def test_colour_spaces_and_saturation():
    from skimage import color

    x = photographs(48)
    lab = color.rgb2lab(x.permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(to_lab(x).permute(0, 2, 3, 1), torch.from_numpy(lab), rtol=0, atol=1e-3)
    torch.testing.assert_close(from_lab(to_lab(x)), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(from_ycbcr(to_ycbcr(x)), x, rtol=0, atol=1e-5)
    grey = degrade(x, "saturation-down", 5, seed=0)
    assert (grey - to_ycbcr(x)[:, :1]).abs().amax() < 1e-5


def test_dithering_keeps_the_mean():
    x = photographs(96)
    out = degrade(x, "colour-quantisation", 4, seed=0)
    torch.testing.assert_close(F.avg_pool2d(out, 16).mean(), F.avg_pool2d(x, 16).mean(), rtol=0.02, atol=0)
    assert len(out.unique()) <= 5
