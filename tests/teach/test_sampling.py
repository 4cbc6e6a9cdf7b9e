"""Batches of several versions of several contents: what they hold, over epochs, processes and restarts."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.leaks.hashing import hamming
from perceptloss.teach.sets.sampling import ContentDiverseSampler

EVEN = [f"c{i % 12}" for i in range(12 * 6)]
UNEVEN = [f"c{c}" for c, versions in enumerate((2, 3, 5, 8, 13, 4, 2)) for _ in range(versions)]


def contents(batch, ids):
    return [ids[index] for index in batch]


@pytest.mark.parametrize(("ids", "per_batch", "versions"), [(EVEN, 4, 3), (EVEN, 5, 4), (UNEVEN, 3, 2), (EVEN, 12, 6)])
@pytest.mark.parametrize("hashed", [False, True])
def test_every_batch_has_that_many_contents_with_that_many_different_versions(ids, per_batch, versions, hashed):
    hashes = torch.rand(len(ids), 64) > 0.5 if hashed else None
    sampler = ContentDiverseSampler(ids, per_batch, versions, seed=1, hashes=hashes)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    for batch in batches:
        assert len(set(batch)) == len(batch) == per_batch * versions
        assert set(Counter(contents(batch, ids)).values()) == {versions}
    assert {index for batch in batches for index in batch} == set(range(len(ids)))


def test_an_epoch_repeats_nothing_where_the_numbers_work_out():
    batches = list(ContentDiverseSampler(EVEN, 4, 3, seed=0))
    assert len(batches) == 6
    assert sorted(index for batch in batches for index in batch) == list(range(72))


def test_repeats_come_only_to_fill_up():
    sampler = ContentDiverseSampler(EVEN, 5, 3, seed=0)
    seen = Counter(index for batch in sampler for index in batch)
    assert len(sampler) == 5  # 24 visits of contents in batches of 5
    assert sum(seen.values()) == 75
    assert set(seen.values()) == {1, 2}


def test_order_depends_on_seed_and_epoch_alone():
    def epoch(seed, number):
        sampler = ContentDiverseSampler(EVEN, 4, 3, seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(3, 2) == epoch(3, 2)
    assert epoch(3, 2) != epoch(3, 1)
    assert epoch(3, 2) != epoch(4, 2)
    sampler = ContentDiverseSampler(EVEN, 4, 3, seed=3)
    assert list(sampler) == list(sampler) == epoch(3, 0)


def test_all_contents_meet_within_a_few_epochs():
    sampler = ContentDiverseSampler(EVEN, 4, 3, seed=0)
    met = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        met |= {pair for batch in sampler for pair in _pairs(batch, EVEN)}
    assert len(met) == 12 * 11 // 2


def _pairs(batch, ids):
    shown = sorted(set(contents(batch, ids)))
    return [(a, b) for a in shown for b in shown if a < b]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_take_disjoint_parts_of_the_same_batches(world):
    hashes = torch.rand(72, 64) > 0.5
    whole = ContentDiverseSampler(EVEN, 6, 2, seed=5, hashes=hashes)
    parts = [ContentDiverseSampler(EVEN, 6, 2, seed=5, hashes=hashes, rank=r, world=world) for r in range(world)]
    for epoch in range(2):
        for sampler in (whole, *parts):
            sampler.set_epoch(epoch)
        for batch, *shares in zip(whole, *parts, strict=True):
            assert sorted(index for share in shares for index in share) == sorted(batch)
            assert all(len(set(contents(share, EVEN))) == 6 // world for share in shares)


def test_alike_contents_are_put_in_different_batches():
    torch.manual_seed(0)
    originals = torch.rand(30, 64) > 0.5
    families = torch.cat([originals ^ (torch.rand(30, 64) < 0.05) for _ in range(4)])  # four alike of each

    def closest(hashes):
        sampler = ContentDiverseSampler(range(120), 12, 1, seed=0, hashes=hashes)
        distances = []
        for epoch in range(4):
            sampler.set_epoch(epoch)
            for batch in sampler:
                between = hamming(families[batch], families[batch])
                distances.append(int(between[~torch.eye(12, dtype=torch.bool)].min()))
        return distances

    plain, spread = closest(None), closest(families)
    assert min(spread) > 12  # no two of a family
    assert sum(d <= 12 for d in plain) > len(plain) // 2


def test_versions_vote_for_the_hash_of_their_content():
    true = torch.rand(12, 64) > 0.5
    ids = [i % 12 for i in range(12 * 5)]
    hashes = true.repeat(5, 1)
    hashes[:12] = ~hashes[:12]  # one version of each content in five is quite another picture
    noisy = ContentDiverseSampler(ids, 4, 1, hashes=hashes)
    clean = ContentDiverseSampler(ids, 4, 1, hashes=true.repeat(5, 1))
    assert list(noisy) == list(clean)


def test_a_restart_goes_on_where_it_stopped():
    sampler = ContentDiverseSampler(EVEN, 4, 2, seed=2)
    sampler.set_epoch(3)
    expected = list(sampler)
    running = iter(sampler)
    first = [next(running) for _ in range(4)]
    states = {4: sampler.state_dict(), 2: sampler.state_dict(done=2)}
    for done, state in states.items():
        again = ContentDiverseSampler(EVEN, 4, 2, seed=2)
        again.load_state_dict(state)
        again.set_epoch(3)
        assert first[:done] + list(again) == expected
        assert list(again) == expected
        again.set_epoch(4)
        assert len(list(again)) == len(expected)


def test_a_state_goes_to_more_processes_but_not_to_other_batches():
    state = ContentDiverseSampler(EVEN, 4, 2, seed=2).state_dict(done=3)
    halves = [ContentDiverseSampler(EVEN, 4, 2, seed=2, rank=r, world=2) for r in range(2)]
    for half in halves:
        half.load_state_dict(state)
    whole = list(ContentDiverseSampler(EVEN, 4, 2, seed=2))[3:]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in whole]
    with pytest.raises(InputError, match=r"contents_per_batch 4 != 6.*start the epoch anew"):
        ContentDiverseSampler(EVEN, 6, 2, seed=2).load_state_dict(state)


def test_every_wrong_argument_is_named():
    with pytest.raises(ConfigError) as caught:
        ContentDiverseSampler(["a", "a", "b"], 3, 2, rank=2, world=2, hashes=torch.zeros(2, 64))
    problems = "\n".join(caught.value.problems)
    for part in ("rank must be in 0..1", "multiple of world", "but there are 2", "versions: b;", "(3, bits)"):
        assert part in problems
    with pytest.raises(ConfigError, match="versions_per_content must be at least 1, got 0"):
        ContentDiverseSampler(["a"], 1, 0)


def test_it_feeds_a_data_loader():
    data = torch.utils.data.TensorDataset(torch.arange(72))
    sampler = ContentDiverseSampler(EVEN, 4, 3, seed=0)
    loaded = [batch.tolist() for (batch,) in torch.utils.data.DataLoader(data, batch_sampler=sampler)]
    assert loaded == list(sampler)
