"""What losses read of a critic: the linear end of its head, and pooling weights as constants."""

from __future__ import annotations

import pytest
import torch
from toys import MODES, flat, gradient, term, toy

from perceptloss import CriticLoss
from perceptloss.critic import Critic


class Saturating(Critic):
    """tanh of twenty times the brightness: flat for any visible image."""

    def linear(self, x, y=None):
        return 20 * x.mean((1, 2, 3))

    def squash(self, linear):
        return linear.tanh()

    def score(self, x, y=None):
        return self.squash(self.linear(x, y))


class Attentive(Critic):
    """Brightness, pooled with weights that look at the image themselves."""

    def score(self, x, y=None):
        weights = self.held(x.square()) + 0.1
        return (weights * x).sum((1, 2, 3)) / weights.sum((1, 2, 3))


def saturating() -> Critic:
    return Saturating(toy("saturating", lambda x, y: x).card).freeze()


@pytest.mark.parametrize("mode", MODES)
def test_relative_losses_read_the_linear_end_of_a_head(mode):
    x, y = flat(0.6), flat(0.9)
    critic = saturating()
    assert torch.equal(critic(x), torch.ones(2)), "the published score cannot tell them apart"
    loss_fn = CriticLoss([term(critic)], grad=mode)
    assert loss_fn(x.requires_grad_(), y).item() == pytest.approx(20 * 0.3, rel=1e-5)
    torch.testing.assert_close(gradient(loss_fn, x, y), torch.full_like(x, -20 / (2 * 3 * 64)))
    assert loss_fn.report["saturating"]["score"] == pytest.approx(1.0), "the report keeps natural units"


def test_absolute_losses_and_scores_read_the_published_end():
    critic = Saturating(toy("saturating", lambda x, y: x, bounds=(-1.0, 1.0)).card).freeze()
    loss_fn = CriticLoss([term(critic, shape="deficit")])
    assert loss_fn(flat(0.05)).item() == pytest.approx((1 - torch.tensor(1.0).tanh().item()) / 2, rel=1e-5)


def test_pooling_weights_are_constants_of_a_frozen_critic():
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    critic = Attentive(toy("attentive", lambda x, y: x).card).freeze()
    weights = x.detach().square() + 0.1
    constant = weights / weights.sum((1, 2, 3), keepdim=True)
    (held,) = torch.autograd.grad(critic(x).sum(), x)
    torch.testing.assert_close(held, constant)
    critic.hold_weights = False
    (exact,) = torch.autograd.grad(critic(x).sum(), x)
    assert torch.autograd.gradcheck(critic, x)
    assert not torch.allclose(exact, held)


def test_a_critic_that_learns_learns_its_pooling_weights():
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Attentive(toy("attentive", lambda x, y: x).card).unfreeze(), x)
