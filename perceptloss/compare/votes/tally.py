"""What votes say: strengths of systems, how far voters can be trusted, and which critics people agree with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from perceptloss.compare.arrays import Scores
from perceptloss.compare.statistics.significance import wilson
from perceptloss.compare.statistics.strengths import Strengths, strengths
from perceptloss.compare.votes.ballots import Vote

__all__ = ["Agreed", "Tally", "Voter", "tally"]

Question = tuple[str, str, str]  # image, and two systems in the order of the comparison


@dataclass(frozen=True)
class Voter:
    """A voter's record.

    Attributes:
        name: On the files.
        votes: Questions answered, each once.
        ties: Of these, without a preference.
        left: Of these, for the left side; far from half of the rest, it is a habit.
        repeats: Questions that were asked again with sides changed.
        consistent: Of these, answered alike.
        catches: Catch trials.
        failed: Of these, not answered as everybody must.
        with_others: Questions on which the majority of the others agrees, and of how many; ties left out.
        seconds: Median time of an answer.
    """

    name: str
    votes: int
    ties: int
    left: int
    repeats: int
    consistent: int
    catches: int
    failed: int
    with_others: tuple[int, int]
    seconds: float


@dataclass(frozen=True)
class Agreed:
    """People and a critic.

    Attributes:
        critic: Its label.
        pairs: Pairs of outputs of which people prefer one, and that the critic has scores of.
        share: Of these, ordered alike; equal scores are half.
        low: Lower end of its Wilson interval.
        high: Upper end.
    """

    critic: str
    pairs: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Tally:
    """Everything that votes say.

    Attributes:
        votes: Questions answered, repeats and catch trials left out.
        strengths: Of the systems, drawing images (or groups) again for their intervals.
        voters: Sorted by name.
        critics: In the order of the columns; None where there is nothing to compare.
        undecided: Pairs of outputs of which people prefer neither.
    """

    votes: int
    strengths: Strengths
    voters: tuple[Voter, ...]
    critics: tuple[Agreed | None, ...]
    undecided: int


def tally(scores: Scores, votes: Sequence[Vote], groups: Mapping[str, str], *, seed: int, level: float) -> Tally:
    """Count votes.

    Args:
        scores: Of the systems that were voted on.
        votes: Of all voters.
        groups: Group of each image, if images are no independent evidence.
        seed: Of the resamples.
        level: Of the intervals.
    """
    firsts, repeats = _asked(votes, scores.systems)
    opinions: dict[Question, dict[str, int]] = defaultdict(dict)
    for (voter, question), vote in firsts.items():
        opinions[question][voter] = _sign(vote, question)
    balance = {question: sum(signs.values()) for question, signs in opinions.items()}
    return Tally(
        votes=len(firsts),
        strengths=_strengths(opinions, scores.systems, groups, seed, level),
        voters=tuple(_voters(votes, firsts, repeats, opinions)),
        critics=tuple(_agreed(scores, n, balance, level) for n in range(len(scores.labels))),
        undecided=sum(sign == 0 for sign in balance.values()),
    )


def _asked(
    votes: Iterable[Vote], systems: Sequence[str]
) -> tuple[dict[tuple[str, Question], Vote], list[tuple[str, bool]]]:
    """Each voter's first answer to a question, and for every further one whether it was the same."""
    firsts: dict[tuple[str, Question], Vote] = {}
    repeats = []
    for vote in sorted(votes, key=lambda vote: (vote.voter, vote.page, vote.trial)):
        if vote.catch is None:
            first, second = sorted((vote.left, vote.right), key=systems.index)
            question = (vote.image, first, second)
            before = firsts.setdefault((vote.voter, question), vote)
            if before is not vote:
                repeats.append((vote.voter, _sign(before, question) == _sign(vote, question)))
    return firsts, repeats


def _sign(vote: Vote, question: Question) -> int:
    """1 for the first system of a question, -1 for the second, 0 for a tie."""
    if vote.answer == "tie":
        return 0
    chosen = vote.left if vote.answer == "left" else vote.right
    return 1 if chosen == question[1] else -1


def _strengths(
    opinions: Mapping[Question, Mapping[str, int]],
    systems: Sequence[str],
    groups: Mapping[str, str],
    seed: int,
    level: float,
) -> Strengths:
    units = sorted({groups.get(image, image) for image, _, _ in opinions})
    wins = np.zeros((max(1, len(units)), len(systems), len(systems)))
    for (image, first, second), signs in opinions.items():
        unit, a, b = units.index(groups.get(image, image)), systems.index(first), systems.index(second)
        for sign in signs.values():
            wins[unit, a, b] += (1 + sign) / 2
            wins[unit, b, a] += (1 - sign) / 2
    return strengths(wins, seed=seed, level=level)


def _voters(
    votes: Sequence[Vote],
    firsts: Mapping[tuple[str, Question], Vote],
    repeats: Sequence[tuple[str, bool]],
    opinions: Mapping[Question, Mapping[str, int]],
) -> Iterable[Voter]:
    for name in sorted({vote.voter for vote in votes}):
        own = {question: vote for (voter, question), vote in firsts.items() if voter == name}
        again = [is_same for voter, is_same in repeats if voter == name]
        catches = [vote for vote in votes if vote.voter == name and vote.catch is not None]
        alike = compared = 0
        for question, vote in own.items():
            sign, others = _sign(vote, question), sum(s for v, s in opinions[question].items() if v != name)
            if sign and others:
                compared += 1
                alike += (sign > 0) == (others > 0)
        yield Voter(
            name=name,
            votes=len(own),
            ties=sum(vote.answer == "tie" for vote in own.values()),
            left=sum(vote.answer == "left" for vote in own.values()),
            repeats=len(again),
            consistent=sum(again),
            catches=len(catches),
            failed=sum(vote.answer != vote.catch for vote in catches),
            with_others=(alike, compared),
            seconds=median(vote.seconds for vote in votes if vote.voter == name),
        )


def _agreed(scores: Scores, critic: int, balance: Mapping[Question, int], level: float) -> Agreed | None:
    places = {key: n for n, key in enumerate(scores.keys)}
    points = []
    for (image, first, second), sign in balance.items():
        ours = scores.oriented[:, critic, places[image]]
        difference = ours[scores.systems.index(first)] - ours[scores.systems.index(second)]
        if sign and not np.isnan(difference):
            points.append((np.sign(difference) * np.sign(sign) + 1) / 2)
    if not points:
        return None
    share = float(np.mean(points))
    return Agreed(scores.labels[critic], len(points), share, *wilson(share, len(points), level))
