"""The templates for networks: what they recommend and offer is valid, and each network trains with it."""

from __future__ import annotations

import random
import re
from importlib.util import find_spec
from typing import Any

import bsr
import numpy as np
import pytest
import torch
import yaml
from basicsr.data import build_dataset
from basicsr.models import build_model, realesrgan_model, realesrnet_model
from basicsr.utils.img_process_util import filter2D

from perceptloss.integrations.basicsr.options import read_plan
from perceptloss.integrations.networks import find_network

FILES = {file.stem.split("_")[1]: file for file in sorted(bsr.RECIPES.glob("train_*_joint.yml"))}
SMALL = {
    "msrresnet": {"num_feat": 8, "num_block": 1},
    "realesrgan": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "swinir": {"img_size": 16, "depths": [2], "embed_dim": 12, "num_heads": [2]},
    "hat": {"img_size": 16, "depths": [1], "embed_dim": 12, "num_heads": [2], "squeeze_factor": 4},
    "span": {"feature_channels": 8},
    "nafnet": {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    "restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]},
}
PACKAGE = {"hat": "spandrel", "span": "spandrel", "nafnet": "spandrel", "restormer": "spandrel_extra_arches"}


def parsed(text: str) -> dict[str, Any]:
    opt = yaml.safe_load(text)
    opt |= {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    for term in opt["train"]["critics"]:
        if not term["critic"].startswith("mini"):  # whose weights ship
            bsr.no_files(term)
    return opt


def test_every_network_of_the_list_has_a_template():
    assert set(FILES) == set(SMALL)


@pytest.mark.parametrize("name", FILES)
def test_what_a_template_recommends_is_held_together(name):
    plan = read_plan(parsed(FILES[name].read_text()))
    learning, frozen = (
        [term for term in plan.loss.terms if (term.spec.joint is not None) == joint] for joint in (True, False)
    )
    assert [term.label for term in learning] == ["patch"]
    assert frozen
    assert {term.spec.share for term in plan.loss.terms} == {0.2, 0.3}
    assert plan.loss.shift == 8
    assert plan.loss.budget.allowed == {"psnr": -0.5}
    assert plan.spending.start == 5000
    assert plan.relative == "train.pixel_opt, an L1 loss of weight 1"


def offers(text: str) -> list[str]:
    """Terms that a template has commented, with what is said of each in the line before."""
    return re.findall(r"^    # [^-].*:\n    # (- \{.*\})$", text, re.MULTILINE)


def test_what_templates_offer_is_valid_when_it_is_uncommented():
    smallest = FILES["msrresnet"].read_text()
    plain = parsed(smallest)
    assert plain["datasets"]["train"]["gt_size"] == min(
        yaml.safe_load(file.read_text())["datasets"]["train"]["gt_size"] for file in FILES.values()
    )
    every = {offer for file in FILES.values() for offer in offers(file.read_text())}
    assert all(len(offers(file.read_text())) >= 5 for file in FILES.values())
    assert len(re.findall(r"# - ", smallest)) == len(offers(smallest))
    for offer in every:
        opt = parsed(smallest.replace("  critic_opt:", f"    {offer}\n\n  critic_opt:"))
        if offer.startswith("- {critic: lpips-vgg"):
            opt["train"]["critics"].pop(0)
        assert read_plan(opt).loss.terms[-1].critic.card.name in offer


@pytest.mark.thorough
def test_the_discriminator_that_a_template_offers_is_built(monkeypatch, tmp_path):
    text = FILES["realesrgan"].read_text()
    for key in ("network_d", "optim_d", "gan_opt", "l1_gt_usm", "percep_gt_usm", "gan_gt_usm"):
        assert f"# {key}: " in text
        text = text.replace(f"# {key}: ", f"{key}: ")
    text = text.replace("model_type: RealESRNetModel ", "model_type: RealESRGANModel ")
    opt = small("realesrgan", text)
    opt["network_d"]["num_feat"] = 4
    log = two_steps(opt, monkeypatch, tmp_path)
    assert log["l_g_gan"] > 0
    assert log["l_d_real"] > 0


def small(name: str, text: str) -> dict[str, Any]:
    """A template with a small network, patches and batches, and critics that start in the second iteration."""
    opt = parsed(text)
    opt["num_gpu"] = 0
    opt["network_g"] |= SMALL[name]
    opt["path"] |= {"pretrain_network_g": None, "training_states": "nowhere"}
    opt["datasets"]["train"] |= {"gt_size": 64, "batch_size_per_gpu": 2}
    opt |= {"gt_size": 64, "queue_size": 2} if "queue_size" in opt else {}
    for term in opt["train"]["critics"]:
        term |= {"start": 2, "ramp": 1}
    opt["train"] |= {"total_iter": 3, "ema_decay": 0.5}
    opt["train"]["optim_g"]["lr"] = 1e-2  # so that two steps are seen in images of 8 bits
    opt["val"]["val_freq"] = 1
    opt["val"]["metrics"] = {"psnr": opt["val"]["metrics"]["psnr"]}
    return opt


def two_steps(opt: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder) -> dict[str, float]:
    """What is logged after two iterations with critics, on photographs, with a validation before and after."""
    for kind in (torch.nn.Module, torch.Tensor):  # RealESRNetModel asks for a GPU, and filters only what lies as there
        monkeypatch.setattr(kind, "cuda", lambda self: self)
    for model in (realesrnet_model, realesrgan_model):
        monkeypatch.setattr(model, "filter2D", lambda image, kernel: filter2D(image.contiguous(), kernel))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    photographs = bsr.write_photographs(folder, scale=opt["scale"])
    for phase, dataset in opt["datasets"].items():
        dataset |= {**photographs, "phase": phase, "scale": opt["scale"]}
    train = opt["datasets"]["train"]
    if "meta_info" in train:
        (folder / "meta.txt").write_text("photo0.png\nphoto1.png\n")
        train["meta_info"] = str(folder / "meta.txt")
    batches = torch.utils.data.DataLoader(build_dataset(train), 2)
    held_out = torch.utils.data.DataLoader(build_dataset(opt["datasets"]["val"]), 1)
    model = build_model(opt)
    for number in (1, 2, 3):
        model.feed_data(next(iter(batches)))
        model.optimize_parameters(number)
        model.validation(held_out, number, None)
    assert model.cri_pix.critics.budget.start != {}
    assert model.cri_pix.critics.budget.spent != 0
    return model.get_current_log()


@pytest.mark.parametrize("name", FILES)
def test_a_network_trains_with_critics_frozen_and_joint_within_a_budget(name, monkeypatch, tmp_path):
    if find_spec(PACKAGE.get(name, "basicsr")) is None:
        pytest.skip(f"needs {PACKAGE[name]}")
    opt = small(name, FILES[name].read_text())
    frozen = opt["train"]["critics"][0]["critic"]
    log = two_steps(opt, monkeypatch, tmp_path)
    assert all(log[f"l_{part}"] > 0 for part in ("pix", frozen, "patch", "patch_joint_rank"))


def test_networks_come_from_whoever_has_them():
    from basicsr.utils.registry import ARCH_REGISTRY

    from perceptloss.errors import ConfigError

    assert ARCH_REGISTRY.get("SwinIR").__module__ == "basicsr.archs.swinir_arch"  # not spandrel's
    with pytest.raises(ConfigError, match=r"nor an installed package has 'HATT'; spandrel has HAT"):
        ARCH_REGISTRY.get("HATT")
    assert find_network("no module") is None
    if find_spec("spandrel") is not None:
        assert ARCH_REGISTRY.get("HAT") is find_network("HAT")
        assert "HAT" not in ARCH_REGISTRY  # so that HAT's own code may register it
