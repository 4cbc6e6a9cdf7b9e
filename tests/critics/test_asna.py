"""ASNA beyond parity and contract: its differences, its bounded end, its padding, and what its gradient can reach."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from images import pair
from small import build_small
from torch import Tensor

from perceptloss import Critic, CriticLoss, create_critic
from perceptloss.critics.asna import ASNA, Block
from perceptloss.errors import InputError, WeightsError
from perceptloss.weights.convert import convert, load_states

SIDE = 64
DECODER = ("d1", "d2", "d3", "d4")


@pytest.fixture(scope="module")
def full() -> Critic:
    return create_critic("asna", weights=None)


@pytest.fixture
def asna() -> ASNA:
    critic = build_small("asna").double()
    assert isinstance(critic, ASNA)
    return critic


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return pair(2, SIDE, dtype=torch.float64)


def skips(critic: ASNA, x: Tensor, y: Tensor) -> list[Tensor]:
    """What the decoder is given beside its own maps, from the smallest map up."""
    found: list[Tensor] = []
    widths = [critic.shared[f"conv_{i}"].out_channels for i in (4, 3, 2, 1)]
    handles = [
        getattr(critic, name).register_forward_pre_hook(lambda m, given, w=width: found.append(given[0][:, -w:]))
        for name, width in zip(DECODER, widths, strict=True)
    ]
    critic(x, y)
    for handle in handles:
        handle.remove()
    return found


def silence(block: Block) -> None:
    """Make a block give a constant, whatever it reads."""
    for parameter in block.conv.parameters():
        parameter.data.zero_()


class TestInput:
    def test_288_is_accepted_and_287_refused(self, full):
        x, y = pair(1, 288)
        assert full(x, y).shape == (1,)
        with pytest.raises(InputError, match=r"at least 288x288, got x of 287x288"):
            full(x[..., :287, :], y[..., :287, :])

    def test_the_encoder_reads_bgr_from_minus_one_to_one(self, asna, images):
        seen: list[Tensor] = []
        asna.shared.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        asna(*images)
        for image, given in zip(images, seen, strict=True):
            torch.testing.assert_close(given, (255 * image[:, [2, 1, 0]] - 127.5) / 127.5)

    def test_a_larger_image_has_the_mean_read_out_of_its_crops(self, asna):
        x, y = pair(2, SIDE, SIDE + 37, dtype=torch.float64)
        parts = [asna.linear(x[..., left : left + SIDE], y[..., left : left + SIDE]) for left in (0, 37)]
        torch.testing.assert_close(asna.linear(x, y), (parts[0] + parts[1]) / 2)
        torch.testing.assert_close(asna(x, y), asna.squash((parts[0] + parts[1]) / 2))


class TestDifferences:
    def test_vanish_exactly_between_equal_images(self, asna, images):
        x, y = images
        equal = skips(asna, y, y)
        assert [s.shape[-1] for s in equal] == [SIDE // 8, SIDE // 4, SIDE // 2, SIDE]
        assert not any(s.any() for s in equal)
        assert all(s.any() for s in skips(asna, x, y))

    def test_do_not_depend_on_the_order_but_the_score_does(self, asna, images):
        x, y = images
        for a, b in zip(skips(asna, x, y), skips(asna, y, x), strict=True):
            assert torch.equal(a, b)
        assert ((asna(x, y) - asna(y, x)).abs() > 1e-6).all()

    def test_without_the_distorted_branch_the_order_does_not_matter(self, asna, images):
        x, y = images
        silence(asna.d0)
        torch.testing.assert_close(asna(x, y), asna(y, x), rtol=1e-12, atol=1e-12)
        constant = asna(y, y)
        torch.testing.assert_close(constant, constant[:1].expand(2))

    def test_the_score_at_identity_depends_on_the_image(self, asna, images):
        _, y = images
        first, second = asna(y, y)
        assert abs(first - second) > 1e-6


class TestEnd:
    @pytest.mark.parametrize("slope", [0.7, -0.7])
    def test_the_read_out_grows_with_the_score(self, asna, images, slope):
        asna.dense_3.weight.data.fill_(slope)
        asna.dense_3.bias.data.fill_(0.2)
        seen: list[Tensor] = []
        asna.dense_2.register_forward_hook(lambda module, given, out: seen.append(out.squeeze(1)))
        score, linear = asna(*images), asna.linear(*images)
        torch.testing.assert_close(score, slope * torch.tanh(seen[0]) + 0.2)
        torch.testing.assert_close(asna.squash(linear), score)
        scores = asna.squash(torch.linspace(-3, 3, 13, dtype=torch.float64))
        assert (scores.diff() > 0).all()

    def test_no_image_leaves_the_bounds(self, asna):
        asna.dense_2.weight.data.mul_(1e3)
        asna.dense_3.weight.data.fill_(-0.4)
        asna.dense_3.bias.data.fill_(0.1)
        grain = torch.rand(6, 3, SIDE, SIDE, dtype=torch.float64)
        score = asna(grain, grain.flip(0))
        assert (score >= 0.1 - 0.4).all()
        assert (score <= 0.1 + 0.4).all()

    def test_a_saturated_score_still_has_a_loss_with_a_slope(self, asna, images):
        x, y = (image[:1] for image in images)
        asna.dense_2.weight.data.mul_(1e4)
        if asna.linear(x, y) > asna.linear(y, y):
            asna.dense_2.weight.data.neg_()
        asna.dense_2.bias.data.sub_(asna.linear(x, y) + 40)
        x.requires_grad_()
        (of_score,) = torch.autograd.grad(asna(x, y).sum(), x)
        loss = CriticLoss([{"critic": asna, "weight": 1.0}], grad="autograd", share_every=0)(x, y)
        (of_loss,) = torch.autograd.grad(loss, x)
        assert of_score.abs().max() < 1e-12
        assert of_loss.abs().max() > 1e-3
        torch.testing.assert_close(loss, F.relu(asna.linear(y, y) - asna.linear(x, y)).mean())


class TestPadding:
    """TensorFlow's 'same': nothing before and one after at stride 2 on an even side, nothing at stride 4."""

    @pytest.mark.parametrize(("stride", "shift"), [(1, -1), (2, 0), (4, 0)])
    def test_first_tap_reads(self, stride, shift):
        block = Block(1, 1, stride)
        block.conv.weight.data.zero_()
        block.conv.weight.data[..., 0, 0] = 1
        block.conv.bias.data.zero_()
        block.bn.eps = 0.0
        h = torch.rand(1, 1, 16, 16)
        out = block(h)
        assert out.shape[-1] == 16 // stride
        wanted = h[..., ::stride, ::stride] if shift == 0 else F.pad(h, (1, 0, 1, 0))[..., :-1, :-1]
        torch.testing.assert_close(out, wanted)

    def test_every_fourth_row_and_column_is_never_read(self, asna, images):
        x, y = images
        kept: list[Tensor] = []
        asna.d4.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
        score = asna(x.requires_grad_(), y)
        (gradient,) = torch.autograd.grad(score.sum(), kept[0])
        assert not gradient[..., 3::4, :].any()
        assert not gradient[..., 3::4].any()
        assert all(gradient[..., i::4, j::4].any() for i in range(3) for j in range(3))


