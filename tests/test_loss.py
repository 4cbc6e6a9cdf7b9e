"""CriticLoss against numbers worked out by hand: shapes, schedules, crops and what it reports."""

from __future__ import annotations

import math

import pytest
import torch
import toys
from images import pair
from toys import MODES, flat, gradient, term

from perceptloss import CriticLoss, create_critic, register_critic
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError, GradientError, InputError

pytestmark = pytest.mark.smoke


class TestShapes:
    """Against numbers worked out by hand; brightness of x is 0.3 and of y 0.8, in both directions."""

    @pytest.mark.parametrize(
        ("shape", "better", "facts", "expected"),
        [
            ("hinge", "higher", {}, 0.5),
            ("hinge", "lower", {}, 0.0),
            ("softplus", "higher", {}, math.log(1 + math.exp(0.5))),
            ("softplus", "lower", {}, math.log(1 + math.exp(-0.5))),
            ("sigmoid", "higher", {}, 1 / (1 + math.exp(0.3))),
            ("sigmoid", "lower", {}, 1 / (1 + math.exp(-0.3))),
            ("deficit", "higher", {"bounds": (-1.0, 4.0)}, (4.0 - 0.3) / 5),
            ("deficit", "lower", {"bounds": (-1.0, 4.0)}, (0.3 + 1.0) / 5),
            ("distance", "lower", {}, 0.3),
        ],
    )
    def test_of_an_nr_critic(self, shape, better, facts, expected):
        loss_fn = CriticLoss([term(toys.brightness(better=better, **facts, shape=shape), 2.0)])
        assert loss_fn(flat(0.3), flat(0.8)).item() == pytest.approx(2 * expected, rel=1e-5, abs=1e-7)

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [("distance", 0.25), ("hinge", 0.25), ("softplus", math.log(1 + math.exp(0.25))), ("deficit", 0.25)],
    )
    def test_of_an_fr_critic(self, shape, expected):
        loss_fn = CriticLoss([term(toys.difference(), shape=shape)])
        assert loss_fn(flat(0.3), flat(0.8)).item() == pytest.approx(expected, rel=1e-5)

    def test_tolerance_forgives_before_the_mean(self):
        x = torch.cat([flat(0.3, 1), flat(0.75, 1)])
        loss_fn = CriticLoss([term(toys.brightness(), tolerance=0.1)])
        assert loss_fn(x, flat(0.8)).item() == pytest.approx((0.4 + 0.0) / 2, rel=1e-5)

    def test_anchor_comes_from_the_reference_of_a_trunk_critic_too(self):
        critic = create_critic("lpips-squeeze", weights=None)
        x, y = pair(2, 32)
        plain = CriticLoss([term(critic)])(x, y)
        torch.testing.assert_close(CriticLoss([term(critic, shape="hinge")])(x, y), plain)

    def test_relative_shape_without_reference(self):
        loss_fn = CriticLoss([term(toys.brightness())])
        with pytest.raises(InputError, match=r"'brightness'.*hinge.*give y, or choose 'sigmoid'"):
            loss_fn(flat(0.3))
        with pytest.raises(InputError, match=r"'difference'.*critic\(x, y\)"):
            CriticLoss([term(toys.difference())])(flat(0.3))


class TestSchedule:
    def test_start_and_ramp(self):
        loss_fn = CriticLoss([term(toys.difference(), 2.0, start=10, ramp=4)])
        weights = []
        for step in (0, 9, 10, 11, 12, 13, 14, 1000):
            value = loss_fn(flat(0.0), flat(0.5), step=step).item()
            weights.append(loss_fn.report["difference"]["weight"])
            assert value == pytest.approx(weights[-1] * 0.25)
        assert weights == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]

    @pytest.mark.parametrize("grad", MODES)
    def test_a_sleeping_term_is_not_run(self, grad):
        late = toys.brightness(shape="sigmoid")
        loss_fn = CriticLoss([term(late, start=2)], grad=grad)
        x = flat(0.5).requires_grad_()
        for calls in (0, 0, 1, 2):
            loss_fn(x, flat(0.5)).backward()
            assert late.calls == calls
        assert loss_fn.step == 4

    def test_steps_count_only_training_and_resume(self):
        loss_fn = CriticLoss([term(toys.brightness(shape="sigmoid"))])
        loss_fn(flat(0.5))
        with torch.no_grad():
            loss_fn(flat(0.5).requires_grad_())
        assert loss_fn.step == 0
        loss_fn(flat(0.5).requires_grad_())
        assert loss_fn.step == 0
        loss_fn(flat(0.5).requires_grad_(), step=41).backward()
        assert loss_fn.step == 42
        for load in ("load_state", "load_state_dict"):
            other = CriticLoss([term(toys.brightness(shape="sigmoid"))])
            getattr(other, load)(getattr(loss_fn, load.removeprefix("load_"))())
            assert other.step == 42

    def test_crops_depend_on_seed_and_step_alone(self):
        x, _ = pair(2, 40)
        terms = [term(toys.brightness(shape="sigmoid"), crop=16)]
        loss_fn = CriticLoss(terms)
        seen = [gradient(loss_fn, x, step=step)[0, 0] != 0 for step in range(8)]
        assert all(mask.sum() == 16 * 16 for mask in seen)
        assert len({tuple(mask.nonzero()[0].tolist()) for mask in seen}) > 4, "crops do not move"
        again = CriticLoss(terms)
        assert all(torch.equal(gradient(again, x, step=step)[0, 0] != 0, seen[step]) for step in (5, 2))
        moved = [gradient(CriticLoss(terms, seed=1), x, step=step)[0, 0] != 0 for step in range(8)]
        assert not all(torch.equal(a, b) for a, b in zip(moved, seen, strict=True))
        whole = CriticLoss([term(toys.brightness(shape="sigmoid"), crop=40)])
        assert (gradient(whole, x) != 0).all()
        with pytest.raises(InputError, match=r"crops 40x40.*32x48"):
            whole(pair(1, 32, 48)[0])


