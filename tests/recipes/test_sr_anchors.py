"""Labelled images beside the training of a restorer: what joint critics are given of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sr
import torch
from PIL import Image, ImageFilter
from recipe_helpers import photograph

from perceptloss import CriticLoss, create_critic
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
        ({"kind": "opinions", "weight": 0.5}, "weight: such anchors are weighed by"),
        ({"clean": 1.0}, "clean: a reference has no label"),
        ({"hold_out": 0.1, "contents": 10}, "contents: 10 in a batch, but 9 photographs are taught"),
        ({"crops": [16]}, "'mini-nr' needs sides of at least 32"),
        ({"root": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_problems_are_named(people: dict[str, Any], changed: dict[str, Any], part: str) -> None:
    with pytest.raises((ConfigError, FileNotFoundError), match=part):
        AnchorSets([{**people, **changed}], [*PATCH, create_critic("mini-nr", weights=None)], 0, CPU)


@pytest.mark.parametrize("kind", ["ladders", "mixtures", "enlargers", "restoration"])
def test_kinds_without_labels_are_refused_before_they_are_opened(kind: str) -> None:
    with pytest.raises(ConfigError, match="no labels; kinds that have: opinions, teachers, enhanced"):
        AnchorSets([{"kind": kind}], PATCH, 0, CPU)


def opinions(root: Path, labels: Callable[[int], float] = float, side: int = 50, count: int = 16) -> dict[str, Any]:
    """Photographs of one size, which are their own references."""
    rows = ["image,reference,mos"]
    for i in range(count):
        photograph(root / f"{i}.png", 300 + i, side, side + 8)
        rows.append(f"{i}.png,{i}.png,{labels(i)}")
    (root / "scores.csv").write_text("\n".join(rows))
    return {"kind": "opinions", "root": str(root / "scores.csv"), "look_alikes": "allow"}


def test_images_fit_every_critic_that_learns_or_are_refused(tmp_path: Path) -> None:
    critics = [*PATCH, create_critic("gsn", weights=None)]  # needs references, and multiples of 32
    with pytest.raises(ConfigError, match=r"at least 32 and a multiple of 32, and its images are 50x58"):
        AnchorSets([opinions(tmp_path)], critics, 0, CPU)
    sets = AnchorSets([{**opinions(tmp_path), "crops": [32]}], critics, 0, CPU)
    images, references, _ = sets.held["opinions"]
    assert references is not None and images.shape[1:] == references.shape[1:] == (3, 32, 32)
    (tmp_path / "scores.csv").write_text((tmp_path / "scores.csv").read_text().replace(",0.png,", ",,", 1))
    with pytest.raises(ConfigError, match="'gsn' needs references"):
        AnchorSets([{"kind": "opinions", "root": str(tmp_path / "scores.csv"), "crops": [32]}], critics, 0, CPU)


def test_opinions_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all opinions are 3"):
        AnchorSets([{**opinions(tmp_path, lambda i: 3.0), "hold_out": 0}], PATCH, 0, CPU)
    with pytest.raises(ConfigError, match=r"hold_out: 0\.2 of one photograph leaves none to learn from; say 0"):
        AnchorSets([{**opinions(tmp_path, count=1), "layout_options": {"range": [0, 5]}}], PATCH, 0, CPU)


def test_cuts_beyond_a_scored_set_are_refused(tmp_path: Path) -> None:
    for i in range(10):
        photograph(tmp_path / "photos" / f"{i}.png", 400 + i, 72, 80)
    entry = {"photos": [str(tmp_path / "photos")], "folder": str(tmp_path / "set"), "crop": 64, "crops_per_photo": 1}
    made = {"degradations": ["gaussian-blur"], "chains": 0, "singles": 1, "teachers": {"gmsd": 1}, "processes": 1}
    with pytest.raises(ConfigError, match=r"teachers\.crops: 96 does not fit into its images, 64x64"):
        AnchorSets([{**entry, **made, "crops": [48, 96]}], PATCH, 0, CPU)
    sets = AnchorSets([{"kind": "teachers", "folder": str(tmp_path / "set")}], PATCH, 0, CPU)  # as it was left
    images, _, labels = sets.at(0)["teachers"]
    assert images.shape[1:] == (3, 64, 64) and len(labels) >= 4


def test_a_set_without_labels_in_a_step_is_there_all_the_same(people: dict[str, Any]) -> None:
    """Else processes of which one has none would add up gradients of different heads."""
    sets = AnchorSets([people], PATCH, 0, CPU)
    source = sets.streams[0].source
    source.columns.target[:] = np.nan  # type: ignore[attr-defined]
    found = sets.at(0)
    assert found["people"][0].shape == (0, 3, 40, 40) and found["people"][2].shape == (0,)
    loss = CriticLoss([{"critic": "patch", "weights": None, "weight": 1.0, "options": {"width": 8}, "joint": True}])
    x, y = torch.rand(2, 2, 3, 48, 48)
    parts = loss.learn(x, y, step=0, anchors=found)["patch"]
    assert loss.learners["patch"].heads.keys() == {"people"} and parts.keys() == {"rank"}
    assert all(np.isfinite(list(parts.values())))


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
