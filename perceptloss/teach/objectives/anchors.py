"""Where classes are anchored: unit vectors far apart, turned towards binary codes, like classes on near ones.

After Morgado, Li, Costa Pereira, Saberian, Vasconcelos: "Deep Hashing with Hash-Consistent Large Margin Proxy
Embeddings", IJCV 2020, of which no code is public. Ours: the barrier of the descent, the parting of equal codes, and
the similarity of ordered distortion levels. All in float64 on the CPU and deterministic; columns are anchors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import ConfigError

__all__ = [
    "assignment_cost",
    "class_proxies",
    "greedy_assignment",
    "hash_consistent",
    "large_margin_proxies",
    "level_similarity",
    "procrustes",
    "simplex_proxies",
    "spread_proxies",
]

_STIFFNESS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
_IMPROVES = -1e-10
_ACROSS = 0.2  # likeness of classes of different types


def simplex_proxies(classes: int, dimensions: int) -> Tensor:
    """Corners of a regular simplex around 0, whose pairwise cosine is -1 / (C - 1): unit columns, (d, C).

    No C vectors are farther apart. It needs C <= d + 1.
    """
    centred = torch.eye(classes, dtype=torch.float64, device="cpu") - 1 / classes
    # its columns lie in a space of C - 1 dimensions, the last left singular vector is the all-ones direction
    basis = torch.linalg.svd(centred).U[:, :-1]
    corners = F.normalize(basis.T @ centred, dim=0)
    return F.pad(corners, (0, 0, 0, dimensions - len(corners)))


def spread_proxies(classes: int, dimensions: int, *, seed: int = 0, rounds: int = 100) -> Tensor:
    r"""Unit columns, (d, C), whose least distance is made as large as a descent finds.

    It lowers :math:`\frac1p \log \sum_{i<j} (1 - w_i^T w_j)^{-p}`, a barrier between all pairs that is infinite where
    two meet, for p from 1 to 1024, where the nearest pair decides alone.

    Args:
        classes: C, at least 2.
        dimensions: d, at least 2, or 1 for two classes.
        seed: Of the start.
        rounds: Iterations of L-BFGS at most for each p.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    free = torch.randn(dimensions, classes, dtype=torch.float64, generator=generator, device="cpu").requires_grad_()
    rows, columns = torch.triu_indices(classes, classes, 1, device="cpu")
    with torch.enable_grad():
        for stiffness in _STIFFNESS:
            search = torch.optim.LBFGS(
                [free], max_iter=rounds, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-13
            )

            def barrier(stiffness: float = stiffness, search: torch.optim.Optimizer = search) -> Tensor:
                search.zero_grad()
                unit = F.normalize(free, dim=0)
                gaps = 1 - (unit.T @ unit)[rows, columns]
                energy = torch.logsumexp(-stiffness * gaps.clamp_min(1e-12).log(), 0) / stiffness
                torch.autograd.backward(energy)
                return energy

            search.step(barrier)
            with torch.no_grad():
                free.copy_(F.normalize(free, dim=0))
    return free.detach()


def large_margin_proxies(classes: int, dimensions: int, *, seed: int = 0) -> Tensor:
    """Unit columns far apart, (d, C): `simplex_proxies` where there is one, else `spread_proxies`.

    Raises:
        ConfigError: for fewer than 2 classes, or more than 2 in 1 dimension.
    """
    if dimensions < 1 or classes < 2 or (dimensions == 1 and classes > 2):
        told = f"expected 2 or more classes in 2 or more dimensions, got {classes} classes in {dimensions}"
        raise ConfigError([told], "proxies")
    if classes <= dimensions + 1:
        return simplex_proxies(classes, dimensions)
    return spread_proxies(classes, dimensions, seed=seed)


def procrustes(proxies: Tensor, signs: Tensor) -> Tensor:
    """The orthogonal matrix G, (d, d), that brings G @ proxies nearest to the signs, both (d, C)."""
    u, _, vh = torch.linalg.svd(signs @ proxies.T)
    return u @ vh


def hash_consistent(proxies: Tensor, *, seed: int = 0, restarts: int = 8, rounds: int = 200) -> Tensor:
    """Signs of proxies, turned so that little is lost by them.

    Signs with the rotation fixed and the best rotation with the signs fixed, in turn, from several random rotations.
    Distances between proxies stay; the classifier they make is as good as before.

    Args:
        proxies: Unit columns, (d, C).
        seed: Of the starts.
        restarts: Starts, of which the best end counts.
        rounds: Turns of each at most.

    Returns:
        Codes (d, C) of -1 and 1, no two alike.

    Raises:
        ConfigError: if there are more classes than codes.
    """
    dimensions, classes = proxies.shape
    if classes > 2**dimensions:
        told = f"{classes} classes need {math.ceil(math.log2(classes))} bits or more for a code each, got {dimensions}"
        raise ConfigError([told], "proxies")
    length = math.sqrt(dimensions)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    best, least = proxies, math.inf
    for _ in range(restarts):
        draw = torch.randn(dimensions, dimensions, dtype=torch.float64, generator=generator, device="cpu")
        rotation = torch.linalg.qr(draw).Q
        loss = _loss_of_signs(rotation @ proxies * length)
        for _ in range(rounds):
            turned = procrustes(proxies, _signs(rotation @ proxies))
            found = _loss_of_signs(turned @ proxies * length)
            if found - loss >= _IMPROVES:
                break
            rotation, loss = turned, found
        if loss < least:
            best, least = rotation @ proxies, loss
    return _parted(best)


