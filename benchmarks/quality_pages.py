"""What `python -m benchmarks quality` leaves for a page: the table, the perception-distortion plane, and crops."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final

from torch import Tensor

from perceptloss import create_critic
from perceptloss.compare import Analysis, Results
from perceptloss.compare.images import ImageFile, Policy, read
from perceptloss.compare.inference import Effect
from perceptloss.compare.pixels import as_tensor
from perceptloss.compare.report.axes import Axis, path_of
from perceptloss.compare.table import render
from perceptloss.errors import InputError
from perceptloss.honesty.content import TOLERANCES, excesses, mean, measure
from perceptloss.output.files import write_atomically
from perceptloss.output.tables import markdown

__all__ = ["content_table", "drawn", "only", "pages"]

_PLANE: Final = ("psnr-y", "lpips-alex")
_WIDTH, _HEIGHT = 640, 420
_WORD, _ROW = 80, 12  # what a label covers
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, _WIDTH - 110, 32, _HEIGHT - 48
_SHOWN: Final = ("l1", "lpips-squeeze", "frozen", "gan", "joint, 0.25 dB")
"""Systems on the crops; they stand where the first and the last of them differ most."""
_ROWS: Final = 4


def only(
    results: Results, systems: Sequence[str] = (), critics: Sequence[str] = (), images: Sequence[int] = ()
) -> Results:
    """A part of a comparison: some of its systems, critics and images, in the order given; all of what is left out."""
    labels = [column.label for column in results.critics]
    s = [results.systems.index(name) for name in systems] or [*range(len(results.systems))]
    c = [labels.index(label) for label in critics] or [*range(len(labels))]
    i = [*images] or [*range(len(results.images))]
    records = [results.images[n] for n in i]
    groups = results.analysis.groups
    return replace(
        results,
        systems=tuple(results.systems[n] for n in s),
        critics=tuple(results.critics[n] for n in c),
        images=tuple(replace(r, outputs=tuple(r.outputs[n] for n in s)) for r in records),
        values=tuple(tuple(tuple(results.values[a][b][n] for n in i) for b in c) for a in s),
        flags=(),
        analysis=Analysis(groups={r.key: groups[r.key] for r in records} if groups else {}),
    )


def drawn(results: Results) -> str:
    """Mean differences to the baseline in both judges of the plane, with their paired intervals, as SVG.

    The baseline stands at the origin: rightwards fidelity is kept, downwards looks improve.
    """
    both = only(results, critics=_PLANE)
    effects = both.inference.effects
    points = [(0.0, 0.0, (0.0, 0.0), (0.0, 0.0), str(both.baseline))]
    for name, (across, up) in zip(both.systems, effects, strict=True):
        if across is not None and up is not None:
            points.append((across.difference, up.difference, _ends(across), _ends(up), name))
    x = Axis.around([n for _, _, ends, _, _ in points for n in ends], _LEFT, _RIGHT)
    y = Axis.around([n for _, _, _, ends, _ in points for n in ends], _BOTTOM, _TOP)
    parts = ['<rect width="100%" height="100%" fill="#fff"/>', _line((_LEFT, _TOP), (_LEFT, _BOTTOM), "#333")]
    parts += [_line((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM), "#333"), _text(_LEFT, _HEIGHT - 8, "difference of psnr-y, dB")]
    parts += [_text(tick.place, _BOTTOM + 18, tick.text, "middle") for tick in x.ticks]
    parts += [_text(_LEFT - 8, tick.place + 4, tick.text, "end") for tick in y.ticks]
    parts.append(_text(8, _TOP - 8, "difference of lpips-alex"))
    labels: list[tuple[float, float]] = []
    for right, down, wide, tall, name in points:
        place = x(right), y(down)
        parts.append(_line((x(wide[0]), place[1]), (x(wide[1]), place[1]), "#9bd"))
        parts.append(_line((place[0], y(tall[0])), (place[0], y(tall[1])), "#9bd"))
        parts.append(f'<circle cx="{place[0]}" cy="{place[1]}" r="4" fill="#c31"/>')
        parts.append(_text(*_free((place[0] + 6, place[1] - 5), labels), name))
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'


def _free(place: tuple[float, float], labels: list[tuple[float, float]]) -> tuple[float, float]:
    """A place for a label, below those that would cover it, which is among them afterwards."""
    x, y = place
    while any(abs(x - other) < _WORD and abs(y - below) < _ROW for other, below in labels):
        y += _ROW
    labels.append((x, y))
    return x, y


def content_table(results: Results) -> str:
    """What the outputs of each system are made of, against the ground truth, as Markdown: means over all images."""
    truths = [_pixels(record.reference) for record in results.images]
    rows = []
    for n, name in enumerate(results.systems):
        made = (_pixels(record.outputs[n]) for record in results.images)
        content = mean(measure(x, y) for x, y in zip(made, truths, strict=True))
        figures = [f"{getattr(content, figure):.2f}" for figure in TOLERANCES]
        rows.append((name, *figures, ", ".join(excesses(content)) or "nothing"))
    return markdown(("loss", *TOLERANCES, "out of tolerance"), rows)


def _pixels(file: ImageFile | None) -> Tensor:
    if file is None:
        raise InputError("the content of images needs their files and those of their references.")
    return as_tensor(read(Path(file.path), Policy()))[None]


def _ends(effect: Effect) -> tuple[float, float]:
    low, high = effect.bounds.low, effect.bounds.high
    return (effect.difference if low is None else low, effect.difference if high is None else high)


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    return f'<path d="{path_of([start, end])}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def pages(results: Results, folder: Path) -> None:
    """Leave quality.md, quality-plane.svg and quality-crops.png in a folder; pictures only of what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "quality.md", f"{render(results, 'md')}\n{content_table(results)}")
    labels = [column.label for column in results.critics]
    if set(_PLANE) <= set(labels):
        write_atomically(folder / "quality-plane.svg", drawn(results))
    shown = [name for name in _SHOWN if name in results.systems]
    if _PLANE[1] in labels and len(shown) > 1 and shown[0] == results.baseline:
        _crops(results, shown, folder / "quality-crops.png")


def _crops(results: Results, shown: Sequence[str], path: Path) -> None:
    """Crops of the photographs, each once, of which the judge says that the first and the last system differ most."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))  # a recipe is no module of a package
    from _lib.report import picture

    first, last = (results.scores(name, _PLANE[1]) for name in (shown[0], shown[-1]))
    apart = {n: abs(a - b) for n, (a, b) in enumerate(zip(first, last, strict=True)) if a is not None and b is not None}
    seeds = {record.key.partition("@")[2] for record in results.images}
    once = [n for n in apart if results.images[n].key.partition("@")[2] == min(seeds)]
    chosen = sorted(once, key=lambda n: -apart[n])[:_ROWS]
    picture(only(results, shown, (_PLANE[1], "psnr-y"), chosen), path, create_critic(_PLANE[1]), zoom=2)
