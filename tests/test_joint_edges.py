"""Joint critics, shares and budgets where they go wrong easily: odd images, copies, moves, several processes."""

from __future__ import annotations

import copy
import io
import logging
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss import CriticLoss, create_critic
from perceptloss.errors import ConfigError, InputError, NonFiniteLoss
from perceptloss.loss.budget import Budget

PATCH: dict[str, Any] = {"critic": "patch", "weights": None, "weight": 0.1, "options": {"width": 4}}


def images(n: int = 2, side: int = 32, seed: int = 0, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Blurred and sharp noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(n, channels, side, side, generator=generator)
    return F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="reflect"), 3, 1), y


def loss_of(joint: dict[str, Any] | None = None, **term: Any) -> CriticLoss:
    return CriticLoss([{**PATCH, "joint": joint or True, **term}])


def learned(loss_fn: CriticLoss) -> list[Tensor]:
    return [p.detach().clone() for p in loss_fn.terms[0].critic.parameters()]


class TestWhatALearnerSees:
    def test_grey_images_where_the_term_takes_them(self) -> None:
        (x, y), grey = images(channels=1), loss_of(grey="replicate")
        assert grey.learn(x, y, step=0)["patch"]["rank"] > 0
        colour = loss_of()
        colour.learn(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1), step=0)
        assert all(map(torch.equal, learned(grey), learned(colour)))

    def test_its_crop_where_the_critic_could_not_take_the_whole(self) -> None:
        critic = create_critic("mini-nr")
        side = critic.card.min_size
        cropped = CriticLoss(
            [{"critic": critic, "weight": 0.1, "crop": side, "joint": {"learns": "head", "replay": 0.5}}]
        )
        calls: list[torch.Size] = []
        hook = critic.trunk.register_forward_pre_hook(lambda _, given: calls.append(given[0].shape))
        for step in range(3):
            cropped.learn(*images(side=side + 8), step=step)
        hook.remove()
        assert {shape[-2:] for shape in calls} == {torch.Size((side, side))}

    def test_clamped_images_where_the_loss_clamps(self) -> None:
        x, y = images()
        states = []
        for x_seen, overshoot in ((2 * x - 0.5, "clamp"), ((2 * x - 0.5).clamp(0, 1), "pass")):
            loss_fn = CriticLoss([{**PATCH, "joint": True}], overshoot=overshoot)
            loss_fn.learn(x_seen, y, step=0)
            states.append(learned(loss_fn))
        assert all(map(torch.equal, *states))

    def test_anchors_in_the_range_of_the_loss(self) -> None:
        (x, y), labels, states = images(), torch.tensor([0.2, 0.8]), []
        for low in (0, -1):
            loss_fn = CriticLoss([{**PATCH, "joint": True}], input_range=(low, 1))
            a, b = (image * (1 - low) + low for image in (x, y))
            loss_fn.learn(a, b, step=0, anchors={"koniq.10k": (b, None, labels)})
            states.append(learned(loss_fn))
        for ours, theirs in zip(*states, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)

    def test_a_set_of_anchors_may_have_any_name(self) -> None:
        (x, y), loss_fn = images(), loss_of()
        parts = loss_fn.learn(x, y, step=0, anchors={name: (y, None, torch.ones(2)) for name in ("a.b", "items")})
        assert {"anchor a.b", "anchor items"} <= parts["patch"].keys()

    @pytest.mark.parametrize(
        ("given", "part"),
        [
            ((torch.rand(2, 3, 32, 32), None, torch.ones(2, 1)), r"2 images need labels of shape \(2,\), got \(2, 1\)"),
            ((torch.rand(2, 3, 32, 32), torch.ones(2)), r"expected \(images, .* labels\), tensors, got Tensor, Tensor"),
            ((torch.rand(2, 3, 32, 32), None, [0.1, 0.2]), "tensors, got Tensor, NoneType, list"),
            ((None, None, torch.ones(2)), "tensors, got NoneType, NoneType, Tensor"),
            ((torch.rand(2, 3, 32, 32), None, torch.tensor([60, 80])), r"labels in \[0, 1\] or so, .* got 60 to 80"),
            ((torch.rand(2, 3, 32, 32), None, torch.tensor([0.5, torch.nan])), "labels in .* got nan to nan"),
            ((torch.full((2, 3, 32, 32), 128), None, torch.ones(2)), r"images in \(0, 1\), got 128 to 128"),
            ((torch.rand(2, 3, 32, 32), -torch.ones(2, 3, 32, 32), torch.ones(2)), "references in .* got -1 to -1"),
        ],
    )
    def test_anchors_that_are_none_are_refused(self, given: Any, part: str) -> None:
        with pytest.raises(InputError, match=f"anchors 'a': .*{part}"):
            loss_of().learn(*images(), step=0, anchors={"a": given})

    def test_what_it_cannot_learn_from_is_refused(self) -> None:
        (x, y), loss_fn = images(), loss_of()
        with pytest.raises(InputError, match=r"anchors: expected a mapping of names to .*, got list"):
            loss_fn.learn(x, y, step=0, anchors=[(y, None, torch.ones(2))])  # type: ignore[arg-type]
        with pytest.raises(InputError, match="needs the ground truth y"):
            loss_fn.learn(x, None, step=0)  # type: ignore[arg-type]

    def test_what_would_be_ignored_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"joint.swap: 'mini-nr' has no map"):
            CriticLoss({"mini-nr": {"weight": 0.1, "joint": {"learns": "head", "swap": 1.0}}})
        with pytest.raises(ConfigError, match=r"joint.lr_end is reached after joint.steps, which is missing"):
            loss_of({"lr_end": 1e-5})

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_outputs_under_autocast(self, dtype: torch.dtype) -> None:
        (x, y), loss_fn = images(), loss_of({"penalty": 1e-3, "swap": 1.0, "penalty_every": 1})
        plain = loss_of({"penalty": 1e-3, "swap": 1.0, "penalty_every": 1})
        with torch.autocast("cpu", torch.bfloat16):
            loss_fn.learn(x.to(dtype), y, step=0)
        plain.learn(x.to(dtype).float(), y, step=0)
        assert all(map(torch.equal, learned(loss_fn), learned(plain)))

    def test_batches_that_shrink_vanish_and_change_size(self) -> None:
        loss_fn = loss_of({"replay": 0.5, "buffer": 2})
        for step, (n, side) in enumerate(((4, 32), (1, 32), (0, 32), (3, 24), (4, 32))):
            parts = loss_fn.learn(*images(n, side, seed=step), step=step)
            assert bool(parts["patch"]) is (n > 0)

    def test_stereo_pairs(self) -> None:
        loss_fn = CriticLoss({"mini-stereo": {"weight": 0.1, "joint": {"learns": "head", "penalty": 1e-4}}})
        before = learned(loss_fn)
        assert loss_fn.learn(*images(1, 64, channels=6), step=0)["mini-stereo"]["rank"] >= 0
        assert not all(map(torch.equal, before, learned(loss_fn)))

    def test_in_inference_mode(self) -> None:
        (x, y), plain, inferred = images(), loss_of(), loss_of()
        plain.learn(x, y, step=0)
        with torch.inference_mode():
            inferred.learn(x * 1, y * 1, step=0)
        assert all(map(torch.equal, learned(plain), learned(inferred)))

    def test_inside_a_compiled_step(self) -> None:
        (x, y), plain, compiled = images(), loss_of(), loss_of()

        @torch.compile(backend="eager")
        def step(x: Tensor, y: Tensor) -> Tensor:
            compiled.learn(x * 1, y, step=0)
            return x * 2

        step(x, y)
        plain.learn(x, y, step=0)
        assert all(map(torch.equal, learned(plain), learned(compiled)))


