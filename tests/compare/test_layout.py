"""Folders as training frameworks write them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from perceptloss.compare import Pairing, Settings
from perceptloss.compare.plan import make_plan
from perceptloss.errors import ConfigError, PairingError

NAMES = ("baby", "img_001_SRF_4_HR", "img_002_SRF_4_HR")  # whose ending is common and not a suffix


def plan(out: Path, gt: Path | None, layout: str = "basicsr"):
    critic = "tv" if gt is None else "psnr"
    return make_plan({"out": out}, gt, [critic], rules=Pairing(layout=layout), settings=Settings())


def pairs(out: Path, gt: Path | None, layout: str = "basicsr") -> dict[str, str]:
    return {record.key: Path(record.outputs[0].path).stem for record in plan(out, gt, layout).images}


@pytest.fixture
def gt(folder) -> Path:
    return folder("gt", **dict.fromkeys(NAMES, 1))


@pytest.mark.parametrize("ending", ["", "x4", "_LRBI_x4"])  # of the low-quality file, after which folders are called
def test_the_newest_iteration_that_all_images_have_is_taken(folder, gt, caplog, ending):
    for n, name in enumerate(NAMES):
        for step in (5000, 10000, *([15000] if n == 0 else [])):
            out = folder(f"vis/{name}{ending}", **{f"{name}{ending}_{step}": 2}).parent
    with caplog.at_level(logging.INFO):
        assert pairs(out, gt) == {name: f"{name}{ending}_10000" for name in NAMES}
    assert "iteration 10000 of 5000, 10000, 15000" in caplog.text
    assert pairs(out, gt, "basicsr:5000") == {name: f"{name}{ending}_5000" for name in NAMES}
    with pytest.raises(PairingError, match=r"15000 is not there for 'img_0.*basicsr:10000 is the newest that all"):
        plan(out, gt, "basicsr:15000")
    with pytest.raises(PairingError, match="no pictures NAME/NAME_7 in"):
        plan(folder("flat", **dict.fromkeys(NAMES, 2)), gt, "basicsr:7")


def test_results_of_a_test_lose_their_suffix_and_the_folder_of_the_data_set(folder, gt):
    out = folder("test/Set5", **{f"{name}_EDSR_x4": 2 for name in NAMES})
    expected = {name: f"{name}_EDSR_x4" for name in NAMES}
    assert pairs(out, gt) == pairs(out.parent, gt) == expected
    assert set(pairs(out, None)) == {*NAMES}
    folder("test/Set5", **{f"{name}_HAT": 3 for name in NAMES})
    with pytest.raises(PairingError, match=r"several kinds, by their endings: _EDSR_x4 \(3\), _HAT \(3\); choose one"):
        plan(out.parent, gt)
    assert pairs(out.parent, gt, "basicsr:_HAT") == {name: f"{name}_HAT" for name in NAMES}


def test_frames_of_clips_pair_below_their_folders(folder):
    for clip in ("000", "011"):
        folder(f"gt/REDS4/{clip}", **{f"0000000{n}": 1 for n in range(2)})
        folder(f"vis/REDS4/{clip}", **{f"0000000{n}_BasicVSR": 1 + n for n in range(2)})
    top = folder("top").parent
    keys = {f"{clip}/0000000{n}" for clip in ("000", "011") for n in range(2)}
    assert set(pairs(top / "vis", top / "gt" / "REDS4")) == keys
    assert set(pairs(top / "vis", top / "gt")) == {f"REDS4/{key}" for key in keys}


def test_copies_of_inputs_are_no_results_and_a_data_set_may_stand_before_the_name(folder, gt, caplog):
    for name in NAMES:
        out = folder(f"vis/Set5 - {name}", **{f"{name}_000500": 2, f"{name}_lr": 1}).parent
    with caplog.at_level(logging.INFO):
        assert pairs(out, gt) == {name: f"{name}_000500" for name in NAMES}
    assert "copies of inputs and ground truth left out: Set5 - baby/baby_lr" in caplog.text
    top = folder("refs/Set5", **dict.fromkeys(NAMES, 1)).parent
    assert set(pairs(out, top)) == {f"Set5/{name}" for name in NAMES}


def test_copies_of_the_ground_truth_are_no_results(folder, gt):
    for name in NAMES:
        out = folder(f"vis/{name}", **{f"{name}_20": 2, f"{name}_20_gt": 1}).parent
        tested = folder("tested/set", **{name: 2, f"{name}_gt": 1})
    assert pairs(out, gt) == {name: f"{name}_20" for name in NAMES}
    assert pairs(tested, gt) == {name: name for name in NAMES}


def test_the_layout_is_offered_where_it_would_pair_everything_and_only_there(folder, gt):
    for name in NAMES:
        out = folder(f"vis/{name}", **{f"{name}_20": 2}).parent
    for rules in (Pairing(), Pairing(recursive=True), Pairing(recursive=True, strip=(r"_\d+",))):
        with pytest.raises(PairingError, match="--layout basicsr would pair all of these"):
            make_plan({"out": out}, gt, ["psnr"], rules=rules, settings=Settings())
    folder("vis/other", other_20=2)
    with pytest.raises(PairingError) as error:
        make_plan({"out": out}, gt, ["psnr"], rules=Pairing(), settings=Settings())
    assert "--layout" not in str(error.value)
    with pytest.raises(ConfigError, match="layout must be flat, basicsr"):
        Pairing(layout="basicst")
