"""The report of one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

from perceptloss.compare.pages import page
from perceptloss.compare.report.answer import answer, redundancy, remarks
from perceptloss.compare.report.choice import RANDOM, choose
from perceptloss.compare.report.crops import Embed, Shot, shots
from perceptloss.compare.report.heat import critic_agreement, heat, win_matrices
from perceptloss.compare.report.learned import overlaps
from perceptloss.compare.report.making import critic_rows, making
from perceptloss.compare.report.plane import planes
from perceptloss.compare.report.quality import QualityMaps
from perceptloss.compare.report.roles import roles
from perceptloss.compare.report.waterfall import waterfalls
from perceptloss.compare.results import Results
from perceptloss.compare.sections import lines, sections
from perceptloss.compare.shown import Section
from perceptloss.compare.standings import header_of
from perceptloss.compare.table import render, sentences
from perceptloss.output.files import write_atomically
from perceptloss.output.names import visible

__all__ = ["report_html", "write_report"]

SCRIPTS: Final = ("common.js", "tables.js", "images.js", "plots.js", "waterfalls.js", "panes.js", "viewer.js")
_DIGITS: Final = 6


def write_report(
    results: Results,
    path: str | PathLike[str],
    *,
    embed: Embed = "crops",
    maps: QualityMaps | None = None,
    more: Sequence[Section] = (),
) -> None:
    """Write `report_html` to a file, in one piece."""
    write_atomically(Path(path), report_html(results, embed=embed, maps=maps, more=more))


def report_html(
    results: Results, *, embed: Embed = "crops", maps: QualityMaps | None = None, more: Sequence[Section] = ()
) -> str:
    """One page that stands alone: answer, table, plots, images, and how it was made.

    Args:
        results: What to report; nothing is scored again, but pictures are read from the files that were.
        embed: `crops` of 256 pixels a side at most, where systems differ most; `whole` pictures; or `none`.
        maps: Of `quality_maps`, beside the pictures.
        more: Further tables, such as content statistics.

    Raises:
        PerceptlossError: if jinja2 or Pillow is not installed.
    """
    results = results.in_groups()
    scores = results.arrays()
    is_single = len(results.systems) == 1
    pictures = shots(results, choose(scores, seed=results.analysis.seed), embed, maps)
    alike = critic_agreement(scores)
    context = {
        "title": f"{', '.join(results.systems)}: a comparison" if not is_single else f"{results.systems[0]}: scores",
        "results": results,
        "is_single": is_single,
        "answer": answer(results),
        "notes": [*redundancy(results, alike), *lines(results), *sentences(results)],
        "remarks": [*overlaps(results), *remarks(results)],
        "header": header_of(results.critics, [p.header for p in results.analysis.presets], is_single=is_single),
        "groups": [column.group or "" for column in results.critics],
        "rows": results.rows(),
        "heat": [] if is_single else heat(results, scores, alike),
        "agreement": [] if is_single or len(results.critics) < 2 else alike,
        "planes": [] if is_single else list(planes(results, scores)),
        "matrices": [] if is_single else list(win_matrices(results, scores)),
        "waterfalls": list(waterfalls(results, scores, {shot.key: shot.number for shot in pictures})),
        "shots": pictures,
        "telling": [shot for shot in pictures if shot.reasons != (RANDOM,)],
        "drawn": [shot for shot in pictures if shot.reasons == (RANDOM,)],
        "quality": "" if maps is None else maps.caption,
        "scores_of": lambda shot: _scores_of(results, shot),
        "roles": roles(results, scores),
        "sections": [*sections(results), *more],
        "critics": list(critic_rows(results)),
        "making": list(making(results)),
    }
    return page("report.html", context, styles=("style.css",), scripts=SCRIPTS, data=_data(results, pictures))


def _scores_of(results: Results, shot: Shot) -> list[list[str]]:
    """Scores of an image, a row per system."""
    return [
        ["n/a" if (score := row[shot.image]) is None else f"{score:.4g}".replace("-", "−") for row in system]
        for system in results.values
    ]


def _data(results: Results, pictures: Sequence[Shot]) -> dict[str, Any]:
    """What scripts need beside what is on the page."""
    is_single = len(results.systems) == 1
    return {
        "systems": list(map(visible, results.systems)),
        "critics": [visible(column.header) for column in results.critics],
        "higher": [column.is_higher_better for column in results.critics],
        "base": None if results.baseline is None or is_single else results.systems.index(results.baseline),
        "keys": [visible(image.key) for image in results.images],
        "values": [[[_short(score) for score in row] for row in system] for system in results.values],
        "shots": {shot.image: shot.number for shot in pictures},
        "copies": {
            "Markdown": render(results, "md"),
            "LaTeX": render(results, "latex"),
            "CSV": render(results, "summary-csv"),
        },
    }


def _short(score: float | None) -> float | None:
    return None if score is None else float(f"{score:.{_DIGITS}g}")
