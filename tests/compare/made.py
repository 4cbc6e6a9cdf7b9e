"""Results made of numbers, for what is computed and drawn of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from judges import CARDS

from perceptloss.compare.analysis import Analysis
from perceptloss.compare.columns import Column
from perceptloss.compare.results import ImageRecord, Results

FIDELITY = Column("psnr", "psnr|x:1", {**CARDS["toy-light"].to_dict(), "name": "psnr", "kind": "fr"})
DISTANCE = Column("toy-error", "toy-error|x:1", CARDS["toy-error"].to_dict())
LIGHT = Column("toy-light", "toy-light|x:1", CARDS["toy-light"].to_dict())


def made(
    values: object,
    columns: Sequence[Column] = (DISTANCE, LIGHT),
    systems: Sequence[str] = ("base", "other"),
    **facts: object,
) -> Results:
    """Results of (systems, critics, images) numbers; the first system is the baseline if there are two or more."""
    array = np.asarray(values, dtype=np.float64)
    names = tuple(systems)[: array.shape[0]]
    rows = tuple(tuple(tuple(None if v != v else v for v in row) for row in system) for system in array.tolist())
    images = tuple(ImageRecord(f"image {n:03d}", (None,) * len(names)) for n in range(array.shape[2]))
    given = {"baseline": names[0] if len(names) > 1 else None, "analysis": Analysis(rounds=500), **facts}
    return Results(names, tuple(columns)[: array.shape[1]], images, rows, **given)


def random_results(images: int = 24, systems: int = 3, critics: int = 2, seed: int = 0, **facts: object) -> Results:
    """Each system better than the one before, by all critics."""
    generator = np.random.default_rng(seed)
    columns = (DISTANCE, LIGHT, FIDELITY)[:critics]
    signs = np.array([1 if column.is_higher_better else -1 for column in columns])
    content = generator.normal(0, 1, (1, critics, images))
    own = generator.normal(0, 0.2, (systems, critics, images))
    gains = 0.3 * np.arange(systems)[:, None, None] * signs[:, None]
    names = ("base", "second", "third", "fourth")[:systems]
    return made(content + own + gains, columns, names, **facts)
