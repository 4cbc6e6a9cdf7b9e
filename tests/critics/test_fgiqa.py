"""FGIQA: its formula written out once more, its known answers, and its behaviour as a loss."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critics import fgiqa
from perceptloss.networks.functional import mix_channels, similarity

LEVELS = (1, 2, 4, 8, 16, 32)
SHEET = (6388, 1758, 508, 175, 71.5, 35.2)  # the authors' score there, of another texture


def pair(sigma: float, height: int = 128, width: int = 128) -> tuple[Tensor, Tensor]:
    """A smooth image with a noise texture, and a copy with noise of `sigma` grey levels."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 5, 5, generator=g, dtype=torch.float64)
    smooth = 0.2 + 0.6 * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)
    texture, grain = torch.randn(2, 1, 3, height, width, generator=g, dtype=torch.float64)
    y = (smooth + 30 / 255 * texture).clamp(0, 1)
    return (y + sigma / 255 * grain).clamp(0, 1), y


def bank(height: int, width: int) -> np.ndarray:
    """Kovesi's filters as the authors lay them out, centred, then shifted: (5, 4, H, W)."""
    across = (np.arange(width) - width / 2) / (width / 2)
    down = (np.arange(height) - height / 2) / (height / 2)
    x, y = np.meshgrid(across, down)
    centre = math.floor(height / 2 + 1.5) - 1, math.floor(width / 2 + 1.5) - 1  # Matlab rounds halves up
    radius = np.hypot(x, y)
    radius[centre] = 1
    angle = np.arctan2(-y, x)
    filters = np.empty((5, 4, height, width))
    for s, wavelength in enumerate((6, 12, 24, 48, 96)):
        band = np.exp(-((np.log(radius) - np.log(2 / wavelength)) ** 2) / (2 * np.log(0.55) ** 2))
        band[centre] = 0
        for o in range(4):
            turn = o * np.pi / 4
            sine = np.sin(angle) * np.cos(turn) - np.cos(angle) * np.sin(turn)
            cosine = np.cos(angle) * np.cos(turn) + np.sin(angle) * np.sin(turn)
            away = np.abs(np.arctan2(sine, cosine))
            filters[s, o] = np.fft.fftshift(band * np.exp(-(away**2) / (2 * (np.pi / 4 / 1.2) ** 2)))
    return filters


def written_out(x: Tensor, y: Tensor) -> list[float]:
    """Features f1 to f4 of one pair, in numpy, reference first as the authors have it."""
    rgb = np.array([[0.299, 0.587, 0.114], [-0.172, -0.339, 0.511], [0.511, -0.428, -0.083]])
    reference, judged = (np.einsum("kc,chw->khw", rgb, 255 * image[0].numpy()) for image in (y, x))
    reference[1:] += 128
    judged[1:] += 128

    def edges(light: np.ndarray) -> np.ndarray:
        height, width = light.shape
        p = np.pad(light, ((0, 1), (0, 1)))
        p = np.pad((p[:-1, :-1] + p[1:, :-1] + p[:-1, 1:] + p[1:, 1:]) / 4, 1)
        kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
        both = [
            sum(k[i, j] * p[i : i + height, j : j + width] for i in range(3) for j in range(3))
            for k in (kernel, kernel.T)
        ]
        return np.hypot(*both)

    g1, g2 = edges(reference[0]), edges(judged[0])
    similar = (2 * g1 * g2 + 170) / (g1**2 + g2**2 + 170)
    low = (np.abs(g2 - g1) > np.abs((g2 - g1).mean())) & (g1 < g1.mean())
    inside = similar[(g1 > g1.mean()) | (g2 > g2.mean()) | low]
    weights = np.array([0.5, 0.75, 1, 5, 6]) / 13.25
    filters = bank(*g1.shape)
    texture = np.zeros_like(reference)
    for k in range(3):
        a, b = (np.abs(np.fft.ifft2(np.fft.fft2(image[k]) * filters)) for image in (reference, judged))
        texture[k] = np.tensordot(weights, ((2 * a * b + 1) / (a**2 + b**2 + 1)).sum(1), 1)
    m = np.sqrt(texture[0] ** 2 + 0.25 * texture[1] ** 2 + 0.25 * texture[2] ** 2)
    return [inside.mean(), inside.std(ddof=1), m.mean(), m.std(ddof=1)]


@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 110), (101, 99)])
def test_it_is_the_formula_written_out(height: int, width: int) -> None:
    critic = create_critic("fgiqa")
    x, y = pair(8, height, width)
    f = written_out(x, y)
    assert critic.features(x, y)[0].tolist() == pytest.approx(f, rel=1e-9)
    assert critic.official(x, y).item() == pytest.approx(math.sqrt(f[0] * f[2] / (f[1] * f[3])), rel=1e-9)
    wanted = math.sqrt((f[1] + 1e-4) * (f[3] + 1e-4) / (f[0] * f[2]))
    assert critic(x, y).item() == pytest.approx(wanted, rel=1e-9)
    assert 1 / critic.official(x, y) == pytest.approx(fgiqa.FGIQA(critic.card, floor=0)(x, y).item(), rel=1e-12)


