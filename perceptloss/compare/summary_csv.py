"""One row for each system and critic: means, differences, intervals, tests."""

from __future__ import annotations

import csv
import io
from typing import Final

from perceptloss.compare.results import Results
from perceptloss.output.names import csv_cell

__all__ = ["summary_csv"]

_HEADER: Final = (
    *("system", "critic", "better", "count", "mean", "mean low", "mean high"),
    *("baseline", "difference", "low", "high", "interval", "units", "p", "holm", "family", "star", "detectable"),
    *("wilcoxon", "shift", "biserial", "win share", "win low", "win high", "margin", "equivalence", "signature"),
)


def summary_csv(results: Results) -> str:
    """CSV text; a cell is empty where there is no such number, and numbers are exact."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    found = results.inference
    for s, (name, standing) in enumerate(zip(results.systems, results.summary().standings, strict=True)):
        for c, column in enumerate(results.critics):
            mean, effect = found.means[s][c], found.effects[s][c]
            direction = "higher" if column.is_higher_better else "lower"
            row: list[object] = [csv_cell(name), csv_cell(column.label), direction]
            row += [standing.cells[c].count, standing.cells[c].mean]
            row += [None, None] if mean is None else [mean.low, mean.high]
            if effect is None:
                row += [None] * (len(_HEADER) - len(row) - 1)
            else:
                row += [csv_cell(results.baseline or ""), effect.difference, effect.bounds.low, effect.bounds.high]
                row += [effect.bounds.method, effect.units, effect.p, effect.holm, found.family]
                row += [int(effect.is_starred), effect.detectable, effect.wilcoxon, effect.shift, effect.biserial]
                row += [effect.win_share, *effect.win_bounds, effect.margin, effect.equivalence]
            writer.writerow(["" if cell is None else cell for cell in (*row, csv_cell(column.signature))])
    for preset in found.presets:
        for name, value, difference, bound in zip(
            results.systems, preset.values, preset.differences, preset.bounds, strict=True
        ):
            row = [csv_cell(name), csv_cell(preset.name), preset.better, len(results.images), value, None, None]
            if bound is not None:
                row += [csv_cell(results.baseline or ""), difference, bound.low, bound.high, bound.method, found.units]
            row += [None] * (len(_HEADER) - len(row))
            writer.writerow(["" if cell is None else cell for cell in row])
    for score in results.sets:
        row = [csv_cell(score.system), score.judge, "lower", score.images, score.value, score.low, score.high]
        if score.change is not None:
            row += [csv_cell(results.baseline or ""), score.change, score.change_low, score.change_high]
            row += ["basic", score.images]
        row += [None] * (len(_HEADER) - len(row))
        writer.writerow(["" if cell is None else cell for cell in row])
    return text.getvalue()
