"""What stands under a table of scores: the line that says how differences were judged, and further tables."""

from __future__ import annotations

import math
from collections.abc import Iterator

from perceptloss.compare.inference import Effect, Inference
from perceptloss.compare.people import agreed, voted
from perceptloss.compare.results import Results
from perceptloss.compare.sets import set_section
from perceptloss.compare.shown import Section, compact, number, p_text, signed, strength_section
from perceptloss.compare.statistics.significance import EXACT, least_units
from perceptloss.output.tables import counted

__all__ = ["Section", "lines", "sections"]

_TRUSTED = 5  # units; the bootstrap of three covers in 76 cases of 100 what it should in 95
_METHODS = {"bca": "BCa", "percentile": "percentile"}


def lines(results: Results) -> list[str]:
    """How differences to the baseline were judged: units, method, family, what can be detected, what was not tested."""
    found, analysis = results.inference, results.analysis
    effects = [effect for row in found.effects for effect in row if effect is not None]
    if not effects:
        return []
    units = counted(found.units, found.unit)
    if found.unit == "group":
        units += f" of {counted(len(results.images), 'image')}"
    if found.units < 2:
        return [f"{units}: no interval and no test; differences may be chance"]
    methods = sorted({_METHODS[e.bounds.method] for e in effects if e.bounds.method in _METHODS})
    is_exact = all(effect.is_exact for effect in effects)
    tests = f"sign-flip tests{'' if not is_exact else ', exact'}, Holm over {found.family} at {analysis.alpha:g}"
    parts = [
        units,
        f"baseline {results.baseline}",
        f"{analysis.level * 100:g} % intervals"
        + (f": paired {' and '.join(methods)} bootstrap, {analysis.rounds:,} resamples" if methods else ""),
        f"seed {analysis.seed}",
        tests if found.family else "no test: every critic was trained on",
    ]
    said = [" · ".join(parts)]
    if found.family:
        said += [*_stars(results, effects), *_power(results)]
    return [*said, *_equivalence(results), "not tested: other training seeds of the systems, other sets of images"]


def _stars(results: Results, effects: list[Effect]) -> Iterator[str]:
    found, alpha = results.inference, results.analysis.alpha
    tests = counted(found.family, "test")
    if any(effect.is_starred for effect in effects):
        yield (
            f"*: differs from the baseline after Holm over {tests} at {alpha:g}; a difference is not yet a visible "
            "improvement"
        )
    yield from _noises(results)
    if found.units < _TRUSTED:
        yield f"intervals of fewer than {_TRUSTED} {found.unit}s are too narrow"
    least, rounds = least_units(alpha / found.family), math.ceil(found.family / alpha) - 1
    if found.units <= EXACT and found.units < least:
        units = counted(found.units, found.unit)
        yield f"{units} can give no star: with {tests} it takes {least} or more, even if all agree"
    elif results.analysis.rounds < rounds and not all(effect.is_exact for effect in effects):
        yield f"random patterns can give no star: with {tests} it takes --rounds {rounds} or more"


def _noises(results: Results) -> Iterator[str]:
    """Which critics lost stars to their noise, and of which the noise is not known."""
    alpha, hidden, tiled = results.analysis.alpha, [], []
    for n, column in enumerate(results.critics):
        effects = [effect for row in results.inference.effects if (effect := row[n]) is not None]
        hidden += [f"{column.label} ({e.noise:.2g})" for e in [e for e in effects if _is_noise(e, alpha)][:1]]
        is_tiled = any(part.startswith("tile:") for part in column.signature.split("|"))
        is_stated = results.analysis.of(results.analysis.noise, column.label) is not None
        if is_tiled and not is_stated and column.card.get("tiling") == "approximate":
            tiled += [column.label] if any(effect.is_starred for effect in effects) else []
    if hidden:
        yield f"no star, because a difference is below the critic's own noise: {', '.join(hidden)}"
    if tiled:
        yield (
            f"scored in tiles, and how far another cut would move it is not known: {', '.join(tiled)}; score with "
            "another --tile, and state the difference by --noise"
        )


def _is_noise(effect: Effect, alpha: float) -> bool:
    return effect.holm is not None and effect.holm <= alpha and not effect.is_starred


