"""Labelled images beside the training of a restorer: what joint critics are given of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sr
import torch
from PIL import Image, ImageFilter
from recipe_helpers import photograph

from perceptloss import create_critic
from perceptloss.errors import ConfigError
from perceptloss.teach.run.anchors import AnchorSets

CPU = torch.device("cpu")
PATCH = [create_critic("patch", weights=None)]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ten photographs, three versions of each, with opinions that fall with the blur."""
    root, rows = tmp_path_factory.mktemp("people"), ["image,mos,content"]
    for i in range(10):
        photograph(root / "clean.png", 100 + i, 48 + 4 * (i % 3), 56)
        for radius in (0, 1, 3):
            name = f"{i}-{radius}.png"
            Image.open(root / "clean.png").filter(ImageFilter.GaussianBlur(radius)).save(root / name)
            rows.append(f"{name},{5 - radius - 0.01 * i},{i}")
    (root / "clean.png").unlink()
    (root / "scores.csv").write_text("\n".join(rows))
    entry = {"kind": "opinions", "name": "people", "root": str(root / "scores.csv"), "crops": [40], "contents": 2}
    return {**entry, "hold_out": 0.3, "layout_options": {"higher_better": True}}


def test_a_step_is_always_given_the_same_images(people: dict[str, Any]) -> None:
    sets, again = (AnchorSets([people], PATCH, 0, CPU) for _ in range(2))
    images, references, labels = sets.at(7)["people"]
    assert images.shape == (2, 3, 40, 40) and references is None and labels.shape == (2,)
    assert 0 <= images.min() < images.max() <= 1 and 0 <= labels.min() <= labels.max() <= 1
    again.at(3)
    assert torch.equal(again.at(7)["people"][0], images)
    assert not torch.equal(again.at(8)["people"][0], images)
    assert not torch.equal(AnchorSets([people], PATCH, 1, CPU).at(7)["people"][0], images)


def test_processes_share_a_step(people: dict[str, Any]) -> None:
    whole = AnchorSets([{**people, "contents": 4}], PATCH, 0, CPU).at(5)["people"]
    parts = [AnchorSets([people], PATCH, 0, CPU, rank, 2).at(5)["people"] for rank in range(2)]
    assert sorted(torch.cat([labels for *_, labels in parts]).tolist()) == sorted(whole[2].tolist())


def test_what_is_held_out_is_never_taught(people: dict[str, Any]) -> None:
    sets = AnchorSets([people], PATCH, 0, CPU)
    images, _, labels = sets.held["people"]
    assert images.shape == (9, 3, 48, 56), "cut to what all have"
    taught = {round(float(label), 5) for step in range(60) for label in sets.at(step)["people"][2]}
    assert len(taught) == 21
    assert taught.isdisjoint(round(float(label), 5) for label in labels)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"kind": "ladders", "root": ""}, "root"),
        ({"hold_out": 0.1, "contents": 10}, "contents: 10 in a batch, but 9 photographs are taught"),
        ({"crops": [16]}, "'mini-nr' needs sides of at least 32"),
        ({"root": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_problems_are_named(people: dict[str, Any], changed: dict[str, Any], part: str) -> None:
    with pytest.raises((ConfigError, FileNotFoundError), match=part):
        AnchorSets([{**people, **changed}], [*PATCH, create_critic("mini-nr", weights=None)], 0, CPU)


def test_without_a_critic_that_learns_they_are_refused(people: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no term of this loss is `joint`"):
        AnchorSets([people], [], 0, CPU)


def test_a_run_teaches_and_watches_its_joint_critic_by_them(
    tiny: list[str], tmp_path: Path, people: dict[str, Any]
) -> None:
    joint = "{share: 0.2, weights: null, options: {width: 8}, joint: {lr: 1.0e-3}}"
    given = [*tiny, "--baseline", "false", "--train.steps", "3", "--val.every", "1"]
    options = [*given, "--loss.critics", f"{{patch: {joint}}}", "--loss.anchors", json.dumps([people])]
    sr.main([*options, "--output", str(tmp_path / "run")])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    for record in log:
        if record["kind"] == "train":
            assert {"rank", "anchor people"} <= record["joint"]["patch"].keys()
            assert record["joint"]["patch"]["anchor people"] > 0
    progress = json.loads((tmp_path / "run" / "checkpoints" / "last" / "progress.json").read_text())
    agreement = [found["anchors"] for found in progress["seen"]["validations"]]
    assert agreement[0] == {"patch": 0.0} and len(agreement) >= 3
    assert all(-1 <= found["patch"] <= 1 for found in agreement)
    with pytest.raises(ConfigError, match=r"loss\.anchors teach critics that learn"):
        sr.main([*given, "--loss.anchors", json.dumps([people]), "--output", str(tmp_path / "none")])
