"""CriticLoss inside a training run: bad values, ranges, hidden and frozen critics, shared trunks."""

from __future__ import annotations

import copy
import gc
import io
import logging
import math
import pickle
import weakref

import pytest
import torch
import toys
from images import pair
from torch import nn
from toys import MODES, flat, gradient, term

from perceptloss import CriticLoss, create_critic
from perceptloss.errors import InputError, NonFiniteLoss


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class TestNotFinite:
    @pytest.mark.parametrize("grad", MODES)
    def test_a_nan_loss_is_left_out(self, grad, caplog):
        terms = [term(toys.nan_loss()), term(toys.difference())]
        loss_fn = CriticLoss(terms, grad=grad, micro_batch=1)
        good, bad, y = flat(0.5), torch.cat([flat(0.5, 1), flat(0.95, 1)]), flat(0.25)
        only = CriticLoss([term(toys.difference())], grad=grad)
        with caplog.at_level(logging.WARNING, "perceptloss"):
            for step in range(4):
                torch.testing.assert_close(gradient(loss_fn, bad, y, step=step), gradient(only, bad, y))
        assert loss_fn.report["nan-loss"]["skipped"] == 4
        assert loss_fn.report["difference"]["skipped"] == 0
        assert [r.getMessage() for r in caplog.records] == [
            f"the loss of term 'nan-loss' is not finite: left out of this step (time {n})" for n in (1, 2, 4)
        ]
        assert torch.isfinite(loss_fn(good, y))
        assert loss_fn.state()["skipped"] == {"nan-loss": 4}

    def test_a_nan_gradient_is_left_out_of_fused(self):
        loss_fn = CriticLoss([term(toys.nan_gradient()), term(toys.difference())], micro_batch=1)
        only = CriticLoss([term(toys.difference())])
        torch.testing.assert_close(gradient(loss_fn, flat(0.5), flat(0.25)), gradient(only, flat(0.5), flat(0.25)))
        assert loss_fn.skipped == {"nan-gradient": 1}

    @pytest.mark.parametrize("grad", ["autograd", "checkpoint"])
    def test_a_nan_gradient_never_reaches_the_restorer(self, grad):
        """Seen only in the backward, where the terms are one sum already: the whole gradient is dropped."""
        loss_fn = CriticLoss([term(toys.nan_gradient()), term(toys.difference())], grad=grad, share_every=0)
        assert torch.isfinite(gradient(loss_fn, flat(0.5), flat(0.25))).all()
        assert loss_fn.skipped["nan-gradient"] == 1

    @pytest.mark.parametrize("grad", MODES)
    @pytest.mark.parametrize(("build", "what"), [(toys.nan_loss, "loss"), (toys.nan_gradient, "gradient")])
    def test_raise_stops(self, grad, build, what):
        loss_fn = CriticLoss([term(build())], grad=grad, on_nonfinite="raise", share_every=0)
        with pytest.raises(NonFiniteLoss, match=rf"{what} of term 'nan-{what}'.*on_nonfinite='skip'"):
            gradient(loss_fn, flat(0.95))

    @pytest.mark.parametrize("grad", MODES)
    def test_all_terms_left_out_leave_a_usable_zero(self, grad):
        loss_fn = CriticLoss([term(toys.nan_loss())], grad=grad)
        assert torch.equal(gradient(loss_fn, flat(0.95)), torch.zeros_like(flat(0.95)))

    @pytest.mark.parametrize("grad", ["autograd", "checkpoint"])
    def test_a_bad_gradient_is_counted_for_the_terms_that_could_send_it(self, grad):
        terms = [term(toys.nan_loss()), term(toys.nan_gradient()), term(toys.difference())]
        loss_fn = CriticLoss(terms, grad=grad, share_every=0)
        gradient(loss_fn, flat(0.95), flat(0.25))
        assert loss_fn.skipped == {"nan-loss": 1, "nan-gradient": 1, "difference": 1}

    @pytest.mark.parametrize("grad", MODES)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_a_sleeping_loss_is_a_usable_zero_whatever_the_images(self, grad, dtype):
        """Neither the sum of a large fp16 batch, which overflows, nor a NaN in the images gets into it."""
        x = flat(1.0, 4, 256).to(dtype)
        x[0, 0, 0, 0] = math.nan
        loss_fn = CriticLoss([term(toys.difference(), start=10)], grad=grad)
        x.requires_grad_()
        value = loss_fn(x, x.detach())
        value.backward()
        assert (value.item(), value.dtype) == (0.0, torch.float32)
        assert torch.equal(x.grad, torch.zeros_like(x))


