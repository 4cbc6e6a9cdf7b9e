"""Versions of underwater scenes as a source: what they are, what is said of them, and the order that is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import critic
import numpy as np
import pytest
import recipe_helpers
import torch
import yaml
from critic_helpers import setting, tiny

from perceptloss.errors import ConfigError
from perceptloss.teach.run import enhanced, enhanced_scores
from perceptloss.teach.run.enhanced_versions import Version
from perceptloss.teach.run.stream import Stream
from perceptloss.teach.run.teachers import Ladders

SCENES, PHOTOS, COUNT = 3, 2, 1 + 1 + 2 + 3 + 1 + 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw/ of half the size, reference/ and photos/."""
    folder = tmp_path_factory.mktemp("enhanced")
    for i in range(SCENES):
        recipe_helpers.photograph(folder / "reference" / f"u{i}.png", 40 + i, 68, 80)
        recipe_helpers.photograph(folder / "raw" / f"u{i}.png", 50 + i, 34, 40)
    for i in range(PHOTOS):
        recipe_helpers.photograph(folder / "photos" / f"p{i}.png", i, 76, 72)
    return folder


def given(root: Path, **changed: Any) -> enhanced.Options:
    base: dict[str, Any] = {
        "kind": "enhanced", "folder": str(root / "made"), "raw": (str(root / "raw"),),
        "reference": (str(root / "reference"),), "photos": (str(root / "photos"),), "crop": 64, "cuts": 1,
        "mixes": 2, "enhanced": 3, "overdone": 1, "damaged": 4, "degradations": ("white-noise", "gaussian-blur"),
        "teachers": {"gmsd": 1.0}, "indices": {"uciqe": 1.0, "uiqm": 1.0}, "contents": 2, "versions": 2,
        "turns": "none", "members": 4, "clean": 1.0,
    }  # fmt: skip
    return enhanced.Options(**{**base, **changed})


def opened(folder: Path, **changed: Any) -> Ladders:
    source = enhanced.open_source(given(folder, **changed), setting("mini-underwater")).source
    assert isinstance(source, Ladders)
    return source


def test_versions_of_a_cut_hold_the_order_that_is_known(folder: Path) -> None:
    source = opened(folder)
    taught, target = source.taught, source.target
    assert len(target) == (SCENES + PHOTOS) * COUNT and taught.images.shape[1:] == (3, 64, 64)
    assert np.isfinite(target).all() and target.min() >= 0 and target.max() <= 1
    for cut in range(SCENES + PHOTOS):
        rows = np.flatnonzero(taught.reference == cut)
        kinds = taught.family[rows].tolist()
        assert kinds == ["clean"] + ["mixture"] * 3 + ["enhanced", "overdone"] + ["enhanced"] * 2 + ["damaged"] * 4
        assert taught.level[rows[:2]].tolist() == [0, 5] and (taught.group[rows[1:4]] == cut).all()
        assert np.isnan(taught.level[rows[4:]]).all() and (taught.group[rows[4:]] == -1).all()
        well, overdone = rows[4], rows[5]
        assert taught.name[well] == taught.name[overdone] and target[overdone] <= 0.7 * target[well] + 1e-6
        error = [np.abs(taught.images[row] - taught.images[rows[0]].astype(float)).mean() for row in rows[1:4]]
        levels = taught.level[rows[1:4]]
        assert (np.diff(np.array(error)[levels.argsort()]) > 0).all()
    seen = Stream(source, 0)[0]
    assert seen.y is None and seen.target is not None and len(set(seen.content.tolist())) == 2


