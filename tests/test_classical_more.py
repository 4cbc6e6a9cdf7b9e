"""The formula critics beyond those of `test_classical`: known answers of their own."""

from __future__ import annotations

import piq
import pytest
import torch
import torch.nn.functional as F
from test_classical import (
    check_score_and_gradient,
    damaged,
    noise,
    picture,
    value_and_gradient,
)
from torch import Tensor

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critics import dss, iw_ssim, nlpd, pixel, srsim
from perceptloss.networks.functional import YIQ, mix_channels


@pytest.mark.parametrize("taps", [9, 10])
def test_sr_sim_takes_the_window_of_its_saliency(taps: int) -> None:
    y = picture(96, 120)
    x = damaged(y)
    ours = srsim.SRSIM(get_card("sr-sim"), gaussian_size=taps)(x, y)
    torch.testing.assert_close(ours, piq.srsim(x, y, gaussian_size=taps, reduction="none"), rtol=1e-6, atol=0)
    assert (ours == create_critic("sr-sim")(x, y)).item() == (taps == 10)


def test_sr_sim_of_a_batch_is_that_of_piq_alone() -> None:
    """piq takes the extremes of the saliency over the batch."""
    y = torch.cat([picture(64, 64), 0.2 * picture(64, 64, seed=4)])
    x = damaged(y)
    ours = create_critic("sr-sim")(x, y)
    alone = torch.cat([piq.srsim(x[i : i + 1], y[i : i + 1], reduction="none") for i in range(2)])
    torch.testing.assert_close(ours, alone, rtol=1e-6, atol=0)
    assert (piq.srsim(x, y, reduction="none") - alone).abs().max() > 1e-5


def nlpd_by_convolutions(x: Tensor, y: Tensor, form: nlpd.Form = "laparra") -> Tensor:
    """The formula with whole 2-D filters and the published tables; piq has none."""
    taps = x.new_tensor([[0.05, 0.25, 0.4, 0.25, 0.05]])
    low_pass = (taps.T @ taps)[None, None]
    above, left = (0.1011, 0.0757, 0.0477, 0, 0, 0), (0.1493, 0.1986, 0.2138, 0.2503, 0.2598, 0.2215)
    right, below = (0.1460, 0.1846, 0.2243, 0.2616, 0.2552, 0.0717), (0.1015, 0.0837, 0.0467, 0, 0, 0)
    sigmas = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782)

    def bands(light: Tensor) -> list[Tensor]:
        found = []
        for k, (sigma, *(up, west, east, down)) in enumerate(zip(sigmas, above, left, right, below, strict=True)):
            low = F.conv2d(F.pad(light, (2,) * 4, mode="reflect"), low_pass, stride=2)
            if form == "bilinear":
                grown = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=True)
                grown = F.conv2d(F.pad(grown, (2,) * 4, mode="reflect"), low_pass)
            else:
                edged = F.pad(low, (1,) * 4, mode="replicate")
                grown = F.conv_transpose2d(edged, 4 * low_pass, stride=2)[..., 4:, 4:]
            band = light - grown[..., : light.shape[-2], : light.shape[-1]]
            if form == "laparra" and k == 5:
                band = light
            cross = x.new_tensor([[0, up, 0], [west, 0, east], [0, down, 0]])[None, None]
            edges = "reflect" if form == "bilinear" else "constant"
            found.append(band / (sigma + F.conv2d(F.pad(band.abs(), (1,) * 4, mode=edges), cross)))
            light = low
        return found

    def luminance(image: Tensor) -> Tensor:
        return (image * x.new_tensor(YIQ[0])[:, None, None]).sum(1, keepdim=True)

    pairs = zip(bands(luminance(x)), bands(luminance(y)), strict=True)
    return torch.stack([(a - b).square().mean((1, 2, 3)).sqrt() for a, b in pairs]).mean(0)


def test_dss_known_answers() -> None:
    assert len(dss.SUBBAND_WEIGHTS) == 17
    assert sum(dss.SUBBAND_WEIGHTS.values()) == pytest.approx(1, abs=1e-12)
    y = picture(96, 96)
    light = mix_channels(y, YIQ[:1])
    coefficients = dss.subbands(light)
    torch.testing.assert_close(coefficients[:, :1], 8 * F.avg_pool2d(light, 8))  # the mean, orthonormal
    wave = torch.cos(torch.pi * 2 * (2 * torch.arange(8.0).double() + 1) / 16).expand(1, 1, 8, 8)
    (found,) = dss.subbands(wave).flatten(1)
    assert found[list(dss.SUBBAND_WEIGHTS).index((0, 2))].item() == pytest.approx(wave.norm().item())
    assert found.norm().item() == pytest.approx(wave.norm().item())
    critic, x = create_critic("dss"), damaged(y)
    assert critic(x, y).item() == pytest.approx(critic(y, x).item(), abs=1e-12)
    beyond = F.pad(y, (0, 7, 0, 5), mode="reflect")
    assert critic(F.pad(x, (0, 7, 0, 5)), beyond).item() == pytest.approx(critic(x, y).item(), abs=1e-12)


def test_dss_gives_a_gradient_to_the_worst_places_only() -> None:
    y = picture(160, 160)
    _, gradient = value_and_gradient(create_critic("dss"), damaged(y), y)
    touched = F.max_pool2d(gradient.abs().amax(1, keepdim=True), 8) > 0
    assert 0.05 < touched.double().mean() < 0.95


