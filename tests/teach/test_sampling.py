"""Batches of several versions of several contents: what they hold, over epochs and processes."""

from __future__ import annotations

from collections import Counter

import pytest

from perceptloss.errors import ConfigError
from perceptloss.teach.sets.sampling import ContentDiverseSampler

EVEN = [f"c{i % 12}" for i in range(12 * 6)]
UNEVEN = [f"c{c}" for c, versions in enumerate((2, 3, 5, 8, 13, 4, 2)) for _ in range(versions)]


def contents(batch, ids):
    return [ids[index] for index in batch]


@pytest.mark.parametrize(("ids", "per_batch", "versions"), [(EVEN, 4, 3), (EVEN, 5, 4), (UNEVEN, 3, 2), (EVEN, 12, 6)])
def test_every_batch_has_that_many_contents_with_that_many_different_versions(ids, per_batch, versions):
    sampler = ContentDiverseSampler(ids, per_batch, versions, seed=1)
    batches = sampler.epoch(0)
    assert len(batches) == sampler.batches
    for batch in batches:
        assert len(set(batch)) == len(batch) == per_batch * versions
        assert set(Counter(contents(batch, ids)).values()) == {versions}
    assert {index for batch in batches for index in batch} == set(range(len(ids)))


def test_an_epoch_repeats_nothing_where_the_numbers_work_out():
    batches = ContentDiverseSampler(EVEN, 4, 3, seed=0).epoch(0)
    assert len(batches) == 6
    assert sorted(index for batch in batches for index in batch) == list(range(72))


def test_repeats_come_only_to_fill_up():
    sampler = ContentDiverseSampler(EVEN, 5, 3, seed=0)
    seen = Counter(index for batch in sampler.epoch(0) for index in batch)
    assert sampler.batches == 5  # 24 visits of contents in batches of 5
    assert sum(seen.values()) == 75
    assert set(seen.values()) == {1, 2}


def test_order_depends_on_seed_and_epoch_alone():
    def epoch(seed, number):
        return ContentDiverseSampler(EVEN, 4, 3, seed=seed).epoch(number)

    assert epoch(3, 2) == epoch(3, 2)
    assert epoch(3, 2) != epoch(3, 1)
    assert epoch(3, 2) != epoch(4, 2)
    sampler = ContentDiverseSampler(EVEN, 4, 3, seed=3)
    assert sampler.epoch(0) == sampler.epoch(0) == epoch(3, 0)


def test_all_contents_meet_within_a_few_epochs():
    sampler = ContentDiverseSampler(EVEN, 4, 3, seed=0)
    met = set()
    for epoch in range(12):
        met |= {pair for batch in sampler.epoch(epoch) for pair in _pairs(batch, EVEN)}
    assert len(met) == 12 * 11 // 2


def _pairs(batch, ids):
    shown = sorted(set(contents(batch, ids)))
    return [(a, b) for a in shown for b in shown if a < b]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_take_disjoint_parts_of_the_same_batches(world):
    whole = ContentDiverseSampler(EVEN, 6, 2, seed=5)
    parts = [ContentDiverseSampler(EVEN, 6, 2, seed=5, rank=r, world=world) for r in range(world)]
    for epoch in range(2):
        for batch, *shares in zip(*(sampler.epoch(epoch) for sampler in (whole, *parts)), strict=True):
            assert sorted(index for share in shares for index in share) == sorted(batch)
            assert all(len(set(contents(share, EVEN))) == 6 // world for share in shares)


def test_too_few_contents_and_versions_are_named():
    with pytest.raises(ConfigError) as caught:
        ContentDiverseSampler(["a", "a", "b"], 3, 2)
    problems = "\n".join(caught.value.problems)
    for part in ("but there are 2", "versions: b;"):
        assert part in problems
