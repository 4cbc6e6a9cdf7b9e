"""Batches that hold several versions of several contents, the same in every process.

Comparing versions of one content teaches the order of damage; comparing contents teaches quality itself. A batch needs
both, see Thong et al., "Content-Diverse Comparisons improve IQA", BMVC 2022.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from perceptloss.errors import ConfigError, InputError, some

__all__ = ["ContentDiverseSampler"]

_JITTER: Final = 8.0  # bits of noise on a distance, so that epochs differ; unrelated pictures differ in about 30
_BLOCK: Final = 2048  # contents whose mutual distances are held at once


class ContentDiverseSampler(Sampler[list[int]]):
    """Batches of `contents_per_batch` contents with `versions_per_content` different versions of each.

    An epoch shows every version at least once; where the numbers do not work out, some come again. The batches of an
    epoch depend on the seed and the epoch alone: every process composes the same ones and takes its share of the
    contents of each, so that no version is judged twice in a step. Contents are never split between processes.

    With hashes (`perceptloss.teach.leaks.hashing`), alike contents are put in different batches: contents are laid on a
    tour from neighbour to neighbour and dealt out like cards.

    Use it as `batch_sampler` of a `DataLoader`, call `set_epoch` before each epoch, and let no framework share its
    batches out once more. The first iteration after `load_state_dict` goes on where the state says.

    Args:
        content_ids: The content of each sample of the data set.
        contents_per_batch: In a batch over all processes; a multiple of `world`.
        versions_per_content: In a batch.
        seed: Of the order.
        hashes: Content hash of each sample, (samples, 64), bool; a content has the majority of each bit.
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
        hashes: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        members: dict[Hashable, list[int]] = {}
        for index, content in enumerate(content_ids):
            members.setdefault(content, []).append(index)
        self._members = {content: np.array(indices) for content, indices in members.items()}
        self._contents, self._versions = contents_per_batch, versions_per_content
        self._seed, self._rank, self._world = seed, rank, world
        problems = self._problems(hashes, len(content_ids))
        if problems:
            raise ConfigError(problems, "the content-diverse sampler")
        self._codes = None if hashes is None else self._content_codes(hashes)
        self._visits = np.array([-(-len(indices) // versions_per_content) for indices in members.values()])
        self._batches = max(-(-int(self._visits.sum()) // contents_per_batch), int(self._visits.max()))
        self._epoch, self._done, self._resume = 0, 0, 0

    def __len__(self) -> int:
        """Batches in an epoch, the same in every process."""
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        start, self._resume = self._resume, 0
        for done, batch in enumerate(self.compose(self._epoch)[start:], start + 1):
            self._done = done
            yield [index for versions in batch[self._rank :: self._world] for index in versions]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another one than the present starts at its first batch."""
        if epoch != self._epoch:
            self._epoch, self._done, self._resume = epoch, 0, 0

    def state_dict(self, done: int | None = None) -> dict[str, Any]:
        """What is needed to go on.

        Args:
            done: Batches of this epoch that were trained on. Without it, those handed out, which are more if a
                `DataLoader` has workers that fetch ahead.
        """
        return {**self._identity(), "epoch": self._epoch, "done": self._done if done is None else done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; `world` may differ.

        Raises:
            InputError: if the state is of a sampler that composes other batches.
        """
        wrong = [f"{key} {state.get(key)!r} != {value!r}" for key, value in self._identity().items()
                 if state.get(key) != value]  # fmt: skip
        if wrong:
            raise InputError(f"the state is of another sampler ({', '.join(wrong)}); start the epoch anew instead")
        self._epoch, self._done = int(state["epoch"]), int(state["done"])
        self._resume = self._done

    def compose(self, epoch: int) -> list[list[list[int]]]:
        """The batches of an epoch over all processes: batch, content, version."""
        rng = np.random.default_rng([self._seed, epoch])
        tour = rng.permutation(len(self._visits)) if self._codes is None else self._tour(rng)
        visits = self._with_extras(rng)
        versions = [_Deck(indices, rng) for indices in self._members.values()]
        batches: list[list[list[int]]] = [[] for _ in range(self._batches)]
        numbers = _Deck(np.arange(self._batches), rng, parts=1 if self._codes is None else 2)
        for content in tour:
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

    def _content_codes(self, hashes: Tensor) -> np.ndarray:
        bits = hashes.cpu().numpy()
        return np.stack([bits[indices].mean(0) >= 0.5 for indices in self._members.values()]) * 2.0 - 1

    def _tour(self, rng: np.random.Generator) -> np.ndarray:
        """Contents, each followed by one that is alike; in blocks of contents that share their first random bits."""
        assert self._codes is not None
        bits = rng.permutation(self._codes.shape[1])
        blocks = np.array_split(np.lexsort(self._codes[:, bits].T), -(-len(self._codes) // _BLOCK))
        return np.concatenate([block[_neighbours(self._codes[block], rng)] for block in blocks])

    def _identity(self) -> dict[str, Any]:
        return {
            "samples": int(sum(map(len, self._members.values()))),
            "contents": len(self._members),
            "contents_per_batch": self._contents,
            "versions_per_content": self._versions,
            "seed": self._seed,
            "hashes": self._codes is not None,
        }

    def _problems(self, hashes: Tensor | None, samples: int) -> list[str]:
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
        if hashes is not None and (hashes.ndim != 2 or len(hashes) != samples):
            problems.append(f"hashes must be of shape ({samples}, bits), got {tuple(hashes.shape)}")
        return problems


class _Deck:
    """Cards dealt in hands without a pair, all of them once before any comes again.

    A new pass shuffles the parts of the pass before by themselves: with two, a card comes again after half a deck or
    later.
    """

    def __init__(self, cards: np.ndarray, rng: np.random.Generator, parts: int = 1) -> None:
        self._rng, self._parts = rng, parts
        self._order: list[int] = rng.permutation(cards).tolist()
        self._left = self._order

    def deal(self, count: int) -> list[int]:
        """A hand of so many different cards, at most as many as there are."""
        hand, self._left = self._left[:count], self._left[count:]
        if len(hand) < count:
            parts = np.array_split(np.array(self._order), self._parts)
            fresh = np.concatenate([self._rng.permutation(part) for part in parts]).tolist()
            self._order = sorted(fresh, key=set(hand).__contains__)  # what is in the hand already goes to the end
            more = count - len(hand)
            hand, self._left = hand + self._order[:more], self._order[more:]
        return hand


def _neighbours(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A walk over codes of -1 and 1, (N, bits), always on to about the nearest that is left: (N,)."""
    count, bits = codes.shape
    distances = (bits - codes @ codes.T) / 2
    left = np.ones(count, dtype=bool)
    walk = [int(rng.integers(count))]
    left[walk[0]] = False
    for _ in range(count - 1):
        ahead = np.flatnonzero(left)
        nearest = ahead[np.argmin(distances[walk[-1], ahead] + rng.uniform(0, _JITTER, len(ahead)))]
        walk.append(int(nearest))
        left[nearest] = False
    return np.array(walk)