def test_iw_ssim_pyramid_and_energy() -> None:
    x = picture(168, 176)[:, :1]
    *bands, rest = iw_ssim.pyramid(x)
    assert [tuple(b.shape[-2:]) for b in bands] == [(168, 176), (84, 88), (42, 44), (21, 22)]
    shifted = iw_ssim.pyramid(x + 0.25)
    for band, same in zip(bands, shifted, strict=False):
        torch.testing.assert_close(band, same, rtol=0, atol=1e-12)
    torch.testing.assert_close(shifted[-1] - rest, torch.full_like(rest, 16 * 0.25), rtol=0, atol=1e-12)
    energy, values = iw_ssim._scene(bands[0], bands[1])
    assert values.shape == (1, 10)
    assert energy.mean().item() == pytest.approx(1, abs=1e-9)  # each of the ten directions brings 1/10
    empty, _ = iw_ssim._scene(torch.zeros_like(bands[0]), torch.zeros_like(bands[1]))
    assert not empty.any()


def test_iw_ssim_does_not_tell_a_negative_from_a_positive() -> None:
    """As its card warns: magnitudes of the band's similarities are multiplied."""
    y = noise(1, 3, 176, 176)
    assert create_critic("iw-ssim")(1 - y, y) > 0.8
    assert create_critic("ms-ssim")(1 - y, y) == 0


def test_iw_ssim_takes_references_without_content() -> None:
    flat, x = torch.full((1, 3, 168, 168), 0.5, dtype=torch.float64), picture(168, 168)
    with pytest.raises(torch.linalg.LinAlgError):
        piq.information_weighted_ssim(x, flat)
    score, gradient = value_and_gradient(create_critic("iw-ssim"), x, flat)
    assert 0 < score < 0.5
    assert 0 < gradient.norm() < 10


@pytest.mark.parametrize("extra", [(0, 0), (0, 5), (1, 2), (40, 61)])
def test_nlpd_is_its_formula(extra: tuple[int, int]) -> None:
    size = get_card("nlpd").min_size
    check_score_and_gradient("nlpd", nlpd_by_convolutions, picture(size + extra[0], size + extra[1], seed=3))


def test_nlpd_known_answers() -> None:
    critic, y = create_critic("nlpd"), picture(96, 128)
    x = damaged(y)
    assert critic(x, y).item() == pytest.approx(critic(y, x).item(), abs=1e-12)
    for a, b in ((x, y), (x[..., :65, :66], y[..., :65, :66])):
        ported = nlpd.nlpd(a, b, "bilinear")
        torch.testing.assert_close(ported, nlpd_by_convolutions(a, b, "bilinear"), rtol=1e-9, atol=1e-12)
    assert nlpd.nlpd(0.5 * y + 0.3, 0.5 * y, "bilinear").item() < 1e-12  # blind to a shift
    assert critic(0.5 * y + 0.3, 0.5 * y).item() > 0.01  # which the published rest sees
    grey = mix_channels(y, YIQ[:1]).expand(-1, 3, -1, -1)
    assert critic(grey, y).item() < 1e-12  # and to colour
    bands = nlpd.normalized_pyramid(torch.zeros(1, 1, 65, 130, dtype=torch.float64))
    assert [tuple(b.shape[-2:]) for b in bands] == [(65, 130), (33, 65), (17, 33), (9, 17), (5, 9), (3, 5)]
    assert not any(b.any() for b in bands)
    slopes = [value_and_gradient(critic, y + step * (x - y), y)[1].norm() for step in (1e-1, 1e-3, 1e-6)]
    assert slopes[1] > 0.3 * slopes[0]  # a norm, steep up to the optimum
    assert slopes[2] < 0.1 * slopes[1]  # where it fades


def test_psnr_is_a_finite_loss_that_ends_at_the_reference() -> None:
    y = picture(32, 32)
    assert pixel.psnr(y + 0.1, y).item() == pytest.approx(-10 * torch.log10(torch.tensor(0.01 + 1e-8)).item(), abs=1e-5)
    loss_of = CriticLoss({"psnr": 1.0})
    losses, x = [], damaged(y).float()
    for _ in range(3):
        x = x.detach().requires_grad_()
        loss = loss_of(x, y.float())
        loss.backward()
        assert 0 < x.grad.norm() < 1
        losses.append(loss.item())
        x = x + 0.5 * (y.float() - x)
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx((80 - create_critic("psnr")(damaged(y), y).item()) / 80, abs=1e-5)
    equal = y.float().requires_grad_()
    loss = loss_of(equal, y.float())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not equal.grad.any()


def test_total_variation_known_answers() -> None:
    step = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    step[1, :, :, 5:] = 0.5  # 8 rows in 3 channels, each with one step of 1/2
    for norm, expected in (("l1", 12), ("l2_squared", 6), ("l2", 6**0.5)):
        assert pixel.total_variation(step, norm).tolist() == pytest.approx([0, expected])
    y = picture(64, 64)
    smooth = F.avg_pool2d(F.pad(y, (2,) * 4, mode="replicate"), 5, 1)
    for name in ("tv", "tv-l1", "tv-l2-squared"):
        critic = create_critic(name)
        assert critic(smooth) < critic(y) < critic(damaged(smooth)) + critic(y)
        assert critic(y, smooth) == critic(y)  # no reference is looked at
