"""Joint mode: a critic learns beside the restorer, and neither step touches the other."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic
from perceptloss.errors import ConfigError
from perceptloss.loss.joint.ladder import Draws, damaged, mixed, ranked, swapped
from perceptloss.loss.joint.options import DAMAGES
from perceptloss.loss.joint.replay import Replay


def images(n: int = 2, side: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Blurred and sharp noise."""
    generator = torch.Generator().manual_seed(seed)
    y = F.avg_pool2d(torch.rand(n, 3, side + 2, side + 2, generator=generator), 3, 1)
    return F.avg_pool2d(F.pad(y, (2, 2, 2, 2), mode="reflect"), 5, 1), y


def loss_of(**joint: Any) -> CriticLoss:
    critic = {"critic": "patch", "weights": None, "weight": 0.1, "options": {"width": 8}}
    return CriticLoss([{**critic, "joint": joint or True}])


class TestSteps:
    def test_the_restorer_leaves_the_critic_alone_and_the_critic_the_restorer(self) -> None:
        loss_fn, (x, y) = loss_of(penalty=1e-3, swap=1.0, stay=0.1), images()
        restorer = nn.Conv2d(3, 3, 3, padding=1)
        critic = loss_fn.terms[0].critic
        before = copy.deepcopy(critic.state_dict())
        output = restorer(x)
        loss_fn(output, y, step=0).backward()
        assert all(p.grad is None for p in critic.parameters())
        assert all(torch.equal(before[name], tensor) for name, tensor in critic.state_dict().items())
        grads = [p.grad.clone() for p in restorer.parameters() if p.grad is not None]
        weights = copy.deepcopy(restorer.state_dict())
        loss_fn.learn(output, y, step=0)
        assert all(torch.equal(a, p.grad) for a, p in zip(grads, restorer.parameters(), strict=True))
        assert all(torch.equal(weights[name], tensor) for name, tensor in restorer.state_dict().items())
        assert any(not torch.equal(before[name], tensor) for name, tensor in critic.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in critic.parameters())
        assert not critic.training

    def test_it_learns_the_order_of_the_ladder(self) -> None:
        loss_fn, (x, y) = loss_of(lr=3e-3), images(4)
        for step in range(40):
            parts = loss_fn.learn(x, y, step=step)["patch"]
        assert parts["rank"] < 0.9
        draws = Draws(0, 100)
        rungs = [y, mixed(x, y, draws), x]
        scores = [loss_fn.terms[0].critic(image.clamp(0, 1)).mean() for image in rungs]
        assert all(better > worse for better, worse in pairwise(scores))

    def test_the_steps_of_its_optimizer_are_not_those_of_the_training(self) -> None:
        loss_fn, (x, y) = loss_of(), images()
        restorer = nn.Conv2d(3, 3, 3, padding=1)
        optimizer = torch.optim.SGD(restorer.parameters(), 0.1)
        for _ in range(3):
            output = restorer(x)
            loss_fn(output, y).backward()
            optimizer.step()
            loss_fn.learn(output, y)
        assert loss_fn.step == 3

    def test_every_so_many_steps(self) -> None:
        loss_fn, (x, y) = loss_of(every=2), images()
        assert loss_fn.learn(x, y, step=1) == {"patch": {}}
        assert loss_fn.learn(x, y, step=2)["patch"]

    def test_images_that_are_not_finite_teach_nothing(self) -> None:
        loss_fn, (x, y) = loss_of(), images()
        before = copy.deepcopy(loss_fn.terms[0].critic.state_dict())
        assert loss_fn.learn(x * torch.nan, y, step=0) == {"patch": {}}
        assert all(torch.equal(before[k], v) for k, v in loss_fn.terms[0].critic.state_dict().items())

    def test_checkpointing_rung_by_rung_changes_nothing(self) -> None:
        (x, y), states = images(), []
        for checkpointed in (False, True):
            loss_fn = loss_of(checkpoint=checkpointed, swap=1.0, penalty=1e-3).double()
            loss_fn.learn(x, y, step=0, anchors={"a": (y, None, torch.tensor([0.0, 1.0]))})
            states.append(loss_fn.terms[0].critic.state_dict())
        for name, tensor in states[0].items():
            torch.testing.assert_close(states[1][name], tensor, rtol=1e-6, atol=1e-9)

    def test_it_goes_on_to_the_bit(self) -> None:
        options = {"replay": 0.5, "buffer": 2, "ema": 0.9, "stay": 0.1, "penalty": 1e-3}
        whole = loss_of(**options)
        for step in range(6):
            if step == 3:
                kept = copy.deepcopy(whole.state_dict())
            whole.learn(*images(seed=step), step=step)
        resumed = loss_of(**options)
        resumed.load_state_dict(kept)
        for step in range(3, 6):
            resumed.learn(*images(seed=step), step=step)
        ours, theirs = (loss.terms[0].critic.state_dict() for loss in (resumed, whole))
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
        averages = [loss.learners["patch"].averaged() for loss in (resumed, whole)]
        assert all(torch.equal(averages[0][name], tensor) for name, tensor in averages[1].items())

    def test_a_checkpoint_of_other_parts_is_refused(self) -> None:
        whole, head = (CriticLoss({"mini-nr": {"weight": 0.1, "joint": {"learns": part}}}) for part in ("all", "head"))
        with pytest.raises(ConfigError, match="holds another critic than 'mini-nr', or another learns"):
            head.load_state(whole.state())

    def test_a_checkpoint_of_other_joint_terms_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="joint terms of this loss are 'patch', those of the checkpoint none"):
            loss_of().load_state(CriticLoss({"gmsd": 1.0}).state())


