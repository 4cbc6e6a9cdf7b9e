"""Batches that hold several versions of several contents, the same in every process.

Comparing versions of one content teaches the order of damage; comparing contents teaches quality itself. A batch needs
both, see Thong et al., "Content-Diverse Comparisons improve IQA", BMVC 2022.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from perceptloss.errors import ConfigError, some

__all__ = ["ContentDiverseSampler"]


class ContentDiverseSampler:
    """Batches of `contents_per_batch` contents with `versions_per_content` different versions of each.

    An epoch shows every version at least once; where the numbers do not work out, some come again. The batches of an
    epoch depend on the seed and the epoch alone: every process composes the same ones and takes its share of the
    contents of each, so that no version is judged twice in a step. Contents are never split between processes.

    Args:
        content_ids: The content of each sample of the data set.
        contents_per_batch: In a batch over all processes; a multiple of `world`.
        versions_per_content: In a batch.
        seed: Of the order.
        rank: This process, 0 to `world` - 1.
        world: Processes.

    Raises:
        ConfigError: listing what there are too few of.
    """

    def __init__(
        self,
        content_ids: Sequence[Hashable],
        contents_per_batch: int,
        versions_per_content: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        members: dict[Hashable, list[int]] = {}
        for index, content in enumerate(content_ids):
            members.setdefault(content, []).append(index)
        self._members = {content: np.array(indices) for content, indices in members.items()}
        self._contents, self._versions = contents_per_batch, versions_per_content
        self._seed, self._rank, self._world = seed, rank, world
        if problems := self._problems():
            raise ConfigError(problems, "the content-diverse sampler")
        self._visits = np.array([-(-len(indices) // versions_per_content) for indices in members.values()])
        self.batches = max(-(-int(self._visits.sum()) // contents_per_batch), int(self._visits.max()))

    def epoch(self, number: int) -> list[list[int]]:
        """The `batches` of an epoch, this process's share of each: places of samples."""
        composed = self._compose(number)
        return [[i for versions in batch[self._rank :: self._world] for i in versions] for batch in composed]

    def _compose(self, epoch: int) -> list[list[list[int]]]:
        """The batches of an epoch over all processes: batch, content, version."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._visits))
        visits = self._with_extras(rng)
        versions = [_Deck(indices, rng) for indices in self._members.values()]
        batches: list[list[list[int]]] = [[] for _ in range(self.batches)]
        numbers = _Deck(np.arange(self.batches), rng)
        for content in order:
            for number in numbers.deal(visits[content]):
                batches[number].append(versions[content].deal(self._versions))
        for batch in batches:
            rng.shuffle(batch)
        return batches

    def _with_extras(self, rng: np.random.Generator) -> np.ndarray:
        """Visits of each content, raised here and there until they fill the batches."""
        visits = self._visits.copy()
        missing = self.batches * self._contents - int(visits.sum())
        while missing > 0:
            open_to_more = rng.permutation(np.flatnonzero(visits < self.batches))[:missing]
            visits[open_to_more] += 1
            missing -= len(open_to_more)
        return visits

    def _problems(self) -> list[str]:
        problems = []
        if len(self._members) < self._contents:
            problems.append(f"a batch needs {self._contents} contents, but there are {len(self._members)}")
        few = [str(content) for content, indices in self._members.items() if len(indices) < self._versions]
        if few:
            problems.append(
                f"{len(few)} contents have fewer than versions_per_content ({self._versions}) versions: {some(few)}; "
                "leave them out or ask for fewer"
            )
        return problems


class _Deck:
    """Cards dealt in hands without a pair, all of them once before any comes again."""

    def __init__(self, cards: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._order: list[int] = rng.permutation(cards).tolist()
        self._left = self._order

    def deal(self, count: int) -> list[int]:
        """A hand of so many different cards, at most as many as there are."""
        hand, self._left = self._left[:count], self._left[count:]
        if len(hand) < count:
            fresh = self._rng.permutation(np.array(self._order)).tolist()
            self._order = sorted(fresh, key=set(hand).__contains__)  # what is in the hand already goes to the end
            more = count - len(hand)
            hand, self._left = hand + self._order[:more], self._order[more:]
        return hand
