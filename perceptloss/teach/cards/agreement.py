"""Figures of a model card as tables: for each exam a line per part, peers on the whole of it, details folded away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from perceptloss.compare.statistics.bootstrap import Interval
from perceptloss.output.tables import markdown
from perceptloss.teach.cards.facts import Attacked, Figure

__all__ = ["agreement", "under_attack"]

T = TypeVar("T")
_ALL = "all"
_NONE = "—"


def agreement(name: str, figures: Sequence[Figure]) -> str:
    """A section for each exam; `name` is the critic's. Ends in a new line."""
    exams = dict.fromkeys(figure.exam for figure in figures)
    return "\n".join(_section(name, exam, [f for f in figures if f.exam == exam]) for exam in exams)


def _section(name: str, exam: str, figures: Sequence[Figure]) -> str:
    shown = [figure for figure in figures if not figure.is_detail]
    details = [figure for figure in figures if figure.is_detail]
    measures = _distinct(figure.measure for figure in shown)
    rows = [[name, *row] for row in _parts(shown, measures)]
    whole = {figure.measure: figure for figure in shown if figure.part == _ALL}
    for peer in _distinct(peer for figure in whole.values() for peer in figure.peers):
        found = {measure: figure.peers[peer] for measure, figure in whole.items() if peer in figure.peers}
        rows.append([peer, _ALL, _count(whole.values()), *_cells(found, measures)])
    blocks = [f"### {exam}\n"] if exam else []
    if rows:
        blocks.append(markdown(["critic", "part", "n", *measures], rows, "llr"))
    if details:
        measures = _distinct(figure.measure for figure in details)
        table = markdown(["part", "n", *measures], _parts(details, measures))
        blocks.append(f"<details><summary>{name} by parts</summary>\n\n{table}\n</details>\n")
    return "\n".join(blocks)


def _parts(figures: Sequence[Figure], measures: Sequence[str]) -> list[list[str]]:
    """A row for each part: its name, its images, and a cell for each measure."""
    rows = []
    for part in _distinct(figure.part for figure in figures):
        own = [figure for figure in figures if figure.part == part]
        rows.append([part, _count(own), *_cells({figure.measure: figure.value for figure in own}, measures)])
    return rows


def _count(figures: Iterable[Figure]) -> str:
    return str(next(iter(figures)).count)


def _cells(found: Mapping[str, Interval], measures: Sequence[str]) -> list[str]:
    return [str(found[measure]) if measure in found else _NONE for measure in measures]


def under_attack(attacks: Sequence[Attacked]) -> str:
    """A table for each exam, a row for each attack; ends in a new line."""
    blocks = []
    for (exam, count), group in groupby(attacks, key=lambda attacked: (attacked.exam, attacked.count)):
        rows = list(group)
        strengths = _distinct(strength for row in rows for strength in row.srcc)
        head = ["weights", "attack", *("before" if not s else f"{s}/255" for s in strengths)]
        cells = [[row.weights, row.attack, *(_three(row.srcc.get(s)) for s in strengths)] for row in rows]
        blocks.append(
            f"SRCC on {count} images of {exam}, each changed by at most so much in every pixel, in the direction that "
            f"spoils the order.\n\n{markdown(head, cells, 'llr')}"
        )
    return "\n".join(blocks)


def _three(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}".replace("-", "−")


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
