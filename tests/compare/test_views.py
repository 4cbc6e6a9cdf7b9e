"""Stereo pairs from files: by names, by folders, from two folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from judges import CARDS, Brightness

from perceptloss import registry
from perceptloss.cli.main import main
from perceptloss.compare import Pairing, compare, load_results, score
from perceptloss.compare.views import view_of
from perceptloss.critic import Entry
from perceptloss.errors import PairingError

STEREO = Pairing(stereo=True)


@pytest.fixture
def light(toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """`toy-pair`: the mean brightness of both views."""
    card = replace(CARDS["toy-light"], name="toy-pair", kind="stereo-nr")
    monkeypatch.setitem(registry._registered, "toy-pair", Entry(card, Brightness))


@pytest.mark.parametrize(
    ("left", "right", "name"),
    [
        ("a_L", "a_R", "a"),
        ("a_l", "a_r", "a"),
        ("0001L", "0001R", "0001"),
        ("scene-left", "scene-right", "scene"),
        ("left_07", "right_07", "07"),
        ("0001_L_x4", "0001_R_x4", "0001_x4"),
        ("0001/hr0", "0001/hr1", "0001"),
        ("room/im0", "room/im1", "room"),
        ("left/0001", "right/0001", "0001"),
        ("left/img0", "right/img0", "img0"),
        ("set/left/a_L", "set/right/a_R", "set/a"),
        ("left", "right", "pair"),
    ],
)
def test_names_and_folders_say_the_view(left, right, name):
    assert view_of(left) == (name, "left")
    assert view_of(right) == (name, "right")


@pytest.mark.parametrize("name", ["bright", "clear", "a_label", "r2d2", "im2", "0001"])
def test_other_names_say_none(name):
    assert view_of(name) is None


def test_all_ways_to_give_two_views_give_the_same_scores(light, folder, tmp_path):
    named = folder("named", a_L=51, a_R=102, b_L=0, b_R=51)
    below = folder("below/left", a=51, b=0).parent
    folder("below/right", a=102, b=51)
    sources = [named, below, f"{below / 'left'},{below / 'right'}", (below / "left", below / "right")]
    for source in sources:
        found = score(source, None, ["toy-pair", "toy-light"], rules=STEREO)
        assert [image.key for image in found.images] == ["a", "b"]
        assert found.values[0][0] == pytest.approx((0.3, 0.1))
        assert found.values[0][1] == pytest.approx((0.3, 0.1))
    assert [column.signature.count("|views:mean|") for column in found.critics] == [0, 1]
    found.save(tmp_path / "r.json")
    assert load_results(tmp_path / "r.json") == found
    assert found.images[0].outputs[0].right.path.endswith("right/a.png")


def test_pairs_are_compared_with_pairs_and_luma_is_that_of_each_view(light, folder):
    gt, one, two = (folder(name, a_L=v, a_R=v + 2) for name, v in (("gt", 10), ("one", 20), ("two", 40)))
    found = compare({"one": one, "two": two}, gt, ["toy-error", "toy-pair", "psnr-y"], rules=STEREO)
    assert [row[0][0] for row in found.values] == pytest.approx([10 / 255, 30 / 255])
    assert found.values[0][2][0] > found.values[1][2][0]


def test_what_is_no_pair_is_listed(light, folder):
    out = folder("out", a_L=1, a_R=1, b_L=1, c=1)
    folder("out", size=(9, 9), a_R=1)
    with pytest.raises(PairingError) as error:
        score(out, None, ["toy-pair"], rules=STEREO)
    for text in ("c.png says no view; expected names such as", "b_L.png is a left view without its right one"):
        assert text in str(error.value)
    assert "left view of 12x16, 8 bits and a right one of 9x9, 8 bits" in str(error.value)
    with pytest.raises(PairingError, match="both views of 'a_L' are"):
        score((out, out), None, ["toy-pair"], rules=STEREO)


def test_the_commands_take_pairs(light, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder("gt", size=(40, 40), a_L=10, a_R=12)
    folder("left", size=(40, 40), a=20)
    folder("right", size=(40, 40), a=22)
    flags = ["--ref", "gt", "--stereo", "-c"]
    assert main(["score", "left", "right", *flags, "toy-error", "--dry-run"]) == 0
    assert "left/a.png + right/a.png  gt/a_L.png + gt/a_R.png" in capsys.readouterr().out
    assert main(["compare", "x=left,right", *flags, "toy-error"]) == 0
    assert main(["map", "left,right", *flags, "mini-stereo", "--output", "map.png", "--overlay"]) == 0
    assert Path("map.png").is_file()
    assert main(["map", "left,right", *flags, "ssim-full", "--output", "other.png"]) == 2
    assert "judges single images" in capsys.readouterr().err
