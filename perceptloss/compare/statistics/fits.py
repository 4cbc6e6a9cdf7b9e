"""Curves between predictions and labels: the logistic functions of VQEG, and the cubic of the NTIRE challenges.

    logistic4   (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2
    logistic5   b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5
    poly3       b1 x^3 + b2 x^2 + b3 x + b4

All minimise the squared error over the images. The logistic ones are, in common form, `a tanh((k (x - o) - d) / 2)`
and a linear part. d and log k are found by Levenberg-Marquardt, for many resamples at once, with the linear parameters
solved for at each step (variable projection; Kaufman, BIT 15, 1975), which walks straight down the valleys where a
logistic is nearly a line, a step or an exponential. The error has several minima: the search starts from all those of
a grid of places o and slopes k, and from the grid's best points.
Sources: VQEG's final reports (2000, 2003); Sheikh, Sabir and Bovik, IEEE TIP 15(11), 2006; NTIRE 2021 and 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.statistics.paired import Array, ProtocolError, paired
from perceptloss.errors import near

__all__ = ["FORMS", "Curve", "Form", "fit_curve", "fitted"]

Form: TypeAlias = Literal["logistic4", "logistic5", "poly3"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
_PARAMETERS: Final = {"logistic4": 4, "logistic5": 5, "poly3": 4}
_STEPS: Final = 100
_FOLLOWED: Final = 6
_ENOUGH: Final = 1e-13  # relative gain in squared error at which the search ends
_EXACT: Final = 1e-24  # squared error over the labels' that counts as none
_STRIDE: Final = 3.0  # longest step of d and log k, for standardised predictions
# beyond these lie an exponential, a line and a step to five digits, and parameters that cancel each other
_LOWEST: Final = np.array([-12.0, -5.0])
_HIGHEST: Final = np.array([12.0, 16.0])


@dataclass(frozen=True)
class Curve:
    """A fitted curve.

    Attributes:
        form: Which of `FORMS`.
        parameters: b1, b2, ..., in the units of predictions and labels.
    """

    form: Form
    parameters: tuple[float, ...]

    def __call__(self, x: Array) -> Array:
        """Labels that the curve expects of predictions, any shape."""
        b = self.parameters
        if self.form == "poly3":
            return ((b[0] * x + b[1]) * x + b[2]) * x + b[3]
        if self.form == "logistic4":
            return (b[0] - b[1]) * _logistic((x - b[2]) / abs(b[3])) + b[1]
        return b[0] * (_logistic(b[1] * (x - b[2])) - 0.5) + b[3] * x + b[4]


def fit_curve(pred: object, mos: object, form: Form) -> Curve:
    """The curve of a form that comes closest to the labels.

    Raises:
        ProtocolError: for an unknown form, unusable numbers, or no more images than parameters.
    """
    x, y = paired(pred, mos)
    _check(form, x.size)
    (x, middle, spread), (y, level, size) = _standard(x), _standard(y)
    if form == "poly3":
        inner = np.poly1d(np.linalg.lstsq(np.vander(x, 4), y, rcond=None)[0])
        cubic = np.polyadd(size * inner(np.poly1d([1 / spread, -middle / spread])).coeffs, [level])
        return Curve(form, tuple(float(b) for b in np.pad(cubic, (4 - cubic.size, 0))))
    basis = _basis(x, form)
    theta = _best(x, y, basis)[None]
    (d, t, o), (a, *linear) = theta[0].tolist(), _solve(theta, x, y, basis, np.ones((1, x.size))).linear[0].tolist()
    k = float(np.exp(t))
    centre, height = (o + d / k) * spread + middle, a / k * size
    if form == "logistic4":
        low = linear[0] * size + level - height / 2
        return Curve(form, (float(low + height), float(low), float(centre), spread / k))
    slope = linear[1] * size / spread
    return Curve(form, (float(height), k / spread, float(centre), slope, linear[0] * size + level - slope * middle))


def fitted(pred: Array, mos: Array, form: Form) -> Callable[[Array], Array]:
    """Fit of every resample: a function of counts, (R, n), that gives the curve at every prediction, (R, n).

    Raises:
        ProtocolError: for an unknown form, or no more images than parameters.
    """
    _check(form, pred.size)
    (x, _, _), (y, level, size) = _standard(pred), _standard(mos)
    if form == "poly3":
        columns, singular, _ = np.linalg.svd(np.vander(x, 4), full_matrices=False)
        columns = columns[:, singular > singular[0] * x.size * np.finfo(np.float64).eps]
        return lambda counts: level + size * (_linear(columns, y, counts) @ columns.T)
    basis = _basis(x, form)
    start = _best(x, y, basis)

    def curves(counts: Array) -> Array:
        return level + size * _search(np.repeat(start[None], len(counts), axis=0), x, y, basis, counts)[1].values

    return curves


def _check(form: str, count: int) -> None:
    if form not in FORMS:
        raise ProtocolError(f"unknown fit {form!r}; expected none, {', '.join(FORMS)}{near(form, FORMS)}.")
    if count <= _PARAMETERS[form]:
        raise ProtocolError(
            f"fit {form} has {_PARAMETERS[form]} parameters and needs more images than that, got {count}."
        )


def _standard(values: Array) -> tuple[Array, float, float]:
    with np.errstate(all="ignore"):
        mean, spread = float(values.mean()), float(values.std())
    if not 0 < spread < np.inf:
        raise ProtocolError("pred or mos spans more than float64 can square, or less; rescale it.")
    return (values - mean) / spread, mean, spread


def _basis(x: Array, form: Form) -> Array:
    return np.stack([np.ones_like(x), x]) if form == "logistic5" else np.ones((1, x.size))


def _logistic(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(z / 2))


def _linear(columns: Array, y: Array, counts: Array) -> Array:
    """Least squares of each resample on columns, (n, P), orthonormal over all images: (R, P)."""
    weighed = columns.T * counts[:, None]
    solution: Array = (np.linalg.pinv(weighed @ columns, hermitian=True) @ (weighed @ y)[..., None])[..., 0]
    return solution


@dataclass
class _State:
    """Resamples with d, log k and o given: best linear parameters (R, P), curves (R, n) and squared errors (R,)."""

    linear: Array
    values: Array
    error: Array
    columns: Array  # (R, P, n), the logistic one first, to mean 0 and deviation 1
    inverse: Array  # of the columns' Gram matrix, (R, P, P)

    def put(self, rows: NDArray[np.intp], other: _State, chosen: NDArray[np.bool_]) -> None:
        """Replace rows by the chosen ones of another state."""
        for mine, new in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[rows] = new[chosen]


def _solve(theta: Array, x: Array, y: Array, basis: Array, counts: Array) -> _State:
    d, k, o = theta[:, :1], np.exp(theta[:, 1:2]), theta[:, 2:]
    part = np.tanh((k * (x - o) - d) / 2) / (2 * k)
    middle, spread = part.mean(axis=1, keepdims=True), part.std(axis=1, keepdims=True)
    spread = np.where(spread > 0, spread, 1)
    part = (part - middle) / spread  # far from its centre, a logistic is a small rise on a large constant
    columns = np.concatenate([part[:, None], np.broadcast_to(basis, (len(part), *basis.shape))], axis=1)
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


def _best(x: Array, y: Array, basis: Array) -> Array:
    """The best d, log k and o for all images, (3,)."""
    places = np.quantile(x, np.linspace(0.01, 0.99, 15))
    slopes = np.log((0.25, 0.5, 1, 2, 4, 8, 16, 32))
    grid = np.stack(np.meshgrid(slopes, places, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = np.pad(grid, ((0, 0), (1, 0)))
    ones = np.ones((1, x.size))
    errors = np.array([_solve(point[None], x, y, basis, ones).error[0] for point in grid])
    around = np.pad(errors.reshape(slopes.size, places.size), 1, constant_values=np.inf)
    lowest = np.lib.stride_tricks.sliding_window_view(around, (3, 3)).min(axis=(2, 3)).reshape(-1)
    starts = grid[(errors <= lowest) | (errors <= np.sort(errors)[_FOLLOWED])]
    theta, state = _search(starts, x, y, basis, np.repeat(ones, len(starts), axis=0))
    best: Array = theta[int(np.argmin(state.error))]
    return best


def _search(start: Array, x: Array, y: Array, basis: Array, counts: Array) -> tuple[Array, _State]:
    """Levenberg-Marquardt for each resample on its own: d, log k and o, (R, 3), and what follows from them."""
    theta, damping = start.copy(), np.full(len(start), 1e-3)
    state = _solve(theta, x, y, basis, counts)
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
        new = _solve(trial, x, y, basis, weights)
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
