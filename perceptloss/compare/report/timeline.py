"""Results of several checkpoints as one page: scores over time, and how far trained critics run from untrained ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np

from perceptloss.compare.pages import page
from perceptloss.compare.report.axes import Axis, Tick, path_of
from perceptloss.compare.report.making import critic_rows, making
from perceptloss.compare.results import Results
from perceptloss.compare.shown import decimals, half_width, number
from perceptloss.compare.statistics.paired import Array, codes_of
from perceptloss.compare.statistics.units import Bounds, Units, bounds
from perceptloss.errors import ConfigError, some
from perceptloss.output.files import write_atomically
from perceptloss.output.tables import counted

__all__ = ["Chart", "Series", "Timeline", "timeline", "timeline_html", "write_timeline"]

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, WIDTH - 130, 12, HEIGHT - 40
_ROUNDS: Final = 2000
_LINE: Final = 14.0  # height of a name
_ORDERS: Final = {
    "step": "in the order of the steps that they were made at",
    "checkpoint": "in the order of the last number in their paths",
    "number": "in the order in which they were scored, or given if that is not known",
}
_IMAGES: Final = "images"  # a system that is called otherwise in each file, being the only one


@dataclass(frozen=True)
class Series:
    """A line: its name, number, path, marks, the outline of its band, and the height of its name."""

    name: str
    place: int
    line: str
    marks: tuple[tuple[float, float], ...]
    band: str
    label: float
    is_hollow: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing over time."""

    label: str
    caption: str
    series: tuple[Series, ...]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Timeline:
    """Results of the same images by the same critics, in the order of time.

    Attributes:
        paths: Where each comes from.
        moments: When, such as steps; they rise.
        unit: What moments are.
        systems: Those in all results.
        results: With these systems only, in this order.
        notes: What was left out.
    """

    paths: tuple[str, ...]
    moments: tuple[float, ...]
    unit: str
    systems: tuple[str, ...]
    results: tuple[Results, ...]
    notes: tuple[str, ...]


def timeline(found: Mapping[str, Results]) -> Timeline:
    """Bring results in order.

    Args:
        found: Two results or more, by their paths.

    Raises:
        ConfigError: listing what is not of the same images, critics or roles, or that no system is in all.
    """
    (first, reference), *others = found.items()
    problems = [] if others else ["expected two results or more"]
    for path, results in others:
        for what, own, theirs in (
            ("images", _images(results), _images(reference)),
            ("critics or roles", _columns(results), _columns(reference)),
        ):
            if own != theirs:
                problems.append(f"{path} has other {what} than {first}")
    named = {path: _named(results, found.values()) for path, results in found.items()}
    common = [name for name in named[first].systems if all(name in results.systems for results in named.values())]
    if not common:
        problems.append(f"no system is in all of {some(found)}")
    if problems:
        raise ConfigError(problems, "results over time")
    moments, unit = _moments(found)
    order = sorted(found, key=lambda path: moments[path])
    lost = sorted({name for results in named.values() for name in results.systems} - set(common))
    notes = [f"not in all files, and left out: {some(lost, len(lost))}"] if lost else []
    return Timeline(
        tuple(order),
        tuple(moments[path] for path in order),
        unit,
        tuple(common),
        tuple(_only(named[path], common) for path in order),
        tuple(notes),
    )


def _images(results: Results) -> list[tuple[str, str]]:
    return [(image.key, image.reference.digest if image.reference else "") for image in results.images]


def _columns(results: Results) -> list[tuple[str, str | None]]:
    return [(column.signature, column.role) for column in results.critics]


def _named(results: Results, others: Iterable[Results]) -> Results:
    """A single system that is called otherwise in each file gets one name."""
    names = {other.systems for other in others}
    is_single = all(len(systems) == 1 for systems in names) and len(names) > 1
    return replace(results, systems=(_IMAGES,), baseline=None) if is_single else results


