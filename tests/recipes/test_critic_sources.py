"""Where a critic learns from: what a batch holds, what is held out, and that draws do not depend on processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recipe_helpers
import torch
from critic_helpers import PHOTOS, make_set, options, setting

from perceptloss.errors import ConfigError
from perceptloss.teach.degradations import get_degradation
from perceptloss.teach.run import ladders, teachers
from perceptloss.teach.run.sources import Batch, parse_entries
from perceptloss.teach.run.stream import Stream, augment
from perceptloss.teach.sets import ScoredSet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("critic")
    make_set(folder)
    return folder


@pytest.fixture(scope="module")
def taught(folder: Path) -> ScoredSet:
    return ScoredSet.open(folder / "set")


def numbered(count: int, channels: int = 3, side: int = 12) -> Batch:
    """Every pixel of an image differs; x and y are equal; two images of each reference."""
    image = torch.arange(channels * side * side).reshape(1, channels, side, side) % 251
    x = image.expand(count, -1, -1, -1).byte().clone()
    column = torch.arange(count)
    reference = column // 2
    return Batch(x, x.clone(), None, reference, reference, column * 0 - 1, column.double(), column * 0, "numbered")


@pytest.mark.parametrize("turns", ["none", "mirror", "all"])
def test_pairs_and_versions_of_a_place_are_cut_and_turned_alike(turns: str) -> None:
    batch = augment(numbered(40), 8, turns, 3, 1)
    assert batch.y is not None
    assert batch.x.shape == (40, 3, 8, 8)
    assert torch.equal(batch.x, batch.y)
    assert torch.equal(batch.x[0::2], batch.x[1::2])
    ways = {"none": 1, "mirror": 2, "all": 8}[turns]
    assert len({bytes(i.numpy().tobytes()) for i in augment(numbered(200), 12, turns, 3).x}) == ways
    assert torch.equal(augment(numbered(40), 8, turns, 3, 1).x, batch.x)
    assert not torch.equal(augment(numbered(40), 8, turns, 3, 2).x, batch.x)


def test_mirrored_stereo_pairs_change_views_and_are_never_transposed() -> None:
    batch = numbered(64, channels=6)
    whole = batch.x[0]
    mirrored = torch.cat([whole[3:].flip(-1), whole[:3].flip(-1)])
    allowed = {i.numpy().tobytes() for i in (whole, mirrored, whole.flip(-2), mirrored.flip(-2))}
    assert {i.numpy().tobytes() for i in augment(batch, None, "all", 0).x} == allowed


def test_a_batch_holds_ladders_of_distinct_photographs(folder: Path, taught: ScoredSet) -> None:
    source = teachers.open_source(options(folder, versions=2, members=3, clean=1.0), setting()).source
    assert source is not None
    stream = Stream(source, 0)
    contents: set[int] = set()
    for n in range(stream.per_epoch):
        batch = stream[n]
        assert len(set(batch.content.tolist())) == 2
        contents |= set(batch.content.tolist())
        assert batch.y is not None and batch.target is not None
        clean = batch.level == 0
        assert torch.equal(batch.x[clean], batch.y[clean])
        assert (batch.target[clean] == 1).all()
        for group in set(batch.group.tolist()) - {-1}:
            rows = batch.group == group
            assert len(set(batch.reference[rows].tolist())) == 1
            assert len(set(batch.level[rows].tolist())) == int(rows.sum()) == 2
        for row in range(len(batch.x)):
            same = (taught.reference == int(batch.reference[row])) & (taught.group == int(batch.group[row]))
            same &= np.nan_to_num(taught.level, nan=-1) == float(batch.level[row].nan_to_num(-1))
            places = np.flatnonzero(same)
            assert any(np.isclose(taught.consensus()[places], float(batch.target[row]), atol=1e-6))
    assert contents == set(range(PHOTOS))


def test_held_out_photographs_and_families_are_not_taught_on(folder: Path, taught: ScoredSet) -> None:
    opened = teachers.open_source(options(folder, hold_out=0.25, hold_out_families=("noise",)), setting())
    assert isinstance(opened.source, teachers.Ladders)
    rows = np.concatenate(opened.source.units.rows)
    exam = opened.exams[0]
    assert len(np.unique(exam.content)) == 2
    assert not set(taught.content[rows]) & set(exam.content)
    assert "noise" not in set(taught.family[rows])
    for recipe in taught.recipe[rows]:
        steps = [step.partition(":")[0] for step in str(recipe).split(" + ")]
        assert all(get_degradation(name).family != "noise" for name in steps)
    assert {"blur", "compression"} <= set(taught.family[rows])
    assert exam.unseen == {"noise"}
    assert "noise" in set(exam.family)
    assert opened.taught_on is not None and opened.held_out is not None
    assert len(opened.taught_on.names) == 6 and len(opened.held_out.names) == 2
    x, y = exam.images(np.arange(8))
    assert y is not None and torch.equal(x[exam.level[:8] == 0], y[exam.level[:8] == 0])


@pytest.mark.parametrize("name", ["jpeg", "gaussian-blur"])
def test_a_single_degradation_can_be_held_out_of_its_family(folder: Path, taught: ScoredSet, name: str) -> None:
    opened = teachers.open_source(options(folder, hold_out=0.25, hold_out_families=(name,)), setting())
    assert isinstance(opened.source, teachers.Ladders)
    rows = np.concatenate(opened.source.units.rows)
    assert (taught.name == name).any() and not (taught.name[rows] == name).any()
    assert not any(name in (step.partition(":")[0] for step in str(r).split(" + ")) for r in taught.recipe[rows])
    [exam] = opened.exams
    held = np.isin(taught.content, exam.content)
    assert exam.unseen == {name}
    assert (exam.family == name).sum() == (held & (taught.name == name)).sum() > 0
    given = {"photos": (str(folder / "photos"),), "crop": 40, "hold_out": 0.2, "hold_out_families": (name,)}
    four = ("gaussian-blur", "jpeg", "lens-blur", "webp")
    rungs = ladders.open_source(ladders.Options(**given, degradations=four, exam_kinds=4), setting())
    assert isinstance(rungs.source, ladders.Rungs) and set(rungs.source.names) == set(four) - {name}
    assert set(rungs.exams[0].family) == {"", "blur", "compression", name}


def test_a_critic_without_reference_gets_none(folder: Path) -> None:
    opened = teachers.open_source(options(folder, hold_out=0.25), setting("tres-resnet18"))
    assert opened.source is not None
    assert Stream(opened.source, 0)[0].y is None
    assert opened.exams[0].images(np.arange(2))[1] is None


def rows_of(batch: Batch) -> list[bytes]:
    return sorted(x.numpy().tobytes() + c.numpy().tobytes() for x, c in zip(batch.x, batch.columns(), strict=True))


@pytest.mark.parametrize("kind", ["teachers", "ladders"])
def test_two_processes_draw_together_what_one_draws_alone(folder: Path, kind: str) -> None:
    def source(contents: int) -> Any:
        if kind == "teachers":
            return teachers.open_source(options(folder, contents=contents, crops=(32, 40)), setting()).source
        given = ladders.Options(photos=(str(folder / "photos"),), crop=40, contents=contents, versions=1)
        return ladders.open_source(given, setting()).source

    alone = Stream(source(4), 5)
    shared = [Stream(source(2), 5, rank, 2) for rank in range(2)]
    for n in (3, 0, alone.per_epoch + 1):
        parts = [stream[n] for stream in shared]
        assert rows_of(alone[n]) == sorted(rows_of(parts[0]) + rows_of(parts[1]))
        assert not set(parts[0].content.tolist()) & set(parts[1].content.tolist())
    assert rows_of(alone[0]) != rows_of(alone[alone.per_epoch])


def test_ladders_rise_and_their_exam_is_always_the_same(folder: Path) -> None:
    given = ladders.Options(
        photos=(str(folder / "photos"),), crop=40, members=3, clean=1.0, contents=2, versions=2,
        hold_out=0.2, hold_out_families=("blur",), degradations=("gaussian-blur", "jpeg", "white-noise"),
    )  # fmt: skip
    opened = ladders.open_source(given, setting())
    assert isinstance(opened.source, ladders.Rungs)
    batch = Stream(opened.source, 0)[0]
    assert len(batch.x) == 2 * 2 * 4
    assert batch.y is not None and batch.target is None
    error = (batch.x.float() - batch.y.float()).square().mean((1, 2, 3))
    for reference in set(batch.reference.tolist()):
        rows = batch.reference == reference
        assert (batch.level[rows].diff() > 0).all()
        assert (error[rows].diff() > 0).all()
        assert error[rows][0] == 0
    assert set(opened.source.names) == {"jpeg", "white-noise"}
    exam, again = opened.exams[0], ladders.open_source(given, setting()).exams[0]
    rows = np.arange(len(exam.target))
    assert torch.equal(exam.images(rows)[0], again.images(rows)[0])
    assert set(exam.family) == {"", "blur", "compression", "noise"}


def test_all_problems_of_entries_come_at_once() -> None:
    entries = [
        {"kind": "teechers"},
        {"kind": "teachers", "crop": 8, "turns": "often"},
        {"kind": "ladders", "crpo": 3},
        {"name": "ladders"},
        {"kind": "ladders"},
        7,
    ]
    with pytest.raises(ConfigError) as caught:
        parse_entries(entries, "data")
    text = str(caught.value)
    for part in (
        "data[0].kind: there is no 'teechers'; did you mean 'teachers'?",
        "crop: must be at least 32, got 8",
        "turns: expected one of none, mirror, all, got 'often'",
        "unknown option 'crpo'; did you mean 'crop'?",
        "two entries are called 'ladders'",
        "data[5]: expected a mapping",
    ):
        assert part in text, text


def test_wrong_sources_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no family and no damage is called 'blurr'; did you mean 'blur'"):
        teachers.open_source(options(folder, hold_out_families=("blurr",)), setting())
    with pytest.raises(ConfigError, match="has no scores of 'ssmi'; did you mean 'ssim'"):
        teachers.open_source(options(folder, teachers={"ssmi": 1}), setting())
    long = {"photos": (str(folder / "photos"),), "always": ("jpeg",), "below": [["jpeg", "white-noise"]]}
    wrong = {"networks": {"sr": None}, "teachers": {"ssim": {"weight": "x"}}, "floors": {"nois": 0.5, "blur": 2}}
    with pytest.raises(ConfigError) as caught:
        teachers.open_source(replace(options(folder, **long, **wrong), folder=str(tmp_path / "set")), setting())
    for part in (
        "networks.sr: expected a file, got None",
        "teachers.ssim: weight: expected a number above 0, got 'x'",
        "floors: no family and no damage is called 'nois'; did you mean 'noise'",
        "floors.blur: expected a number in [0, 1], got 2",
        "below: expected [worse, better], two names of `always`, got ['jpeg', 'white-noise']",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "set").exists(), "told before anything is made"
    with pytest.raises(ConfigError, match="leaves none to learn from"):
        teachers.open_source(options(folder, hold_out=0.95), setting())
    recipe_helpers.photograph(tmp_path / "small" / "a.png", 0, 30, 30)
    given = ladders.Options(photos=(str(tmp_path / "small"),), crop=40)
    with pytest.raises(ConfigError, match="at least 40x40"):
        ladders.open_source(given, setting())
    with pytest.raises(ConfigError, match="there is no 'jpg'"):
        ladders.open_source(
            ladders.Options(photos=(str(folder / "photos"),), crop=40, degradations=("jpg",)), setting()
        )
