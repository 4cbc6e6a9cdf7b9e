"""Critics of stereo pairs in an unmodified BasicSR config, on a network of six channels."""

from __future__ import annotations

import bsr  # skips where BasicSR is missing
import numpy as np
import pytest
import torch
import yaml
from basicsr.data import build_dataset
from basicsr.models import build_model
from fakes import options
from PIL import Image

from perceptloss import create_critic
from perceptloss.errors import ConfigError
from perceptloss.integrations.basicsr.stereo import StereoPairDataset

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


# ---- the data set, and the template that uses it


@pytest.fixture
def folder(tmp_path):
    """Two pairs of equal views."""
    (tmp_path / "pairs").mkdir()
    for n in range(2):
        coarse = Image.fromarray(np.random.default_rng(n).integers(0, 256, (12, 18, 3), dtype=np.uint8))
        for view in "LR":
            coarse.resize((104, 72), Image.Resampling.BICUBIC).save(tmp_path / "pairs" / f"{n:04d}_{view}.png")
    return tmp_path / "pairs"


def dataset_options(folder, **more):
    return {
        "name": "pairs",
        "phase": "train",
        "scale": 4,
        "dataroot_gt": str(folder),
        "gt_size": 32,
        "gt_width": 64,
        **more,
    }


def test_the_data_set_gives_patches_of_both_views_and_only_legal_turns(folder):
    pairs = StereoPairDataset(dataset_options(folder, use_hflip=True, use_vflip=True, use_colours=True))
    assert len(pairs) == 2
    for _ in range(12):
        item = pairs[0]
        assert item["gt"].shape == (6, 32, 64) and item["lq"].shape == (6, 8, 16)
        left, right = item["gt"].chunk(2)
        assert torch.equal(left, right), "views of one picture stay one picture"
    whole = StereoPairDataset({**dataset_options(folder), "phase": "val"})[1]
    assert whole["gt"].shape == (6, 72, 104) and whole["lq"].shape == (6, 18, 26)
    assert whole["gt_path"].endswith("0001_L.png")


def test_what_is_wrong_with_a_data_set_is_told_all_at_once(folder):
    (folder / "0000_R.png").unlink()
    with pytest.raises(ConfigError) as caught:
        StereoPairDataset(dataset_options(folder, gt_width=66, use_rot=True))
    text = "\n".join(caught.value.problems)
    assert "unknown option 'use_rot'" in text and "multiples of 4, got 32 and 66" in text
    assert "left view without its right one" in text


def test_the_template_is_valid_and_trains(folder):
    opt = yaml.safe_load((bsr.RECIPES / "train_nafssr_x4_stereo.yml").read_text())
    for term in opt["train"]["critics"]:
        term |= {"start": 0, "ramp": 0}
    opt["train"]["critics"][3]["options"] = {"widths": [4, 6, 8], "matched": 4, "hidden": 8}
    opt["network_g"] |= {"width": 8, "num_blks": 1}
    opt["path"]["pretrain_network_g"] = None
    opt["datasets"]["train"] |= {
        "dataroot_gt": str(folder),
        "gt_size": 40,
        "gt_width": 64,
        "phase": "train",
        "scale": 4,
    }
    data = build_dataset(opt["datasets"]["train"])
    opt |= {"is_train": True, "dist": False, "rank": 0, "world_size": 1, "num_gpu": 0}
    model = build_model(opt)
    items = [data[n] for n in range(2)]
    for number in (1, 2):
        model.feed_data({key: torch.stack([item[key] for item in items]) for key in ("lq", "gt")})
        model.optimize_parameters(number)
    log = model.get_current_log()
    assert {"l_pix", "l_lpips-squeeze", "l_stereo-consistency", "l_mini-stereo", "l_stereo-srqa"} <= log.keys()
