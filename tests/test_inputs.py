"""What a loss is given: changed places, pixels that are not finite, what is no batch, grey images, transforms."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
import toys
from images import pair
from torch import nn
from torch.autograd import forward_ad
from toys import MODES, flat, gradient, term

from perceptloss import CriticLoss, create_critic
from perceptloss.errors import ConfigError, GradientError, InputError, NonFiniteLoss
from perceptloss.loss.balance import measure_balance
from perceptloss.maps.attribution import attribution
from perceptloss.maps.pixel_weights import pixel_weights
from perceptloss.maps.tiles import score_tiled

SHAPES = [{"critic": "gmsd", "weight": 1.0}, {"critic": "mini-nr", "weight": 1.0, "shape": "hinge"}]


class TestPlaces:
    @pytest.mark.parametrize("grad", MODES)
    @pytest.mark.parametrize("shape", SHAPES, ids=lambda row: row["critic"])
    def test_changed_places_are_an_error(self, grad, shape):
        loss_fn, (x, y) = CriticLoss([shape], grad=grad), pair(1, 64)
        net = nn.Conv2d(3, 3, 1)
        for call in (loss_fn, loss_fn.value_and_gradient, loss_fn.check_gradient):
            with pytest.raises(InputError, match="change their places"):
                call(y, net(x).sigmoid())
        with torch.no_grad():
            loss_fn(y, net(x).sigmoid())

    def test_balance_and_attribution(self):
        x, y = pair(1, 64)
        with pytest.raises(InputError, match="change their places"):
            measure_balance(CriticLoss({"gmsd": 1.0}), x, y.requires_grad_())
        with pytest.raises(InputError, match="change their places"):
            attribution(create_critic("gmsd"), x, y)
        with pytest.raises(InputError, match="change their places"):
            create_critic("gmsd").maps(x, y)
        with pytest.raises(InputError, match="change their places"):
            pixel_weights(create_critic("gmsd"), x, y)

    @pytest.mark.parametrize("grad", MODES)
    def test_changed_places_under_transforms(self, grad):
        loss_fn, (x, y) = CriticLoss({"gmsd": 1.0}, grad=grad), pair(1, 32)
        for call in (loss_fn, loss_fn.value_and_gradient, create_critic("gmsd")):
            with pytest.raises(InputError, match="change their places"):
                torch.func.jvp(lambda y, call=call: call(x, y), (y,), (y,))

    @pytest.mark.parametrize("grad", MODES)
    def test_where_both_learn_the_second_is_a_constant(self, grad):
        loss_fn, (x, y) = CriticLoss({"gmsd": 1.0}, grad=grad), pair(1, 32)
        alone = gradient(loss_fn, x, y)
        x, y = x.requires_grad_(), y.requires_grad_()
        loss_fn(x, y).backward()
        assert torch.equal(x.grad, alone)
        assert y.grad is None


class TestNotFinite:
    @pytest.mark.parametrize("grad", MODES)
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("where", ["x", "y"])
    def test_training_leaves_the_step_out_and_says_which_image(self, grad, value, where, caplog):
        x, y = pair(2, 32)
        {"x": x, "y": y}[where][1, 0, 3, 5] = value
        loss_fn = CriticLoss({"mdsi": 1.0, "nlpd": 1.0, "tv": {"weight": 0}}, grad=grad)
        x.requires_grad_()
        with caplog.at_level(logging.WARNING, "perceptloss"):
            loss = loss_fn(x, y)
        loss.backward()
        assert loss.item() == 0
        assert not x.grad.any()
        assert loss_fn.skipped == {"mdsi": 1, "nlpd": 1}
        (said,) = (record.getMessage() for record in caplog.records)
        assert said == (
            f"{where} has 1 of 6144 values NaN or infinite (in images 1 of the batch): "
            "'mdsi', 'nlpd' left out of this step (time 1)"
        )
        with pytest.raises(NonFiniteLoss, match=f"{where} has 1 of"):
            CriticLoss({"gmsd": 1.0}, grad=grad, on_nonfinite="raise")(x, y)

    @pytest.mark.parametrize("grad", MODES)
    def test_without_a_gradient_it_is_refused(self, grad):
        x, y = pair(1, 32)
        with torch.no_grad(), pytest.raises(InputError, match="needs finite images, but x has 3072 of 3072"):
            CriticLoss({"mdsi": 1.0}, grad=grad)(x * math.nan, y)

    @pytest.mark.parametrize("grad", MODES)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_a_loss_without_an_active_term_is_zero_whatever_x_holds(self, grad, dtype):
        loss_fn = CriticLoss({"ssim": {"weight": 1.0, "start": 10_000}}, grad=grad)
        for value in (0.5, 6e4, math.inf, math.nan):
            x = torch.full((1, 3, 256, 256), value, dtype=dtype, requires_grad=True)
            loss = loss_fn(x, torch.rand(1, 3, 256, 256))
            loss.backward()
            assert (loss.item(), loss.dtype) == (0.0, torch.float32)
            assert not x.grad.any()


class TestShape:
    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            (None, r"got NoneType\. Give a tensor"),
            (np.zeros((8, 8, 3), np.uint8), r"got ndarray\. Make it a tensor, such as torch\.from_numpy"),
            (torch.rand(3, 8, 8), r"got \(3, 8, 8\) of torch\.float32\. For a single image: image\[None\]"),
            (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"got torch\.uint8\. Use x\.float\(\) / 255"),
        ],
    )
    @pytest.mark.parametrize("kind", ["loss", "critic"])
    def test_says_what_came(self, wrong, expected, kind):
        call = CriticLoss({"gmsd": 1.0}) if kind == "loss" else create_critic("gmsd")
        good = torch.rand(1, 3, 8, 8)
        with pytest.raises(InputError, match=expected):
            call(wrong, good)
        if wrong is not None:
            with pytest.raises(InputError, match=expected):
                call(good, wrong)

    @pytest.mark.parametrize("wrong", [None, np.zeros((8, 8, 3)), "image"])
    def test_maps_say_it_too(self, wrong):
        critic, good = create_critic("ssim"), torch.rand(1, 3, 16, 16)
        for call in (attribution, score_tiled, pixel_weights):
            with pytest.raises(InputError, match=f"got {type(wrong).__name__}"):
                call(critic, wrong, good)

    @pytest.mark.parametrize("grad", MODES)
    def test_an_empty_batch_costs_nothing(self, grad):
        loss_fn, x = CriticLoss({"gmsd": 1.0, "mini-fr": 1.0}, grad=grad), torch.zeros(0, 3, 64, 64).requires_grad_()
        loss = loss_fn(x, x.detach())
        loss.backward()
        assert loss.item() == 0
        assert x.grad.shape == x.shape
        with torch.no_grad():
            assert loss_fn(x, x.detach()).item() == 0

    @pytest.mark.parametrize("grad", MODES)
    def test_images_made_in_inference_mode(self, grad):
        loss_fn, (x, y) = CriticLoss({"lpips-squeeze": {"weight": 1.0, "weights": None}}, grad=grad), pair(1, 64)
        wanted, slope = loss_fn(x, y), gradient(loss_fn, x, y)
        with torch.inference_mode():
            other_x, other_y = x.clone(), y.clone()
            torch.testing.assert_close(loss_fn(other_x, other_y), wanted)
        torch.testing.assert_close(loss_fn(other_x, other_y), wanted)
        torch.testing.assert_close(gradient(loss_fn, x, other_y), slope)

    @pytest.mark.parametrize("grad", MODES)
    def test_gradients_asked_for_in_inference_mode(self, grad):
        loss_fn, (x, y) = CriticLoss({"gmsd": 1.0, "mini-fr": 0.1}, grad=grad), pair(1, 64)
        wanted, norms = loss_fn.value_and_gradient(x, y, step=0), loss_fn.check_gradient(x, y)
        with torch.inference_mode():
            other = x.clone(), y.clone()
            assert loss_fn.check_gradient(*other) == norms
            inside = loss_fn.value_and_gradient(*other, step=0)
            built = CriticLoss({"gmsd": 1.0, "mini-fr": 0.1}, grad=grad)
        torch.testing.assert_close(inside, wanted, rtol=0, atol=0)
        torch.testing.assert_close(loss_fn.value_and_gradient(*other, step=0), wanted, rtol=0, atol=0)
        torch.testing.assert_close(gradient(built, x, y), wanted[1])

    def test_other_orders_of_dimensions_and_devices_are_explained(self):
        loss_fn, y = CriticLoss({"gmsd": 1.0}), torch.rand(1, 3, 8, 8)
        for wrong, advice in {
            y.permute(0, 2, 3, 1): r"image\.permute\(0, 3, 1, 2\)",
            y[None]: r"image\.flatten\(0, 1\)",
            y.to("meta"): "on one device, got .* on meta and .* on cpu",
        }.items():
            with pytest.raises(InputError, match=advice):
                loss_fn(wrong, y)


class TestGrey:
    @pytest.mark.parametrize("grad", MODES)
    def test_one_channel_three_times(self, grad):
        x, y = (image[:, :1].clone() for image in pair(2, 64))
        weights = {"gmsd": 1.0, "mini-fr": 0.1}
        each = {name: {"weight": weight, "grey": "replicate"} for name, weight in weights.items()}
        colour = gradient(CriticLoss(weights, grad=grad), *(image.repeat(1, 3, 1, 1) for image in (x, y)))
        for loss_fn in (CriticLoss(weights, grad=grad, grey="replicate"), CriticLoss(each, grad=grad)):
            torch.testing.assert_close(gradient(loss_fn, x, y), colour.sum(1, keepdim=True))
            assert loss_fn.terms[0].signature.endswith("|grey:replicate")

    def test_is_refused_unless_asked_for(self):
        x = torch.rand(1, 1, 64, 64)
        with pytest.raises(InputError, match=r"got \(1, 1, 64, 64\).*grey='replicate'"):
            CriticLoss({"gmsd": 1.0})(x, x)
        with pytest.raises(InputError, match="grey='replicate'"):  # before it starts
            CriticLoss({"gmsd": {"weight": 1.0, "start": 9}})(x, x)
        with pytest.raises(ConfigError, match="'mini-stereo' judges images of 6"):
            CriticLoss({"mini-stereo": 1.0}, grey="replicate")
        with pytest.raises(ConfigError, match="grey must be one of refuse, replicate, got 'grey'"):
            CriticLoss({"gmsd": 1.0}, grey="grey")


class TestTransforms:
    def slopes(self, grad: str):
        loss_fn, (x, y) = CriticLoss([term(toys.difference())], grad=grad), pair(1, 32)
        tangent = torch.rand_like(x)
        yield lambda: torch.func.jvp(lambda x: loss_fn(x, y), (x,), (tangent,))[1]

        def dual():
            with forward_ad.dual_level():
                return forward_ad.unpack_dual(loss_fn(forward_ad.make_dual(x, tangent), y)).tangent

        yield dual
        yield lambda: (torch.func.grad(lambda x: loss_fn(x, y))(x) * tangent).sum()
        yield (gradient(loss_fn, x, y) * tangent).sum()

    def test_the_plain_graph_has_them(self):
        *found, expected = self.slopes("autograd")
        for slope in found:
            torch.testing.assert_close(slope(), expected, check_dtype=False)

    @pytest.mark.parametrize("grad", ["fused", "checkpoint"])
    def test_the_others_refuse_them(self, grad):
        *found, _ = self.slopes(grad)
        for slope in found:
            with pytest.raises(GradientError, match="grad='autograd'"):
                slope()

    @pytest.mark.parametrize("grad", MODES)
    def test_what_finishes_its_gradient_refuses_them_in_every_mode(self, grad):
        loss_fn, (x, y) = CriticLoss({"gmsd": 1.0}, grad=grad), pair(1, 32)
        with pytest.raises(GradientError, match="without a transform"), forward_ad.dual_level():
            loss_fn.value_and_gradient(forward_ad.make_dual(x, x), y)
        with pytest.raises(GradientError, match="without a transform"):
            torch.func.grad(lambda x: loss_fn.term_gradients(x, y)["gmsd"].sum())(x)

    def test_a_critic_that_does_not_go_through_is_named_as_the_reason(self):
        loss_fn, (x, y) = CriticLoss({"ssim": 1.0}, grad="autograd"), pair(1, 32)
        with pytest.raises(GradientError, match=r"does not go through torch\.func or forward mode"):
            torch.func.grad(lambda x: loss_fn(x, y))(x)


class TestMonitors:
    @pytest.mark.parametrize("grad", MODES)
    def test_they_watch_on_the_same_run_and_change_nothing(self, grad):
        x, y = pair(2, 64)
        trained = {"critic": "lpips-squeeze", "weight": 1.0, "weights": None}
        judge = {**trained, "name": "judge"}
        alone = CriticLoss([trained], grad=grad)
        for extra in ({"weight": 0}, {"monitor": True}, {"weight": 5.0, "monitor": True}):
            critic = {key: value for key, value in judge.items() if key != "weight"}
            loss_fn = CriticLoss([trained, critic | extra, term("gmsd", 0)], grad=grad, share_every=1)
            runs = []
            loss_fn.critics[0].trunk.register_forward_hook(lambda *_, runs=runs: runs.append(1))
            torch.testing.assert_close(gradient(loss_fn, x, y), gradient(alone, x, y), rtol=0, atol=0)
            rows = loss_fn.report
            assert rows["judge"]["score"] == rows["lpips-squeeze"]["score"]
            assert rows["gmsd"]["score"] == pytest.approx(create_critic("gmsd")(x, y).mean().item())
            for label in ("judge", "gmsd"):
                assert (rows[label]["weight"], rows[label]["weighted"], rows[label]["share"]) == (0, 0, None)
            assert set(loss_fn.check_gradient(x, y)) == {"lpips-squeeze"}
            torch.testing.assert_close(loss_fn(x, y), alone(x, y), rtol=0, atol=0)

    @pytest.mark.parametrize("grad", MODES)
    def test_a_judge_that_gives_nan_spoils_nothing(self, grad):
        loss_fn = CriticLoss([term(toys.nan_loss(), 0), term(toys.difference())], grad=grad)
        only = CriticLoss([term(toys.difference())], grad=grad)
        assert torch.equal(gradient(loss_fn, flat(0.95), flat(0.25)), gradient(only, flat(0.95), flat(0.25)))
        assert not loss_fn.skipped
        assert math.isnan(loss_fn.report["nan-loss"]["score"])

    def test_monitors_alone(self):
        loss_fn, (x, y) = CriticLoss({"gmsd": 0}), pair(1, 32)
        assert not gradient(loss_fn, x, y).any()
        assert loss_fn.report["gmsd"]["score"] > 0


@pytest.mark.parametrize("grad", MODES)
def test_value_and_gradient_without_a_graph(grad):
    loss_fn, (x, y) = CriticLoss({"gmsd": 1.0, "mini-fr": 0.1}, grad=grad), pair(2, 64)
    value, slope = loss_fn.value_and_gradient(x, y)
    assert not value.requires_grad and not slope.requires_grad and not x.requires_grad
    torch.testing.assert_close(value, loss_fn(x, y))
    torch.testing.assert_close(slope, gradient(loss_fn, x, y))
    assert loss_fn.value_and_gradient(x.half(), y)[1].dtype == torch.float32
    assert not CriticLoss([]).value_and_gradient(x, y)[1].any()
