"""Batches of a source in an order that is a pure function of the seed and the number of the draw."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from perceptloss.compare.pixels import turned
from perceptloss.critic import Critic
from perceptloss.teach.run.sources import Batch, Source, joined
from perceptloss.teach.sets.sampling import ContentDiverseSampler

__all__ = ["Batches", "Stream", "augment", "batch_problems", "cut_problems"]


class Stream:
    """The batches of one source: `stream[n]` is the n-th draw of this process.

    What all processes draw together does not depend on their number: an item's draws follow from the seed, n and
    the item, a place's cut and turn from the seed, n and the place.

    Args:
        source: Where they come from.
        seed: Of order, cuts and turns.
        rank: Of this process.
        world: Number of processes; their draws are disjoint.
    """

    def __init__(self, source: Source, seed: int, rank: int = 0, world: int = 1) -> None:
        self.source = source
        self.seed = seed * 1_000_003 + zlib.crc32(source.options.label.encode())
        options = source.options
        self._sampler = ContentDiverseSampler(
            source.content_ids.tolist(), options.contents * world, options.versions, self.seed, rank=rank, world=world
        )
        self._epoch, self._batches = -1, list[list[int]]()
        self._load(0)

    def _load(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._sampler.epoch(epoch)

    @property
    def per_epoch(self) -> int:
        """Draws in which every photograph is seen once."""
        return len(self._batches)

    def __getitem__(self, n: int) -> Batch:
        self._load(n // self.per_epoch)
        indices = self._batches[n % self.per_epoch]
        batch = joined([self.source.batch([i], dice(self.seed, n, i)) for i in indices])
        if batch.x.is_floating_point():  # readings
            return batch
        crops = self.source.options.crops
        side = crops[int(torch.randint(len(crops), (), generator=dice(self.seed, n)))] if crops else None
        return augment(batch, side, self.source.options.turns, self.seed, n)


def dice(*numbers: int) -> torch.Generator:
    """A generator that depends on all numbers."""
    value = 0
    for number in numbers:
        value = (value * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(value)


def augment(batch: Batch, side: int | None, turns: str, *seeds: int) -> Batch:
    """Cut and turn images of one reference in one way, and their references too, so that they stay comparable.

    Stereo pairs (six channels) are never transposed, and their views change places when mirrored.

    Args:
        batch: Whole images.
        side: Of the cuts, pixels; None leaves images whole.
        turns: `none`, `mirror` or `all`.
        seeds: Of the draws, together with the reference.
    """
    height, width = batch.x.shape[-2:]
    rows, columns = side or height, side or width
    can_transpose = rows == columns and batch.x.shape[1] != 6
    ways = {"none": 1, "mirror": 2, "all": 8 if can_transpose else 4}[turns]
    limits = (height - rows + 1, width - columns + 1, ways)

    def draw(reference: int) -> list[int]:
        generator = dice(*seeds, reference)
        return [int(torch.randint(limit, (), generator=generator)) for limit in limits]

    drawn = {reference: draw(reference) for reference in set(batch.reference.tolist())}
    places = [drawn[reference] for reference in batch.reference.tolist()]

    def cut(images: Tensor) -> Tensor:
        out = images.new_empty(len(images), images.shape[1], rows, columns)
        for i, (top, left, code) in enumerate(places):
            out[i] = turned(images[i, :, top : top + rows, left : left + columns], code)
        return out

    return replace(batch, x=cut(batch.x), y=None if batch.y is None else cut(batch.y))


def batch_problems(source: Source, world: int) -> list[str]:
    """Options of an entry that ask for more than there is to learn from."""
    options, versions = source.options, Counter(source.content_ids.tolist()).values()
    problems: list[str] = []
    if len(versions) < options.contents * world:
        each = f"{options.contents} on each of {world} processes" if world > 1 else str(options.contents)
        problems.append(
            f"{options.label}: contents: {each} in a batch, but {len(versions)} photographs are taught; "
            f"give it `contents: {max(1, len(versions) // world)}`"
        )
    if min(versions) < options.versions:
        problems.append(
            f"{options.label}: versions: {options.versions} of a photograph in a batch, but some have "
            f"{min(versions)}; give it `versions: {min(versions)}`"
        )
    return problems


def cut_problems(critic: Critic, sides: Sequence[int], where: str) -> list[str]:
    """Sides of square images that the critic does not accept, as problems."""
    card = critic.card
    return [
        f"{where}: {card.name!r} needs sides of at least {card.min_size} and a multiple of {card.multiple_of}, got {s}"
        for s in sides
        if s < card.min_size or s % card.multiple_of
    ]


class Batches:
    """The draws of all sources, the next one made in a thread while the device works.

    Args:
        streams: One per source.
        start: First draw; also what a resumed run needs to go on.
    """

    def __init__(self, streams: Sequence[Stream], start: int = 0) -> None:
        self.streams, self._next = streams, start
        self._pool = ThreadPoolExecutor(1)
        self._coming = self._ask()

    def _ask(self) -> Future[list[Batch]]:
        n = self._next
        self._next += 1
        return self._pool.submit(lambda: [stream[n] for stream in self.streams])

    def take(self) -> list[Batch]:
        """The next draw, one batch per source."""
        batches = self._coming.result()
        self._coming = self._ask()
        return batches

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
