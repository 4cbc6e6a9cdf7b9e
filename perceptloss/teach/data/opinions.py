"""Sets of people's opinions about pictures."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np

from perceptloss.teach.data.opinion import Opinion, OpinionsError

__all__ = ["OpinionSet"]


class OpinionSet(Sequence[Opinion]):
    """Opinions of one data set.

    Args:
        name: Of the data set.
        opinions: At least one.
        higher_better: Whether a higher mean opinion is a better picture.
        range: Lowest and highest value of the scale.

    Attributes:
        name: As given.
        higher_better: As given.
        range: As given.

    Raises:
        OpinionsError: listing scores that are not finite or out of range, opinions that come twice, and references
            that have several contents.
    """

    def __init__(self, name: str, opinions: Iterable[Opinion], higher_better: bool, range: tuple[float, float]) -> None:
        self.name, self.higher_better = name, higher_better
        self.range = (float(range[0]), float(range[1]))
        self._opinions = tuple(opinions)
        problems = self._problems()
        if problems:
            raise OpinionsError(problems, name)

    def __len__(self) -> int:
        return len(self._opinions)

    @overload
    def __getitem__(self, index: int) -> Opinion: ...

    @overload
    def __getitem__(self, index: slice) -> OpinionSet: ...

    def __getitem__(self, index: int | slice) -> Opinion | OpinionSet:
        return self._with(self._opinions[index]) if isinstance(index, slice) else self._opinions[index]

    def __iter__(self) -> Iterator[Opinion]:
        return iter(self._opinions)

    def __repr__(self) -> str:
        low, high = self.range
        best = "highest" if self.higher_better else "lowest"
        contents = len(set(self.contents))
        return f"OpinionSet({self.name!r}, {len(self)} opinions of {contents} contents, {low:g}..{high:g}, {best} best)"

    @property
    def contents(self) -> tuple[str, ...]:
        """The content of each opinion."""
        return tuple(opinion.content for opinion in self)

    @property
    def scores(self) -> np.ndarray:
        """Mean opinions in the scale of the set, (N,), float64."""
        return np.array([opinion.mos for opinion in self], dtype=np.float64)

    def higher(self) -> OpinionSet:
        """The same set with higher better: each score is mirrored within the range if it is not already so."""
        if self.higher_better:
            return self
        total = sum(self.range)
        flipped = [replace(opinion, mos=total - opinion.mos) for opinion in self]
        return OpinionSet(self.name, flipped, True, self.range)

    def split(self, fractions: Mapping[str, float], seed: int = 0) -> dict[str, OpinionSet]:
        """Split by content: all opinions of a content come to one part.

        The split depends on the seed and the names of the contents, not on the order of the opinions.

        Args:
            fractions: Name of a part to its share of the opinions; positive, with sum 1. Kept as near as whole
                contents allow; no part stays empty.
            seed: Of the order in which contents are handed out.

        Raises:
            OpinionsError: if the fractions are wrong, or there are fewer contents than parts.
        """
        owner = self._owners(fractions, seed)
        return {part: self._with(o for o in self if owner[o.content] == part) for part in fractions}

    def check(self) -> None:
        """Look for every file, and open none.

        Raises:
            OpinionsError: listing all that are missing or empty.
        """
        problems = []
        for path in self.files():
            if not path.is_file():
                problems.append(f"{path} is missing")
            elif path.stat().st_size == 0:
                problems.append(f"{path} is empty")
        if problems:
            raise OpinionsError(problems, self.name)

    def files(self) -> tuple[Path, ...]:
        """Every file of the set once."""
        return tuple(dict.fromkeys(path for opinion in self for path in opinion.files))

    def _with(self, opinions: Iterable[Opinion]) -> OpinionSet:
        return OpinionSet(self.name, opinions, self.higher_better, self.range)

    def _owners(self, fractions: Mapping[str, float], seed: int) -> dict[str, str]:
        sizes = Counter(self.contents)
        problems = [
            f"{part}: a fraction must be positive, got {share}" for part, share in fractions.items() if share <= 0
        ]
        if not fractions or abs(sum(fractions.values()) - 1) > 1e-6:
            problems.append(f"the fractions must have the sum 1, got {dict(fractions)}")
        if len(sizes) < len(fractions):
            problems.append(f"{len(sizes)} contents cannot be split into {len(fractions)} parts")
        if problems:
            raise OpinionsError(problems, f"the split of {self.name}")
        lacking = {part: share * len(self) for part, share in fractions.items()}
        owner: dict[str, str] = {}
        filled: set[str] = set()
        order = sorted(sizes, key=lambda content: hashlib.sha256(f"{seed}:{content}".encode()).digest())
        for place, content in enumerate(order):
            empty = [part for part in fractions if part not in filled]
            parts = empty if len(order) - place <= len(empty) else list(fractions)
            owner[content] = max(parts, key=lacking.__getitem__)
            lacking[owner[content]] -= sizes[content]
            filled.add(owner[content])
        return owner

    def _problems(self) -> list[str]:
        low, high = self.range
        problems = [] if self._opinions else ["there are no opinions"]
        if not low <= high:
            problems.append(f"the range must be lowest, highest; got {self.range}")
        seen: set[tuple[Path | None, ...]] = set()
        shows: dict[Path, str] = {}
        for o in self._opinions:
            if not low <= o.mos <= high:
                problems.append(f"{o.image}: mos is {o.mos}, expected a number in {low:g}..{high:g}")
            if o.std is not None and not 0 <= o.std < math.inf:
                problems.append(f"{o.image}: std is {o.std}, expected 0 or more")
            key = (o.image, o.image_right, o.reference, o.reference_right)
            if key in seen:
                problems.append(f"{o.image} comes more than once")
            seen.add(key)
            for path in o.files:
                if shows.setdefault(path, o.content) != o.content:
                    problems.append(f"{path} is of content {shows[path]!r} and of {o.content!r}")
        return list(dict.fromkeys(problems))
