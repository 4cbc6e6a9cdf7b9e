"""The answer in words: who is better by which critics, by how much and how surely, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from perceptloss.compare.inference import Effect
from perceptloss.compare.results import Column, Results
from perceptloss.compare.shown import number, signed
from perceptloss.compare.statistics.units import Bounds
from perceptloss.output.tables import counted

__all__ = ["answer", "redundancy", "remarks"]

_ALIKE: Final = 0.95  # share of pairs from which two critics are as good as one vote
_APART: Final = 0.5  # below which they contradict each other more often than not


def answer(results: Results) -> list[str]:
    """A sentence on the order of all systems, and one on each against the baseline; for one system, its means."""
    if len(results.systems) == 1:
        return [_alone(results)]
    said = [_order(results)] if any(column.is_evidence for column in results.critics) else []
    said += [_against(results, n) for n, name in enumerate(results.systems) if name != results.baseline]
    if trained := [column.label for column in results.critics if not column.is_evidence]:
        said.append(f"Systems were trained on {_list(trained)}: what these say is no evidence.")
    return said


def _alone(results: Results) -> str:
    cells = results.summary().standings[0].cells
    parts = []
    for n, (column, cell) in enumerate(zip(results.critics, cells, strict=True)):
        scores = [score for score in results.values[0][n] if score is not None]
        bounds = results.inference.means[0][n]
        parts.append(f"{column.header} {number(cell.mean, scores)}{_ends(bounds, scores)}")
    return f"{results.systems[0]}, means over {counted(len(results.images), 'image')}: {'; '.join(parts)}."


def _ends(bounds: Bounds | None, scores: Sequence[float]) -> str:
    if bounds is None or bounds.low is None:
        return ""
    return f" [{number(bounds.low, scores)}, {number(bounds.high, scores)}]"


def _order(results: Results) -> str:
    ranked = [
        (standing.rank, name)
        for name, standing in zip(results.systems, results.summary().standings, strict=True)
        if standing.rank is not None
    ]
    ranked.sort(key=lambda entry: entry[0])
    evidence = sum(column.is_evidence for column in results.critics)
    over = f"{counted(len(results.images), 'image')} and {counted(evidence, 'critic')}"
    if not ranked:
        return "No critic has a finite score: there is no order."
    return f"By mean rank over {over}: {', '.join(f'{name} ({rank:.2f})' for rank, name in ranked)}; 1 is best."


def _against(results: Results, system: int) -> str:
    """One sentence per system: by which critics it is better or worse, and by which nothing is shown."""
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    name, row = results.systems[system], results.inference.effects[system]
    for n, (column, effect) in enumerate(zip(results.critics, row, strict=True)):
        if effect is None or not column.is_evidence:
            continue
        text = f"{column.label} ({_size(results, n, effect)})"
        (open_ if not effect.is_starred else better if _is_gain(column, effect) else worse).append(text)
    parts = [f"better by {_list(better)}"] if better else []
    parts += [f"worse by {_list(worse)}"] if worse else []
    if not parts:
        said = f"No critic shows a difference between {name} and {results.baseline}"
        return f"{said}: {_list(open_)}. That is not equality." if open_ else f"{said}, for want of scores."
    said = f"Against {results.baseline}, {name} is {', but '.join(parts)}"
    said += f"; no difference is shown by {_list(open_)}" if open_ else ""
    return said + (": the critics disagree." if better and worse else ".")


def _is_gain(column: Column, effect: Effect) -> bool:
    return (effect.difference > 0) == column.is_higher_better


def _size(results: Results, critic: int, effect: Effect) -> str:
    means = [s.cells[critic].mean for s in results.summary().standings]
    return signed(effect.difference, effect.bounds, [mean for mean in means if mean is not None])


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def remarks(results: Results) -> Iterator[str]:
    """What the critics' cards say that a reader should know."""
    for column in results.critics:
        domains = column.card.get("domains") or []
        if domains and "natural" not in domains:
            yield f"{column.label} was made for {_list([*domains])} images: elsewhere its scores mean less."
        yield from (f"{column.label}: {note}" for note in column.card.get("notes") or ())


def redundancy(results: Results, agreement: Sequence[Sequence[float | None]]) -> Iterator[str]:
    """Which critics are one vote, and which contradict each other.

    Args:
        results: The scores.
        agreement: Share of pairs of outputs that two critics order alike, [critic][critic].
    """
    labels = [column.label for column in results.critics]
    for a, row in enumerate(agreement):
        for b, share in enumerate(row[:a]):
            if share is None:
                continue
            both = f"{labels[b]} and {labels[a]}"
            if share >= _ALIKE:
                yield f"{both} order {100 * share:.0f} % of all pairs of outputs alike: count them as one vote."
            elif share < _APART:
                yield f"{both} contradict each other on {100 * (1 - share):.0f} % of all pairs of outputs."
