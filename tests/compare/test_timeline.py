"""Results of several checkpoints: their order, what grows apart, and what does not belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made import LIGHT, random_results

from perceptloss.cli.main import main
from perceptloss.compare.report import timeline_html
from perceptloss.compare.report.timeline import charts, gap_charts, timeline
from perceptloss.errors import ConfigError


def course(steps: int = 4, path: str = "run/{}/results.json", **facts):
    """A training on `toy-error`, which gets better at each step while the other critic stays as it is."""
    start = random_results(systems=2).with_roles(["toy-error"])
    found = {}
    for n in range(steps):
        values = np.array(start.values)
        values[1, 0] -= n
        rows = tuple(tuple(tuple(row) for row in system) for system in values.tolist())
        found[path.format(n * 1000)] = replace(start, values=rows, **facts)
    return found


def test_goes_by_the_last_number_of_the_path():
    found = course()
    line = timeline(dict(reversed(found.items())))
    assert line.moments == (0, 1000, 2000, 3000) and line.paths == tuple(found) and line.unit == "checkpoint"


def test_goes_by_the_step_of_a_run_before_all():
    found = {
        path: replace(results, provenance={"run": {"steps": 50 - n}})
        for n, (path, results) in enumerate(course().items())
    }
    line = timeline(found)
    assert line.unit == "step" and line.moments == (47, 48, 49, 50) and line.paths == tuple(reversed(found))


def test_goes_by_the_clock_where_paths_hold_no_number():
    names = ("c.json", "b.json", "a.json")
    clock = ("2026-01-02", "2026-01-03", "2026-01-01")
    found = {
        name: replace(results, provenance={"created": when})
        for name, when, results in zip(names, clock, course(3).values(), strict=True)
    }
    assert timeline(found).paths == ("a.json", "c.json", "b.json")


def test_the_gap_is_the_gain_that_only_trained_critics_see():
    found = course()
    first = next(iter(found.values()))
    spread = np.std(first.values[1][0])
    (chart,) = gap_charts(timeline(found))  # the baseline never moves, and gets none
    assert chart.label == "other" or chart.label == "second"
    assert f"The gap at the end is {3 / spread:.3f} ±0" in chart.caption
    trained, watched, gap = chart.series
    assert [y for _, y in trained.marks] == [y for _, y in gap.marks]
    assert len({y for _, y in watched.marks}) == 1 and watched.is_hollow
    assert len({series.label for series in chart.series}) == 3


def test_every_critic_is_drawn_over_time():
    found = list(charts(timeline(course())))
    assert [chart.label for chart in found] == ["toy-error ↓†", "toy-light ↑"]
    heights = [y for _, y in found[0].series[1].marks]
    assert heights == sorted(heights)  # lower scores are drawn lower


def test_without_roles_no_gap_is_drawn_and_that_is_said():
    found = {path: replace(r, critics=tuple(replace(c, role=None) for c in r.critics)) for path, r in course().items()}
    assert "No gap is drawn" in timeline_html(found)


def test_systems_that_are_not_in_all_are_named():
    found = course(3)
    last = list(found)[-1]
    found[last] = replace(found[last], systems=("base", "renamed"))
    line = timeline(found)
    assert line.systems == ("base",) and line.notes == ("not in all files, and left out: renamed, second",)
    assert "left out: renamed, second" in timeline_html(found)


def test_a_single_system_may_be_called_after_its_checkpoint():
    found = {}
    for n, (path, results) in enumerate(course(3).items()):
        alone = replace(results, systems=(f"out_{n}",), values=results.values[1:], baseline=None)
        found[path] = replace(alone, images=tuple(replace(i, outputs=(None,)) for i in alone.images))
    line = timeline(found)
    assert line.systems == ("images",) and len(list(charts(line))) == 2


def test_all_that_does_not_belong_together_is_listed():
    found = course(4)
    a, b, c, d = found
    found[b] = replace(found[b], images=tuple(replace(i, key=f"other {i.key}") for i in found[b].images))
    found[c] = replace(found[c], critics=(LIGHT, LIGHT))
    found[d] = replace(found[d], systems=("x", "y"), baseline=None)
    with pytest.raises(ConfigError) as caught:
        timeline(found)
    assert caught.value.problems == (
        f"{b} has other images than {a}",
        f"{c} has other critics or roles than {a}",
        f"no system is in all of {a}, {b}, {c}, {d}",
    )


def test_the_command_draws_several_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path, results in course(2, "results-{}.json").items():
        results.save(path)
    assert main(["report", "results-0.json", "results-1000.json"]) == 0
    assert capsys.readouterr().out.strip() == "report.html"
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "over time" in page and page.count("<svg") == 3


def test_no_name_is_markup():
    hostile = "<img src=x onerror=alert(1)>\"'"
    found = {}
    for path, results in course(2).items():
        named = replace(results, systems=("base", hostile))
        found[hostile + path] = replace(
            named, critics=tuple(replace(c, label=hostile + c.label) for c in named.critics)
        )
    page = timeline_html(found)
    assert "<img" not in page and page.count("&lt;img src=x") > 4 and page.count("<script") == 2


def test_two_checkpoints_of_one_image():
    found = {}
    for path, results in course(2).items():
        values = tuple(tuple(row[:1] for row in system) for system in results.values)
        found[path] = replace(results, images=results.images[:1], values=values)
    assert timeline_html(found).count("<svg") == 3
