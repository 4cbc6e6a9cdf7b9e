"""One critic per base class, through the loss: the first thing to run after a change."""

from __future__ import annotations

import pytest
import torch
from images import pair

from perceptloss import CriticLoss

pytestmark = pytest.mark.smoke


def test_one_critic_per_base_class(critic):
    card = critic.card
    side = -(-max(card.min_size, 64) // card.multiple_of) * card.multiple_of
    x, y = pair(1, side, side, channels=card.channels)
    loss = CriticLoss([{"critic": critic, "weight": 1.0}])(x.requires_grad_(), y)
    loss.backward()
    assert loss.shape == () and torch.isfinite(loss) and torch.isfinite(x.grad).all()
    (gradient,) = torch.autograd.grad(critic(x, y if card.needs_reference else None).sum(), x)
    assert torch.isfinite(gradient).all() and gradient.any()
