"""SSIMULACRA 2, CW-SSIM, MAD and PIQE: known answers, and the packages that others publish."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from images import ladder, pair, photographs
from torch import Tensor

from perceptloss import create_critic
from perceptloss.critics.cw_ssim import wavelets
from perceptloss.critics.mad import appearance, detection
from perceptloss.critics.piqe import blocks_of, judged


def damaged(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Whole levels of damaged photographs, and the photographs."""
    y = photographs(max(height, width))[..., :height, :width]
    x = torch.stack([ladder(kind, y)[2][n] for n, kind in enumerate(("blur", "noise", "jpeg"))])
    return tuple((255 * image.clamp(0, 1)).round().double() / 255 for image in (x, y))


class TestSSIMULACRA2:
    @pytest.mark.parametrize("size", [(256, 256), (97, 130), (20, 33)])
    def test_is_that_of_the_package(self, size, tmp_path):
        theirs = pytest.importorskip("ssimulacra2")
        from PIL import Image

        x, y = damaged(*size)
        expected = []
        for images in zip(x, y, strict=True):
            files = [tmp_path / name for name in ("x.png", "y.png")]
            for image, file in zip(images, files, strict=True):
                Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(file)
            expected.append(theirs.compute_ssimulacra2(files[1], files[0]))
        wanted = torch.tensor(expected, dtype=torch.float64)
        critic = create_critic("ssimulacra2")
        torch.testing.assert_close(critic(x, y), wanted, rtol=0, atol=1e-9)
        torch.testing.assert_close(critic(x.float(), y.float()).double(), wanted, rtol=1e-5, atol=1e-3)

    def test_sees_ringing_and_blur_each_by_its_own_weights(self):
        """More contrast than the reference is ringing, less is blur; neither pays for the other."""
        y = photographs(64)
        critic = create_critic("ssimulacra2")
        softer, harder = (y + gain * (y - y.mean((2, 3), keepdim=True)) for gain in (-0.2, 0.2))
        assert (critic(softer, y) < 99).all()
        assert (critic(harder.clamp(0, 1), y) < 99).all()


class TestCWSSIM:
    def test_wavelets_are_those_of_the_steerable_pyramid(self):
        """A plane wave in the middle of the band and along a filter passes with the size that the pyramid gives it."""
        across = torch.arange(64, dtype=torch.float64)
        wave = torch.cos(2 * math.pi * across / 16).expand(1, 1, 64, 64)
        sizes = wavelets(wave, 4, 8).abs()[0].mean((1, 2))
        assert sizes.argmax() == 0
        assert sizes[4] < 1e-12
        turned = wavelets(wave.mT, 4, 8).abs()[0].mean((1, 2))
        torch.testing.assert_close(turned.roll(4), sizes)

    @pytest.mark.parametrize("size", [(64, 64), (70, 90)])
    def test_wavelets_are_those_of_pyrtools(self, size):
        pyrtools = pytest.importorskip("pyrtools")
        image = torch.rand(1, 1, *size, dtype=torch.float64)
        theirs = pyrtools.pyramids.SteerablePyramidFreq(image[0, 0].numpy(), height=3, order=7, is_complex=True)
        for level in (1, 2, 3):
            wanted = torch.tensor(np.stack([theirs.pyr_coeffs[level - 1, band] for band in range(8)]))
            torch.testing.assert_close(wavelets(image, level, 8)[0], wanted, rtol=0, atol=1e-5)  # its masks are tables

    def test_forgives_a_shift_that_ssim_does_not(self):
        big = photographs(140)
        y, moved = big[..., 4:132, 4:132], big[..., 5:133, 6:134]
        critic, ssim = create_critic("cw-ssim"), create_critic("ssim")
        assert (critic(y.roll(1, 0), y) < 0.6).all()
        assert (ssim(moved, y) < 0.8).all()
        assert (critic(moved, y) > 0.85).all()

    def test_level_and_directions_are_options(self):
        x, y = pair(1, 64)
        found = [create_critic("cw-ssim", options={"level": level})(x, y).item() for level in (2, 3, 4)]
        assert len(set(found)) == 3


class TestMAD:
    """Numbers of viqa 3.0.1 (most_apparent_distortion, _high_quality, _low_quality) for these images in float64."""

    WANTED = ((0.0, 0.0, 2.372669188), (92.91696654, 47280.97032, 3.450608267))

    def test_is_that_of_the_authors_translated(self):
        x, y = (image.double() for image in mad_images())
        critic = create_critic("mad").as_published()
        grey = [
            255 * (image * image.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1, keepdim=True)
            for image in (x, y)
        ]
        found = torch.stack([critic(x, y), detection(*grey, sharp=True), appearance(*grey)], 1)
        torch.testing.assert_close(found, torch.tensor(self.WANTED, dtype=torch.float64), rtol=1e-6, atol=0)

    def test_has_a_slope_where_the_published_form_sees_nothing(self):
        y = photographs(64)
        x = (y + 0.002 * torch.randn(y.shape)).clamp(0, 1).requires_grad_()
        assert not create_critic("mad").as_published()(x, y).any()
        score = create_critic("mad")(x, y)
        assert (score > 0).all()
        assert (torch.autograd.grad(score.sum(), x)[0].flatten(1).norm(dim=1) > 0).all()

    def test_the_signature_names_the_form(self):
        critic = create_critic("mad")
        assert critic.signature.endswith("|smooth")
        assert critic.as_published().signature.endswith("|sharp")


class TestPIQE:
    @pytest.mark.parametrize("size", [(100, 131), (33, 70)])
    def test_is_that_of_the_package(self, size):
        theirs = pytest.importorskip("pypiqe")
        x, _ = damaged(*size)
        wanted = [theirs.piqe((255 * i).round().byte().permute(1, 2, 0).flip(-1).numpy().copy())[0] for i in x]
        found = create_critic("piqe").as_published()(x)
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-2)

    def test_a_flat_image_scores_100_and_black_is_flat(self):
        critic = create_critic("piqe")
        assert critic(torch.full((1, 3, 32, 32), 0.4)).item() == 100
        assert critic(torch.zeros(1, 3, 32, 32)).item() == 100

    def test_blocks_know_noise_from_compression(self):
        noise = torch.randint(0, 256, (1, 1, 16, 16), generator=torch.Generator().manual_seed(0)).double()
        assert [v.item() for v in judged(blocks_of(noise))] == [True, False, True]
        bars = (torch.arange(16) % 8 < 4).double().expand(1, 1, 16, 16) * 255
        busy, blocky, _ = judged(blocks_of(bars))
        assert busy.item() and blocky.item()

    def test_map_averages_to_the_score(self):
        x, _ = damaged(64, 64)
        critic = create_critic("piqe")
        damage = critic.maps(x).flatten(1).sum(1)
        busy = judged(
            blocks_of(255 * (x.double() * x.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1, keepdim=True))
        )[0]
        torch.testing.assert_close(100 * (damage + 1) / (busy.sum((1, 2)) + 1), critic(x), rtol=1e-5, atol=0)


def mad_images() -> tuple[Tensor, Tensor]:
    """A blurred and a noisy picture, and the pictures."""
    _, y = pair(2, 64, 96)
    return torch.stack([ladder("blur", y)[3][0], ladder("noise", y)[3][1]]), y
