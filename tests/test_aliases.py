"""Names from other libraries: what they mean here, that it is said, and that labels and signatures stay ours."""

from __future__ import annotations

import json
import logging

import pytest

from perceptloss import CriticLoss, create_critic, get_card, list_critics
from perceptloss.cli.main import main
from perceptloss.critics import aliases
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.loss.parsing import parse_terms

NAMES = {"package:cvvdp", *(card.name for card in list_critics())}
MEANING = {
    "lpips": "lpips-alex",
    "LPIPS": "lpips-alex",
    "LearnedPerceptualImagePatchSimilarity": "lpips-alex",
    "lpips_vgg": "lpips-vgg",
    "ms_ssim": "ms-ssim",
    "MS-SSIM": "ms-ssim",
    "multi_scale_ssim": "ms-ssim",
    "MultiScaleSSIMLoss": "ms-ssim",
    "ssimc": "ssim-full",
    "SSIMLoss": "ssim",
    "calculate_ssim": "ssim-full",
    "calculate_niqe": "niqe",
    "niqe_matlab": "niqe",
    "brisque_matlab": "brisque",
    "vif_p": "vif",
    "multi_scale_gmsd": "ms-gmsd",
    "information_weighted_ssim": "iw-ssim",
    "srsim": "sr-sim",
    "HaarPSILoss": "haarpsi",
    "total_variation": "tv",
    "VGGPerceptual": "perceptual",
    "PerceptualLoss": "perceptual",
    "clipiqa": "clip-iqa",
    "cw_ssim": "cw-ssim",
    "musiq-koniq": "musiq",
    "topiq_nr": "topiq-nr",
    "StyleLoss": "vgg-style",
    "cvvdp": "package:cvvdp",
}
NEAR = {
    "liqe": "'hyperiqa'",
    "musiq-ava": "'musiq' reads that file",
    "clipiqa+": "'clip-iqa'",
    "fgresq": "no licence",
    "vmaf": "`perceptloss vmaf` scores by ffmpeg",
    "ckdn": "'dists'",
    "lpips-vgg+": "'lpips-vgg'",
    "psnry": "'psnr'",
    "pi": "'ranker'",
    "fid": "sets of images",
    "CMMD": "--set-judges` has fid, kid and cmmd",
}


@pytest.fixture
def notes(caplog):
    """What was said since the test began, also of names that came up in other tests."""
    aliases._tell.cache_clear()
    caplog.set_level(logging.INFO, "perceptloss")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("name", "meant"), MEANING.items())
def test_a_foreign_name_is_understood_and_explained_once(name, meant, notes):
    assert get_card(name).name == get_card(name).name == meant
    (note,) = notes()
    assert note.startswith(f"{name!r} is {meant!r} here")


@pytest.mark.parametrize(("name", "near"), NEAR.items())
def test_a_critic_of_others_is_refused_with_what_is_near(name, near):
    with pytest.raises(UnknownCritic, match="there is no critic") as caught:
        get_card(name)
    assert near in str(caught.value)


def test_the_tables_name_critics_that_exist_and_hide_none():
    assert {critic for critic, _ in aliases._ALIASES.values()} <= NAMES
    assert len({aliases._squeezed(name) for name in NAMES}) == len(NAMES), "two critics differ in punctuation only"
    for key in (*aliases._ALIASES, *aliases._ABSENT):
        assert key == aliases._squeezed(key)
        assert key not in {aliases._squeezed(name) for name in NAMES}
    quoted = {word for text in aliases._ABSENT.values() for word in text.split("'")[1::2]}
    assert quoted <= NAMES


def test_a_registered_name_is_no_alias(notes):
    assert all(get_card(name).name == name for name in NAMES)
    assert notes() == []


def test_a_misspelt_name_still_gets_a_hint(notes):
    with pytest.raises(UnknownCritic, match=r"unknown critic 'lpips-vg'; did you mean 'lpips-vgg'"):
        get_card("lpips-vg")


def test_labels_and_signatures_are_ours():
    (spec,) = parse_terms({"ms_ssim": 1.0})
    assert (spec.label, spec.critic) == ("ms-ssim", "ms-ssim")
    loss_fn = CriticLoss({"ssimc": 1.0, "calculate_psnr": 1.0})
    assert [term.critic.signature.partition("|")[0] for term in loss_fn.terms] == ["ssim-full", "psnr"]
    assert create_critic("SSIM").signature == create_critic("ssim").signature
    with pytest.raises(ConfigError, match=r"2 terms are called 'ms-ssim'"):
        parse_terms({"ms_ssim": 1.0, "ms-ssim": 1.0})


def test_configs_say_what_is_near():
    with pytest.raises(ConfigError, match=r"train\.critics\.liqe: there is no critic 'liqe' here: near it are"):
        parse_terms({"liqe": 1.0}, "train.critics")


def test_on_the_command_line(capsys, notes):
    assert main(["show", "ms_ssim", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"] == "ms-ssim"
    assert "note: 'ms_ssim' is 'ms-ssim' here" in printed.err
    assert main(["show", "liqe"]) == 2
    assert "near it are 'maniqa'" in capsys.readouterr().err
