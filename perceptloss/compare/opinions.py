"""People's opinions of the images that are compared, and how well each critic agrees with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.csv_files import key_of, number, read_table, unquoted
from perceptloss.compare.statistics.agreement import constrained_concordance, meng
from perceptloss.compare.statistics.bootstrap import Interval, bootstrap, resamples
from perceptloss.compare.statistics.measures import krcc, plcc, srcc
from perceptloss.compare.statistics.paired import Array, ProtocolError
from perceptloss.compare.statistics.pairs import pairwise_accuracy
from perceptloss.compare.statistics.significance import holm
from perceptloss.errors import ConfigError, some

__all__ = ["Agreement", "Comparison", "CriticAgreement", "Opinion", "agreement", "read_opinions"]

_ROUNDS: Final = 1000
_DEFINED: Final = 0.9  # share of resamples
_LABELS: Final = ("mos", "dmos")


@dataclass(frozen=True)
class Opinion:
    """What people say of one output.

    Attributes:
        system: Its name.
        image: Its key.
        quality: Higher is better; a `dmos` is negated.
        half: Half the width of its interval, if it is known.
    """

    system: str
    image: str
    quality: float
    half: float | None = None


@dataclass(frozen=True)
class CriticAgreement:
    """One critic and people; a figure that these numbers do not define is None.

    Attributes:
        critic: Label of its column.
        count: Outputs with an opinion and a score.
        figures: `srcc`, `plcc` (after the logistic fit), `krcc`, `pairs` (accuracy), `pairs within images`, and `cci`
            where opinions have intervals.
        reasons: Why figures are not defined.
    """

    critic: str
    count: int
    figures: Mapping[str, Interval | None]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """Whether the first critic agrees better than the second.

    Attributes:
        first: The one of the higher srcc.
        second: The other.
        difference: Of their srcc, with the interval over images or groups; None where it is not defined.
        z: Of Meng, Rosenthal and Rubin's test of these, which takes outputs as independent; None if infinite.
        p: Two-sided.
        holm: After Holm over all pairs of critics.
    """

    first: str
    second: str
    difference: Interval | None
    z: float | None
    p: float
    holm: float


@dataclass(frozen=True)
class Agreement:
    """All critics and people.

    Attributes:
        critics: In the order of the columns.
        comparisons: Of all pairs of critics, the better one first.
    """

    critics: tuple[CriticAgreement, ...]
    comparisons: tuple[Comparison, ...]


def read_opinions(path: str | PathLike[str], systems: Sequence[str], keys: Sequence[str]) -> tuple[Opinion, ...]:
    """Opinions from a `.csv` with `image`, `system` and `mos` (or `dmos`, of which lower is better).

    A column `ci` is half the width of the 95 % interval; `std` and `votes` give it as 1.96 std / sqrt(votes). `system`
    may be left out for a single one. Other columns are the user's own.

    Raises:
        ConfigError: listing rows that cannot be read, are there twice, or are about other systems or images.
    """
    table = read_table(path, ("image", *(("system",) if len(systems) > 1 else ())))
    given = [name for name in _LABELS if name in table.header]
    if len(given) != 1:
        raise ConfigError([f"expected one column mos or dmos, got {len(given)} of them"], str(path))
    known = frozenset(keys)
    sign = -1 if given[0] == "dmos" else 1
    found: dict[tuple[str, str], Opinion] = {}
    problems, foreign = [], []
    for line, row in table.rows:
        system = unquoted(table.cell(row, "system")) if "system" in table.header else systems[0]
        name = table.cell(row, "image")
        key, quality = key_of(name, known), number(table.cell(row, given[0]))
        half, problem = _half(partial(table.cell, row), table.header)
        if problem:
            problems.append(f"line {line}: {problem}")
        if quality is None:
            problems.append(f"line {line}: {given[0]} must be a finite number, got {table.cell(row, given[0])!r}")
        elif system not in systems or key is None:
            foreign.append(f"{system}/{name}")
        elif (system, key) in found:
            problems.append(f"line {line}: {system}/{key} is there twice")
        else:
            found[system, key] = Opinion(system, key, sign * quality, half)
    if foreign:
        problems.append(f"not among the outputs that are compared: {some(foreign)}; leave these rows out")
    if problems:
        raise ConfigError(problems, f"--mos {path}")
    return tuple(found.values())


def _half(cell: Callable[[str], str], header: Sequence[str]) -> tuple[float | None, str]:
    if "ci" in header:
        half = number(cell("ci"))
        return half, "" if half is not None and half >= 0 else f"ci must be at least 0, got {cell('ci')!r}"
    if "std" not in header and "votes" not in header:
        return None, ""
    if "std" not in header or "votes" not in header:
        return None, "std and votes are needed together"
    spread, votes = number(cell("std")), number(cell("votes"))
    if spread is None or votes is None or spread < 0 or votes < 1:
        return None, f"std must be at least 0 and votes at least 1, got {cell('std')!r} and {cell('votes')!r}"
    return 1.96 * spread / votes**0.5, ""


def agreement(
    scores: Mapping[str, tuple[NDArray[np.bool_], Array]], opinions: Sequence[Opinion], groups: Sequence[str], seed: int
) -> Agreement:
    """Agreement of each critic with people.

    Args:
        scores: By critic: which opinions have a score, (n,) of bool, and those scores, (m,), higher is better.
        opinions: (n,).
        groups: What is drawn for intervals: image, or group of images, of each opinion, (n,).
        seed: Seed of the draws.
    """
    labels = np.array([opinion.quality for opinion in opinions])
    halves = np.array([np.nan if opinion.half is None else opinion.half for opinion in opinions])
    images, units = np.array([opinion.image for opinion in opinions]), np.array(groups)
    critics = []
    for critic, (there, values) in scores.items():
        options: dict[str, Callable[..., float]] = {
            "srcc": srcc,
            "plcc": partial(plcc, fit="logistic4"),
            "krcc": krcc,
            "pairs": pairwise_accuracy,
            "pairs within images": partial(pairwise_accuracy, groups=images[there]),
        }
        if not np.isnan(halves).any():
            options["cci"] = partial(constrained_concordance, half=halves[there])
        figures: dict[str, Interval | None] = {}
        reasons = {}
        for name, statistic in options.items():
            try:
                figures[name] = bootstrap(
                    statistic, values, labels[there], groups=units[there], rounds=_ROUNDS, seed=seed
                )
            except ProtocolError as error:
                figures[name], reasons[name] = None, str(error)
        critics.append(CriticAgreement(critic, int(there.sum()), figures, reasons))
    return Agreement(tuple(critics), _comparisons(scores, labels, units, seed))


def _comparisons(
    scores: Mapping[str, tuple[NDArray[np.bool_], Array]], labels: Array, units: NDArray[np.str_], seed: int
) -> tuple[Comparison, ...]:
    found = []
    names = list(scores)
    for place, one in enumerate(names):
        for two in names[place + 1 :]:
            both = scores[one][0] & scores[two][0]
            a, b = (values[both[there]] for there, values in (scores[one], scores[two]))
            people = labels[both]
            try:
                first, second, between = srcc(a, people), srcc(b, people), srcc(a, b)
                z, p = meng(first, second, between, int(both.sum()))
            except ProtocolError:
                continue  # the figures of these critics say why
            order = [(one, a), (two, b)] if first >= second else [(two, b), (one, a)]
            gap = _gap(order[0][1], order[1][1], people, units[both], seed)
            found.append((order[0][0], order[1][0], gap, abs(z) if np.isfinite(z) else None, p))
    adjusted = holm(np.array([entry[4] for entry in found]))
    return tuple(Comparison(*entry, float(p)) for entry, p in zip(found, adjusted, strict=True))


def _gap(a: Array, b: Array, people: Array, units: NDArray[np.str_], seed: int) -> Interval | None:
    """Srcc of a less that of b, both in the same resamples."""
    better, worse = (srcc.prepare(values, people) for values in (a, b))
    try:
        drawn = np.concatenate([better(n) - worse(n) for n in resamples(a.size, units, _ROUNDS, seed)])
    except ProtocolError:
        return None
    kept = drawn[~np.isnan(drawn)]
    if kept.size < _DEFINED * drawn.size:
        return None
    low, high = np.quantile(kept, (0.025, 0.975))
    whole = np.ones((1, a.size))
    return Interval(float((better(whole) - worse(whole))[0]), float(low), float(high), drawn.size - kept.size)