class TestOwnSteps:
    def test_a_gradient_that_is_not_finite_is_counted_or_refused(self, caplog: pytest.LogCaptureFixture) -> None:
        (x, y), joint = images(), {"anchor": 3e38}  # whose gradient overflows
        loss_fn, anchors = loss_of(joint), {"bad": (y, None, torch.full((2,), 5.0))}
        before = learned(loss_fn)
        loss_fn.learn(x, y, step=0, anchors=anchors)
        assert all(map(torch.equal, before, learned(loss_fn)))
        assert loss_fn.skipped["patch"] == 1
        assert "own gradient of term 'patch' is not finite" in caplog.text
        with pytest.raises(NonFiniteLoss, match="own gradient"):
            CriticLoss([{**PATCH, "joint": joint}], on_nonfinite="raise").learn(x, y, step=0, anchors=anchors)

    def test_two_of_one_name_learn_apart(self) -> None:
        loss_fn = CriticLoss([{**PATCH, "joint": {"lr": 1e-3}}, {**PATCH, "name": "slow", "joint": {"lr": 1e-5}}])
        assert loss_fn.learn(*images(), step=0).keys() == {"patch", "slow"}
        fast, slow = (term.critic.coarse[0].weight for term in loss_fn.terms)
        assert not torch.equal(fast, slow)

    def test_parameters_that_another_term_counts_with_are_not_learned(self) -> None:
        critic = create_critic("patch", weights=None)
        terms = [{"critic": critic, "weight": 1.0}, {"critic": critic, "weight": 0.1, "joint": True, "name": "learns"}]
        with pytest.raises(
            ConfigError, match="the critic of 'learns' learns, and shares parameters with that of 'patch'"
        ):
            CriticLoss(terms)
        shared = CriticLoss({"mini-fr": 0.1, "mini-nr": 0.1})  # gives both one trunk
        frozen, joint = (term.critic for term in shared.terms)
        with pytest.raises(ConfigError, match="shares parameters"):
            CriticLoss([{"critic": frozen, "weight": 1.0}, {"critic": joint, "weight": 0.1, "joint": True}])
        CriticLoss(
            [{"critic": critic, "monitor": True, "name": "watch"}, {"critic": critic, "weight": 1.0, "joint": True}]
        )


