"""Critics of stereo pairs in an unmodified BasicSR config, on a network of six channels."""

from __future__ import annotations

import bsr  # noqa: F401  skips where BasicSR is missing
import pytest
import torch
from basicsr.models import build_model
from fakes import options

from perceptloss import create_critic
from perceptloss.errors import ConfigError

CRITICS = [
    {"critic": "mini-stereo", "weight": 0.2},
    {"critic": "gmsd", "weight": 0.3},
    {"critic": "stereo-consistency", "weight": 0.1},
]


def stereo_options(**train):
    opt = options(**train)
    opt["network_g"] = {"type": "NAFSSR", "up_scale": 2, "width": 8, "num_blks": 1}
    opt["datasets"]["train"]["gt_size"] = 48
    return opt


def pairs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 6, 12, 16, generator=generator)
    gt = torch.nn.functional.interpolate(coarse, (48, 64), mode="bicubic").clamp(0, 1)
    return {"lq": torch.nn.functional.avg_pool2d(gt, 2), "gt": gt}


def test_critics_of_pairs_and_of_views_train_an_unmodified_model():
    model = build_model(stereo_options(critics=CRITICS, critic_opt={"stereo": True}))
    data = pairs()
    output = model.net_g(data["lq"]).detach().requires_grad_()
    wanted = (output - data["gt"]).abs().mean()
    for term in CRITICS:
        critic, x, y = create_critic(term["critic"]), output, data["gt"]
        if critic.card.channels == 3:
            x, y = torch.cat(x.chunk(2, 1)), torch.cat(y.chunk(2, 1))
        wanted = wanted + term["weight"] * critic(x, y).mean()
    (slope,) = torch.autograd.grad(wanted, output)
    seen = []
    handle = model.net_g.register_forward_hook(lambda m, given, out: out.register_hook(seen.append) and None)
    model.feed_data(data)
    model.optimize_parameters(1)
    handle.remove()
    torch.testing.assert_close(seen[0], slope, rtol=1e-3, atol=1e-7)
    log = model.get_current_log()
    assert list(log) == ["l_pix", "l_mini-stereo", "l_gmsd", "l_stereo-consistency"]
    assert all(value > 0 for value in log.values())


def test_a_loss_type_of_pairs_is_a_line_of_the_config():
    pixel = {"type": "CriticLoss", "loss_weight": 1.0, "stereo": True, "critics": CRITICS}
    model = build_model(stereo_options(pixel_opt=pixel))
    model.feed_data(pairs())
    model.optimize_parameters(1)
    assert model.get_current_log()["l_pix"] > 0


def test_without_the_word_stereo_the_config_says_what_to_do():
    with pytest.raises(ConfigError, match=r"say stereo: true in critic_opt"):
        build_model(stereo_options(critics=CRITICS))
