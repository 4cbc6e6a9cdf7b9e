"""PieAPP beyond its parity case: patches, pooling by weights that may be negative, and its use as a loss."""

from __future__ import annotations

import copy

import pytest
import torch
import toys
from images import pair
from torch import Tensor

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critics.pieapp import PieAPP, weighted_mean
from perceptloss.errors import WeightsError
from perceptloss.weights.convert import convert


def small(stride: int = 27, seed: int = 0) -> PieAPP:
    """The network with 2 to 16 channels, in float64, with learned-looking weights of both signs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = PieAPP(get_card("pieapp"), width=2, hidden=16, stride=stride)
        with torch.no_grad():
            critic.fc1_weight.bias.normal_()
            critic.fc2_weight.weight.normal_(std=0.01)
    return critic.double().freeze()


@pytest.fixture(scope="module")
def pieapp() -> PieAPP:
    return small()


def images(*size: int, n: int = 1) -> tuple[Tensor, Tensor]:
    return pair(n, *size, dtype=torch.float64)


def gradient_of(critic: PieAPP, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x, y).sum(), x)[0]


class TestFullSize:
    @pytest.fixture(scope="class")
    def full(self) -> PieAPP:
        return create_critic("pieapp", weights=None)

    def test_counts_of_the_paper(self, full):
        assert sum(p.numel() for p in full.parameters()) == 68_376_580
        assert full.fc1_score.in_features == 120_832
        assert full.fc1_weight.in_features == full.coarse == 2048

    def test_agrees_with_piq_on_swapped_channels(self, full):
        """The same file serves both, but piq feeds it RGB, the authors BGR; piq keeps one weight as a vector."""
        piq = pytest.importorskip("piq.pieapp")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = piq.PieAPPModel().eval()
            torch.nn.init.constant_(model.fc2_weight.bias, 2.0)  # untrained weights would cancel
        state = model.state_dict()
        state["ref_score_subtract.weight"] = state["ref_score_subtract.weight"].squeeze(1)  # as published
        ours = create_critic("pieapp", weights=state)
        x, y = pair(1, 64, 91)
        with torch.no_grad():
            sides = [torch.cat([image[..., :64], image[..., 27:]]) * 255 for image in (x, y)]
            (fx, wx), (fy, wy) = (model(patches) for patches in sides)
            errors, weights = model.compute_difference(fy - fx, wy - wx)
        expected = (errors * weights).sum() / weights.sum()
        torch.testing.assert_close(ours(x.flip(1), y.flip(1)), expected[None], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(ours(x, y), expected, rtol=1e-3)


class TestPatches:
    def test_are_bgr_in_255_row_by_row_every_27_pixels(self, pieapp):
        image = torch.rand(2, 3, 118, 100, generator=torch.Generator().manual_seed(1))
        patches = pieapp.prepare(image).unflatten(0, (2, 3, 2))
        for row, top in enumerate((0, 27, 54)):
            for column, left in enumerate((0, 27)):
                expected = 255 * image[:, [2, 1, 0], top : top + 64, left : left + 64]
                assert torch.equal(patches[:, row, column], expected)

    def test_score_pools_the_errors_of_the_patches(self, pieapp):
        """An image of one patch scores its error: weights need company."""
        x, y = images(118, 91, n=2)
        errors = pieapp.maps(x, y)
        assert errors.shape == (2, 1, 3, 2)
        for row, top in enumerate((0, 27, 54)):
            for column, left in enumerate((0, 27)):
                place = (..., slice(top, top + 64), slice(left, left + 64))
                torch.testing.assert_close(errors[:, 0, row, column], pieapp(x[place], y[place]))
        score = pieapp(x, y)
        assert (errors.amin((1, 2, 3)) < score).all()
        assert (score < errors.amax((1, 2, 3))).all()
        assert not torch.allclose(score, errors.mean((1, 2, 3)), rtol=1e-3), "the weights had no effect"

    def test_border_outside_the_last_patch_is_not_seen(self, pieapp):
        x, y = images(100, 91)
        sparse, dense = (gradient_of(critic, x, y).abs().sum((0, 1, 3)) > 0 for critic in (pieapp, small(stride=6)))
        assert sparse.nonzero().flatten().tolist() == list(range(91))
        assert dense.all()

    def test_dense_sampling_is_a_choice(self):
        x, y = images(76, 70)
        dense = small(stride=6)
        assert dense.maps(x, y).shape == (1, 1, 3, 2)
        assert not torch.allclose(dense(x, y), small()(x, y), rtol=1e-3)


class TestWeights:
    def test_mean_by_hand_also_with_negative_weights(self):
        errors = torch.tensor([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]])
        weights = torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, -1.0]])
        torch.testing.assert_close(weighted_mean(errors, weights), torch.tensor([2.0, 1.5, -1.0]))

    def test_slope_is_the_true_one_where_weights_agree(self):
        errors, weights = torch.rand(2, 3, 5, dtype=torch.float64).unbind()
        errors.requires_grad_()
        weights = (weights + 0.1).requires_grad_()
        assert torch.autograd.gradcheck(weighted_mean, (errors, weights))

    @pytest.mark.parametrize("rest", [0.0, 1e-12, 1e-6, -1e-6, 1e-3, 0.05])
    def test_weights_that_cancel_give_no_steep_slope(self, rest):
        errors = torch.tensor([[1.0, 2.0]], requires_grad=True)
        score = weighted_mean(errors, torch.tensor([[1.0, -1.0 + rest]]))
        (gradient,) = torch.autograd.grad(score.sum(), errors)
        assert torch.isfinite(score).all()
        assert gradient.abs().max() < 6
        if abs(rest) > 1e-5:
            torch.testing.assert_close(score, torch.tensor([(1 - 2 * (1 - rest)) / rest]), rtol=1e-3, atol=0)

    def test_weights_of_zero_are_survived(self):
        score = weighted_mean(torch.ones(1, 2, requires_grad=True), torch.zeros(1, 2))
        assert torch.isfinite(score).all()

    def test_a_restorer_cannot_move_the_weights(self):
        x, y = images(91, 91)
        held, free = small(), small()
        free.hold_weights = False
        assert torch.equal(held(x, y), free(x, y))
        with torch.no_grad():
            _, weights = held.judge(*(held.trunk(held.prepare(image), held.taps) for image in (x, y)))
        assert weights.std() > 0.01 * weights.mean().abs()
        leaf = x.clone().requires_grad_()
        errors, _ = held.judge(*(held.trunk(held.prepare(image), held.taps) for image in (leaf, y)))
        (constant,) = torch.autograd.grad((errors * weights).sum() / weights.sum(), leaf)
        torch.testing.assert_close(gradient_of(held, x, y), constant)
        assert not torch.allclose(gradient_of(free, x, y), constant, rtol=1e-3)

    def test_without_holding_the_gradient_is_the_slope(self):
        x, y = images(91, 91)
        x = 0.9 * x + 0.05
        free = small()
        free.hold_weights = False
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
        step = 1e-7
        slope = (free(x + step * along, y) - free(x - step * along, y)) / (2 * step)
        torch.testing.assert_close(slope, (gradient_of(free, x, y) * along).sum()[None], rtol=1e-4, atol=1e-8)

    def test_the_layers_behind_the_weights_learn_although_they_are_held(self):
        learning = small().unfreeze()
        x, y = images(91, 91)
        learning(x, y).sum().backward()
        assert all(p.grad is not None for p in learning.parameters())
        assert learning.fc1_weight.weight.grad.abs().sum() > 0


class TestAsALoss:
    def test_every_image_against_itself_scores_the_same_constant(self):
        shifted = small()
        with torch.no_grad():
            shifted.ref_score_subtract.bias.fill_(0.25)
        _, y = images(91, 91, n=3)
        torch.testing.assert_close(shifted(y, y), torch.full((3,), 0.25, dtype=y.dtype))

    def test_hinge_stops_where_a_score_falls_below_that_of_the_reference(self):
        """As a plain distance users see it sink without end: better than perfect, which no image is."""
        hacked = small()
        with torch.no_grad():
            hacked.fc2_score.weight.neg_()  # errors of changed images become negative
        x, y = images(91, 91)
        assert hacked(x, y) < hacked(y, y) - 1e-4
        hinge, plain = (
            CriticLoss([toys.term(c, **k)]).double()
            for c, k in ((hacked, {}), (copy.deepcopy(hacked), {"shape": "distance"}))
        )
        assert hinge(x, y) == 0
        assert toys.gradient(hinge, x, y).abs().sum() == 0
        assert plain(x, y) < 0
        assert toys.gradient(plain, x, y).abs().sum() > 0

    def test_hinge_pulls_towards_the_reference_elsewhere(self, pieapp):
        x, y = images(91, 91)
        loss = CriticLoss([toys.term(pieapp)])
        torch.testing.assert_close(loss(x, y), (pieapp(x, y) - pieapp(y, y)).mean())
        step = toys.gradient(loss, x, y)
        assert loss(x - 1e-4 * step / step.norm(), y) < loss(x, y)


def test_card_warns_of_the_licence_and_asks_for_its_file():
    card = get_card("pieapp")
    assert not card.is_commercial
    assert card.weights == ("pieapp",)


def test_converter_names_what_does_not_fit(pieapp):
    state = {f"conv{n}.bias": torch.zeros(2) for n in (1, 12)}
    with pytest.raises(WeightsError, match=r"conv12\.bias: unknown key"):
        convert(pieapp, state)
