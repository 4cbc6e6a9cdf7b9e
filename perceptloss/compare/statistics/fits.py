"""The logistic curve of VQEG between predictions and labels, (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2.

It minimises the squared error over the images. In another form it is a level plus `a tanh((k (x - o) - d) / 2)`.
d and log k are found by Levenberg-Marquardt, for many resamples at once, with level and height solved for at each
step (variable projection; Kaufman, BIT 15, 1975), which walks straight down the valleys where a logistic is nearly a
line, a step or an exponential. The error has several minima: the search starts from all those of a grid of places o
and slopes k, and from the grid's best points.
Sources: VQEG's final reports (2000, 2003); Sheikh, Sabir and Bovik, IEEE TIP 15(11), 2006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.statistics.paired import Array, ProtocolError

__all__ = ["fitted"]

_PARAMETERS: Final = 4
_STEPS: Final = 100
_FOLLOWED: Final = 6
_ENOUGH: Final = 1e-13  # relative gain in squared error at which the search ends
_EXACT: Final = 1e-24  # squared error over the labels' that counts as none
_STRIDE: Final = 3.0  # longest step of d and log k, for standardised predictions
# beyond these lie an exponential, a line and a step to five digits, and parameters that cancel each other
_LOWEST: Final = np.array([-12.0, -5.0])
_HIGHEST: Final = np.array([12.0, 16.0])


def fitted(pred: Array, mos: Array) -> Callable[[Array], Array]:
    """Fit of every resample: a function of counts, (R, n), that gives the curve at every prediction, (R, n).

    Raises:
        ProtocolError: for no more images than parameters.
    """
    if pred.size <= _PARAMETERS:
        raise ProtocolError(
            f"fit logistic4 has {_PARAMETERS} parameters and needs more images than that, got {pred.size}."
        )
    x, (y, level, size) = _standard(pred)[0], _standard(mos)
    start = _best(x, y)

    def curves(counts: Array) -> Array:
        return level + size * _search(np.repeat(start[None], len(counts), axis=0), x, y, counts)[1].values

    return curves


def _standard(values: Array) -> tuple[Array, float, float]:
    with np.errstate(all="ignore"):
        mean, spread = float(values.mean()), float(values.std())
    if not 0 < spread < np.inf:
        raise ProtocolError("pred or mos spans more than float64 can square, or less; rescale it.")
    return (values - mean) / spread, mean, spread


@dataclass
class _State:
    """Resamples with d, log k and o given: best height and level (R, 2), curves (R, n) and squared errors (R,)."""

    linear: Array
    values: Array
    error: Array
    columns: Array  # (R, 2, n), the logistic one first, to mean 0 and deviation 1
    inverse: Array  # of the columns' Gram matrix, (R, 2, 2)

    def put(self, rows: NDArray[np.intp], other: _State, chosen: NDArray[np.bool_]) -> None:
        """Replace rows by the chosen ones of another state."""
        for mine, new in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[rows] = new[chosen]


def _solve(theta: Array, x: Array, y: Array, counts: Array) -> _State:
    d, k, o = theta[:, :1], np.exp(theta[:, 1:2]), theta[:, 2:]
    part = np.tanh((k * (x - o) - d) / 2) / (2 * k)
    middle, spread = part.mean(axis=1, keepdims=True), part.std(axis=1, keepdims=True)
    spread = np.where(spread > 0, spread, 1)
    part = (part - middle) / spread  # far from its centre, a logistic is a small rise on a large constant
    columns = np.stack([part, np.ones_like(part)], axis=1)
    weighed = columns * counts[:, None]
    inverse = np.linalg.pinv(weighed @ np.swapaxes(columns, 1, 2), hermitian=True)
    linear = (inverse @ (weighed @ y)[..., None])[..., 0]
    values = (linear[:, None] @ columns)[:, 0]
    linear[:, :1] /= spread
    linear[:, 1:2] -= linear[:, :1] * middle
    return _State(linear, values, (counts * (y - values) ** 2).sum(axis=1), columns, inverse)


def _recentre(theta: Array, x: Array) -> None:
    """Express the same curves with their centre as o, or the end of the predictions that is next to it."""
    d, k, o = theta[:, 0], np.exp(theta[:, 1]), theta[:, 2]
    centre = o + d / k
    theta[:, 2] = np.clip(centre, x.min(), x.max())
    theta[:, 0] = k * (centre - theta[:, 2])


def _best(x: Array, y: Array) -> Array:
    """The best d, log k and o for all images, (3,)."""
    places = np.quantile(x, np.linspace(0.01, 0.99, 15))
    slopes = np.log((0.25, 0.5, 1, 2, 4, 8, 16, 32))
    grid = np.stack(np.meshgrid(slopes, places, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = np.pad(grid, ((0, 0), (1, 0)))
    ones = np.ones((1, x.size))
    errors = np.array([_solve(point[None], x, y, ones).error[0] for point in grid])
    around = np.pad(errors.reshape(slopes.size, places.size), 1, constant_values=np.inf)
    lowest = np.lib.stride_tricks.sliding_window_view(around, (3, 3)).min(axis=(2, 3)).reshape(-1)
    starts = grid[(errors <= lowest) | (errors <= np.sort(errors)[_FOLLOWED])]
    theta, state = _search(starts, x, y, np.repeat(ones, len(starts), axis=0))
    best: Array = theta[int(np.argmin(state.error))]
    return best


def _search(start: Array, x: Array, y: Array, counts: Array) -> tuple[Array, _State]:
    """Levenberg-Marquardt for each resample on its own: d, log k and o, (R, 3), and what follows from them."""
    theta, damping = start.copy(), np.full(len(start), 1e-3)
    state = _solve(theta, x, y, counts)
    exact = _EXACT * counts @ y**2
    active = np.flatnonzero(state.error > exact)
    for _ in range(_STEPS):
        if not active.size:
            break
        here, weights = theta[active], counts[active]
        curvature, descent = _normal(here, x, y, weights, state, active)
        scale = np.maximum(np.einsum("rpp->rp", curvature), 1e-30) * damping[active, None]
        step = np.linalg.solve(curvature + scale[..., None] * np.eye(2), descent[..., None])[..., 0]
        trial = here.copy()
        trial[:, :2] = np.clip(here[:, :2] + np.clip(step, -_STRIDE, _STRIDE), _LOWEST, _HIGHEST)
        _recentre(trial, x)
        new = _solve(trial, x, y, weights)
        gain = state.error[active] - new.error
        better = gain > 0
        theta[active[better]] = trial[better]
        state.put(active[better], new, better)
        damping[active] = np.where(better, np.maximum(damping[active] / 10, 1e-12), damping[active] * 10)
        error = state.error[active]
        active = active[~(better & (gain <= _ENOUGH * error) | (damping[active] > 1e9) | (error <= exact[active]))]
    return theta, state


def _normal(
    theta: Array, x: Array, y: Array, counts: Array, state: _State, rows: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Gauss-Newton matrix (R, 2, 2) and direction of descent (R, 2), with the linear parameters solved for.

    That takes from the derivatives all that the columns can express, the logistic one itself included.
    """
    columns, a = state.columns[rows], state.linear[rows, :1]
    d, k, o = theta[:, :1], np.exp(theta[:, 1:2]), theta[:, 2:]
    rise = (1 - np.tanh((k * (x - o) - d) / 2) ** 2) / 4
    slopes = a[..., None] * np.stack([-rise / k, (x - o) * rise], axis=1)
    expressed = (slopes * counts[:, None]) @ np.swapaxes(columns, 1, 2) @ state.inverse[rows]
    slopes -= expressed @ columns
    weighed = slopes * counts[:, None]
    return weighed @ np.swapaxes(slopes, 1, 2), (weighed @ (y - state.values[rows])[..., None])[..., 0]