def test_an_index_saturates_and_no_damage_is_an_improvement(folder: Path) -> None:
    versions = [Version("clean", "clean", 0.0, 0, 0.0), Version("jpeg", "damaged", np.nan, 0, 0.25)]
    full, rising = np.array([1.0, 0.2, 1.0, 0.2]), np.array([1.0, 4.0, 2.0, 3.0])
    options = given(folder, share=1.0, enough=0.5, indices={"uciqe": 1.0})
    said = enhanced.target_of(versions * 2, full, {"uciqe": rising}, options, 2)
    assert said.tolist() == pytest.approx([0.25, 0.75 * 0.25, 0.75, 0.75 * 0.75])
    both = given(folder, share=0.5, enough=0.5, indices={"uciqe": 1.0})
    told = enhanced.target_of(versions * 2, full, {"uciqe": rising}, both, 2)
    assert told.tolist() == pytest.approx([0.625, 0.75 * 0.625, 0.875, 0.6])
    alone = enhanced.target_of(versions * 2, full * np.nan, {"uciqe": rising}, both, 2)
    assert alone.tolist() == pytest.approx(said.tolist())


def test_critics_are_asked_once_unless_something_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened(folder, members=2)
    asked: list[int] = []
    monkeypatch.setattr(enhanced_scores, "_asked", lambda *given: asked.append(1) or (_ for _ in ()).throw(KeyError))
    again = opened(folder, members=3, share=0.5)
    assert np.array_equal(before.target, again.target) and np.array_equal(before.taught.images, again.taught.images)
    with pytest.raises(KeyError):
        opened(folder, damage=2.0)
    with pytest.raises(ConfigError, match="folder: /dev/null/"):
        enhanced.open_source(replace(given(folder), folder="/dev/null/set"), setting("mini-underwater"))
    assert asked == [1]


def test_exams_ask_for_order_within_a_cut(folder: Path) -> None:
    examined = enhanced.open_source(given(folder, photos=()), setting("mini-underwater", is_exam=True))
    assert examined.source is None and examined.taught_on is None and examined.held_out is not None
    assert len(examined.held_out.names) == 2 * SCENES
    (exam,) = examined.exams
    assert examined.teachers == ("gmsd", "uciqe", "uiqm") and "no person was asked" in exam.about
    assert exam.within is not None and len(set(exam.within)) == SCENES
    assert exam.images(np.arange(3))[0].dtype == torch.uint8


def test_all_problems_come_at_once(folder: Path) -> None:
    wrong = given(
        folder, raw=(), folder="", teachers={"gmsdd": 1.0, "ssim": 0}, indices={"niqee": 1.0, "gmsd": 1.0, "uiqm": -1},
        degradations=("jepg",), overdone=4, share=1.5, damage=7.0, hold_out_families=("blur",),
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        enhanced.open_source(wrong, setting("mini-underwater"))
    for part in (
        "0 folders of raw pictures, but 1 of references", "did you mean 'gmsd'", "ssim: weight: expected",
        "did you mean 'niqe'", "'gmsd' judges no images of 64 pixels without a reference", "indices.uiqm: expected",
        "there is no 'jepg'; did you mean 'jpeg'", "overdone: at most as many as enhanced, 3; got 4",
        "share, enough: must be at most 1, got 1.5", "damage: must be at most 5, got 7.0", "hold_out_families:",
        "folder: where shall versions",
    ):  # fmt: skip
        assert part in str(caught.value), caught.value


def test_a_run_learns_from_what_it_remembers_of_them(folder: Path, tmp_path: Path, in_process: None) -> None:
    source = given(folder, hold_out=0.4, versions=1)
    entry = {k: list(v) if isinstance(v, tuple) else v for k, v in source.__dict__.items()}
    content = tiny(
        tmp_path,
        critic={"name": "mini-underwater", "remember": True, "fixed": ["trunk.*"]},
        data=[entry],
        objectives={"pearson": 1.0, "pairwise": {"within": "reference"}, "order": {"scale": 0.05}},
        train={"steps": 3, "warmup": 1, "ema": 0.9},
        val={"every": 0, "rounds": 20, "peers": ["uciqe"]},
        card={"write": False},
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    critic.main(["--config", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")])
    figures = json.loads((tmp_path / "run" / "results.json").read_text())["exams"]["enhanced"]["figures"]
    assert all(figures[name]["all"]["within"]["value"] is not None for name in ("mini-underwater", "uciqe"))
