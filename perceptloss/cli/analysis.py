"""What `score` and `compare` ask of scores: their flags, and what these need before the first score."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from perceptloss.errors import ConfigError, UnknownCritic, WeightsError, near

if TYPE_CHECKING:
    from perceptloss.card import Direction
    from perceptloss.compare.analysis import Analysis
    from perceptloss.compare.external import ExternalScores
    from perceptloss.compare.plan import Plan
    from perceptloss.compare.presets import Preset
    from perceptloss.compare.results import Results

__all__ = ["Asked", "add_analysis", "asked_of", "names_of", "presets_of"]

_log = logging.getLogger("perceptloss.compare")
_DIRECTIONS: Final = ("higher", "lower")


def add_analysis(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    group = parser.add_argument_group("statistics")
    group.add_argument(
        "--group",
        metavar="CSV|REGEX",
        help="images that are no independent evidence: a .csv of image,group, or what to find in names: 'scene\\d+'",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of resamples and random sign patterns")
    group.add_argument("--rounds", type=int, default=10_000, metavar="N", help="resamples, and random sign patterns")
    group.add_argument(
        "--equivalent",
        action="append",
        default=[],
        metavar="CRITIC=MARGIN",
        help="test whether systems are as good as the baseline within a margin; may be repeated",
    )
    group.add_argument(
        "--noise",
        action="append",
        default=[],
        metavar="CRITIC=SIZE",
        help="how far a critic's mean moves by itself; a smaller difference gets no star (default: by rounding)",
    )
    group.add_argument("--worst", metavar="N|P%", help="also the mean of the worst images of each system")
    group.add_argument(
        "--details", action="store_true", help="also print ranks, Bradley-Terry strengths and all tests (JSON has them)"
    )
    group.add_argument("--mos", metavar="CSV", help="people's opinions, image,system,mos: who agrees with them?")
    group.add_argument(
        "--trained",
        action="append",
        default=[],
        metavar="CRITIC",
        help="a critic that a system was trained on: it is no evidence, and the others only watched; may be repeated",
    )
    group.add_argument(
        "--votes", nargs="+", default=[], metavar="CSV", help="what people saved on a page of `perceptloss vote`"
    )
    more = parser.add_argument_group("more columns")
    more.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME|TOML",
        help="the score of a challenge, such as ntire-sr-2026, with the critics that it needs; may be repeated",
    )
    more.add_argument(
        "--scores-from",
        action="append",
        default=[],
        metavar="CSV",
        help="scores made elsewhere, image,system and columns such as vmaf:higher; may be repeated",
    )
    more.add_argument(
        "--better",
        action="append",
        default=[],
        metavar="NAME=higher|lower",
        help="direction of a column of --scores-from whose header does not state it",
    )


@dataclass(frozen=True)
class Asked:
    """What is asked of the scores, checked.

    Attributes:
        analysis: How they are judged.
        parts: Scores made elsewhere.
        trained: Labels of critics that a system was trained on.
    """

    analysis: Analysis
    parts: tuple[ExternalScores, ...] = ()
    trained: tuple[str, ...] = ()

    def of(self, results: Results) -> Results:
        """The results with more columns, and how they are judged."""
        from perceptloss.compare.external import join_scores

        joined = join_scores(results, self.parts) if self.parts else results
        judged = joined.with_roles(self.trained) if self.trained else joined
        return replace(judged, analysis=self.analysis)


def presets_of(args: argparse.Namespace) -> tuple[Preset, ...]:
    """The presets, and in `args.critic` the critics that they need; one that cannot be had is a gap of the preset.

    Raises:
        ConfigError: listing what is wrong with files.
    """
    from perceptloss.compare.external import column_names
    from perceptloss.compare.presets import read_preset

    presets = [read_preset(source) for source in args.preset]
    there = {_canonical(item.partition("=")[0].strip()) for item in args.critic}
    there |= {name for path in args.scores_from for name in column_names(path)}
    found = []
    for preset in presets:
        gaps = {}
        for term in preset.terms:
            if term.column(there) is None:
                reason = _lacking(term.critic, is_random=args.random_weights)
                if reason:
                    gaps[term.critic] = reason
                else:
                    args.critic = [*args.critic, term.critic]
                    there.add(term.critic)
        for name, reason in gaps.items():
            _log.warning("--preset %s: no %s: %s", preset.name, name, reason)
        found.append(replace(preset, gaps=gaps))
    return tuple(found)


def _canonical(name: str) -> str:
    from perceptloss.registry import get_card

    try:
        return get_card(name).name
    except UnknownCritic:
        return name


def _lacking(name: str, *, is_random: bool) -> str:
    """Why a critic cannot be had; empty if it can."""
    from perceptloss.registry import get_card
    from perceptloss.weights.search import find

    try:
        weights = () if is_random else get_card(name).weights
    except UnknownCritic:
        return f"not a critic of perceptloss; --scores-from may bring it, as {name}:higher or {name}:lower"
    try:
        for file in weights:
            find(file)
    except WeightsError:
        return f"no weights; `perceptloss weights fetch {name}`"
    return ""


def names_of(args: argparse.Namespace) -> list[str]:
    """Names of the columns that files bring."""
    from perceptloss.compare.external import column_names

    return [name for path in args.scores_from for name in column_names(path)]


def asked_of(args: argparse.Namespace, plan: Plan, presets: Sequence[Preset]) -> Asked:
    """What the flags ask for.

    Raises:
        ConfigError: listing what is wrong with flags and files.
    """
    from perceptloss.compare.analysis import Analysis
    from perceptloss.compare.external import read_scores, unknown_better
    from perceptloss.compare.groups import read_groups
    from perceptloss.compare.opinions import read_opinions
    from perceptloss.compare.votes.ballots import read_votes

    keys = [image.key for image in plan.images]
    records = [(image.key, image.outputs, image.reference) for image in plan.images]
    better, problems = _directions(args.better)
    noise, more = _numbers("--noise", args.noise)
    margins, most = _numbers("--equivalent", args.equivalent)
    problems += [*more, *most, *unknown_better(better, names_of(args))]
    if problems:
        raise ConfigError(problems, "the command line")
    labels = [entry.name for entry in plan.asked]
    parts = []
    for path in args.scores_from:
        part = read_scores(
            path, plan.systems, keys, better=better, taken=labels, allow_missing=plan.rules.allow_missing
        )
        labels += [column.label for column in part.columns]
        parts.append(part)
    analysis = Analysis(
        rounds=args.rounds,
        seed=args.seed,
        groups=read_groups(args.group, keys) if args.group is not None else {},
        noise=noise,
        margins=margins,
        worst=args.worst,
        presets=tuple(presets),
        opinions=read_opinions(args.mos, plan.systems, keys) if args.mos is not None else (),
        votes=read_votes(args.votes, plan.systems, records) if args.votes else (),
        details=args.details,
    )
    wrong = analysis.unfit(plan.systems, labels, keys)
    unknown = (name for name in args.trained if name not in labels)
    wrong += [f"--trained {name} is none of the critics{near(name, labels)}" for name in unknown]
    if wrong:
        raise ConfigError(wrong, "the command line")
    return Asked(analysis, tuple(parts), tuple(args.trained))


def _numbers(flag: str, texts: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    found: dict[str, float] = {}
    problems = []
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            if name in found:
                problems.append(f"{flag}: {name} is there twice")
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            problems.append(f"{flag}: expected CRITIC=NUMBER, got {text!r}")
    return found, problems


def _directions(texts: Sequence[str]) -> tuple[dict[str, Direction], list[str]]:
    found: dict[str, Direction] = {}
    problems = []
    for text in texts:
        name, _, word = text.rpartition("=")
        if not name or word not in _DIRECTIONS:
            problems.append(f"--better: expected NAME=higher or NAME=lower, got {text!r}")
        elif found.setdefault(name, word) != word:  # type: ignore[arg-type]
            problems.append(f"--better: {name} is both")
    return found, problems