def _power(results: Results) -> Iterator[str]:
    """The largest among the systems: for each critic, a difference that any of them would have shown."""
    shown = []
    for n, column in enumerate(results.critics):
        sizes = [e.detectable for row in results.inference.effects if (e := row[n]) and e.detectable is not None]
        if sizes and max(sizes) > 0:
            shown.append(f"{column.label} {compact(max(sizes))}")
    if shown:
        yield (
            f"detectable with {counted(results.inference.units, results.inference.unit)} in 4 of 5 such comparisons: "
            f"a true difference of {', '.join(shown)}"
        )


def _equivalence(results: Results) -> Iterator[str]:
    alpha = results.analysis.alpha
    for name, row in zip(results.systems, results.inference.effects, strict=True):
        for column, effect in zip(results.critics, row, strict=True):
            if effect is not None and effect.margin is not None:
                p = effect.equivalence
                verdict = "equivalent" if p is not None and p <= alpha else "not shown to be equivalent"
                yield (
                    f"{name} and {results.baseline} are {verdict} under {column.label} within ±{effect.margin:g} "
                    f"(two one-sided t-tests, {p_text(p)})"
                )


def sections(results: Results) -> list[Section]:
    """Further tables: judges of whole sets, worst images, agreement with people and, where asked for, details."""
    found = results.inference
    tables = [set_section(results.sets)] if results.sets else []
    if found.worst is not None:
        tables.append(_worst(results))
    if results.analysis.details and len(results.systems) > 1:
        tables += _details(results, found)
    if found.agreement is not None:
        tables += agreed(results)
    if found.tally is not None:
        tables += voted(results, found.tally)
    return tables


def _worst(results: Results) -> Section:
    pools = results.inference.worst or ()
    means = [[pool.mean for row in pools if (pool := row[n])] for n in range(len(results.critics))]
    rows = []
    for name, row in zip(results.systems, pools, strict=True):
        cells = []
        for pool, column in zip(row, means, strict=True):
            value = number(None if pool is None else pool.mean, column)
            change = (
                "" if pool is None or pool.difference is None else f" ({signed(pool.difference, pool.bounds, column)})"
            )
            cells.append(value + change)
        rows.append((name, *cells))
    most = max((len(pool.images) for row in pools for pool in row if pool), default=0)
    title = f"mean of the worst {counted(most, 'image')} of {len(results.images)}"
    title += ", each system's own" if len(results.systems) > 1 else ""
    return Section(title, ("system", *(column.header for column in results.critics)), tuple(rows))


def _details(results: Results, found: Inference) -> Iterator[Section]:
    header = ("system", *(column.header for column in results.critics))
    ranks = tuple(
        (name, *("n/a" if rank is None else f"{rank:.2f}" for rank in row))
        for name, row in zip(results.systems, found.ranks, strict=True)
    )
    notes = []
    if found.friedman is not None:
        test = found.friedman
        notes.append(
            f"Friedman over {counted(found.units, found.unit)}: chi-squared {test.statistic:.2f}, {p_text(test.p)}; "
            f"mean ranks over critics further apart than {test.critical_difference:.2f} differ (Nemenyi)"
        )
    yield Section("mean ranks over images, 1 is best", header, ranks, tuple(notes))
    if found.strengths is not None:
        about = "each image has one vote, shared by its critics"
        yield strength_section("Bradley-Terry strengths", results.systems, found.strengths, about)
    rows = [
        (
            name,
            column.label,
            p_text(effect.p),
            "n/a" if effect.holm is None else p_text(effect.holm),
            p_text(effect.wilcoxon),
            compact(effect.shift),
            f"{effect.biserial:+.2f}".replace("-", "−"),
            f"{effect.win_share:.2f} [{effect.win_bounds[0]:.2f}, {effect.win_bounds[1]:.2f}]",
        )
        for name, row in zip(results.systems, found.effects, strict=True)
        for column, effect in zip(results.critics, row, strict=True)
        if effect is not None
    ]
    if rows:
        title = f"tests against {results.baseline}, by {found.unit}"
        head = ("system", "critic", "sign-flip", "after Holm", "Wilcoxon", "shift", "biserial", "wins")
        notes = ["shift: Hodges-Lehmann; biserial: matched-pairs rank-biserial; wins: share with Wilson interval"]
        yield Section(title, head, tuple(rows), tuple(notes))