class TestCopiesAndMoves:
    OPTIONS: ClassVar = {"ema": 0.9, "stay": 0.1, "replay": 0.5, "buffer": 2}

    def test_double_after_steps_takes_all_of_it_along(self) -> None:
        (x, y), loss_fn = images(), loss_of(self.OPTIONS)
        anchors = {"a": (y, None, torch.ones(2))}
        loss_fn.learn(x, y, step=0, anchors=anchors)
        loss_fn.double()
        loss_fn.learn(x, y, step=1, anchors=anchors)
        learner = loss_fn.learners["patch"]
        kept = [*learner.parameters, *learner.start, *learner.shadow]
        kept += [state["exp_avg"] for state in learner.optimizer.state.values()]
        assert {tensor.dtype for tensor in kept} == {torch.float64}

    @pytest.mark.parametrize("how", ["deepcopy", "pickle"])
    def test_a_copy_learns_alone_and_its_optimizer_is_none_of_the_training(self, how: str) -> None:
        (x, y), first = images(), loss_of(self.OPTIONS)
        first.learn(x, y, step=0)
        if how == "deepcopy":
            second = copy.deepcopy(first)
        else:
            torch.save(first, buffer := io.BytesIO())
            second = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
        before = learned(first)
        net = nn.Conv2d(3, 3, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        for step in range(2):
            for _ in range(2):  # micro-batches
                out = net(x)
                second(out, y).backward()
                second.learn(out, y)
                assert second.step == step
            optimizer.step()
        assert all(map(torch.equal, before, learned(first)))
        assert not all(map(torch.equal, before, learned(second)))

    def test_two_losses_of_one_state_keep_their_own_averages(self) -> None:
        (x, y), first, second = images(), loss_of(self.OPTIONS), loss_of(self.OPTIONS)
        first.learn(x, y, step=0)
        second.load_state(first.state())
        averages = [tensor.clone() for tensor in first.learners["patch"].shadow]
        second.learn(x, y, step=1)
        assert all(map(torch.equal, averages, first.learners["patch"].shadow))

    def test_a_resumed_critic_says_what_it_is(self) -> None:
        first, second = loss_of(), loss_of()
        first.learn(*images(), step=0)
        second.load_state(first.state())
        assert second.terms[0].critic.signature == first.terms[0].critic.signature

    def test_another_state_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="the checkpoint holds another critic than 'patch'"):
            loss_of().load_state({"step": 1, "skipped": {}, "joint": {"patch": {}}})

    def test_averages_and_stay_that_a_checkpoint_lacks_begin_there(self) -> None:
        (x, y), first, second = images(), loss_of(), loss_of(self.OPTIONS)
        first.learn(x, y, step=0)
        second.load_state(first.state())
        assert all(map(torch.equal, second.learners["patch"].shadow, learned(first)))
        second.learn(x, y, step=1)
        averaged = [second.learners["patch"].averaged()[n] for n, _ in second.terms[0].critic.named_parameters()]
        assert not all(map(torch.equal, averaged, learned(second)))