class TestRange:
    @pytest.mark.parametrize("grad", MODES)
    def test_minus_one_to_one(self, grad):
        x, y = pair(2, 32)
        unit = CriticLoss({"ssim": 1.0, "gmsd": 0.5}, grad=grad)
        signed = CriticLoss({"ssim": 1.0, "gmsd": 0.5}, grad=grad, input_range=(-1, 1))
        torch.testing.assert_close(signed(2 * x - 1, 2 * y - 1), unit(x, y))
        torch.testing.assert_close(gradient(signed, 2 * x - 1, 2 * y - 1), gradient(unit, x, y) / 2)

    def test_overshoot(self):
        x, y = pair(2, 16)
        x = 0.5 + 1.25 * (x - x.amin()) / (x.amax() - x.amin()) - 0.75  # from -0.25 to 1
        outside = (x < 0) | (x > 1)
        assert outside.any()
        terms = [term(toys.difference())]
        assert (gradient(CriticLoss(terms), x, y)[outside] != 0).all()
        clamped = CriticLoss(terms, overshoot="clamp")
        torch.testing.assert_close(clamped(x, y), CriticLoss(terms)(x.clamp(0, 1), y))
        assert (gradient(clamped, x, y)[outside] == 0).all()
        with pytest.raises(InputError, match=r"needs x in \[0, 1\], got values from -0\.25 to 1\."):
            CriticLoss(terms, overshoot="raise")(x, y)

    def test_a_reference_in_the_wrong_range_is_noticed(self):
        x, y = pair(2, 16)
        with pytest.raises(InputError, match=r"needs y in \[0, 1\]"):
            CriticLoss([term(toys.difference())])(x, 2 * y - 1)

    def test_wrong_images(self):
        loss_fn = CriticLoss([term(toys.difference())])
        x, y = pair(2, 16)
        with pytest.raises(InputError, match=r"\(N, 3, H, W\).*got \(3, 16, 16\)"):
            loss_fn(x[0], y[0])
        with pytest.raises(InputError, match=r"one shape.*\(2, 3, 16, 16\) on cpu and \(2, 3, 16, 15\)"):
            loss_fn(x, y[..., 1:])
        with pytest.raises(InputError, match="floating-point x"):
            loss_fn((255 * x).byte(), y)

    @pytest.mark.parametrize(("input_range", "advice"), [((0, 1), r"/ 255\."), ((-1, 1), r"/ 127\.5 - 1\.")])
    def test_whole_numbers_are_told_the_way_into_the_range(self, input_range, advice):
        x = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        with pytest.raises(InputError, match=rf"Use x\.float\(\) {advice}"):
            CriticLoss([term(toys.difference())], input_range=input_range)(x, x)