class TestReport:
    def test_contents(self):
        terms = [term(toys.brightness(), 0.5), term(toys.difference(), 4.0, name="mse"), term("ssim", 0.1, start=50)]
        loss_fn = CriticLoss(terms, share_every=2)
        assert loss_fn.report == {}
        x = flat(0.3, 3, 16).requires_grad_()
        value = loss_fn(x, flat(0.8, 3, 16))
        report = loss_fn.report
        assert list(report) == ["brightness", "mse", "ssim"]
        assert report["brightness"]["score"] == pytest.approx(0.3)
        assert report["brightness"]["loss"] == pytest.approx(0.5)
        assert report["mse"]["weighted"] == pytest.approx(4 * 0.25)
        assert (report["ssim"]["score"], report["ssim"]["weight"], report["ssim"]["skipped"]) == (None, 0.0, 0)
        assert sum(row["weighted"] or 0 for row in report.values()) == pytest.approx(value.item())
        # gradients per element: 0.5 / M and 4 * 2 * 0.5 / M
        assert report["brightness"]["share"] == pytest.approx(0.5 / 4.5, rel=1e-4)
        assert report["mse"]["share"] == pytest.approx(4 / 4.5, rel=1e-4)
        assert report["ssim"]["share"] is None

    @pytest.mark.parametrize("grad", MODES)
    def test_shares_add_up_to_one_in_every_mode(self, grad):
        x, y = pair(3, 40)
        terms = {"ssim": 1.0, "lpips-squeeze": {"weight": 1.0, "weights": None}, "gmsd": 1.0}
        loss_fn, reference = (CriticLoss(terms, grad=mode, micro_batch=2) for mode in (grad, "autograd"))
        first = gradient(loss_fn, x, y)
        gradient(reference, x, y)
        shares = {label: row["share"] for label, row in loss_fn.report.items()}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares == pytest.approx({label: row["share"] for label, row in reference.report.items()}, rel=1e-3)
        silent = CriticLoss(terms, grad=grad, micro_batch=2, share_every=0)
        torch.testing.assert_close(gradient(silent, x, y), first)
        assert all(row["share"] is None for row in silent.report.values())

    def test_check_gradient(self):
        x, y = pair(2, 16)
        loss_fn = CriticLoss([term(toys.dead()), term(toys.nan_gradient()), term(toys.difference(), start=10**6)])
        with pytest.raises(GradientError, match=r"'dead' \(no gradient\), 'nan-gradient' \(nan\)") as error:
            loss_fn.check_gradient(x, y)
        assert "difference" not in str(error.value)
        norms = CriticLoss([term(toys.brightness(), start=10**6)]).check_gradient(flat(0.3), flat(0.8))
        assert norms == pytest.approx({"brightness": 1 / math.sqrt(2 * 3 * 8 * 8)})


def test_a_registered_critic_of_ones_own(monkeypatch):
    from perceptloss import registry

    monkeypatch.setattr(registry, "_registered", {})
    example = toys.brightness(shape="sigmoid")
    register_critic(Entry(example.card, lambda card: toys.Toy(card, example.function)))
    value = CriticLoss({"brightness": 2.0, "ssim": 1.0})(flat(0.3, 2, 16), flat(0.3, 2, 16))
    assert value.item() == pytest.approx(2 / (1 + math.exp(0.3)), rel=1e-4)
    with pytest.raises(ConfigError, match="exists already"):
        register_critic(Entry(example.card, lambda card: example))
