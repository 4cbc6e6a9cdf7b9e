"""Batches that hold several versions of several contents, the same in every process.

Comparing versions of one content teaches the order of damage; comparing contents teaches quality itself. A batch needs
both, see Thong et al., "Content-Diverse Comparisons improve IQA", BMVC 2022.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from perceptloss.errors import ConfigError, some

__all__ = ["ContentDiverseSampler"]


class ContentDiverseSampler(Sampler[list[int]]):
    """Batches of `contents_per_batch` contents with `versions_per_content` different versions of each.

    An epoch shows every version at least once; where the numbers do not work out, some come again. The batches of an
    epoch depend on the seed and the epoch alone: every process composes the same ones and takes its share of the
    contents of each, so that no version is judged twice in a step. Contents are never split between processes.

    Use it as `batch_sampler` of a `DataLoader`, call `set_epoch` before each epoch, and let no framework share its
    batches out once more.

    Args:
        content_ids: The content of each sample of the data set.
        contents_per_batch: In a batch over all processes; a multiple of `world`.
        versions_per_content: In a batch.
        seed: Of the order.
        rank: This process, 0 to `world` - 1.
        world: Processes.

    Raises:
        ConfigError: listing every argument that does not fit.
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
        problems = self._problems()
        if problems:
            raise ConfigError(problems, "the content-diverse sampler")
        self._visits = np.array([-(-len(indices) // versions_per_content) for indices in members.values()])
        self._batches = max(-(-int(self._visits.sum()) // contents_per_batch), int(self._visits.max()))
        self._epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch, the same in every process."""
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.compose(self._epoch):
            yield [index for versions in batch[self._rank :: self._world] for index in versions]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._epoch = epoch

    def compose(self, epoch: int) -> list[list[list[int]]]:
        """The batches of an epoch over all processes: batch, content, version."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._visits))
        visits = self._with_extras(rng)
        versions = [_Deck(indices, rng) for indices in self._members.values()]
        batches: list[list[list[int]]] = [[] for _ in range(self._batches)]
        numbers = _Deck(np.arange(self._batches), rng)
        for content in order:
            for number in numbers.deal(visits[content]):
                batches[number].append(versions[content].deal(self._versions))
        for batch in batches:
            rng.shuffle(batch)
        return batches

    def _with_extras(self, rng: np.random.Generator) -> np.ndarray:
        """Visits of each content, raised here and there until they fill the batches."""
        visits = self._visits.copy()
        missing = self._batches * self._contents - int(visits.sum())
        while missing > 0:
            open_to_more = rng.permutation(np.flatnonzero(visits < self._batches))[:missing]
            visits[open_to_more] += 1
            missing -= len(open_to_more)
        return visits

    def _problems(self) -> list[str]:
        problems = []
        counts = [("contents_per_batch", self._contents), ("versions_per_content", self._versions),
                  ("world", self._world)]  # fmt: skip
        problems += [f"{name} must be at least 1, got {count}" for name, count in counts if count < 1]
        if problems:
            return problems
        if not 0 <= self._rank < self._world:
            problems.append(f"rank must be in 0..{self._world - 1}, got {self._rank}")
        if self._contents % self._world:
            problems.append(f"contents_per_batch ({self._contents}) must be a multiple of world ({self._world})")
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