def _only(results: Results, systems: Sequence[str]) -> Results:
    places = [results.systems.index(name) for name in systems]
    images = (replace(image, outputs=tuple(image.outputs[n] for n in places)) for image in results.images)
    values = tuple(results.values[n] for n in places)
    analysis = replace(results.analysis, margins={}, opinions=())
    kept = replace(
        results, systems=tuple(systems), images=tuple(images), values=values, baseline=None, analysis=analysis
    )
    return kept.in_groups()


def _moments(found: Mapping[str, Results]) -> tuple[dict[str, float], str]:
    """When each was made: its step, the last number of its path, or its place by the clock; what tells all apart."""
    steps = {path: _step(results) for path, results in found.items()}
    numbers = {path: re.findall(r"\d+", Path(path).with_suffix("").as_posix()) for path in found}
    parts = {path: float(digits[-1]) if digits else None for path, digits in numbers.items()}
    for moments, unit in ((steps, "step"), (parts, "checkpoint")):
        if len(set(moments.values())) == len(found) and None not in moments.values():
            return {path: moment for path, moment in moments.items() if moment is not None}, unit
    by_clock = sorted(found, key=lambda path: str(found[path].provenance.get("created", "")))
    is_clear = len({str(results.provenance.get("created")) for results in found.values()}) == len(found)
    order = by_clock if is_clear else list(found)
    return {path: float(n) for n, path in enumerate(order, 1)}, "number"


def _step(results: Results) -> float | None:
    run = results.provenance.get("run", {})
    step = run.get("step", run.get("steps")) if isinstance(run, Mapping) else None
    return float(step) if isinstance(step, (int, float)) else None


def charts(line: Timeline) -> Iterator[Chart]:
    """A drawing for each critic."""
    for n, column in enumerate(line.results[0].critics):
        rows = []
        for s, name in enumerate(line.systems):
            points = [
                (moment, cell.mean, results.inference.means[s][n])
                for moment, results in zip(line.moments, line.results, strict=True)
                if (cell := results.summary().standings[s].cells[n]).mean is not None
            ]
            rows.append((name, s, points, False))
        if any(points for _, _, points, _ in rows):
            yield _chart(line, column.header, f"{column.header}, means with their intervals.", rows)


def gap_charts(line: Timeline) -> Iterator[Chart]:
    """For each system, its gain since the first moment by trained and by untrained critics, and what lies between."""
    trained = [n for n, column in enumerate(line.results[0].critics) if not column.is_evidence]
    watching = [n for n, column in enumerate(line.results[0].critics) if column.is_evidence]
    if not trained or not watching:
        return
    for s, name in enumerate(line.systems):
        gains = [_gains(line, s, results) for results in line.results]
        if any(np.isnan(gain).any() for gain in gains) or not any(gain.any() for gain in gains):
            continue
        own, others = ([gain[chosen].mean(axis=0) for gain in gains] for chosen in (trained, watching))
        rows = [
            ("trained on", 1, _bands(line, own), False),
            ("only watched", 0, _bands(line, others), True),
            ("gap", 3, _bands(line, [a - b for a, b in zip(own, others, strict=True)]), False),
        ]
        last = rows[2][2][-1]
        caption = (
            f"{name}: gain since {line.unit} {line.moments[0]:g}, in deviations of the scores there between images, "
            f"mean over critics. The gap at the end is {number(last[1], [last[1]])} "
            f"{half_width(last[1], last[2], decimals([last[1]]))}: what the trained critics see and the others do not."
        )
        yield _chart(line, name, caption.replace("  ", " "), rows)


def _gains(line: Timeline, system: int, results: Results) -> Array:
    """Gain of each image by each critic, (critics, images), higher is better; NaN where a score is missing."""
    first, now = (r.arrays().oriented[system] for r in (line.results[0], results))
    spread = first.std(axis=1, keepdims=True)
    gains: Array = (now - first) / np.where(spread > 0, spread, 1.0)
    return gains