def level_similarity(types: Sequence[str], levels: Sequence[float]) -> Tensor:
    r"""Likeness of distortion classes, (C, C), in [0, 1], from the type and the level of each.

    :math:`\exp(-(l_i - l_j)^2 / 2)` for levels of one type but never less than 0.2, which it is across types.
    """
    at = torch.tensor(levels, dtype=torch.float64, device="cpu")
    same = torch.tensor([[a == b for b in types] for a in types], device="cpu")
    return torch.where(same, torch.exp(-(at[:, None] - at).square() / 2).clamp_min(_ACROSS), _ACROSS)


def assignment_cost(similarity: Tensor, proxies: Tensor, places: Tensor) -> float:
    """Sum over pairs of classes of their likeness times 1 minus the cosine of their proxies."""
    unit = F.normalize(proxies[:, places].double(), dim=0)
    return float((similarity * (1 - unit.T @ unit)).sum())


def greedy_assignment(similarity: Tensor, proxies: Tensor, *, seed: int = 0, restarts: int = 4) -> Tensor:
    """Which proxy each class gets so that like classes are near, by the best swap of two until none helps.

    A quadratic assignment, of which this finds a good solution, not surely the best.

    Args:
        similarity: Symmetric, (C, C).
        proxies: (d, C).
        seed: Of the starts after the first, which leaves classes where they are.
        restarts: Starts, of which the best end counts.

    Returns:
        Indices of proxies, (C,): class i gets column `places[i]`.
    """
    count = proxies.shape[1]
    generator = torch.Generator(device="cpu").manual_seed(seed)
    starts = [torch.arange(count)] + [torch.randperm(count, generator=generator) for _ in range(restarts - 1)]
    ends = [_swap(similarity, proxies, start) for start in starts]
    return min(ends, key=lambda places: assignment_cost(similarity, proxies, places))


def class_proxies(classes: int, bits: int, *, similarity: Tensor | None = None, seed: int = 0) -> Tensor:
    """Binary proxies of classes, (bits, C) of -1 and 1 in float32: far apart, but like classes nearer.

    Args:
        classes: C, from 2 to 2^bits.
        bits: d; 64 for the 125 classes of five levels of 25 distortions.
        similarity: Of classes, (C, C), such as `level_similarity`; None for no preference.
        seed: Of every draw.

    Raises:
        ConfigError: if there are too few bits or classes.
    """
    codes = hash_consistent(large_margin_proxies(classes, bits, seed=seed), seed=seed)
    if similarity is not None:
        codes = codes[:, greedy_assignment(similarity.to("cpu", torch.float64), codes, seed=seed)]
    return codes.float()


def _signs(v: Tensor) -> Tensor:
    return torch.where(v >= 0, 1.0, -1.0).to(v.dtype)


def _loss_of_signs(v: Tensor) -> float:
    return float((v - _signs(v)).square().sum(0).mean())


def _parted(turned: Tensor) -> Tensor:
    """Signs of the columns; a code that is taken already changes in those bits that were nearest to their threshold."""
    codes = _signs(turned)
    taken: set[tuple[float, ...]] = set()
    for number in range(codes.shape[1]):
        order = turned[:, number].abs().argsort().tolist()
        changes = (chosen for count in range(len(order) + 1) for chosen in combinations(order, count))
        for chosen in changes:
            code = codes[:, number].clone()
            code[list(chosen)] *= -1
            if tuple(code.tolist()) not in taken:
                break
        codes[:, number] = code
        taken.add(tuple(code.tolist()))
    return codes


def _swap(similarity: Tensor, proxies: Tensor, places: Tensor) -> Tensor:
    places = places.clone()
    unit = F.normalize(proxies.double(), dim=0)
    cosines = unit.T @ unit
    alike = similarity.diagonal()[:, None] + similarity.diagonal() - 2 * similarity
    while True:
        k = cosines[places][:, places]
        mixed = similarity @ k
        own = mixed.diagonal()
        # half the change of the cost by each swap: all classes but the two, by what each loses or gains to them
        others = mixed + mixed.T - own[:, None] - own
        themselves = alike * (1 - k)
        change = -others - themselves
        best = int(change.argmin())
        if float(change.flatten()[best]) >= _IMPROVES:
            return places
        one, two = divmod(best, len(places))
        places[[one, two]] = places[[two, one]]
