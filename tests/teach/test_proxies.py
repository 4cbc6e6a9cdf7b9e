"""Anchors of classes against their known optima, and the embedding that learns them."""

from __future__ import annotations

import io
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from perceptloss.errors import ConfigError
from perceptloss.teach.objectives.anchors import (
    assignment_cost,
    class_proxies,
    greedy_assignment,
    hash_consistent,
    large_margin_proxies,
    level_similarity,
    procrustes,
    simplex_proxies,
    spread_proxies,
)
from perceptloss.teach.objectives.proxies import ProxyHead, batch_triplets, code_distance


def cosines(proxies):
    found = proxies.T @ proxies
    return found[~torch.eye(len(found), dtype=torch.bool)]


def random_similarity(count, seed):
    s = torch.rand(count, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (s + s.T) / 2


@pytest.mark.parametrize(("classes", "dimensions"), [(2, 1), (2, 5), (3, 2), (4, 3), (5, 8), (9, 8)])
@pytest.mark.parametrize("build", [simplex_proxies, spread_proxies, large_margin_proxies])
def test_a_simplex_where_there_is_one(build, classes, dimensions):
    proxies = build(classes, dimensions)
    assert proxies.shape == (dimensions, classes)
    assert proxies.norm(dim=0) == pytest.approx(1)
    assert cosines(proxies).numpy() == pytest.approx(-1 / (classes - 1), abs=1e-6)


# square, octahedron, icosahedron, and Rankin's bound for d + 1 < C <= 2d
@pytest.mark.parametrize(
    ("classes", "dimensions", "cosine"), [(4, 2, 0), (6, 3, 0), (12, 3, 1 / math.sqrt(5)), (10, 5, 0), (20, 12, 0)]
)
def test_the_descent_finds_known_optima(classes, dimensions, cosine):
    proxies = spread_proxies(classes, dimensions)
    assert proxies.norm(dim=0) == pytest.approx(1)
    assert float(cosines(proxies).max()) == pytest.approx(cosine, abs=1e-3)


def test_proxies_are_deterministic_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (class_proxies(7, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_procrustes_step_is_orthogonal_and_never_worse():
    for seed in range(5):
        proxies = spread_proxies(9, 6, seed=seed, rounds=5)
        signs = torch.where(proxies >= 0, 1.0, -1.0).double()
        rotation = procrustes(proxies, signs)
        assert torch.allclose(rotation.T @ rotation, torch.eye(6, dtype=torch.float64), atol=1e-10)
        best = (rotation @ proxies - signs).square().sum()
        assert best <= (proxies - signs).square().sum()
        # no small turn away from it is better
        skew = torch.randn(6, 6, dtype=torch.float64)
        turn = torch.linalg.matrix_exp(0.01 * (skew - skew.T))
        assert best < (turn @ rotation @ proxies - signs).square().sum()


@pytest.mark.parametrize(("classes", "bits"), [(2, 1), (4, 2), (8, 3), (16, 4), (12, 6), (30, 20)])
def test_hash_consistent_codes(classes, bits):
    proxies = large_margin_proxies(classes, bits)
    codes = hash_consistent(proxies)
    assert codes.abs().eq(1).all()
    assert len(codes.T.unique(dim=0)) == classes


def test_turning_makes_binary_what_can_be():
    corners = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=torch.float64) / math.sqrt(2)
    angle = torch.tensor(0.7)
    away = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]], dtype=torch.float64) @ corners
    codes = hash_consistent(away)
    apart = (2 - codes.T @ codes) / 2
    assert torch.allclose(apart, 1 - away.T @ away, atol=1e-6)  # nothing is lost
    assert len(codes.T.unique(dim=0)) == 4


def test_codes_that_coincide_are_parted_by_the_bits_nearest_to_their_threshold():
    # three directions close together: no rotation alone gives them different signs, whatever it is
    near = F.normalize(torch.tensor([[1.0, 1, 1, 1], [0, 1e-3, 0, 1e-3], [0, 0, 1e-3, 2e-3]]).double(), dim=0)
    codes = hash_consistent(near)
    assert len(codes.T.unique(dim=0)) == 4


def test_far_apart_proxies_give_far_apart_codes():
    codes = class_proxies(40, 32)
    distance = (32 - codes.T @ codes) / 2
    distance.fill_diagonal_(32)
    assert distance.min() >= 8
    assert distance.mean() == pytest.approx(16, abs=1)


def test_too_many_classes():
    with pytest.raises(ConfigError, match=r"9 classes need 4 bits or more for a code each, got 3"):
        class_proxies(9, 3)
    with pytest.raises(ConfigError, match="2 or more classes"):
        large_margin_proxies(1, 3)