class TestHidden:
    def test_critics_are_no_part_of_the_module(self):
        loss_fn = CriticLoss({"lpips-squeeze": {"weight": 1.0, "weights": None}})
        host = nn.ModuleDict({"loss": loss_fn, "net": nn.Conv2d(3, 3, 1)}).train()
        assert list(loss_fn.parameters()) == list(loss_fn.buffers()) == list(loss_fn.children()) == []
        assert set(host.state_dict()) == {"net.weight", "net.bias"}
        assert len(pickle.dumps(host.state_dict())) < 10_000
        torch.load(io.BytesIO(saved(loss_fn.state_dict())), weights_only=True)
        assert not any(m.training for critic in loss_fn.critics for m in critic.modules())

    @pytest.mark.parametrize("grad", MODES)
    def test_a_critic_that_is_also_part_of_a_model_stays_frozen(self, grad):
        critic = create_critic("lpips-squeeze", weights=None)
        nn.ModuleDict({"critic": critic}).requires_grad_(True).train()
        x, y = pair(1, 32)
        CriticLoss([term(critic)], grad=grad)(x.requires_grad_(), y).backward()
        assert all(p.grad is None for p in critic.parameters())
        assert not critic.training

    def test_they_move_but_never_below_fp32(self):
        x, y = pair(2, 32)
        loss_fn = CriticLoss({"lpips-squeeze": {"weight": 1.0, "weights": None}})
        expected = loss_fn(x, y)
        for lower in (loss_fn.half, loss_fn.bfloat16, lambda: loss_fn.to(torch.bfloat16)):
            lower()
            assert loss_fn.critics[0].dtype == torch.float32
            assert torch.equal(loss_fn(x, y), expected)
        assert loss_fn.double()(x.double(), y.double()).dtype == torch.float64
        assert loss_fn.to("meta").critics[0].trunk.mean.device.type == "meta"

    @pytest.mark.parametrize("grad", MODES)
    def test_copies(self, grad):
        x, y = pair(2, 32)
        loss_fn = CriticLoss({"lpips-squeeze": {"weight": 1.0, "weights": None}, "ssim": 1.0}, grad=grad)
        expected = gradient(loss_fn, x, y)
        twin = copy.deepcopy(loss_fn)
        assert twin.critics[0] is not loss_fn.critics[0]
        assert torch.equal(gradient(twin, x, y), expected)
        assert "lpips-squeeze x 1 (distance)" in repr(loss_fn)


class TestSharedTrunk:
    TERMS = ("lpips-vgg", "vgg-content", "vgg-style")

    def runs(self, loss_fn, micro_batch_runs=1):
        count = [0]
        trunks = {id(c.trunk): c.trunk for c in loss_fn.critics}
        handles = [t.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1)) for t in trunks.values()]
        x, y = pair(2, 32)
        grad = gradient(loss_fn, x, y, step=1)
        for handle in handles:
            handle.remove()
        return count[0], grad

    def test_three_terms_run_one_trunk_once_per_side(self):
        critics = {name: create_critic(name, weights=None) for name in self.TERMS}
        apart = sum(gradient(CriticLoss([term(copy.deepcopy(c))]), *pair(2, 32)) for c in critics.values())
        loss_fn = CriticLoss([term(c) for c in critics.values()], micro_batch=None)
        assert len({id(c.trunk) for c in loss_fn.critics}) == 1
        runs, shared = self.runs(loss_fn)
        assert runs == 2, "judged images once, references once"
        torch.testing.assert_close(shared, apart, rtol=1e-4, atol=1e-6 * apart.abs().max().item())

    def test_other_weights_or_views_are_not_shared(self):
        first, second = (create_critic("lpips-squeeze", weights=None) for _ in range(2))
        with torch.no_grad():
            second.trunk.features[0].weight.mul_(1.1)
        assert self.runs(CriticLoss([term(first), term(second, name="other")], micro_batch=None))[0] == 4
        same = [term(first), term(first, name="crop", crop=32)]
        x_runs, _ = self.runs(CriticLoss(same, micro_batch=None))
        assert x_runs == 2, "a crop of the whole image is the same view"


def test_nothing_of_the_graph_outlives_the_loss():
    """Between two steps a loss holds numbers, not the activations of the last one."""
    x, y = pair(2, 32)
    for grad in MODES:
        loss_fn = CriticLoss({"ssim": 1.0}, grad=grad)
        restored = x.clone().requires_grad_() * 1.0
        node = weakref.ref(restored)
        value = loss_fn(restored, y)
        del restored, value
        gc.collect()
        assert node() is None, f"grad={grad!r} keeps the judged image alive"
