"""Degradations beside the libraries that can do a part of them; docs/libraries.md says which part is whose."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import photographs
from kornia.geometry.transform import rotate, scale, translate

from perceptloss.compare.pixels import turned
from perceptloss.teach.degradations import get_degradation
from perceptloss.teach.degradations.blur import disc_kernel, line_kernels
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.operations import (
    filter_images,
    from_lab,
    from_linear,
    from_ycbcr,
    gaussian_blur,
    grid,
    shift,
    shift_rows,
    to_lab,
    to_linear,
    to_ycbcr,
    warp,
    zoomed,
)

RNG = torch.Generator().manual_seed(0)
X = torch.rand(3, 3, 64, 80, generator=RNG)
ALIKE = {"mode": "bicubic", "padding_mode": "border", "align_corners": True}


def close(ours, theirs, bound):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)


def raw(name, value, seed=3):
    return get_degradation(name).function(X, value, torch.Generator().manual_seed(seed))


def test_without_kornia_one_sentence_names_the_extra():
    code = "import sys; sys.modules['kornia'] = None; import perceptloss.teach.degradations"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1].endswith("degradations need kornia: pip install 'perceptloss[teach]'")


class TestTheirs:
    """What kornia does, beside a definition or another library."""

    def test_light_follows_the_standard(self):
        values = torch.linspace(0, 1, 64 * 3).reshape(1, 3, 8, 8)
        line = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values.flatten().tolist()]
        close(to_linear(values), torch.tensor(line).reshape(values.shape), 1e-6)
        close(from_linear(to_linear(X)), X, 2e-6)
        close(from_linear(2 * X - 0.5), from_linear((2 * X - 0.5).clamp(0, 1)), 1e-6)

    def test_lab_agrees_with_skimage_in_the_gamut_and_out_of_it(self):
        from skimage import color

        lab = to_lab(X)
        last = X.permute(0, 2, 3, 1).numpy()
        close(lab.permute(0, 2, 3, 1), torch.from_numpy(color.rgb2lab(last)), 1e-3)
        stretched = lab * torch.tensor([1, 2.5, 2.5])[:, None, None]
        with pytest.warns(UserWarning, match="negative Z"):
            expected = color.lab2rgb(stretched.permute(0, 2, 3, 1).numpy())
        close(from_lab(stretched).permute(0, 2, 3, 1), torch.from_numpy(expected).float(), 1e-4)

    def test_warps_look_up_where_they_say(self):
        across, down = grid(X)
        exact = warp(X, (across + 3).expand(64, 80), down - 2)
        close(exact[..., 2:, :-3], X[..., :-2, 3:], 1e-4)
        angle = math.radians(1.5)
        about, below = across - 39.5, down - 31.5
        cosine, sine = math.cos(angle), math.sin(angle)
        expected = warp(X, 39.5 + cosine * about - sine * below, 31.5 + sine * about + cosine * below)
        close(rotate(X, torch.full((3,), 1.5), **ALIKE), expected, 1e-4)


class TestOurs:
    """What kornia does too, but slower or further from what is meant: kornia says what it should be."""

    @pytest.mark.parametrize("sigma", [0.5, 1.5, 4.5])
    def test_gaussian(self, sigma):
        size = 2 * math.ceil(4 * sigma) + 1
        close(gaussian_blur(X, sigma), kornia.filters.gaussian_blur2d(X, size, (sigma, sigma)), 2e-6)

    @pytest.mark.parametrize("length", [4.5, 22.0])
    def test_filters_of_each_image(self, length):
        kernels = line_kernels(F.normalize(torch.randn(3, 2, generator=RNG)), length)
        close(filter_images(X, kernels), kornia.filters.filter2d(X, kernels, behaviour="conv"), 5e-6)
        disc = disc_kernel(3.0)[None]
        close(filter_images(X, disc), kornia.filters.filter2d(X, disc, behaviour="conv"), 5e-6)

    @pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0, 100.0])
    def test_motion_spreads_light_along_the_same_line(self, degrees):
        """Kornia's lines are a whole odd number of pixels long, so only their spread can be compared."""

        def spread(kernel):
            taps = torch.arange(len(kernel)) - len(kernel) // 2
            across, down = kernel.sum(0), kernel.sum(1)
            both = (kernel * taps * taps[:, None]).sum()
            return torch.stack([(across * taps**2).sum(), (down * taps**2).sum(), both])

        angle = math.radians(degrees)  # theirs is counter-clockwise, ours runs with the rows
        ours = line_kernels(torch.tensor([[math.cos(angle), -math.sin(angle)]]), 15.0)[0]
        theirs = kornia.filters.get_motion_kernel2d(15, degrees, mode="bilinear")[0]
        close(spread(ours), spread(theirs / theirs.sum()), 0.9)  # of 15^2 / 12 = 19

    def test_guided_filter(self):
        planes = X.flatten(0, 1)[:, None]
        for _ in range(2):
            planes = kornia.filters.guided_blur(planes, planes, 9, 0.1**2)
        close(raw("denoise", 0.1), planes.reshape(X.shape), 2e-5)

    def test_ycbcr(self):
        """Kornia rounds the factors of the chroma to three digits: 0.564 for 0.56433."""
        half = torch.tensor([0, 0.5, 0.5])[:, None, None]
        close(to_ycbcr(X), kornia.color.rgb_to_ycbcr(X) - half, 4e-4)
        close(from_ycbcr(to_ycbcr(X)), kornia.color.ycbcr_to_rgb(to_ycbcr(X) + half), 8e-4)

    def test_moves(self):
        pixels = torch.tensor([[1.3, -0.4], [0.2, 2.0], [-3.1, 0.5]])
        close(shift(X, pixels), translate(X, -pixels, **ALIKE), 1e-4)
        centre, factors = torch.tensor([[20.0, 30.0], [40.0, 31.0], [70.0, 5.0]]), torch.tensor([1.1, 0.95, 1.02])
        close(zoomed(X, centre, factors), scale(X, factors[:, None].expand(-1, 2), centre, **ALIKE), 1e-4)
        rows = torch.tensor([0.5, -3.25, 8.0])
        theirs = translate(X, F.pad(rows[:, None], (1, 0)), padding_mode="border", align_corners=True)
        close(shift_rows(X, rows[:, None, None, None]), theirs, 5e-5)

    def test_single_expressions(self):
        signs = 1 - 2 * (torch.rand(3, generator=torch.Generator().manual_seed(3)) < 0.5).float()
        enhance = kornia.enhance
        close(raw("gamma", 1.0), enhance.adjust_gamma(X, 2**signs), 1e-6)
        close(raw("mean-shift", 0.2).clamp(0, 1), enhance.adjust_brightness(X, 0.2 * signs), 1e-6)
        close(raw("saturation-up", 0.6).clamp(0, 1), enhance.adjust_saturation_with_gray_subtraction(X, 1.6), 1e-6)
        close(raw("contrast-down", 0.4), enhance.adjust_contrast_with_mean_subtraction(X, 0.6), 1e-6)

    def test_turns(self):
        flat = kornia.geometry.transform
        image = X[0, :, :, :64]
        flips = {0: image, 1: flat.hflip(image), 2: flat.vflip(image), 3: flat.rot180(image)}
        for code, expected in flips.items():
            assert torch.equal(turned(image, code), expected)
            assert torch.equal(turned(image, code | 4), expected.mT)


@pytest.mark.parametrize("quality", [15, 40, 80])
def test_our_jpeg_is_nearer_to_a_codec_than_kornias(quality):
    from PIL import Image

    x = (255 * photographs(96)).round() / 255
    real = []
    for image in x:
        stream = io.BytesIO()
        pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=2)
        real.append(torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1) / 255)

    def error(y):
        return 255 * (y - torch.stack(real)).abs().mean()

    ours = error(jpeg(x, quality))
    assert ours < 0.8
    assert ours < 0.5 * error(kornia.enhance.jpeg_codec_differentiable(x, torch.full((len(x),), float(quality))))