class TestKinds:
    def test_a_head_learns_and_the_shared_trunk_does_not(self) -> None:
        loss_fn = CriticLoss({"mini-fr": 0.1, "mini-nr": {"weight": 0.1, "joint": {"learns": "head", "lr": 1e-2}}})
        frozen, joint = (term.critic for term in loss_fn.terms)
        assert joint.trunk is frozen.trunk
        before = copy.deepcopy(joint.state_dict())
        loss_fn.learn(*images(side=64), step=0)
        moved = {name for name, tensor in joint.state_dict().items() if not torch.equal(before[name], tensor)}
        assert moved
        assert not any(name.startswith("trunk.") for name in moved)

    def test_a_critic_that_learns_whole_has_a_trunk_of_its_own(self) -> None:
        loss_fn = CriticLoss({"mini-fr": 0.1, "mini-nr": {"weight": 0.1, "joint": True}})
        frozen, joint = (term.critic for term in loss_fn.terms)
        assert joint.trunk is not frozen.trunk

    def test_batch_statistics_do_not_move(self) -> None:
        loss_fn = CriticLoss({"mini-nr": {"weight": 0.1, "joint": {"learns": "head"}}})
        normalise = {k: v.clone() for k, v in loss_fn.terms[0].critic.named_buffers()}
        loss_fn.learn(*images(side=64), step=0)
        assert all(torch.equal(normalise[k], v) for k, v in loss_fn.terms[0].critic.named_buffers())

    def test_labelled_images_hold_it(self) -> None:
        torch.manual_seed(0)
        (x, y), labels = images(8), torch.linspace(0, 1, 8)
        shades = labels[:, None, None, None] * torch.ones_like(y)
        errors = []
        for anchor in (0.0, 20.0):
            loss_fn = loss_of(lr=3e-3, anchor=anchor)
            for step in range(40):
                loss_fn.learn(x, y, step=step, anchors={"shades": (shades, None, labels)})
            scores = loss_fn.terms[0].critic(shades)
            errors.append(float(torch.corrcoef(torch.stack([scores, labels]))[0, 1]))
        assert errors[1] > 0.9
        assert errors[1] > errors[0]

    def test_staying_close_is_closer(self) -> None:
        (x, y), moves = images(), []
        for stay in (0.0, 1e5):
            loss_fn = loss_of(stay=stay, lr=1e-3)
            before = [p.detach().clone() for p in loss_fn.terms[0].critic.parameters()]
            for step in range(10):
                loss_fn.learn(x, y, step=step)
            after = loss_fn.terms[0].critic.parameters()
            moves.append(float(sum((a - b).square().sum() for a, b in zip(after, before, strict=True))))
        assert moves[1] < 0.8 * moves[0]

    def test_a_penalty_flattens(self) -> None:
        (x, y), slopes = images(), []
        for penalty in (0.0, 1e-2):
            loss_fn = loss_of(penalty=penalty, penalty_every=1, lr=3e-3)
            for step in range(30):
                loss_fn.learn(x, y, step=step)
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss_fn.terms[0].critic(leaf).sum(), leaf)
            slopes.append(float(slope.abs().sum()))
        assert slopes[1] < 0.7 * slopes[0]


