"""Shares of the gradient and the weights that give them."""

from __future__ import annotations

import pytest
import torch

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError
from perceptloss.loss.balance import measure_balance, weights_for_shares


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(3)
    y = torch.rand(2, 3, 40, 40, generator=generator)
    return (y + 0.1 * torch.randn(y.shape, generator=generator)).clamp(0, 1), y


def test_shares_are_weighted_gradient_norms(pair):
    x, y = pair
    balance = measure_balance(CriticLoss({"ssim": 0.5, "gmsd": 2.0}), x, y)
    leaf = x.clone().requires_grad_()
    norms = {}
    for name in ("ssim", "gmsd"):
        (gradient,) = torch.autograd.grad(CriticLoss({name: 1.0}, grad="autograd")(leaf, y), leaf)
        norms[name] = float(gradient.norm())
    total = 0.5 * norms["ssim"] + 2.0 * norms["gmsd"]
    assert balance.norms == pytest.approx(norms, rel=1e-4)
    assert balance.shares == pytest.approx(
        {"ssim": 0.5 * norms["ssim"] / total, "gmsd": 2 * norms["gmsd"] / total}, rel=1e-4
    )
    assert sum(balance.shares.values()) == pytest.approx(1)


def test_a_term_agrees_with_itself(pair):
    loss = CriticLoss([{"critic": "ssim", "weight": 1.0}, {"critic": "ssim", "weight": 3.0, "name": "again"}])
    assert measure_balance(loss, *pair).cosine == {("again", "ssim"): pytest.approx(1.0)}


def test_weights_give_the_wished_shares_beside_l1(pair):
    x, y = pair
    shares = {"ssim": 0.2, "gmsd": 0.3}
    weights = weights_for_shares(CriticLoss(dict.fromkeys(shares, 1.0)), shares, x, y)
    leaf = x.clone().requires_grad_()
    terms = {"l1": (leaf - y).abs().mean()}
    terms |= {name: CriticLoss({name: weight}, grad="autograd")(leaf, y) for name, weight in weights.items()}
    norms = {name: float(torch.autograd.grad(value, leaf)[0].norm()) for name, value in terms.items()}
    total = sum(norms.values())
    assert {name: norm / total for name, norm in norms.items()} == pytest.approx({"l1": 0.5, **shares}, rel=1e-3)


def test_wrong_shares_are_all_named(pair):
    loss_fn = CriticLoss({"ssim": 1.0, "gmsd": 1.0, "psnr": 0})
    with pytest.raises(ConfigError) as caught:
        weights_for_shares(loss_fn, {"ssmi": 0.5, "ssim": 0.6, "psnr": 0.2}, *pair)
    text = str(caught.value)
    assert "did you mean 'ssim'" in text
    assert "no share given for term 'gmsd'" in text
    assert "term 'psnr' only watches" in text
    assert "1.3" in text
