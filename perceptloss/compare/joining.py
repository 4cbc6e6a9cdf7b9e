"""Results put together: those of several systems, and those of shares of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perceptloss.compare.results import Results
from perceptloss.errors import ConfigError

__all__ = ["join", "merge"]


def join(results: Sequence[Results], baseline: str | None = None) -> Results:
    """Results of several systems, scored one after another, as one comparison.

    Args:
        results: Of the same images (keys and references) by the same critics (signatures).
        baseline: Name of a system; None for the first.

    Raises:
        ConfigError: listing what differs, and names that are there twice.
    """
    first, problems = results[0], []
    for other in results[1:]:
        name = ", ".join(other.systems)
        if [c.signature for c in other.critics] != [c.signature for c in first.critics]:
            problems.append(f"{name}: scored by {[c.signature for c in other.critics]}")
        if [(i.key, i.reference) for i in other.images] != [(i.key, i.reference) for i in first.images]:
            problems.append(f"{name}: other images or references")
    systems = [name for part in results for name in part.systems]
    problems += [f"{name}: there twice" for name in sorted({n for n in systems if systems.count(n) > 1})]
    if problems:
        raise ConfigError(problems, f"results to be compared with {', '.join(first.systems)}")
    columns = zip(*(part.images for part in results), strict=True)
    images = (replace(same[0], outputs=tuple(o for image in same for o in image.outputs)) for same in columns)
    return replace(
        first,
        systems=tuple(systems),
        images=tuple(images),
        values=tuple(system for part in results for system in part.values),
        baseline=baseline or systems[0],
        flags=tuple(flag for part in results for flag in part.flags),
    )


def merge(parts: Sequence[Results]) -> Results:
    """Results of shares of the images as those of all, sorted by key; the first part's provenance stays.

    Raises:
        ConfigError: if the parts differ in systems or signatures, or share an image.
    """
    first = parts[0]
    found = [(image, part, n) for part in parts for n, image in enumerate(part.images)]
    found.sort(key=lambda entry: entry[0].key)
    keys = [image.key for image, _, _ in found]
    kinds = {(part.systems, tuple(column.signature for column in part.critics)) for part in parts}
    problems = [f"{key!r}: there twice" for key in sorted({key for key in keys if keys.count(key) > 1})]
    problems += ["systems or signatures differ"] if len(kinds) > 1 else []
    if problems:
        raise ConfigError(problems, "shares of results")
    places = [(s, c) for s in range(len(first.systems)) for c in range(len(first.critics))]
    rows = {(s, c): tuple(part.values[s][c][n] for _, part, n in found) for s, c in places}
    return replace(
        first,
        images=tuple(image for image, _, _ in found),
        values=tuple(tuple(rows[s, c] for c in range(len(first.critics))) for s in range(len(first.systems))),
        flags=tuple(dict.fromkeys(flag for part in parts for flag in part.flags)),
    )
