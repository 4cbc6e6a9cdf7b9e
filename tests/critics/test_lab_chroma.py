"""lab-chroma against kornia, and what it does and does not see."""

from __future__ import annotations

import pytest
import torch
from kornia.color import rgb_to_lab

from perceptloss import create_critic
from perceptloss.critics.lab_chroma import chroma


def test_chroma_is_that_of_kornia():
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(chroma(image), rgb_to_lab(image)[:, 1:], atol=5e-2, rtol=1e-3)


def test_sees_a_tint_and_neither_detail_nor_light():
    generator = torch.Generator().manual_seed(0)
    grey = 0.5 * torch.ones(1, 3, 64, 64)
    critic = create_critic("lab-chroma")
    tint = grey.clone()
    tint[:, 0] += 0.05
    assert float(critic(tint, grey)) > 3
    assert float(critic(grey * 0.8, grey)) < 0.05
    noise = 0.02 * torch.randn(1, 3, 64, 64, generator=generator)
    assert float(critic(grey + noise, grey)) < 0.3 * float(critic(tint, grey))


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_gradient_is_bounded_on_flat_and_overshooting_images(shade):
    x = torch.full((1, 3, 16, 16), shade - 0.02 + 0.04 * shade).requires_grad_()
    y = torch.full((1, 3, 16, 16), shade)
    y[:, 0] = 0.5
    create_critic("lab-chroma")(x, y).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    assert x.grad.abs().sum() < 5000