_Points = list[tuple[float, float, "Bounds | None"]]


def _bands(line: Timeline, rows: Sequence[Array]) -> _Points:
    analysis = line.results[0].analysis
    keys = [image.key for image in line.results[0].images]
    codes = codes_of(np.array([analysis.groups[key] for key in keys])) if analysis.groups else None
    units = Units.of(np.stack(rows, axis=1), codes)
    ends = bounds(units, rounds=_ROUNDS, seed=analysis.seed, level=analysis.level)
    return list(zip(line.moments, units.mean.tolist(), ends, strict=True))


def _chart(line: Timeline, label: str, caption: str, rows: Sequence[tuple[str, int, _Points, bool]]) -> Chart:
    x = Axis.around(line.moments, _LEFT, _RIGHT, margin=0.03)
    ends = [(*_ends(middle, interval), middle) for _, _, points, _ in rows for _, middle, interval in points]
    y = Axis.around([value for triple in ends for value in triple], _BOTTOM, _TOP)
    series = [_series(name, place, points, x, y, hollow) for name, place, points, hollow in rows if points]
    return Chart(label, caption, tuple(_apart(series)), x.ticks, y.ticks)


def _apart(series: Sequence[Series]) -> list[Series]:
    """With names moved down where they would cover each other."""
    heights: dict[int, float] = {}
    lowest = -_LINE
    for n in sorted(range(len(series)), key=lambda n: series[n].label):
        lowest = heights[n] = max(series[n].label, lowest + _LINE)
    return [replace(one, label=heights[n]) for n, one in enumerate(series)]


def _ends(middle: float, interval: Bounds | None) -> tuple[float, float]:
    if interval is None or interval.low is None or interval.high is None:
        return middle, middle
    return interval.low, interval.high


def _series(name: str, place: int, points: _Points, x: Axis, y: Axis, is_hollow: bool) -> Series:
    marks = tuple((x(moment), y(middle)) for moment, middle, _ in points)
    lower = [(x(moment), y(_ends(middle, interval)[0])) for moment, middle, interval in points]
    upper = [(x(moment), y(_ends(middle, interval)[1])) for moment, middle, interval in points]
    return Series(
        name, place, path_of(marks), marks, path_of([*lower, *upper[::-1]], closed=True), marks[-1][1], is_hollow
    )


def timeline_html(found: Mapping[str, Results]) -> str:
    """One page that stands alone, of results by their paths, as `timeline` takes them."""
    line = timeline(found)
    last = line.results[-1]
    facts = list(zip(line.paths, line.moments, line.results, strict=True))
    header = [line.unit, "system", *(column.header for column in last.critics)]
    rows = []
    for n, name in enumerate(line.systems):
        cells = [results.summary().standings[n].cells for results in line.results]
        columns = [[c.mean for row in cells if (c := row[k]).mean is not None] for k in range(len(last.critics))]
        for moment, row in zip(line.moments, cells, strict=True):
            rows.append((f"{moment:g}", name, *(number(c.mean, columns[k]) for k, c in enumerate(row))))
    context = {
        "title": f"{', '.join(line.systems)}: over time",
        "intro": f"{counted(len(facts), 'result')} of {counted(len(last.images), 'image')}; {_ORDERS[line.unit]}.",
        "notes": line.notes,
        "charts": list(charts(line)),
        "gaps": list(gap_charts(line)),
        "header": header,
        "rows": rows,
        "files": [(f"{moment:g}", path, str(r.provenance.get("created", ""))) for path, moment, r in facts],
        "unit": line.unit,
        "critics": list(critic_rows(last)),
        "making": list(making(last)),
    }
    return page(
        "timeline.html", context, styles=("style.css",), scripts=("common.js", "tables.js", "plots.js"), data={}
    )


def write_timeline(found: Mapping[str, Results], path: str | PathLike[str]) -> None:
    """Write `timeline_html` to a file, in one piece."""
    write_atomically(Path(path), timeline_html(found))
