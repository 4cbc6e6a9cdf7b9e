"""Known answers of what enlargers, denoisers, cameras and codecs do to pictures, and of their chains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import photographs

from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.restorers import SuperResolver
from perceptloss.teach.degradations import degrade, get_degradation, list_degradations, random_chain
from perceptloss.teach.degradations.camera import bayer_masks, demosaiced
from perceptloss.teach.degradations.chains import ORDERS
from perceptloss.teach.degradations.denoisers import bilateral, non_local, soft_wavelets, total_variation
from perceptloss.teach.degradations.enlarge import ENLARGERS, FACTORS, enlarge, enlarged, shrunk
from perceptloss.teach.degradations.lens import shake_kernel
from perceptloss.teach.degradations.recompression import webp
from perceptloss.teach.degradations.resize import resize


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def raw(x, name, value, seed=0):
    """A degradation at a value of its parameter, not at a level."""
    return get_degradation(name).function(x, value, generator(seed))


def edge(side, slope=0.5):
    """A soft slanting edge, (1, 3, side, side)."""
    place = torch.arange(side) - side / 2
    return torch.sigmoid((place + slope * place[:, None]) * 0.9).expand(1, 3, side, side)


class TestEnlargers:
    @pytest.mark.parametrize("name", ENLARGERS)
    def test_flat_pictures_stay_and_sizes_are_kept(self, name):
        flat = torch.tensor([0.0, 0.4, 1.0])[:, None, None, None].expand(3, 3, 40, 33)
        for factor in (1, 2, 3, 4, 6, 8):
            torch.testing.assert_close(enlarge(flat, factor, name), flat, rtol=0, atol=1e-4)
        assert enlarge(flat[:0], 2, name).shape == (0, 3, 40, 33)

    @pytest.mark.parametrize("name", ENLARGERS)
    def test_pictures_do_not_move(self, name):
        ramp = torch.linspace(0.2, 0.8, 96)
        x = (ramp + 0.3 * (ramp[:, None] - 0.5)).expand(1, 3, 96, 96)
        for factor in (2, 3, 4, 6):
            error = (enlarge(x, factor, name, down="area") - x)[..., 30:-30, 30:-30]
            assert error.mean().abs() < 5e-4  # half a pixel would be 3e-3

    @pytest.mark.parametrize("factor", [2, 4])
    def test_enlarging_along_edges_is_better_there_than_bilinear(self, factor):
        x = edge(96)
        errors = {name: (enlarge(x, factor, name) - x).square().mean() for name in ENLARGERS}
        for name in ("gradient-directed", "covariance-directed", "back-projection", "self-similar"):
            assert errors[name] < 0.9 * errors["bilinear"]
        assert errors["nearest"] > 2 * errors["bilinear"]

    def test_back_projection_shrinks_to_the_small_picture_and_overshoots(self):
        small = shrunk(photographs(96), 3, "area")
        again = F.avg_pool2d(enlarged(small, (96, 96), "back-projection"), 3)
        plain = F.avg_pool2d(enlarged(small, (96, 96), "bicubic"), 3)
        assert (again - small).square().mean() < 0.05 * (plain - small).square().mean()
        step = (0.3 + 0.4 * (torch.arange(64) > 31)).float().expand(1, 3, 64, 64)
        assert enlarge(step, 4, "back-projection").amax() > 0.72

    @pytest.mark.parametrize("factor", [1, 1.5, 3, 8])
    def test_networks_enlarge_by_any_factor(self, factor):
        class Bicubic(SuperResolver):
            scales, minimum = (2, 4), 15

            @classmethod
            def like(cls, state):
                return cls()

            def enlarge(self, x, scale):
                assert min(x.shape[2:]) >= self.minimum
                return resize(x, (scale * x.shape[2], scale * x.shape[3]), "bicubic")

        x = photographs(96)[..., :71]
        out, plain = (enlarge(x, factor, by) for by in (Bicubic(), "bicubic"))
        assert out.shape == x.shape
        assert (out - plain).square().mean() < 0.25 * (x - plain).square().mean() + 1e-9

    def test_all_share_the_factors(self):
        names = [f"enlarge-{name}" for name in ENLARGERS]
        assert list(list_degradations("enlarge")) == sorted(names) and len(names) >= 10
        assert all(get_degradation(name).values == FACTORS for name in names)

    def test_bad_arguments_are_told(self):
        with pytest.raises(ConfigError, match="did you mean 'bicubic'"):
            enlarge(photographs(48), 2, "bicubik")
        with pytest.raises(InputError, match="factor: expected a number from 1"):
            enlarge(photographs(48), 0.5, "nearest")


class TestCameras:
    def test_demosaicing_keeps_what_was_measured_and_smooth_colours(self):
        x = photographs(96)
        mosaic = (x * bayer_masks(x)).sum(1, keepdim=True)
        out = demosaiced(mosaic)
        measured = bayer_masks(x).bool().expand_as(x)
        assert torch.equal(out[measured], x[measured])
        line = torch.linspace(0.2, 0.8, 32)
        smooth = torch.stack([line.expand(32, 32), line[:, None].expand(32, 32), (1 - line).expand(32, 32)])[None]
        again = demosaiced((smooth * bayer_masks(smooth)).sum(1, keepdim=True))
        torch.testing.assert_close(again[..., 2:-2, 2:-2], smooth[..., 2:-2, 2:-2], rtol=0, atol=1e-5)

    def test_a_shaken_point_has_the_extent_of_the_path(self):
        path = torch.tensor([[-0.5, -0.1], [0.0, 0.1], [0.5, 0.0]])
        kernel = shake_kernel(path, 10.0)
        assert kernel.sum().item() == pytest.approx(1)
        lit = kernel.nonzero() - len(kernel) // 2
        assert lit[:, 1].amin() == -5 and lit[:, 1].amax() == 5 and lit[:, 0].abs().amax() == 1

    def test_blur_of_lenses_keeps_light(self):
        x = torch.zeros(1, 3, 64, 64)
        x[..., 32, 32] = 1  # in light, a point spreads to brighter values than in picture values
        assert raw(x, "hand-shake", 6.0).sum() > 2 * x.sum() < raw(x, "missed-focus", 3.0).sum()

    def test_light_goes_its_way(self):
        x = 0.1 + 0.5 * photographs(64)
        mean = x.mean((1, 2, 3))
        for name, way in (("over-exposure", 1), ("under-exposure", -1), ("haze", 1), ("veiling-glare", 1)):
            assert (way * (degrade(x, name, 3, seed=0).mean((1, 2, 3)) - mean) > 0.03).all()
        for name in ("haze", "veiling-glare"):
            assert (degrade(x, name, 4, seed=0).std((1, 2, 3)) < 0.8 * x.std((1, 2, 3))).all()
        grey = torch.full((1, 3, 32, 32), 0.5)
        warm = {bool((raw(grey, "white-balance", 60.0, seed)[0, 0] > grey[0, 0]).all()) for seed in range(8)}
        assert warm == {True, False}


@pytest.mark.parametrize("denoiser", [bilateral, non_local, soft_wavelets, total_variation])
def test_denoisers_denoise(denoiser):
    x = F.interpolate(photographs(32), scale_factor=3, mode="bilinear")
    noisy = x + 0.05 * torch.randn(x.shape, generator=generator())
    out = denoiser(noisy, 0.08)
    assert (out - x).square().mean() < 0.6 * (noisy - x).square().mean()
    torch.testing.assert_close(denoiser(x, 0.0), x, rtol=0, atol=1e-3)


def test_webp_is_lossy_but_close():
    x = photographs(96)
    good, bad = webp(x, 95), webp(x, 5)
    assert (good - x).square().mean() < 5e-4 < (bad - x).square().mean() < 2e-2


class TestChains:
    @pytest.mark.parametrize("kind", ORDERS)
    def test_stages_keep_their_order(self, kind):
        lengths, drawn = set(), set()
        for seed in range(60):
            steps = random_chain(generator(seed), kind=kind, networks=("a-network",))
            assert steps == random_chain(generator(seed), kind=kind, networks=("a-network",))
            of = [("network" if s.name == "a-network" else get_degradation(s.name).family, s.name) for s in steps]
            stages = [[i for i, (choice, _, _) in enumerate(ORDERS[kind]) if {*pair} & {*choice}] for pair in of]
            assert all(stages) and [s[0] for s in stages] == sorted({s[0] for s in stages})
            assert 1 if kind == "restoration" else 2 in [s[0] for s in stages]
            lengths.add(len(steps))
            drawn |= {s.name for s in steps}
        assert lengths == {1, 2, 3, 4}
        assert ("a-network" in drawn) == (kind == "restoration")

    def test_what_is_excluded_is_not_drawn(self):
        for seed in range(20):
            steps = random_chain(generator(seed), kind="restoration", exclude=list_degradations("enlarge"))
            assert not {s.name for s in steps} & set(list_degradations("enlarge")) and steps
        only = random_chain(generator(), kind="phone", names=["webp"])
        assert [step.name for step in only] == ["webp"]
        with pytest.raises(ConfigError, match="leave nothing of which a phone chain is made"):
            random_chain(generator(), kind="phone", names=["palette"])
