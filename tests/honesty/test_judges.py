"""Judges apart from critics: by weight files, by trunks, by who taught whom; and the columns they stand in."""

from __future__ import annotations

import copy
import re

import pytest
import torch

from perceptloss import create_critic, get_card, list_critics
from perceptloss.card import Card, distance_card
from perceptloss.compare.columns import GROUPS
from perceptloss.honesty.judges import column_group, judge_problems, judge_remarks, teachers
from perceptloss.networks.trunks import TrunkCritic


def problems(trained, judge):
    return judge_problems([get_card(trained)], [get_card(judge)])


@pytest.mark.parametrize(
    ("trained", "judge", "text"),
    [
        ("mini-fr", "mini-nr", "reads lite0-smooth .the trunk., as the trained 'mini-fr' does"),
        ("lpips-vgg", "dists", "vgg16 .the trunk."),
        ("gmsd", "gmsd", "is trained on"),
        ("unified-fr", "unified-nr", "resnet50 .the trunk. and unified,"),
    ],
)
def test_a_shared_file_is_a_problem(trained, judge, text):
    (problem,) = problems(trained, judge)
    assert f"judge {judge!r}" in problem
    assert re.search(text, problem)


@pytest.mark.parametrize(
    ("trained", "judge"),
    [("mini-fr", "lpips-alex"), ("lpips-squeeze", "lpips-alex"), ("ssim", "gmsd"), ("mini-nr", "niqe")],
)
def test_what_shares_nothing_is_none(trained, judge):
    assert problems(trained, judge) == []


def test_a_trunk_inside_another_file_is_found():
    def packed(name, *weights):
        return distance_card(
            name=name, summary="a toy", licence_code="MIT", paper="none", source="none", weights=weights
        )

    whole = packed("whole", "lpips-alex-whole")
    (problem,) = judge_problems([get_card("lpips-alex")], [whole])
    assert "lpips-alex" in problem
    assert judge_problems([whole], [get_card("lpips-vgg")]) == []


def test_built_critics_are_compared_by_their_trunks():
    trained = create_critic("lpips-squeeze")

    class Other(TrunkCritic):
        def __init__(self, card: Card) -> None:
            super().__init__(card)
            self.trunk = copy.deepcopy(trained.trunk)

    facts = {"summary": "a toy", "licence_code": "MIT", "paper": "none", "source": "none"}
    other = Other(distance_card(name="other", **facts))
    (problem,) = judge_problems([trained], [other])
    assert "the same trunk" in problem and "squeezenet" in problem
    with torch.no_grad():
        next(other.trunk.parameters()).add_(1)
    assert judge_problems([trained], [other]) == []


def test_teachers_are_read_from_model_cards():
    assert {"lpips-alex", "haarpsi", "ssimulacra2"} <= set(teachers(get_card("mini-fr")))
    assert teachers(get_card("gmsd")) == ()
    critic, taught = get_card("mini-fr"), get_card("lpips-alex")
    assert judge_remarks([critic], [taught]) == [
        "judge 'lpips-alex' taught the trained 'mini-fr': expect them to agree"
    ]
    assert "was taught by the trained 'haarpsi'" in judge_remarks([get_card("haarpsi")], [critic])[0]
    assert "both taught by" in judge_remarks([critic], [get_card("mini-nr")])[0]
    assert judge_remarks([critic], [get_card("gmsd")]) == []


def test_columns():
    def group(name, *trained):
        return column_group(get_card(name), trained)

    assert group("gmsd", "gmsd") == "trained FR"
    assert group("mini-nr", "mini-nr", "gmsd") == "trained NR"
    assert group("gmsd") == "untrained FR"
    assert group("niqe", "gmsd") == "untrained NR"
    assert group("psnr") == "fidelity"
    assert group("psnr", "psnr") == "trained FR"
    assert group("mini-stereo", "mini-stereo") == "trained FR"
    assert {column_group(card, ()) for card in list_critics()} == set(GROUPS[2:])
