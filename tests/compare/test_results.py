"""Results: round trips, equal bytes for equal inputs, summaries by hand, and every way of showing them."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest

from perceptloss.compare import Pairing, Results, Settings, compare, load_results, score
from perceptloss.compare.columns import Column
from perceptloss.compare.results import ImageRecord
from perceptloss.compare.table import decimals, render
from perceptloss.compare.thresholds import check_thresholds, parse_thresholds
from perceptloss.errors import ConfigError

CRITICS = (
    Column("up", "up|weights:none|rgb|fp32|perceptloss:1", {"better": "higher"}),
    Column("down", "down|weights:none|rgb|fp32|perceptloss:1", {"better": "lower"}),
)


def results(values, systems=("base", "new"), **facts):
    images = tuple(ImageRecord(key, (None,) * len(systems)) for key in "abc"[: len(values[0][0])])
    return Results(
        systems, CRITICS[: len(values[0])], images, values, systems[0] if len(systems) > 1 else None, **facts
    )


# new wins 'a' under both critics, ties 'b' under one and loses it under the other, and critics disagree on 'c'
TWO = results((((0.5, 0.5, 0.5), (4.0, 4.0, 4.0)), ((0.75, 0.25, 1.0), (3.0, 4.0, 6.0))))


def test_summary_by_hand():
    base, new = TWO.summary().standings
    assert (base.cells[0].mean, base.cells[1].mean) == (0.5, 4.0)
    assert (base.cells[0].difference, base.wins) == (None, None)
    assert new.cells[0].mean == pytest.approx(2 / 3)
    assert new.cells[0].difference == pytest.approx(1 / 6)
    assert (new.cells[0].wins, new.cells[0].losses) == (2, 1)
    assert new.cells[1].difference == pytest.approx(1 / 3)
    assert (new.cells[1].wins, new.cells[1].losses) == (1, 1)
    assert new.wins == 1
    assert new.rank == pytest.approx((1 + 2 + 1 + 1 + 1.5 + 2) / 6)
    assert base.rank == pytest.approx(3 - new.rank)


def test_gaps_are_left_out_for_all_systems():
    summary = results((((0.5, None, 0.5),), ((0.75, 0.25, 1.0),))).summary()
    assert [s.cells[0].count for s in summary.standings] == [2, 2]
    assert summary.standings[1].cells[0].mean == pytest.approx(0.875)
    empty = results((((None,),), ((0.5,),))).summary()
    assert [s.cells[0].mean for s in empty.standings] == [None, 0.5], "who has none at all spoils nobody's mean"
    assert [s.rank for s in empty.standings] == [2, 1]
    assert "n/a" in render(results((((None,),), ((0.5,),))))


def test_table_shows_direction_difference_and_count():
    assert render(TWO).splitlines()[:4] == [
        "means over 3 images · baseline base",
        "system  up ↑                     down ↓                rank  wins",
        "base    0.5000                   4.000                 1.58     —",
        "new     0.6667  +0.1667 ±0.4167  4.333  +0.333 ±1.667  1.42   1/3",
    ]
    assert "  down|weights:none|rgb|fp32|perceptloss:1" in render(TWO)


def test_markdown_and_latex_are_complete_and_escaped():
    named = results(TWO.values, ("my_base", "a|b"))
    markdown = render(named, "md")
    assert "| my_base | 0.5000 | 4.000 | 1.58 | — |" in markdown
    assert r"| a\|b | 0.6667 (+0.1667 ±0.4167) | 4.333 (+0.333 ±1.667) | 1.42 | 1/3 |" in markdown
    latex = render(named, "latex")
    assert r"my\_base & 0.5000 & 4.000 & 1.58 & --- \\" in latex
    assert r"system & up $\uparrow$ & down $\downarrow$ & rank & wins \\" in latex
    assert latex.count("\n  ") == 6
    with pytest.raises(ValueError, match="format must be one of"):
        render(named, "html")


@pytest.mark.parametrize(
    ("values", "digits"),
    [([0.2], 4), ([0.0357], 4), ([0.000812], 6), ([4.2], 3), ([61.2, 0.1], 2), ([12345.0], 1), ([], 3)],
)
def test_digits_that_matter(values, digits):
    assert decimals(values) == digits


def test_small_differences_are_not_rounded_away():
    text = render(results((((0.5,),), ((0.500003,),))))
    assert "+3e-06".replace("-", "−") in text


def test_json_round_trip(toys, folder, tmp_path):
    one, two, gt = folder("one", a=51, b=255), folder("two", a=102, c=9), folder("gt", a=51)
    got = compare({"one": one, "two": two}, gt, ["toy-error", "toy-light"], rules=Pairing(allow_missing=True))
    got.save(tmp_path / "results.json")
    again = load_results(tmp_path / "results.json")
    assert again == got
    assert again.to_json() == got.to_json()
    for other in (
        "{}",
        "[]",
        "no",
        json.dumps({**got.to_dict(), "version": 99}),
        json.dumps({**got.to_dict(), "values": [[]]}),
    ):
        (tmp_path / "other.json").write_text(other)
        with pytest.raises(ConfigError):
            load_results(tmp_path / "other.json")
    with pytest.raises(ConfigError, match=r"ending in \.json or \.csv"):
        got.save(tmp_path / "results.xlsx")


def test_equal_inputs_give_equal_bytes_but_for_provenance(toys, folder):
    out, gt = folder("out", b=51, a=30), folder("gt", a=51, b=50)
    first, second = (score(out, gt, ["toy-error"], settings=Settings(batch=n)) for n in (1, 2))
    one, two = first.to_dict(), second.to_dict()
    inputs = one["provenance"]["inputs"]
    assert inputs == two["provenance"]["inputs"]
    assert inputs["the reference"]["images"] == 2
    assert set(one["provenance"]) == {"created", "command", "device", "platform", "versions", "inputs"}
    del one["provenance"], two["provenance"]
    assert json.dumps(one) == json.dumps(two)
    for form in ("table", "csv", "md", "latex"):
        assert render(first, form) == render(second, form)
    folder("gt", a=52)
    assert score(out, gt, ["toy-error"]).provenance["inputs"]["the reference"] != inputs["the reference"]


def test_csv_holds_every_score_exactly(toys, folder):
    values = (((0.1, None, 1 / 3),), ((2e-7, 0.2, 0.3),))
    rows = list(csv.DictReader(io.StringIO(results(values).to_csv())))
    assert [(row["system"], row["image"]) for row in rows[:4]] == [
        ("base", "a"),
        ("base", "b"),
        ("base", "c"),
        ("new", "a"),
    ]
    read = [float(row["up"]) if row["up"] else None for row in rows]
    assert read == [*values[0][0], *values[1][0]]
    assert rows[0]["signatures"] == CRITICS[0].signature


def test_shapes_and_baseline_are_checked():
    with pytest.raises(ConfigError, match="values must have shape"):
        Results(("a",), CRITICS[:1], (ImageRecord("a", (None,)),), (((0.1, 0.2),),))
    with pytest.raises(ConfigError, match="baseline 'c'"):
        Results(("a",), CRITICS[:1], (ImageRecord("a", (None,)),), (((0.1,),),), baseline="c")


def test_thresholds_on_means_and_on_differences():
    def failed(text):
        return check_thresholds(TWO, parse_thresholds([text], ["up", "down"], has_baseline=True))

    assert failed("down > 4.2") == ["new: mean of down is 4.33333 (down > 4.2)"]
    assert len(failed("down>=4")) == 2
    assert failed("down > +0.3") == ["new: difference to the baseline of down is 0.333333 (down > +0.3)"]
    assert failed("down > +0.4") == []
    assert failed("up < -1e-3") == []
    gaps = results((((None,),), ((0.5,),)))
    assert len(check_thresholds(gaps, parse_thresholds(["up < 0"], ["up"], has_baseline=True))) == 1


def test_wrong_thresholds_are_all_listed():
    with pytest.raises(ConfigError) as error:
        parse_thresholds(["up", "upp > 1", "up > +1", "up > 1.2.3"], ["up"], has_baseline=False)
    text = str(error.value)
    assert "4 problems" in text
    assert "did you mean 'up'" in text
    assert "there is one system only" in text


@pytest.mark.parametrize("value", ['"0.5"', "NaN", "Infinity", "true", "[1]", "{}"])
def test_scores_that_are_no_numbers_are_refused(toys, folder, tmp_path, value):
    score(folder("out", a=51), None, ["toy-light"]).save(tmp_path / "r.json")
    facts = json.loads((tmp_path / "r.json").read_text())
    text = json.dumps({**facts, "values": [[["HERE"]]]}).replace('"HERE"', value)
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigError, match="values must be finite numbers, or null where there is none; got"):
        load_results(tmp_path / "r.json")


def test_what_is_no_file_of_results_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "pipe.json")
    for name, reason in (("deep", "not JSON"), ("pipe", "got a folder, pipe or device")):
        with pytest.raises(ConfigError, match=reason):
            load_results(tmp_path / f"{name}.json")


class TestGroups:
    NAMES = (("psnr", "fr"), ("niqe", "nr"), ("mini-nr", "nr"), ("gmsd", "fr"), ("mini-fr", "fr"))
    COLUMNS = tuple(Column(n, f"{n}|1", {"name": n, "kind": k, "better": "higher"}) for n, k in NAMES)
    PLAIN = Results(
        ("base", "new"),
        COLUMNS,
        (ImageRecord("a", (None, None)),),
        tuple(tuple((float(n + s),) for n in range(5)) for s in range(2)),
        "base",
    )

    def test_columns_of_a_run_stand_in_groups(self):
        told = self.PLAIN.with_roles({"mini-fr", "mini-nr"})
        assert [column.role for column in told.critics] == ["judge", "judge", "train", "judge", "train"]
        above, header, base, *_ = render(told).splitlines()[1:]
        order = ("mini-fr", "mini-nr", "gmsd", "niqe", "psnr")
        groups = ("trained FR", "trained NR", "untrained FR", "untrained NR", "fidelity")
        assert above.split("  ") != header.split("  ")
        assert [above.index(f"  {group}") for group in groups] == [header.index(f"  {name}") for name in order]
        assert base.split()[:6] == ["base", "4.000", "2.000", "3.000", "1.000", "0.000"]
        text = render(told, "md")
        assert "|  | trained FR | trained NR | untrained FR | untrained NR | fidelity |  |  |\n|---|" in text
        assert "\n| system | mini-fr ↑† | mini-nr ↑† | gmsd ↑ | niqe ↑ | psnr ↑ | rank | wins |\n" in text
        assert "& trained FR & trained NR & untrained FR & untrained NR & fidelity &" in render(told, "latex")
        assert told.to_csv() == self.PLAIN.to_csv()

    def test_a_group_is_named_once_and_left_out_if_empty(self):
        told = self.PLAIN.with_roles({"gmsd", "mini-fr", "psnr", "niqe"})
        above = render(told).splitlines()[1].split()
        assert above == ["trained", "FR", "trained", "NR", "untrained", "NR"]
        assert [column.label for column in told.in_groups().critics] == ["psnr", "gmsd", "mini-fr", "niqe", "mini-nr"]
        assert told.in_groups().scores("new", "mini-fr") == told.scores("new", "mini-fr")

    def test_without_roles_nothing_moves(self):
        assert self.PLAIN.in_groups() == self.PLAIN
        assert render(self.PLAIN).splitlines()[1].startswith("system  psnr ↑")