@pytest.mark.parametrize("count", [3, 5, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_assignment_against_all_permutations(count, seed):
    similarity = random_similarity(count, seed)
    proxies = class_proxies(count, 5, seed=seed)
    costs = [assignment_cost(similarity, proxies, torch.tensor(p)) for p in itertools.permutations(range(count))]
    found = greedy_assignment(similarity, proxies, restarts=16)
    assert sorted(found.tolist()) == list(range(count))
    assert assignment_cost(similarity, proxies, found) == pytest.approx(min(costs), abs=1e-9)
    assert max(costs) > min(costs) + 1e-3


def test_no_swap_of_two_improves_an_assignment():
    similarity, proxies = random_similarity(14, 0), class_proxies(14, 8)
    found = greedy_assignment(similarity, proxies, restarts=1)
    cost = assignment_cost(similarity, proxies, found)
    assert cost < assignment_cost(similarity, proxies, torch.arange(14))
    for one, two in itertools.combinations(range(14), 2):
        other = found.clone()
        other[[one, two]] = found[[two, one]]
        assert assignment_cost(similarity, proxies, other) >= cost - 1e-9


def test_similarity_of_levels():
    found = level_similarity(["blur", "blur", "blur", "noise"], [1, 2, 5, 2])
    assert found[0].tolist() == pytest.approx([1, math.exp(-0.5), 0.2, 0.2])
    assert found[1, 3] == 0.2
    torch.testing.assert_close(found, found.T)


def test_neighbouring_levels_get_neighbouring_codes():
    types, levels = [kind for kind in "abcdef" for _ in range(5)], [1, 2, 3, 4, 5] * 6
    similarity = level_similarity(types, levels)
    codes = class_proxies(30, 16, similarity=similarity).double()
    distance = (16 - codes.T @ codes) / 2
    gap = (torch.tensor(levels)[:, None] - torch.tensor(levels)).abs()
    same = torch.tensor([[a == b for b in types] for a in types])
    beside, across = distance[same & (gap == 1)].mean(), distance[~same].mean()
    assert beside < across - 1
    assert sorted(codes.T.tolist()) == sorted(class_proxies(30, 16).double().T.tolist())


def test_distances_of_codes_count_bits_and_are_smooth_between():
    a, b = torch.rand(6, 20) > 0.5, torch.rand(6, 20) > 0.5
    v, w = 2 * a.float() - 1, 2 * b.float() - 1
    assert code_distance(v, w).tolist() == (a ^ b).sum(-1).tolist() == ((20 - (v * w).sum(1)) / 2).tolist()
    half = torch.rand(3, 20) - 0.5
    assert code_distance(half, half).tolist() == [0, 0, 0]


def test_triplets():
    v = torch.rand(4, 8, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    by_hand = [
        F.softplus(1 + code_distance(v[a], v[p]) - code_distance(v[a], v[n]))
        for a, p, n in itertools.permutations(range(4), 3)
        if labels[a] == labels[p] != labels[n]
    ]
    assert len(by_hand) == 8
    found = batch_triplets(v, labels, 1.0)
    assert found.item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
    for none in (torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 2, 3])):
        zero = batch_triplets(v, none)
        zero.backward()
        assert zero.item() == 0
    assert v.grad.eq(0).all()


def test_logits_and_their_gradient():
    proxies = class_proxies(5, 16)
    head = ProxyHead(10, proxies)
    f = torch.randn(3, 10, requires_grad=True)
    v = head(f)
    assert torch.allclose(v, torch.tanh(F.linear(f, head.embed.weight, head.embed.bias)))
    assert torch.allclose(head.logits(v), v @ proxies * (2 / math.sqrt(16)))
    labels = torch.tensor([0, 4, 2])
    loss = head.loss(f, labels)
    assert loss.item() == pytest.approx(F.cross_entropy(v @ proxies / 2, labels).item(), rel=1e-5)
    loss.backward()
    assert f.grad.abs().sum() > 0
    assert {name for name, p in head.named_parameters() if p.grad.abs().sum() > 0} == {"embed.weight", "embed.bias"}
    assert not head.proxies.requires_grad


def test_a_head_keeps_its_proxies_in_a_checkpoint():
    head, other = (ProxyHead(6, class_proxies(5, 8, seed=seed)) for seed in (0, 1))
    assert not torch.equal(head.proxies, other.proxies)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    f = torch.randn(4, 6)
    assert torch.equal(head.logits(head(f)), other.logits(other(f)))


def test_a_head_learns_classes_and_codes_near_their_proxies():
    head = ProxyHead(8, class_proxies(6, 16))
    centres = 2 * torch.randn(6, 8)
    labels = torch.arange(6).repeat(10)
    f = centres[labels] + 0.1 * torch.randn(60, 8)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        head.loss(f, labels, triplets=1.0, margin=2.0).backward()
        optimiser.step()
    v = head(f)
    assert (head.logits(v).argmax(1) == labels).float().mean() > 0.95
    wrong_bits = code_distance(v.sign(), head.proxies.T[labels]).mean()
    assert wrong_bits < 2
    distance = code_distance(v.sign()[:, None], v.sign())
    same = labels[:, None] == labels
    assert distance[same].mean() + 3 < distance[~same].mean()


def test_low_precision_features():
    head = ProxyHead(4, class_proxies(3, 8)).bfloat16()
    f = torch.randn(5, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = head.loss(f, torch.tensor([0, 1, 2, 0, 1]), triplets=1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(f.grad).all()
