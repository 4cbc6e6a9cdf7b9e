"""UIQM and UCIQE: known answers, the public codes written out once more, and gradients that stay bounded."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from images import _blur, pair, photographs
from torch import Tensor

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critic import Critic
from perceptloss.critics import uciqe, uiqm
from perceptloss.critics.uciqe import UCIQE

every = pytest.mark.parametrize("name", ["uiqm", "uciqe"])


def flat(*colour: float, height: int = 40, width: int = 50) -> Tensor:
    return (
        torch.tensor(colour or (0.5,), dtype=torch.float64).expand(3)[None, :, None, None].repeat(1, 1, height, width)
    )


def picture(n: int = 1, height: int = 60, width: int = 80, seed: int = 0) -> Tensor:
    return pair(n, height, width, seed=seed, dtype=torch.float64)[0]


def value_and_gradient(critic: Critic, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    score = critic(x)
    return score.detach(), torch.autograd.grad(score.sum(), x)[0]


def rounded() -> UCIQE:
    return UCIQE(get_card("uciqe"), rounded=True)


class TestTrimmedMean:
    def test_of_1_to_10_leaves_out_one_at_each_end(self):
        values = torch.arange(1.0, 11.0)[torch.randperm(10)]
        assert uiqm.trimmed_mean(values) == 5.5

    def test_as_public_codes_have_it_loses_one_more(self):
        assert uiqm.trimmed_mean(torch.arange(1.0, 11.0), lost=1) == sum(range(3, 10)) / 8

    def test_rounds_up_below_and_down_above(self):
        assert uiqm.trimmed_mean(torch.arange(15.0)) == sum(range(2, 14)) / 12


class TestUIQM:
    def test_of_a_constant_grey_is_0_with_a_finite_gradient(self):
        for value in (0.0, 0.3, 0.5, 1.0):
            score, gradient = value_and_gradient(create_critic("uiqm"), flat(value))
            assert score == 0
            assert not gradient.any()

    def test_grey_pictures_have_no_colourfulness(self):
        grey = picture()[:, :1].expand(-1, 3, -1, -1)
        assert uiqm.uicm(grey) == 0
        assert uiqm.uiqm(grey) > 1

    def test_of_pure_red_is_the_size_of_its_cast(self):
        assert uiqm.uicm(flat(1, 0, 0, height=512, width=512)).item() == pytest.approx(-7.641, abs=1e-3)
        count = 40 * 50  # where the value that is lost shows
        share = 1 - 1 / (0.8 * count)
        expected = math.hypot(255, 127.5) * (0.1586 * (1 - share) - 0.0268 * share)
        assert uiqm.uicm(flat(1, 0, 0)).item() == pytest.approx(expected)

    def test_of_a_ramp_by_hand(self):
        ramp = (10 * torch.arange(1, 11, dtype=torch.float64) / 255).expand(1, 3, 10, 10)
        sharpness = 1.03 * 2 * math.log(80 * 90 / (40 * 10))  # borders are repeated, which halves the edge
        contrast = -9 / 11 * math.log(9 / 11)
        assert uiqm.uism(ramp).item() == pytest.approx(sharpness)
        assert uiqm.uiconm(ramp).item() == pytest.approx(contrast)
        assert uiqm.uiqm(ramp).item() == pytest.approx(0.2953 * sharpness + 3.5753 * contrast)

    @pytest.mark.parametrize(("least", "counted"), [(0.0, 0), (0.49, 0), (0.51, 1), (1.0, 1), (3.0, 3)])
    def test_edges_below_half_a_step_are_none_and_silence_their_block(self, least, counted):
        """A ramp that falls by 2 per column and is nearly even around column 5: Sobel is 4 times the two drops."""
        drops = torch.full((9,), 2.0, dtype=torch.float64)
        drops[4:6] = least / 8
        levels = 100 - torch.cat([torch.zeros(1), drops.cumsum(0)])
        edges = torch.tensor([4 * (a + b) for a, b in pairwise([0.0, *drops.tolist(), 0.0])])
        edges[5] = counted
        product = edges * levels
        expected = 2 * (product.max() / product.min()).log().item() if counted else 0.0
        ramp = (levels / 255).expand(1, 3, 10, 10)
        assert uiqm.enhancement(uiqm.weighted_edges(ramp))[0].tolist() == pytest.approx([expected] * 3)

    def test_channels_at_0_silence_their_blocks(self):
        x = 0.2 + 0.7 * torch.rand(1, 3, 20, 30, dtype=torch.float64)
        black = x.clone()
        black[:, 1, 3, 4] = 0
        share = uiqm.enhancement(uiqm.weighted_edges(black))
        assert share[0, 1] < uiqm.enhancement(uiqm.weighted_edges(x))[0, 1]

    def test_contrast_is_best_at_a_third_and_never_below_0(self):
        def contrast(low: float, high: float) -> float:
            x = flat(low, height=10, width=10)
            x[..., 5] = high
            return uiqm.uiconm(x).item()

        assert contrast(0.5 - 0.5 / math.e, 0.5 + 0.5 / math.e) == pytest.approx(1 / math.e)
        assert contrast(0, 1) == contrast(0.4, 0.4) == contrast(0, 1 / 255) == 0
        for low, high in ((0.0, 0.3 / 255), (0.5, 0.5 + 0.3 / 255), (-0.2, 0.1), (-0.3, 1.3), (-0.3, -0.1)):
            assert 0 <= contrast(low, high) <= 1 / math.e

    def test_what_is_left_beside_full_blocks_counts_for_colour_alone(self):
        x = picture(height=47, width=63)
        y = x.clone()
        y[..., 41:, :], y[..., 61:] = 1 - y[..., 41:, :], 1 - y[..., 61:]  # Sobel reaches one pixel beyond
        torch.testing.assert_close(uiqm.uism(y), uiqm.uism(x))
        torch.testing.assert_close(uiqm.uiconm(y), uiqm.uiconm(x))
        assert uiqm.uicm(y) != uiqm.uicm(x)

    def test_is_easily_cheated_as_its_card_says(self):
        y = photographs(96).double()
        mild = 0.3 * y + 0.35
        grey = mild.mean(1, keepdim=True)
        levels = [uiqm.uicm(grey + share * (mild - grey)) for share in (0.5, 1.0, 1.5, 2.0)]
        assert all((stronger > milder).all() for milder, stronger in pairwise(levels))
        assert (uiqm.uism(_blur(y, 1.6)) > uiqm.uism(y)).any()
        grain = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        smooth = _blur(y, 4.0)
        assert (uiqm.uism(smooth + 0.01 * grain) > uiqm.uism(smooth)).any()


def port(image: np.ndarray) -> float:
    """The public port of UCIQE on an 8-bit RGB image, (H, W, 3)."""
    cv2 = pytest.importorskip("cv2")
    light, a, b = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2LAB) / 255, 2, 0)
    c = np.hypot(a, b)
    saturation = (c / np.hypot(c, light)).mean()
    chroma = np.sqrt(np.abs(1 - (c.mean() / c) ** 2).mean())
    share = np.histogram(light, 65536)[0].cumsum() / light.size
    contrast = (np.flatnonzero(share >= 0.99)[0] - np.flatnonzero(share > 0.01)[0]) / 65535
    return float(0.468 * chroma + 0.2745 * contrast + 0.2576 * saturation)


class TestUCIQE:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_integer_lab_is_that_of_opencv(self, dtype):
        cv2 = pytest.importorskip("cv2")
        steps = np.arange(0, 256, 3, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(86, -1, 3)
        ours = uciqe.lab_of_opencv(torch.from_numpy(colours).permute(2, 0, 1)[None].to(dtype) / 255)
        assert ours.dtype == dtype
        assert np.array_equal(ours[0].permute(1, 2, 0).numpy(), cv2.cvtColor(colours, cv2.COLOR_RGB2LAB))

    def test_smooth_lab_is_that_of_scikit_image(self):
        color = pytest.importorskip("skimage.color")
        x = torch.rand(1, 3, 40, 50, dtype=torch.float64)
        expected = torch.from_numpy(color.rgb2lab(x[0].permute(1, 2, 0).numpy())).permute(2, 0, 1)[None]
        expected = torch.cat([2.55 * expected[:, :1], expected[:, 1:] + 128], 1)
        torch.testing.assert_close(uciqe.lab(x), expected, rtol=0, atol=0.05)

    def test_grey_is_128_exactly_so_that_its_chroma_is_even(self):
        for dtype in (torch.float32, torch.float64):
            grey = torch.rand(1, 1, 30, 40).to(dtype).expand(-1, 3, -1, -1).clone().requires_grad_()
            colours = uciqe.lab(grey)
            assert (colours[:, 1:] == 128).all()
            chroma = uciqe.chroma_term(colours)
            assert chroma == 0
            assert not torch.autograd.grad(chroma, grey)[0].any()

    def test_of_flat_images(self):
        even = 128 * math.sqrt(2) / 255
        black = create_critic("uciqe")(flat(0.0))
        white = create_critic("uciqe")(flat(1.0))
        assert black.item() == pytest.approx(0.2576)
        assert white.item() == pytest.approx(0.2576 * even / math.hypot(even, 1))
        assert uciqe.contrast_term(uciqe.lab(flat(0.3, 0.6, 0.1))).item() == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize(("height", "width"), [(60, 80), (47, 63), (10, 10), (7, 3), (129, 130)])
    def test_rounded_is_the_port(self, height, width):
        x, y = pair(1, height, width, seed=height, dtype=torch.float64)
        few = (4 * y).round() / 4
        one_bin = 1.01 * 0.2745 / 65535  # where lightness lies on an edge of two, which numpy's edges miss by rounding
        for image in (x, y, few, 0.1 * y, photographs(96)[:1, :, :height, :width].double()):
            levels = (255 * image[0]).round().byte().permute(1, 2, 0).numpy()
            assert rounded()(image).item() == pytest.approx(port(np.ascontiguousarray(levels)), abs=one_bin)

    def test_smooth_is_within_a_hundredth_of_rounded(self):
        images = [*picture(4, seed=3), *photographs(60).double(), *(0.3 * photographs(60).double() + 0.35)]
        for x in images:
            assert create_critic("uciqe")(x[None]).item() == pytest.approx(rounded()(x[None]).item(), abs=0.01)

    def test_rounded_has_the_gradient_of_the_smooth_terms_at_the_rounded_lab(self):
        x = picture()
        critic = rounded()
        score, gradient = value_and_gradient(critic, x)
        assert critic(x + 1e-5) == score
        assert critic.signature == create_critic("uciqe").signature + "|lab:opencv8"
        leaf = uciqe.lab_of_opencv(x).requires_grad_()
        terms = uciqe.chroma_term(leaf), uciqe.contrast_term(leaf), uciqe.saturation_term(leaf)
        total = 0.468 * terms[0] + 0.2745 * terms[1] + 0.2576 * terms[2]
        at_rounded = torch.autograd.grad(total, leaf)[0]
        smooth = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(uciqe.lab(smooth), smooth, at_rounded)
        torch.testing.assert_close(gradient, expected)
        assert gradient.any()

    def test_contrast_is_between_ranks_over_the_range(self):
        light = torch.arange(1000, dtype=torch.float64)[torch.randperm(1000)] / 4
        colours = torch.stack([light, light, light])[None, :, :, None]
        assert uciqe.contrast_term(colours).item() == pytest.approx((989 - 10) / 999)
        faint = uciqe.contrast_term(100 + 0.1 * colours)
        torch.testing.assert_close(faint, uciqe.contrast_term(colours))

    def test_pixels_of_one_rank_share_its_gradient(self):
        light = torch.tensor([10.0, 10, 50, 90, 90, 90]).double().view(1, 1, 2, 3).expand(-1, 3, -1, -1).clone()
        light[:, 0, 0, 2] = 50
        leaf = light.requires_grad_()
        ranked = leaf[:, 0].flatten(1)
        value = uciqe._at_rank(ranked, ranked.detach().sort(1).values, 4)
        assert value == 90
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        assert gradient[0, 0].flatten().tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3])

    def test_is_easily_cheated_as_its_card_says(self):
        y = photographs(96).double()
        grey = y.mean(1, keepdim=True)
        saturated = (grey + 1.5 * (y - grey)).clamp(0, 1)
        red = (y * torch.tensor([1.3, 0.8, 0.8], dtype=y.dtype)[:, None, None]).clamp(0, 1)
        sharpened = (2 * y - _blur(y, 1.2)).clamp(0, 1)
        critic = create_critic("uciqe")
        for cheat in (saturated, red, sharpened):
            assert (critic(cheat) > critic(y)).all()


def hard() -> dict[str, Tensor]:
    grain = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    board = flat(0.0) + (torch.arange(40)[:, None] + torch.arange(50)) % 2
    line, dot = flat(0.0), flat(0.0)
    line[..., 20:] = 1 / 255
    dot[..., 20, 20] = 1
    return {
        "black": flat(0.0),
        "white": flat(1.0),
        "red": flat(1, 0, 0),
        "board": board,
        "line": line,
        "dot": dot,
        "grain": grain,
        "almost black": 1e-6 * grain,
        "below a step": grain / 255,
        "almost grey": 0.5 + 1e-6 * (grain - 0.5),
        "dark": 0.02 * grain,
        "overshoot": 1.6 * grain - 0.3,
        "far below": grain - 2,
    }


class TestBoth:
    @every
    @pytest.mark.parametrize("kind", hard())
    def test_hard_images_have_a_true_score_and_a_bounded_gradient(self, name, kind):
        critic, x = create_critic(name), hard()[kind].requires_grad_()
        found = [value_and_gradient(critic, x.detach().to(dtype)) for dtype in (torch.float64, torch.float32)]
        for score, gradient in found:
            assert torch.isfinite(score).all()
            assert gradient.norm() < 200  # NaN compares false
        assert found[1][0].item() == pytest.approx(found[0][0].item(), rel=1e-4, abs=5e-4)

    @every
    def test_float32_agrees_with_float64(self, name):
        x = picture(4)
        critic = create_critic(name)
        torch.testing.assert_close(critic(x.float()).double(), critic(x), rtol=1e-5, atol=1e-6)

    @every
    def test_images_of_a_batch_do_not_touch(self, name):
        critic = create_critic(name)
        x = torch.cat([picture(3), flat(0.0, height=60, width=80), flat(1, 0, 0, height=60, width=80)])
        together, gradient = value_and_gradient(critic, x)
        for n in range(len(x)):
            alone, slope = value_and_gradient(critic, x[n : n + 1])
            # the opponent colours of greys cancel: a rounding of the cube root is 1e6 times as large in them
            torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(gradient[n : n + 1], slope, rtol=1e-9, atol=1e-12)

    @every
    def test_as_a_loss_stops_at_the_reference(self, name):
        loss_fn = CriticLoss({name: 0.01}, grad="autograd")
        x, y = photographs(60).double(), (0.5 * photographs(60) + 0.2).double()
        critic = create_critic(name)
        for judged, reference in ((x, y), (y, x)):
            leaf = judged.clone().requires_grad_()
            expected = 0.01 * (critic(reference) - critic(judged)).clamp_min(0).mean()
            torch.testing.assert_close(loss_fn(leaf, reference), expected)

    @every
    def test_has_no_weights_and_counts_129x130(self, name):
        card = get_card(name)
        assert (card.weights, card.kind, card.domains) == ((), "nr", frozenset({"underwater"}))
        low, high = card.bounds
        assert low < create_critic(name)(picture(height=129, width=130)).item() < high