class TestShares:
    def test_a_term_whose_first_gradient_is_not_finite_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (x, y), loss_fn = images(), CriticLoss({"gmsd": {"share": 0.3}, "ssim": {"share": 0.3}})
        bad = loss_fn.terms[0].critic
        monkeypatch.setattr(bad, "score", lambda x, y: (x - y).sum((1, 2, 3)) * torch.inf)
        loss_fn(x.requires_grad_(), y, step=0).backward()
        assert loss_fn.skipped == {"gmsd": 1}
        assert loss_fn.report["ssim"]["weight"] > 0
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        strict = CriticLoss([{"critic": bad, "share": 0.3}], on_nonfinite="raise")
        with pytest.raises(NonFiniteLoss, match="'gmsd' is not finite"):
            strict(x, y, step=0)

    def test_bad_images_at_the_first_step_are_counted(self) -> None:
        (x, y), loss_fn = images(), CriticLoss({"gmsd": {"share": 0.3}, "ssim": {"monitor": True}})
        loss_fn(x.requires_grad_(), y * torch.nan, step=0).backward()
        assert loss_fn.skipped == {"gmsd": 1}

    def test_a_recomputed_call_has_the_weights_of_the_call(self) -> None:
        (x, y), gradients = images(), []
        for is_checkpointed in (False, True):
            loss_fn = CriticLoss({"gmsd": {"share": 0.3}}, share_every=1)
            for step in range(3):  # at each of which the weight moves

                def call(image: Tensor, loss_fn: CriticLoss = loss_fn, step: int = step) -> Tensor:
                    return loss_fn(image * 1, y, step=step)

                leaf = torch.lerp(y, x, 1 - 0.3 * step).requires_grad_()
                (checkpoint(call, leaf, use_reentrant=False) if is_checkpointed else call(leaf)).backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(*gradients)

    def test_equal_images_at_the_first_step_are_measured_later(self) -> None:
        (x, y), loss_fn = images(), CriticLoss({"gmsd": {"share": 0.3}})
        loss_fn(y.clone().requires_grad_(), y, step=0).backward()
        assert loss_fn.report["gmsd"]["weight"] == 0
        loss_fn(x.requires_grad_(), y, step=1).backward()
        assert loss_fn.report["gmsd"]["weight"] > 0

    @pytest.mark.parametrize("grad", ["autograd", "checkpoint"])
    def test_half_outputs_give_the_weights_of_the_fused_mode(self, grad: Any) -> None:
        weights = []
        for mode in ("fused", grad):
            x, y = images(4, 64)
            loss_fn = CriticLoss({"gmsd": {"share": 0.3}}, grad=mode, share_every=1, pixel_weight=0.01)
            for step in range(3):
                loss_fn((0.9 * x + 0.05).half().requires_grad_(), y, step=step)
            weights.append(loss_fn.report["gmsd"]["weight"])
        assert weights[1] == pytest.approx(weights[0], rel=1e-3)

    @pytest.mark.parametrize("grad", ["autograd", "checkpoint", "fused"])
    def test_with_a_late_ramp_a_monitor_and_a_joint_critic(self, grad: Any) -> None:
        terms = [{**PATCH, "share": 0.2, "start": 1, "ramp": 2, "joint": True}, {"critic": "ssim", "monitor": True}]
        del terms[0]["weight"]
        (x, y), loss_fn = images(), CriticLoss(terms, grad=grad)
        weights = []
        for step in range(4):
            leaf = x.clone().requires_grad_()
            loss_fn(leaf, y, step=step).backward()
            loss_fn.learn(leaf, y, step=step)
            weights.append(loss_fn.report["patch"]["weight"])
        assert weights[0] == 0
        assert 0 < weights[1] < weights[2]

    def test_the_plain_mode_gives_second_derivatives(self) -> None:
        (x, y), loss_fn = images(1), CriticLoss({"ssim": {"share": 0.3}}, grad="autograd", share_every=1)
        leaf = x.requires_grad_()
        (first,) = torch.autograd.grad(loss_fn(leaf, y, step=0), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        assert float(second.abs().max()) > 0


class TestBudgets:
    @pytest.mark.parametrize("grad", ["autograd", "checkpoint", "fused"])
    def test_a_spent_one_projects_in_every_mode(self, grad: Any) -> None:
        (blurred, y), found = images(), []
        x = torch.lerp(y, blurred, 0.05)  # less total variation is further away
        for spent in (0.0, 2.0):
            loss_fn = CriticLoss({"tv": 1.0}, grad=grad, budget={"psnr": -1.0})
            assert loss_fn.budget is not None
            loss_fn.budget.spent = spent
            leaf = x.clone().requires_grad_()
            (3 * loss_fn(leaf, y, step=0)).backward()
            assert leaf.grad is not None
            found.append((leaf.grad * torch.sign(x - y)).sum((1, 2, 3)))
        assert (found[0] < -1e-3).any()
        assert (found[1] > -1e-4).all()

    def test_images_that_are_not_finite_send_no_gradient_then_either(self) -> None:
        (x, y), loss_fn = images(), CriticLoss({"gmsd": 1.0}, budget={"psnr": -1.0})
        assert loss_fn.budget is not None
        loss_fn.budget.spent = 2.0
        x[0, 0, 0, 0] = torch.nan
        loss_fn(x.requires_grad_(), y, step=0).backward()
        assert x.grad is not None
        assert not x.grad.any()

    def test_scores_that_say_nothing_change_nothing(self) -> None:
        budget = Budget({"psnr": -0.5})
        with pytest.raises(InputError, match="scores of the start, which are not finite"):
            budget.note({"psnr": float("nan")})
        budget.note({"psnr": 30.0})
        budget.note({"psnr": 29.0})
        before = budget.state()
        budget.note({"psnr": float("nan")})
        assert budget.state() == before
        with pytest.raises(InputError, match="needs a score of psnr"):
            budget.note({"ssim": 0.9})

    def test_no_room_is_refused(self) -> None:
        with pytest.raises(
            ConfigError, match=r"most must be a number above 0, got 0\n.*room must be a number above 0, got -1"
        ):
            Budget({"psnr": -0.5}, most=0, room=-1)
        with pytest.raises(ConfigError, match="expected the name of a critic, got 3"):
            CriticLoss({"gmsd": 1.0}, budget={3: 0.1})
        with pytest.raises(ConfigError, match="most must be a number above 0, got '2'"):
            Budget({"psnr": -0.5}, most="2")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="expected at least one critic"):
            Budget({})
        assert CriticLoss({"gmsd": 1.0}, budget={}).budget is None

    def test_a_checkpoint_of_another_budget_or_of_none(self, caplog: pytest.LogCaptureFixture) -> None:
        loss_fn = CriticLoss({"gmsd": 1.0}, budget={"psnr": -0.5})
        with caplog.at_level(logging.WARNING):
            loss_fn.load_state({"step": 5, "skipped": {}})
        assert "the checkpoint had no budget" in caplog.text
        other = Budget({"ssim": -0.01})
        other.note({"ssim": 0.9})
        with pytest.raises(ConfigError, match="this budget is of psnr, that of the checkpoint of ssim"):
            loss_fn.load_state({"step": 5, "skipped": {}, "budget": other.state()})


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("grid", {"period": 1}, "options.period must be a whole number of at least 2, got 1"),
        ("grid", {"period": "x"}, "options.period must be a whole number of at least 2, got 'x'"),
        ("patch", {"width": 0}, "options.width must be a whole number of at least 1, got 0"),
    ],
)
def test_options_of_small_critics(name: str, options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        create_critic(name, weights=None, options=options)


def test_a_longer_period_needs_larger_images() -> None:
    with pytest.raises(InputError, match="at least 32x32"):
        create_critic("grid", options={"period": 16})(*images(side=24))


def test_two_processes_learn_as_one_and_wait_for_each_other(tmp_path: Any) -> None:
    import ddp_worker

    torch.multiprocessing.spawn(ddp_worker.learn, args=(2, str(tmp_path)), nprocs=2)
    loss_fn, first, second = ddp_worker.joint_loss(), *(torch.load(tmp_path / f"learn-{rank}.pt") for rank in (0, 1))
    for step in range(3):
        ddp_worker.joint_step(loss_fn, slice(None), step)
    for whole, ours, theirs in zip(learned(loss_fn), first, second, strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, whole, rtol=1e-3, atol=1e-5)