class TestLadder:
    def test_draws_depend_on_the_place_in_the_batch_of_all_processes(self) -> None:
        x, y = images(4)
        whole = mixed(x, y, Draws(3, 7))
        halves = [mixed(x[i : i + 2], y[i : i + 2], Draws(3, 7, i)) for i in (0, 2)]
        assert torch.equal(torch.cat(halves), whole)
        assert not torch.equal(mixed(x, y, Draws(3, 8)), whole)

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_damage_is_seen_and_small(self, kind: Any) -> None:
        x, _ = images(2)
        worse = damaged(x, (kind,), Draws(0, 0))
        assert worse.shape == x.shape
        assert 0 < float((worse - x).square().mean().sqrt()) < 0.1

    def test_a_region_is_replaced(self) -> None:
        x, y = images(3)
        image, mask = swapped(x, y, Draws(0, 0))
        assert torch.equal(image, torch.where(mask.bool(), x, y))
        assert (mask.mean((1, 2, 3)) > 0.1).all()
        assert (mask.mean((1, 2, 3)) < 0.7).all()

    def test_ranked_is_small_where_the_margin_is_kept(self) -> None:
        high, low = torch.tensor([5.0]), torch.tensor([0.0])
        assert ranked(high, low, 1.0) == 0
        assert ranked(low, high, 1.0) == 6

    def test_two_halves_remember_what_the_whole_does(self) -> None:
        whole, halves = Replay(0.5, 2), [Replay(0.5, 2), Replay(0.5, 2)]
        seen_old = False
        for step in range(8):
            x, y = images(4, seed=step)
            given, _ = whole.exchange(x, y, Draws(0, step))
            parts = [
                r.exchange(x[i : i + 2], y[i : i + 2], Draws(0, step, i))[0]
                for r, i in zip(halves, (0, 2), strict=True)
            ]
            assert torch.equal(torch.cat(parts), given)
            seen_old |= not torch.equal(given, x)
        assert seen_old


class TestOptions:
    @pytest.mark.parametrize(
        ("term", "part"),
        [
            ({"joint": {"lrr": 1}}, "joint: unknown key 'lrr'"),
            ({"joint": {"lr": 0}}, "joint.lr must be a number above 0, got 0"),
            ({"joint": {"damage": ["rain"]}}, "joint.damage must be a list of blur, noise, grid, steps"),
            ({"joint": 3}, "'joint' must be true, false or a mapping"),
            ({"joint": True, "weight": 0}, "a term that only watches cannot be joint"),
            ({"joint": True, "critic": "gmsd", "weights": None}, "needs a critic that learns, and 'gmsd' is a formula"),
        ],
    )
    def test_problems_are_named(self, term: dict[str, Any], part: str) -> None:
        with pytest.raises(ConfigError, match=part):
            CriticLoss([{"critic": "patch", "weights": None, "weight": 1.0, **term}])

    def test_a_head_needs_a_trunk(self) -> None:
        with pytest.raises(ConfigError, match="'patch' has no trunk"):
            loss_of(learns="head")


def test_metric_gan_toy() -> None:
    """A number finds the best of a quality whose critic is refitted where it is; beside a frozen one it does not."""

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(1.0))

    ends = []
    for is_joint in (True, False):
        place, line = torch.tensor(0.0, requires_grad=True), Line()
        for _ in range(200):
            if is_joint:
                near = place.detach() + torch.tensor([-0.1, 0.1])
                quality = -((near - 3) ** 2)
                line.slope.data = (quality[1] - quality[0]) / 0.2
            (gradient,) = torch.autograd.grad(line.slope.detach() * place, place)
            place = (place + 0.05 * gradient).detach().requires_grad_()
        ends.append(place.item())
    assert abs(ends[0] - 3) < 0.01
    assert ends[1] > 9


def test_create_critic_says_how_patch_is_used() -> None:
    with pytest.raises(Exception, match="it learns beside a restorer"):
        create_critic("patch")


def test_checkpointing_holds_a_fraction_before_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that autograd saves until the gradient is asked for."""
    held = {}
    for checkpointed in (False, True):
        loss_fn, (x, y) = loss_of(checkpoint=checkpointed, swap=1.0, penalty=1e-3), images(4, 64)
        saved: dict[int, int] = {}

        def pack(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        learner = loss_fn.learners["patch"]
        monkeypatch.setattr(learner, "_update", lambda *_: None)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss_fn.learn(x, y, step=0, anchors={"a": (y, None, torch.rand(4))})
        held[checkpointed] = sum(saved.values())
    assert held[True] < 0.2 * held[False], held
