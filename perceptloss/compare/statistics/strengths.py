"""Bradley-Terry strengths: one scale from comparisons of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from perceptloss.compare.statistics.bootstrap import draws
from perceptloss.compare.statistics.paired import Array, ProtocolError

__all__ = ["Strengths", "bradley_terry", "parts", "strengths", "votes_of"]

_PRIOR: Final = 0.1  # of a win and of a loss against a system of strength 0, for each
_STEPS: Final = 100
_STRIDE: Final = 2.0
_ENOUGH: Final = 1e-10


@dataclass(frozen=True)
class Strengths:
    """Strengths of k systems on one scale, of mean 0: one that is ahead by s wins with 1 / (1 + exp(-s)).

    Attributes:
        values: (k,).
        low: Lower ends of the bootstrap intervals, (k,); empty for a single unit.
        high: Upper ends, likewise.
        parts: Sets of systems that no comparison links, by index; with two or more, strengths of different sets can
            only be told from each other by the prior.
        is_separated: Whether some systems never lose to the others, so that only the prior says how far they are ahead,
            and resampling cannot say how uncertain that is.
    """

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    parts: tuple[tuple[int, ...], ...]
    is_separated: bool


def votes_of(oriented: Array) -> Array:
    """Wins of each system over each other, ties as half a win, (..., k, k), of scores where higher is better, (..., k).

    A missing score, NaN, takes part in no comparison.
    """
    own, other = oriented[..., :, None], oriented[..., None, :]
    won: Array = (own > other) + (own == other) / 2
    k = oriented.shape[-1]
    won[..., np.arange(k), np.arange(k)] = 0
    return won


def bradley_terry(wins: Array, prior: float = _PRIOR) -> Array:
    """Strengths of largest posterior density, (..., k), mean 0 (Bradley and Terry, Biometrika 39, 1952).

    Args:
        wins: `wins[..., i, j]`: how often i beat j; a tie is half a win of both.
        prior: Wins, and as many losses, of each system against one of strength 0. Keeps strengths finite where one
            always wins, or was never compared.

    Raises:
        ProtocolError: if wins are not square, finite and at least 0, or the prior is not above 0.
    """
    if wins.ndim < 2 or wins.shape[-1] != wins.shape[-2] or not (np.isfinite(wins).all() and (wins >= 0).all()):
        raise ProtocolError(f"expected wins (..., k, k), finite and at least 0, got an array of shape {wins.shape}.")
    if not prior > 0:
        raise ProtocolError(f"expected a prior above 0, got {prior}.")
    k = wins.shape[-1]
    diagonal = np.arange(k)
    wins = wins.copy()
    wins[..., diagonal, diagonal] = 0
    games = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(axis=-1)
    theta = np.zeros(wins.shape[:-1])
    for _ in range(_STEPS):
        chance = _logistic(theta[..., :, None] - theta[..., None, :])
        against = _logistic(theta)
        gradient = won - (games * chance).sum(axis=-1) + prior * (1 - 2 * against)
        curvature = games * chance * (1 - chance)
        hessian = -curvature
        hessian[..., diagonal, diagonal] = curvature.sum(axis=-1) + 2 * prior * against * (1 - against)
        step = np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -_STRIDE, _STRIDE)
        theta += step
        if np.abs(step).max() < _ENOUGH:
            break
    centred: Array = theta - theta.mean(axis=-1, keepdims=True)
    return centred


def _logistic(values: Array) -> Array:
    chance: Array = (1 + np.tanh(values / 2)) / 2
    return chance


def strengths(wins: Array, *, rounds: int = 1000, seed: int = 0, level: float = 0.95) -> Strengths:
    """Strengths with percentile intervals, by drawing units (images, groups or voters) with replacement.

    Args:
        wins: Wins of each unit, (U, k, k).
        rounds: Number of resamples.
        seed: Seed of the draws.
        level: Probability that an interval covers.
    """
    total = wins.sum(axis=0)
    values = bradley_terry(total)
    facts = parts(total), _is_separated(total)
    if len(wins) < 2:
        return Strengths(tuple(values.tolist()), (), (), *facts)
    flat = wins.reshape(len(wins), -1)
    drawn = np.concatenate([counts @ flat for counts in draws(len(wins), rounds, seed)])
    found = bradley_terry(drawn.reshape(rounds, *wins.shape[1:]))
    low, high = np.quantile(found, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return Strengths(tuple(values.tolist()), tuple(low.tolist()), tuple(high.tolist()), *facts)


def _is_separated(wins: Array) -> bool:
    """Whether wins lead not from every system to every other (Ford, American Mathematical Monthly 64, 1957)."""
    reached = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(len(wins)):
        reached = reached @ reached
    return not bool(reached.all())


def parts(wins: Array) -> tuple[tuple[int, ...], ...]:
    """Systems, by index, that comparisons link, directly or through others."""
    linked = (wins + wins.T) > 0
    left, found = set(range(len(wins))), []
    while left:
        inside, new = set(), {min(left)}
        while new:
            inside |= new
            new = {int(other) for one in new for other in np.flatnonzero(linked[one])} - inside
        found.append(tuple(sorted(inside)))
        left -= inside
    return tuple(found)
