"""Critics of single images in a loss on stereo pairs."""

from __future__ import annotations

import pytest
import torch
from toys import MODES

from perceptloss import CriticLoss, create_critic
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.each_view import EachView


def pairs(seed: int, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 6, 12, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, (48, 64), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("mode", MODES)
def test_the_score_is_the_mean_of_those_of_the_views(mode):
    x, y = pairs(0).requires_grad_(), pairs(1)
    loss_fn = CriticLoss({"gmsd": 1.0}, grad=mode, stereo=True)
    loss = loss_fn(x, y)
    loss.backward()
    alone = create_critic("gmsd")
    x2 = x.detach().clone().requires_grad_()
    wanted = (alone(x2[:, :3], y[:, :3]) + alone(x2[:, 3:], y[:, 3:])).mean() / 2
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(x.grad, x2.grad)


def test_critics_of_pairs_and_of_images_in_one_loss():
    loss_fn = CriticLoss({"mini-stereo": 1.0, "ssim": 1.0}, stereo=True)
    x = pairs(0).requires_grad_()
    loss_fn(x, pairs(1)).backward()
    norms = loss_fn.check_gradient(pairs(0), pairs(1))
    assert all(norm > 0 for norm in norms.values()) and len(norms) == 2
    assert [term.critic.card.kind for term in loss_fn.terms] == ["stereo-fr", "stereo-fr"]


def test_without_the_option_pairs_are_refused():
    with pytest.raises(InputError, match="3, H, W"):
        CriticLoss({"ssim": 1.0})(pairs(0).requires_grad_(), pairs(1))
    with pytest.raises(ConfigError, match="stereo must be true or false"):
        CriticLoss({"ssim": 1.0}, stereo="yes")


def test_a_joint_critic_of_views_learns_and_leaves_a_file_of_single_images():
    joint = {"lr": 1e-3, "ema": 0.5}
    term = {"critic": "patch", "weights": None, "weight": 0.1, "joint": joint, "options": {"width": 4}}
    loss_fn = CriticLoss([term], stereo=True)
    x, y = pairs(0), pairs(1)
    before = {n: p.clone() for n, p in loss_fn.terms[0].critic.named_parameters()}
    assert loss_fn.learn(x, y, step=0)
    critic = loss_fn.terms[0].critic
    assert isinstance(critic, EachView) and critic.has_maps and critic.maps(x).shape == (2, 1, 12, 16)
    assert any(not torch.equal(before[n], p) for n, p in critic.named_parameters())
    assert not any(p.requires_grad for p in critic.parameters())
    again = create_critic("patch", weights=loss_fn.learners["patch"].averaged(), options={"width": 4})
    assert again(x[:, :3]).shape == (2,)
