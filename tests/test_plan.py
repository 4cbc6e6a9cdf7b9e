"""`perceptloss plan`: what it foresees and measures, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from perceptloss import get_card
from perceptloss.cli.main import main
from perceptloss.errors import PerceptlossError
from perceptloss.runs.footprint import Cost, Question, _extended, asked, side_of_tiles

QUESTION = Question("ssim-full", (80, 160), 48, train=True, device="cpu")


def test_foresees_and_measures(capsys):
    assert main(["plan", "160x80", "-c", "ssim-full", "--tile", "48", "--train", "--json", "--device", "cpu"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["critic"], row["tiles"]) == ("ssim-full", "48 (exact)")
    for cost in (row["foreseen"], row["measured"]):
        assert cost["peak"] > 2**26  # torch alone
        assert cost["seconds"] > 0


def test_what_takes_too_long_is_not_measured(capsys):
    assert main(["plan", "128x128", "-c", "ssim", "--limit", "0", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "ssim: not measured, as it takes longer than --limit 0" in out
    assert "whole" in out


def test_what_goes_wrong_in_the_process_is_told():
    unknown = replace(QUESTION, critic="no-such-critic")
    with pytest.raises(PerceptlossError, match="no-such-critic"):
        asked(unknown, lambda cost: "")


def test_the_line_through_two_measurements():
    found = _extended((100, Cost(1000, 1.0)), (200, Cost(1500, 2.0)), (20, 20))
    assert found == Cost(2500, 4.0)
    assert _extended((100, Cost(1000, 1.0)), (200, Cost(900, 2.0)), (20, 20)).peak == 900  # it never falls


@pytest.mark.parametrize(
    ("name", "size", "side"), [("ssim-full", (99, 99), 48), ("ssim", (99, 99), None), ("ssim-full", (40, 40), None)]
)
def test_tiles_are_used_where_they_may(name, size, side):
    assert side_of_tiles(get_card(name), 48, size) == side


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["0x9", "-c", "ssim"], "size must be WIDTHxHEIGHT"),
        (["99x99", "-c", "lpips-alex", "--tile", "48"], "needs --tile of at least"),
        (["99x9", "-c", "ssim"], "needs images of at least 11x11"),
        (["99x99", "-c", "simm"], "simm"),
        (["96x99", "-c", "psnr", "-c", "gsn"], "gsn needs sides that are multiples of 32, got 96x99"),
    ],
)
def test_says_what_is_wrong(arguments, said, capsys):
    assert main(["plan", *arguments]) == 2
    assert said in capsys.readouterr().err
