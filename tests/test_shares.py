"""Weights that follow from shares of the gradient, and budgets of fidelity."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from images import pair

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError, InputError
from perceptloss.loss.budget import Budget, projected, walk_back


def parts(loss_fn: CriticLoss, step: int = 0, scale: float = 1.0) -> dict[str, float]:
    """Norms of the weighted gradients of all terms and of L1."""
    x, y = pair(2, 48)
    x = y + scale * (x - y)
    loss_fn(x.requires_grad_(), y, step=step)
    weights = {label: row["weight"] for label, row in loss_fn.report.items()}
    norms = {label: weights[label] * norm for label, norm in loss_fn.check_gradient(x.detach(), y).items()}
    (l1,) = torch.autograd.grad(F.l1_loss(x, y), x)
    return {**norms, "l1": float(l1.norm())}


class TestShares:
    def test_a_share_is_kept_from_the_first_step(self) -> None:
        norms = parts(CriticLoss({"gmsd": {"share": 0.3}, "ssim": {"share": 0.2}}))
        total = sum(norms.values())
        assert norms["gmsd"] / total == pytest.approx(0.3, rel=1e-3)
        assert norms["ssim"] / total == pytest.approx(0.2, rel=1e-3)

    def test_the_weight_follows_smoothly(self) -> None:
        loss_fn = CriticLoss({"gmsd": {"share": 0.3}}, share_every=1)
        first = parts(loss_fn, 0)["gmsd"]
        weights = []
        for step in range(1, 12):
            norms = parts(loss_fn, step, scale=0.2)
            weights.append(loss_fn.report["gmsd"]["weight"])
        assert norms["gmsd"] / sum(norms.values()) == pytest.approx(0.3, rel=1e-2)
        assert weights[0] != pytest.approx(weights[-1], rel=0.05)
        assert first > 0

    def test_beside_weights_and_schedules(self) -> None:
        loss_fn = CriticLoss({"gmsd": 0.5, "ssim": {"share": 0.4, "start": 10, "ramp": 2}})
        parts(loss_fn, 0)
        assert loss_fn.report["gmsd"]["weight"] == 0.5
        assert loss_fn.report["ssim"]["weight"] == 0.0
        norms = parts(loss_fn, 10)
        assert norms["ssim"] / (norms["ssim"] + norms["l1"]) == pytest.approx(0.25, rel=1e-2)  # half of 2/3 beside 1

    def test_pixel_weight_is_what_it_is_relative_to(self) -> None:
        one, ten = (parts(CriticLoss({"gmsd": {"share": 0.3}}, pixel_weight=w))["gmsd"] for w in (1.0, 10.0))
        assert ten == pytest.approx(10 * one, rel=1e-3)

    def test_it_goes_on(self) -> None:
        first, second = (CriticLoss({"gmsd": {"share": 0.3}}) for _ in range(2))
        parts(first)
        second.load_state_dict(first.state_dict())
        x, y = pair(2, 48)
        second(x.requires_grad_(), y, step=1)  # no step to measure in
        first(x, y, step=1)
        assert second.report["gmsd"]["weight"] == first.report["gmsd"]["weight"]

    @pytest.mark.parametrize(
        ("critics", "part"),
        [
            ({"gmsd": {"share": 0.5, "weight": 1.0}}, "'weight' and 'share' exclude each other"),
            ({"gmsd": {"share": 1.0}}, "'share' must be a number above 0 and below 1, got 1.0"),
            ({"gmsd": {"share": 0.6}, "ssim": {"share": 0.5}}, "the shares add up to 1.1"),
            ({"gmsd": {"share": 0.1, "monitor": True}}, "only watches has no 'share'"),
        ],
    )
    def test_problems_are_named(self, critics: Any, part: str) -> None:
        with pytest.raises(ConfigError, match=part):
            CriticLoss(critics)

    def test_it_needs_references(self) -> None:
        with pytest.raises(InputError, match="needs references y"):
            CriticLoss({"tv": {"share": 0.1}})(torch.rand(1, 3, 32, 32, requires_grad=True))


class TestShift:
    def test_leaves_out_lines_that_depend_on_the_step_alone(self) -> None:
        x, y = pair(1, 40)
        loss_fn = CriticLoss({"psnr": {"weight": 1.0}}, shift=8)
        gradients = []
        for step in (0, 0, 1, 2):
            leaf = x.clone().requires_grad_()
            loss_fn(leaf, y, step=step).backward()
            assert leaf.grad is not None
            gradients.append(leaf.grad != 0)
        assert torch.equal(gradients[0], gradients[1])
        assert any(not torch.equal(gradients[0], g) for g in gradients[2:])
        rows = gradients[0].any(3).any(1).sum()
        assert rows == 32

    def test_more_than_the_image_is_refused(self) -> None:
        x, y = pair(1, 16)
        with pytest.raises(InputError, match="shift 16 leaves nothing"):
            CriticLoss({"psnr": 1.0}, shift=16)(x, y)


class TestBudget:
    def test_the_factor_falls_where_too_much_is_spent_and_rises_where_nothing_is(self) -> None:
        budget = Budget({"psnr": -0.5}, most=2.0)
        budget.note({"psnr": 30.0})
        budget.note({"psnr": 29.0})
        assert budget.spent == pytest.approx(2.0)
        assert budget.must_project
        low = budget.factor
        assert low < 1
        for _ in range(20):
            budget.note({"psnr": 30.0})
        assert low < budget.factor <= 2.0

    def test_a_plant_is_held(self) -> None:
        """A restorer whose fidelity falls with the critics' weight, with a lag."""
        budget, level = Budget({"psnr": -0.5}, most=4.0), 30.0
        budget.note({"psnr": level})
        for _ in range(120):
            level += 0.2 * (30.0 - 0.8 * budget.factor - level)
            budget.note({"psnr": level})
        assert 30 - level == pytest.approx(0.5, abs=0.05)

    def test_lower_is_better_for_distances(self) -> None:
        budget = Budget({"gmsd": 0.01})
        budget.note({"gmsd": 0.05})
        budget.note({"gmsd": 0.07})
        assert budget.spent == pytest.approx(2.0)

    @pytest.mark.parametrize(
        ("given", "part"),
        [
            ({"psnr": 0.5}, "higher is better, so what may be spent is negative, got 0.5"),
            ({"gmsd": -0.1}, "lower is better, so what may be spent is positive"),
            ({"niqe": 1.0}, "does not measure fidelity"),
            ({"psnrr": -1.0}, "unknown critic"),
            ({"psnr": "a lot"}, "expected the change that is allowed"),
            ({"psnr": {"best": 28}}, r"expected \{worst: the worst score that is allowed\}, got \{'best': 28\}"),
            ({"psnr": {"worst": "28"}}, r"got \{'worst': '28'\}"),
            ({"ssim": -0.1, "SSIM": -0.2}, "'ssim' and 'SSIM' are one critic"),
            ([], r"expected full-reference critics and changes, .* got \[\]"),
        ],
    )
    def test_problems_are_named(self, given: Any, part: str) -> None:
        with pytest.raises(ConfigError, match=part):
            CriticLoss({"gmsd": 1.0}, budget=given)

    @pytest.mark.parametrize(
        ("name", "start", "worst", "now"), [("psnr", 30.0, 28.0, 29.0), ("gmsd", 0.05, 0.07, 0.06)]
    )
    def test_a_worst_score_is_a_budget_whatever_the_start_has(
        self, name: str, start: float, worst: float, now: float
    ) -> None:
        budget = Budget({name: {"worst": worst}})
        budget.note({name: start})
        budget.note({name: now})
        assert budget.spent == pytest.approx(0.5)
        assert budget.text == f"{name} no worse than {worst:g}"
        assert budget.spent_of({name: worst}, {name: 2 * start}) == pytest.approx(1.0)
        late = Budget({name: {"worst": worst}})
        late.note({name: worst})
        with pytest.raises(InputError, match=f"{name} no worse than .* leaves nothing to spend, as the start has"):
            late.note({name: now})

    @pytest.mark.parametrize(
        ("allowed", "near"),
        [
            ({"psnr": -0.2}, 0.1),
            ({"psnr": -0.5}, 0.1),
            ({"psnr": -2.0}, 0.025),
            ({"ssim": -0.01}, 0.1),
            ({"ssim": -0.01, "psnr": -1.0}, 0.05),
        ],
    )
    def test_of_decibels_a_twentieth_at_most_is_near(self, allowed: Any, near: float) -> None:
        assert Budget(allowed).near == pytest.approx(near)

    def test_what_is_near_a_worst_score_is_not_known_before_the_start(self) -> None:
        with pytest.raises(InputError, match="psnr no worse than 28 leaves is not known before `note` has the start"):
            _ = Budget({"psnr": {"worst": 28.0}}).near

    def test_changes_are_against_what_one_says(self) -> None:
        budget = Budget({"psnr": -0.5})
        budget.note({"psnr": 30.0})
        assert budget.spent_of({"psnr": 27.5}, {"psnr": 28.0}) == pytest.approx(1.0)

    @pytest.mark.parametrize("lost", ["psnr", "ssim"])
    def test_a_score_that_is_lost_hides_behind_no_other(self, lost: str) -> None:
        budget = Budget({"psnr": -0.5, "ssim": -0.01})
        scores = {"psnr": 30.0, "ssim": 0.9}
        budget.note(scores)
        assert math.isnan(budget.spent_of({**scores, lost: math.nan}))

    def test_what_is_no_state_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="expected start, spent and factor"):
            Budget({"psnr": -0.5}).load_state({})

    def test_projection_takes_only_what_opposes_fidelity(self) -> None:
        x, y = pair(2, 16)
        towards, away = torch.sign(x - y), -torch.sign(x - y)
        torch.testing.assert_close(projected(towards, x, y), towards)
        torch.testing.assert_close(projected(away, x, y), torch.zeros_like(x))
        mixed = torch.randn_like(x) - 0.1 * torch.sign(x - y)
        left = projected(mixed, x, y)
        assert ((left * torch.sign(x - y)).sum((1, 2, 3)) > -1e-3).all()

    def test_a_spent_budget_projects_the_gradient_of_the_loss(self) -> None:
        x, y = pair(2, 32)
        opposing = {"tv": 1.0}  # flat is best
        gradients = []
        for spent in (0.5, 1.5):
            loss_fn = CriticLoss(opposing, budget={"psnr": -1.0})
            assert loss_fn.budget is not None
            loss_fn.budget.note({"psnr": 30.0})
            loss_fn.budget.spent = spent
            gradients.append(loss_fn.value_and_gradient(x, y)[1])
        fidelity = torch.sign(x - y)
        dots = [(g * fidelity).sum((1, 2, 3)) for g in gradients]
        assert (dots[1] >= torch.minimum(dots[0], torch.zeros(())) - 1e-4).all()
        assert (dots[1] > -1e-2).all()

    def test_walks_back_no_further_than_it_must(self) -> None:
        assert walk_back(lambda share: 0.8 * share) == 1.0
        share = walk_back(lambda share: 2.0 * share**2)
        assert 2.0 * share**2 == pytest.approx(1.0, abs=0.03)
        assert math.isclose(walk_back(lambda share: 10.0), 0.0)
