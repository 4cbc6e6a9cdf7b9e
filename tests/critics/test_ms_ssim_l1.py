"""The mix of structural similarity and absolute error: kornia's numbers, known answers, and refused options."""

from __future__ import annotations

import pytest
import torch
from images import pair, photographs

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.ms_ssim_l1 import SIGMAS
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import blur, gaussian


def of(**options):
    return create_critic("ms-ssim-l1", options=options)


@pytest.mark.parametrize("alpha", [0.84, 0.1, 1.0])
def test_value_and_gradient_are_those_of_kornia(alpha):
    losses = pytest.importorskip("kornia.losses")
    theirs = losses.MS_SSIMLoss(sigmas=list(SIGMAS), alpha=alpha, compensation=1.0, reduction="mean")
    y = photographs(64)[:2]
    x = (0.8 * y + 0.1 * torch.rand(y.shape)).requires_grad_()
    found = []
    for value in (of(alpha=alpha)(x, y).mean(), theirs(x, y)):
        found += [value.detach(), torch.autograd.grad(value, x)[0]]
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-6)
    assert torch.cosine_similarity(found[1].flatten(), found[3].flatten(), 0) > 0.9999
    assert float(found[1].norm() / found[3].norm()) == pytest.approx(1, rel=1e-3)


def test_windows_of_one_pixel_have_known_answers():
    """Without variance only the luminance term is left: 2ab / (a^2 + b^2), and the error itself."""
    x, y = torch.full((1, 3, 8, 8), 0.6), torch.full((1, 3, 8, 8), 0.2)
    x[:, 1:] = y[:, 1:]
    light = (2 * 0.12 + 1e-4) / (0.4 + 1e-4)
    known = {"mean": (1 - light) / 3, "product": 1 - light}
    for channels, apart in known.items():
        score = float(of(sigmas=[0.1], alpha=0.25, channels=channels)(x, y))
        assert score == pytest.approx(0.25 * apart + 0.75 * 0.4 / 3, rel=1e-5)


def test_nothing_of_the_similarity_leaves_the_smoothed_error():
    x, y = pair(1, 60)
    window = gaussian(33, 8.0)
    surrounded = torch.nn.functional.pad((x - y).abs(), (16,) * 4)
    torch.testing.assert_close(of(alpha=0)(x, y), blur(surrounded, window).mean((1, 2, 3)))


def test_channels_are_multiplied_or_averaged():
    x, y = pair(1, 40)
    grey = x.mean(1, keepdim=True).expand_as(x), y.mean(1, keepdim=True).expand_as(y)
    averaged, multiplied = (of(alpha=1, channels=channels).quality_map(*grey) for channels in ("mean", "product"))
    torch.testing.assert_close(1 - multiplied, (1 - averaged) ** 3)


def test_equal_images_are_exactly_alike():
    y = torch.cat([photographs(48)[:1], torch.full((1, 3, 48, 48), 0.3), torch.zeros(1, 3, 48, 48)])
    assert of()(y.clone(), y).tolist() == [0.0] * 3


def test_tiles_of_wider_windows_have_a_wider_border():
    x, y = pair(1, 96)
    options = {"critic": "ms-ssim-l1", "weight": 1.0, "options": {"sigmas": [1.0, 12.0]}}
    cut, whole = (CriticLoss([options], tile=tile)(x, y) for tile in (80, None))
    torch.testing.assert_close(cut, whole)
    assert of(sigmas=[1.0, 12.0]).card.halo == 24


def test_other_options_are_refused_at_once():
    sentence = r"(?s)3 problems.*alpha must be a number from 0 to 1, got 1.5.*sigmas.*rising.*channels must be one of"
    with pytest.raises(ConfigError, match=sentence):
        of(alpha=1.5, sigmas=[2.0, 1.0], channels="sum")
    for sigmas in ([], [0.0, 1.0]):
        with pytest.raises(ConfigError, match="sigmas must be numbers above 0, rising"):
            of(sigmas=sigmas)
