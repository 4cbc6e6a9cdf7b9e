"""The proof that critics after papers learn: its settings, a run of a few steps, and going on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import critic
import pytest
from recipe_helpers import photograph

from benchmarks.__main__ import main
from benchmarks.learn import School
from benchmarks.learned import BLIND, IN_ORDER, SEEING, Row, render
from benchmarks.lessons import FAMILIES, KINDS, LESSONS, SUBJECTS
from perceptloss import get_card
from perceptloss.errors import ConfigError
from perceptloss.registry import find_entry, option_problems
from perceptloss.runs import config as configuration
from perceptloss.teach.degradations import get_degradation, list_degradations
from perceptloss.teach.run.fresh import kept_names
from perceptloss.teach.run.sources import parse_entries
from perceptloss.teach.run.terms import parse_objectives

FR, NR = "unified-fr", "unified-nr"
ROW = Row(
    "gsn", sees=True, learned=1, minutes=1.0, images=10, before=0.1, srcc=0.9, levels=0.95, kinds=0.8, kinds_levels=0.7
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ to learn from, and others/."""
    folder = tmp_path_factory.mktemp("learn")
    for i in range(3):
        photograph(folder / "photos" / f"p{i}.png", i, 132, 150)
    for i in range(2):
        photograph(folder / "others" / f"o{i}.png", 40 + i, 132, 150)
    return folder


def school_of(folder: Path, share: float = 0.02) -> School:
    return School(folder / "runs", [folder / "photos"], [folder / "others"], side=128, cuts=(3, 2), share=share)


class TestLessons:
    def test_every_critic_after_a_paper_without_weights_has_one(self) -> None:
        asked = {"gsn", "jspl", "fr-nr", FR, NR, "pmos", "pmos-map", "reqa", "biqa4k", "ddbnet", "stereo-srqa"}
        assert {lesson.critic for lesson in LESSONS.values()} == asked
        assert all(get_card(name).fidelity == "after-paper" for name in asked)

    @pytest.mark.parametrize("name", LESSONS)
    def test_the_recipe_takes_its_configuration(self, folder: Path, name: str) -> None:
        lesson, given = LESSONS[name], school_of(folder).config(name)
        config = configuration.from_mapping(critic.Config, given)
        entry = find_entry(lesson.critic)
        assert not option_problems(entry, config.critic.options)
        parse_objectives(config.objectives, "objectives")
        for source in parse_entries(config.data, "data"):
            assert source.contents <= 3
            parse_objectives(source.objectives, "data")
        assert [exam.name for exam in parse_entries(config.val.sets, "val.sets")] == [KINDS, FAMILIES]
        if lesson.start is not None:
            assert list(LESSONS).index(lesson.start) < list(LESSONS).index(name)
            assert LESSONS[lesson.start].options == lesson.options

    @pytest.mark.parametrize("name", SUBJECTS)
    def test_no_damage_of_the_exams_is_taught(self, name: str) -> None:
        subject = SUBJECTS[name]

        def names(entry: dict, hidden: tuple[str, ...] = ()) -> set[str]:
            channels = (3, 6) if name == "pairs" else (3,)
            known = [n for c in channels for n in list_degradations(channels=c)]
            return set(kept_names(entry.get("degradations", ()), entry.get("exclude", ()), hidden, known, name))

        taught = names(subject.taught, (*subject.kinds, *subject.families))
        families = {get_degradation(n).family for n in taught}
        kinds, strange = (names(subject.asked(exam)) for exam in (KINDS, FAMILIES))
        assert kinds == set(subject.kinds) and not taught & kinds
        assert {get_degradation(n).family for n in kinds} <= families
        assert {get_degradation(n).family for n in strange} == set(subject.families) and not families & set(
            subject.families
        )


class TestRun:
    @pytest.fixture(scope="class")
    def rows(self, folder: Path) -> list[Row]:
        return list(school_of(folder).rows([FR, NR]))

    @pytest.mark.usefixtures("in_process")
    def test_rows_say_what_became_of_a_critic_that_did_not_meet_the_aim_untaught(self, rows: list[Row]) -> None:
        seeing, blind = rows
        assert (seeing.critic, seeing.sees, seeing.aim) == (FR, True, SEEING)
        assert (blind.critic, blind.sees, blind.aim) == (NR, False, BLIND)
        assert seeing.images == blind.images == 2 * 5 * 2
        assert not any(replace(row, srcc=row.before).is_met for row in rows)
        assert seeing.minutes is not None and blind.minutes is None  # one training made both
        assert abs(seeing.before - seeing.srcc) > 0.01 and seeing.learned == blind.learned > 1000
        told = render(rows)
        assert f"`{FR}`" in told and told.count("as above") == 1 and f"| {seeing.srcc:.3f} |" in told

    @pytest.mark.usefixtures("in_process")
    def test_goes_on_where_it_stopped(self, folder: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
        home = folder / "runs" / FR
        made = {file: file.stat().st_mtime_ns for file in home.rglob("*") if file.is_file()}
        assert list(school_of(folder).rows([FR, NR])) == rows
        assert {file: file.stat().st_mtime_ns for file in home.rglob("*") if file.is_file()} == made
        (home / "row.json").unlink()
        assert school_of(folder).row(FR) == rows[0]
        monkeypatch.setitem(LESSONS, FR, replace(LESSONS[FR], rate=1e-3))  # type: ignore[arg-type]
        again = school_of(folder).row(FR)
        assert again.srcc != rows[0].srcc and again.before == rows[0].before

    def test_unknown_lessons_are_named(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="no lesson is called 'gns'"):
            list(school_of(folder).rows(["gns"]))


class TestAims:
    @pytest.mark.parametrize(
        ("changed", "is_met"),
        [
            ({}, True),
            ({"srcc": SEEING - 0.001}, False),
            ({"levels": IN_ORDER - 0.001}, False),
            ({"srcc": SEEING, "levels": IN_ORDER}, True),
            ({"srcc": float("nan")}, False),
            ({"srcc": BLIND, "sees": False}, True),
            ({"srcc": BLIND - 0.001, "sees": False}, False),
        ],
    )
    def test_both_must_be_reached(self, changed: dict, is_met: bool) -> None:
        row = replace(ROW, **changed)
        assert row.is_met is is_met
        assert render([row]).rstrip().splitlines()[-1].split(" | ")[-3] == ("yes" if is_met else "no")

    def test_photographs_come_in_pairs_of_folders(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["learn", "--photos", str(folder / "photos")])
        assert "learn needs both --photos FOLDER and --others FOLDER" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.usefixtures("in_process")
def test_gsn_learns_from_photographs_that_packages_bring(tmp_path: Path) -> None:
    [row] = School(tmp_path, side=128, cuts=(200, 29)).rows(["gsn"])
    assert row.before < 0.5 < SEEING <= row.srcc and row.levels >= IN_ORDER