def test_equal_images() -> None:
    critic, (_, y) = create_critic("fgiqa"), pair(0)
    assert critic.features(y, y)[0].tolist() == pytest.approx([1, 0, math.sqrt(24), 0], abs=1e-12)
    assert critic(y, y).item() == pytest.approx(1e-4 / 24**0.25, rel=1e-9) == get_card("fgiqa").identity
    assert critic.official(y, y).item() == math.inf
    assert critic(y.float(), y.float()).item() == pytest.approx(1e-4 / 24**0.25, rel=1e-4)


def test_it_falls_steadily_with_noise_from_the_first_grey_level_on() -> None:
    critic = create_critic("fgiqa")
    pairs = [pair(sigma) for sigma in LEVELS]
    official = [critic.official(*images).item() for images in pairs]
    assert official == sorted(official, reverse=True)
    scores = [critic(*images).item() for images in pairs]
    assert scores == sorted(scores)
    assert scores[0] > 2 * critic.card.identity
    for ours, sheet in zip(official, SHEET, strict=True):
        assert sheet / 2 < ours < 2 * sheet
    falls = [math.log(a / b) for a, b in pairwise(official)]
    assert all(0.4 < fall < 2 for fall in falls)  # nearly linear in log-log


def test_exchanging_the_images_changes_nothing() -> None:
    critic = create_critic("fgiqa")
    x, y = pair(8)
    assert critic(x, y).item() == pytest.approx(critic(y, x).item(), rel=1e-12)


def test_parts_known_by_hand() -> None:
    white = mix_channels(torch.full((1, 3, 2, 2), 255.0, dtype=torch.float64), fgiqa.YCBCR)
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([255.0, 0, 0]).double(), rtol=0, atol=1e-10)
    assert similarity(torch.tensor(10.0), torch.tensor(0.0), 170).item() == pytest.approx(170 / 270)
    assert sum(fgiqa._SCALE_WEIGHTS) == pytest.approx(1, abs=1e-12)
    flat = 255 * torch.rand(1, 3, 1, 1).expand(-1, -1, 96, 96)
    torch.testing.assert_close(fgiqa.texture_similarity(flat, flat / 2), torch.full((1, 1, 96, 96), math.sqrt(24)))


def test_the_region_follows_both_images_and_carries_no_gradient() -> None:
    y = torch.zeros(1, 1, 4, 4).index_put_((torch.tensor(0), torch.tensor(0), torch.tensor(0)), torch.tensor(8.0))
    x = y.clone()
    x[..., 3, :2] = torch.tensor([6.0, 1.5])  # means: y 2, x 2.47; the change of 1.5 is above their difference
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., 0, :] = 1
    expected[..., 3, :2] = 1
    assert torch.equal(fgiqa.region(x.requires_grad_(), y), expected)
    assert not fgiqa.region(x, y).requires_grad
    both = fgiqa.region(torch.cat([x, torch.ones_like(x)]), torch.cat([y, torch.ones_like(y)]))
    assert torch.equal(both[:1], expected)
    assert both[1].all()  # nothing stands out: everything counts


def test_light_and_colour_shifts_cost_next_to_nothing() -> None:
    critic, (_, y) = create_critic("fgiqa"), pair(0)
    shifted = y + torch.tensor([10.0, -5, 3])[:, None, None] / 255
    critic.overshoot = "pass"
    assert critic(shifted, y).item() < 0.1 * critic(pair(8)[0], y).item()


def test_texture_is_computed_again_instead_of_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    critic, (x, y) = create_critic("fgiqa"), pair(8)

    def run() -> tuple[float, Tensor, int]:
        leaf, kept = x.clone().requires_grad_(), {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            score = critic(leaf, y)
        (gradient,) = torch.autograd.grad(score.sum(), leaf)
        return score.item(), gradient, sum(kept.values())

    score, gradient, bytes_kept = run()
    monkeypatch.setattr(fgiqa, "checkpoint", lambda function, *arguments, **_: function(*arguments))
    wanted, slope, bytes_before = run()
    assert score == wanted
    torch.testing.assert_close(gradient, slope, rtol=1e-12, atol=1e-15)
    assert bytes_kept < bytes_before / 10


def test_small_images_are_refused_and_the_floor_calms_the_slope() -> None:
    assert get_card("fgiqa").min_size == 96
    x, y = pair(1)
    steep, calm = (
        torch.autograd.grad(fgiqa.FGIQA(get_card("fgiqa"), floor=floor)(leaf, y).log().sum(), leaf)[0].norm()
        for floor, leaf in ((1e-4, x.clone().requires_grad_()), (1e-2, x.clone().requires_grad_()))
    )
    assert calm < 0.3 * steep