class TestGradient:
    def test_shows_no_checkerboard_with_random_weights(self, full):
        x, y = pair(2, 288)
        (gradient,) = torch.autograd.grad(full(x.requires_grad_(), y).sum(), x)
        phases = torch.stack([gradient[..., i::4, j::4].abs().mean() for i in range(4) for j in range(4)])
        assert phases.max() / phases.min() < 1.5

    def test_at_identity_comes_through_the_distorted_branch_alone(self, asna, images):
        _, y = images
        x = y.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(asna(x, y).sum(), x)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()
        silence(asna.d0)
        (without,) = torch.autograd.grad(asna(x, y).sum(), x)
        assert not without.any()

    def test_reaches_every_parameter_when_unfrozen(self, asna, images):
        asna.unfreeze()
        asna(*images).sum().backward()
        assert not [name for name, p in asna.named_parameters() if not p.grad.any()]


class TestConversion:
    def test_the_sorter_is_left_out_and_nothing_else(self, asna):
        state = dict(asna.state_dict())
        sorter = {"sorter.conv_1.weight": torch.rand(8, 1, 2), "sorter.prelu_7.weight": torch.rand(16, 256)}
        fresh = copy.deepcopy(asna)
        load_states(fresh, [{**state, **sorter}])
        assert all(torch.equal(value, state[key]) for key, value in fresh.state_dict().items())
        with pytest.raises(WeightsError, match=r"d6\.conv\.weight: unknown key"):
            convert(asna, {**state, "d6.conv.weight": torch.rand(1)})
        del state["att.bn.running_var"]
        with pytest.raises(WeightsError, match=r"att\.bn\.running_var: in no file"):
            load_states(fresh, [state])

    @pytest.mark.parametrize("kind", ["conv|channel|spatial|out", "bn", "dense"])
    def test_layers_of_a_type_are_in_the_order_in_which_keras_numbers_them(self, full, kind):
        """The case lists each type in the order in which the original makes its layers."""
        layout = json.loads((Path(__file__).parents[1] / "parity/asna/case.json").read_text())["layout"]
        original = [row["key"] for row in layout if not row["key"].startswith("sorter.")]

        def of_kind(keys: list[str]) -> list[str]:
            return [key for key in keys if key.split(".")[-2].startswith(tuple(kind.split("|")))]

        ours = of_kind(list(full.state_dict()))
        assert ours
        assert ours == of_kind(original)
