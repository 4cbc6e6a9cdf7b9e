"""What every registered critic must keep: score, direction, gradient, frozenness, copies, and a card that is true.

All tests run for every class of the registry, now and later, the marked ones for every name; see `conftest.py` for
the fixture `critic`.
"""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from images import LADDERS, ladder, pair, photographs
from rounding import assert_same
from small import PACKAGES, SMALL, is_small
from torch import Tensor, nn

from perceptloss import Critic, CriticLoss, create_critic, get_card
from perceptloss.card import Card
from perceptloss.critic import Entry
from perceptloss.errors import InputError
from perceptloss.networks.tiles import smallest_tile
from perceptloss.networks.trunks import TrunkCritic


def side(card: Card, least: int = 32) -> int:
    """A legal side of at least `least` pixels."""
    return -(-max(card.min_size, least) // card.multiple_of) * card.multiple_of


def judge(critic: Critic, x: Tensor, y: Tensor) -> Tensor:
    return critic(x, y if critic.card.needs_reference else None)


def images(critic: Critic, n: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    size = side(critic.card)
    return pair(n, size, size + critic.card.multiple_of, channels=critic.card.channels, seed=seed, dtype=dtype)


def better(card: Card, first: Tensor, second: Tensor) -> Tensor:
    return first > second if card.better == "higher" else first < second


def equal(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


def behind_the_last_tap(critic: Critic) -> list[nn.Parameter]:
    """Parameters of a trunk that a checkpoint brings but the critic never runs."""
    if not isinstance(critic, TrunkCritic):
        return []
    return critic.trunk.unread(critic.taps)


class TestCard:
    @pytest.mark.every_name
    def test_is_complete(self, critic):
        card = critic.card
        published = get_card(card.name)
        assert card == (replace(published, min_size=card.min_size) if is_small(critic) else published)
        for fact in (card.summary, card.paper, card.source, card.licence_code):
            assert len(fact.strip()) > 2, f"{card.name}: a card names summary, paper, source and licence"
        assert any(year in card.paper for year in map(str, range(1990, 2031))), "the paper has a year"
        assert card.domains
        assert bool(card.weights) == (card.licence_weights is not None), "weights come with a licence"
        low, high = card.bounds
        assert low < high
        assert card.identity is None or low <= card.identity <= high
        assert card.min_size >= 1
        assert card.min_size % card.multiple_of == 0, "the smallest side must itself be legal"
        json.dumps(card.to_dict(), allow_nan=False)
        assert critic.signature.startswith(f"{card.name}|weights:")

    @pytest.mark.every_name
    def test_smallest_size_is_true(self, critic64):
        card = critic64.card
        x, y = pair(2, card.min_size, card.min_size + 2 * card.multiple_of, channels=card.channels, dtype=torch.float64)
        score = judge(critic64, x.requires_grad_(), y)
        (gradient,) = torch.autograd.grad(score.sum(), x)
        assert torch.isfinite(score).all()
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
        if card.min_size > 1:
            small = card.min_size - 1
            with pytest.raises(InputError, match=rf"(?s)at least {card.min_size}x{card.min_size}.*{small}x"):
                judge(critic64, x[..., :small, :].detach(), y[..., :small, :])

    @pytest.mark.every_name
    def test_multiple_is_true(self, critic):
        card = critic.card
        size = side(card)
        if card.multiple_of == 1:
            for extra in (1, 2, 3):
                x, y = pair(1, size, size + extra, channels=card.channels)
                assert torch.isfinite(judge(critic, x, y)).all()
        else:
            x, y = pair(1, size, size + 1, channels=card.channels)
            with pytest.raises(InputError, match=rf"(?s)multiples of {card.multiple_of}.*{size}x{size + 1}"):
                judge(critic, x, y)

    @pytest.mark.every_name
    def test_tiling_claim_is_true(self, critic64):
        card = critic64.card
        if card.tiling != "exact":
            pytest.skip(f"the card claims no exactness (tiling {card.tiling!r})")
        tile, tall = smallest_tile(card) + card.stride, max(card.min_size, 35)
        x, y = pair(1, tall, tile + card.stride + 3, channels=card.channels, dtype=torch.float64)
        for image, reference in ((x, y), (x.mT, y.mT))[: 2 if tile < 300 else 1]:
            loss = CriticLoss([{"critic": critic64, "weight": 1.0}], tile=tile)
            plain = CriticLoss([{"critic": critic64, "weight": 1.0}])
            cut, uncut = (f.value_and_gradient(image.detach(), reference) for f in (loss, plain))
            equal(cut[0], uncut[0])
            equal(cut[1], uncut[1])


class TestScore:
    def test_one_score_per_image_whatever_the_batch(self, critic64):
        x, y = images(critic64, 3, torch.float64)
        score = judge(critic64, x, y)
        assert score.shape == (3,)
        assert score.dtype == torch.float64
        order = torch.tensor([2, 0, 1])
        equal(judge(critic64, x[order], y[order]), score[order])
        if not critic64.card.couples_batch:
            equal(torch.cat([judge(critic64, x[i : i + 1], y[i : i + 1]) for i in range(3)]), score)

    @pytest.mark.every_name
    def test_repeats_to_the_bit_and_to_rounding_with_a_graph(self, critic):
        """The same call gives the same bits; a graph may choose other kernels."""
        x, y = images(critic)
        first = judge(critic, x, y)
        assert torch.equal(judge(critic, x, y), first)
        assert_same(judge(critic, x.clone().requires_grad_(), y).detach(), first)
        with torch.no_grad():
            assert_same(judge(critic, x, y), first)

    @pytest.mark.every_name
    def test_no_image_beats_the_reference(self, critic64):
        card = critic64.card
        if not card.needs_reference:
            pytest.skip("no reference to be equal to")
        if card.identity is None and critic64.weights_id == "random":
            pytest.skip("a regression head that has not learned prefers anything")
        x, y = images(critic64, 4, torch.float64)
        itself = judge(critic64, y, y)
        if card.identity is not None:
            equal(itself, torch.full_like(itself, card.identity), 1e-6)
        assert better(card, itself, judge(critic64, x, y)).all()

    @pytest.mark.every_name
    @pytest.mark.parametrize("kind", LADDERS)
    def test_stronger_degradation_scores_worse(self, critic, kind):
        card = critic.card
        if critic.weights_id == "random":
            pytest.skip("random weights: the direction means nothing (default weights are not on this machine)")
        if "natural" not in card.domains:
            pytest.skip(f"made for {', '.join(sorted(card.domains))} images, not for this ladder")
        least = 96 if card.needs_reference else 2 * card.min_size  # statistics of one image need more of it
        y = photographs(side(card, least)).repeat(1, card.channels // 3, 1, 1)
        scores = [judge(critic, x, y) for x in ladder(kind, y)]
        for milder, stronger in pairwise(scores):
            assert better(card, milder, stronger).all(), [s.tolist() for s in scores]


class TestGradient:
    @pytest.mark.every_name
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_images_that_are_not_finite_are_refused(self, critic, value):
        """Scores, gradients and maps: one bad pixel is enough, in the image or in its reference."""
        x, y = images(critic)
        bad = x.clone()
        bad[1, 0, 3, 5] = value
        pairs = [(bad, y), (bad.clone().requires_grad_(), y)] + [(x, bad)] * critic.card.needs_reference
        for first, second in pairs:
            with pytest.raises(InputError, match=r"needs finite [xy], got 1 of \d+ values .*images 1"):
                judge(critic, first, second)

    def test_changed_places_are_refused(self, critic):
        x, y = images(critic)
        with pytest.raises(InputError, match="the judged image first, the reference second"):
            critic(x, y.clone().requires_grad_())
        with torch.no_grad():
            critic(x, y.clone().requires_grad_())
        both = critic(x.clone().requires_grad_(), y.clone().requires_grad_())
        equal(both, judge(critic, x, y), 1e-4)

    def test_an_empty_batch_has_no_scores(self, critic):
        x, y = (image[:0].requires_grad_() for image in images(critic))
        score = judge(critic, x, y.detach())
        assert score.shape == (0,)
        score.sum().backward()
        assert x.grad.shape == x.shape

    def test_reaches_the_image_and_nothing_else(self, critic):
        x, y = images(critic)
        x.requires_grad_()
        y.requires_grad_()
        judge(critic, x, y).sum().backward()
        assert torch.isfinite(x.grad).all()
        assert (x.grad.flatten(1).norm(dim=1) > 0).all(), "an image gets no gradient"
        assert y.grad is None
        assert all(p.grad is None and not p.requires_grad for p in critic.parameters())

    def test_is_the_slope_of_the_score(self, critic64):
        if critic64.card.name in PACKAGES:
            pytest.skip("computes in float32, where so small a step changes nothing")
        critic64 = copy.deepcopy(critic64)
        critic64.hold_weights = False  # a held pooling weight is a constant of the gradient on purpose
        x, y = images(critic64, 1, torch.float64)
        x = (0.9 * x + 0.05).requires_grad_()  # away from the ends of the range
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
        (gradient,) = torch.autograd.grad(judge(critic64, x, y).sum(), x)
        # small enough to cross next to no kink of a ReLU or a maximum; the two views of a pair are nearly equal
        step = 1e-9 if critic64.card.channels == 6 else 1e-8
        with torch.no_grad():
            ahead, behind = (judge(critic64, x + sign * step * along, y) for sign in (1, -1))
        slope = ((ahead - behind) / (2 * step)).item()
        assert slope == pytest.approx((gradient * along).sum().item(), rel=1e-4, abs=1e-4 * gradient.norm().item())

    def test_float32_points_where_float64_does(self, critic, critic64):
        card = critic.card
        if card.weights or card.name == "uiqm":
            pytest.skip(
                "a network rounds evenly; extremes of blocks (uiqm) are those of other pixels where they are near"
            )
        small, dark = photographs(side(card, 96)), photographs(side(card, 256), ("rocket",))
        dark = (255 * dark).round() / 255  # of 8 bits, and flat enough that phases nearly tie
        grain = 0.02 * torch.randn(dark.shape, generator=torch.Generator().manual_seed(1))
        pairs = {"blur": (ladder("blur", small)[1], small), "noise": (ladder("noise", small)[1], small)}
        for kind, (x, y) in (pairs | {"noise on a dark photograph": (dark + grain, dark)}).items():
            x, y = ((255 * i.clamp(0, 1)).round().repeat(1, card.channels // 3, 1, 1) / 255 for i in (x, y))
            slopes = []
            for ours, dtype in ((critic, torch.float32), (critic64, torch.float64)):
                leaf = x.to(dtype).requires_grad_()
                slopes.append(torch.autograd.grad(judge(ours, leaf, y.to(dtype)).sum(), leaf)[0].double().flatten(1))
            assert (torch.cosine_similarity(*slopes) >= 0.999).all(), kind
            lengths = slopes[0].norm(dim=1) / slopes[1].norm(dim=1)
            assert ((lengths - 1).abs() < 0.01).all(), kind

    def test_does_not_depend_on_memory_layout(self, critic64):
        x, y = images(critic64, 2, torch.float64)
        height, width = x.shape[2:]
        plain = x.clone().requires_grad_()
        last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        strided = x.new_zeros(2, x.shape[1], 2 * height, width + 3)[:, :, ::2, 3:].copy_(x).requires_grad_()
        scores = [judge(critic64, image, y) for image in (plain, last, strided)]
        gradients = [torch.autograd.grad(s.sum(), i)[0] for s, i in zip(scores, (plain, last, strided), strict=True)]
        for score, gradient in zip(scores[1:], gradients[1:], strict=True):
            equal(score, scores[0])
            equal(gradient, gradients[0])
        equal(judge(critic64, x, y.contiguous(memory_format=torch.channels_last)), scores[0])


class TestFrozen:
    def test_training_a_parent_leaves_it_alone(self, critic):
        x, y = images(critic, 1)
        ours = copy.deepcopy(critic)
        parent = nn.ModuleDict({"critic": ours, "restorer": nn.Conv2d(3, 3, 1)}).train()
        assert parent.training
        assert not any(m.training for m in ours.modules())
        parent.requires_grad_(True)
        assert torch.equal(judge(ours, x, y), judge(critic, x, y))
        assert not any(p.requires_grad for p in ours.parameters())

    def test_parameters_created_late_are_frozen_too(self, critic):
        ours = copy.deepcopy(critic)
        ours.late = nn.Parameter(torch.ones(1))
        judge(ours, *images(critic, 1))
        assert not ours.late.requires_grad

    def test_unfreezing_lets_every_parameter_learn_and_freezing_stops_it(self, critic):
        ours = copy.deepcopy(critic).unfreeze()
        x, y = images(critic, 2)
        judge(ours, x.requires_grad_(), y).sum().backward()
        behind = {id(p) for p in behind_the_last_tap(ours)}
        unused = re.compile("|".join(ours.unused) or r"(?!)")
        for name, p in ours.named_parameters():
            if unused.fullmatch(name):
                assert p.grad is None or not p.grad.any(), f"{name} is not unused: the score depends on it"
            else:
                assert p.grad is not None or id(p) in behind, f"{name} learns nothing"
        assert ours.train().training
        ours.freeze()
        assert not ours.training
        assert not any(p.requires_grad for p in ours.parameters())


class TestCopies:
    def test_deepcopy_and_pickle_keep_the_scores(self, critic):
        x, y = images(critic, 1)
        expected = judge(critic, x, y)
        for twin in (copy.deepcopy(critic), pickle.loads(pickle.dumps(critic))):
            assert twin is not critic
            assert torch.equal(judge(twin, x, y), expected)
            assert twin.signature == critic.signature

    def test_moves_to_another_memory_format(self, critic):
        """As hosts that train in channels_last move their losses."""
        x, y = images(critic, 1)
        moved = copy.deepcopy(critic).to(memory_format=torch.channels_last)
        assert_same(judge(moved, x, y), judge(critic, x, y))

    @pytest.mark.every_name
    def test_state_dict_carries_everything(self, critic):
        x, y = images(critic, 1)
        other = copy.deepcopy(critic)
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1.5).add_(0.01)
        if critic.state_dict():
            assert not torch.equal(judge(other, x, y), judge(critic, x, y))
        buffer = io.BytesIO()
        torch.save(critic.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(judge(other, x, y), judge(critic, x, y))

    @pytest.mark.every_name
    def test_random_weights_are_the_same_each_time(self, critic, monkeypatch):
        name = critic.card.name
        torch.manual_seed(99)
        before = torch.get_rng_state()
        first = create_critic(name, weights=None).state_dict()
        if name in SMALL:  # the published size is built once, its twins are small
            entry = Entry(critic.card, lambda card: SMALL[name]())
            monkeypatch.setattr("perceptloss.registry.find_entry", lambda name: entry)
            first = create_critic(name, weights=None).state_dict()
        second = create_critic(name, weights=None).state_dict()
        assert torch.equal(torch.get_rng_state(), before), "building a critic moved the global random state"
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


class TestJoint:
    def test_learns_beside_a_restorer_and_is_frozen_again(self, critic):
        if not any(True for _ in critic.parameters()):
            pytest.skip("nothing to learn")
        loss_fn = CriticLoss([{"critic": copy.deepcopy(critic), "weight": 1.0, "joint": {"mix": False}}])
        own = loss_fn.terms[0].critic
        before = copy.deepcopy(own.state_dict())
        learned = loss_fn.learn(*images(critic), step=0)
        assert math.isfinite(learned[critic.card.name]["rank"])
        assert any(not torch.equal(before[name], tensor) for name, tensor in own.state_dict().items())
        assert all(torch.equal(before[name], tensor) for name, tensor in own.named_buffers() if name in before)
        assert all(p.grad is None and not p.requires_grad for p in own.parameters())
        assert not any(module.training for module in own.modules())
