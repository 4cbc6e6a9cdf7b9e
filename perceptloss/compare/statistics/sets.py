r"""Distances of two sets of feature vectors, of whole sets and of resamples of them.

Frechet distance: Heusel et al., NeurIPS 2017. Kernel distance: Binkowski et al., "Demystifying MMD GANs", ICLR 2018.
CMMD: Jayasumana et al., "Rethinking FID", CVPR 2024. The trace of a matrix root is taken as a sum of singular values,
which needs no root of a covariance that has less than full rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISTANCES", "Distance", "cmmd", "frechet", "kernel"]

Array: TypeAlias = NDArray[np.float64]
Distance: TypeAlias = Callable[[Array, Array], Callable[[Array, Array], float]]
"""Two sets of features, (N, D) and (M, D), to what gives their distance if each vector counts so often: (N,), (M,)."""

_WIDTH, _SCALE = 10.0, 1000.0  # of CMMD's kernel and numbers


def _factor(x: Array, counts: Array) -> tuple[Array, Array]:
    """Mean, and a factor A of the covariance A^T A, at most as many rows as columns."""
    total = counts.sum()
    mean = counts @ x / total
    rows = np.sqrt(counts / (total - 1))[:, None] * (x - mean)
    factor: Any = np.linalg.qr(rows, mode="r") if len(rows) > rows.shape[1] else rows
    return mean, factor


def frechet(x: Array, y: Array) -> Callable[[Array, Array], float]:
    r"""|m_x - m_y|^2 + \mathrm{tr}(S_x + S_y - 2 (S_x S_y)^{1/2})."""

    def distance(of_x: Array, of_y: Array) -> float:
        (mx, ax), (my, ay) = _factor(x, of_x), _factor(y, of_y)
        shared = np.linalg.svd(ax @ ay.T, compute_uv=False).sum()
        return float(((mx - my) ** 2).sum() + (ax**2).sum() + (ay**2).sum() - 2 * shared)

    return distance


def kernel(x: Array, y: Array) -> Callable[[Array, Array], float]:
    """Unbiased squared maximum mean discrepancy by the kernel (x y / D + 1)^3; no vector is compared with itself."""
    xx, yy, xy = (((a @ b.T) / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))

    def apart(gram: Array, counts: Array) -> float:
        pairs = counts.sum() ** 2 - (counts**2).sum()
        return float((counts @ gram @ counts - counts**2 @ np.diag(gram)) / pairs)

    def distance(of_x: Array, of_y: Array) -> float:
        across = of_x @ xy @ of_y / (of_x.sum() * of_y.sum())
        return apart(xx, of_x) + apart(yy, of_y) - 2 * float(across)

    return distance


def cmmd(x: Array, y: Array) -> Callable[[Array, Array], float]:
    """1000 times the squared maximum mean discrepancy of unit vectors by a Gaussian kernel of width 10."""
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))

    def gram(a: Array, b: Array) -> Array:
        return np.exp((a @ b.T - 1) / _WIDTH**2)  # of unit vectors, |a - b|^2 = 2 - 2 a b

    xx, yy, xy = gram(x, x), gram(y, y), gram(x, y)

    def distance(of_x: Array, of_y: Array) -> float:
        a, b = of_x / of_x.sum(), of_y / of_y.sum()
        found: Any = a @ xx @ a + b @ yy @ b - 2 * (a @ xy @ b)
        return float(_SCALE * found)

    return distance


DISTANCES: Final[dict[str, Distance]] = {"fid": frechet, "kid": kernel, "cmmd": cmmd}
