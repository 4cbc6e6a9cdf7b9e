"""FPR beyond its parity case: couplings, the order of patches, their weights, and the distance to a reference."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critic import Critic
from perceptloss.critics.fpr.critic import FPR, FPRFeature
from perceptloss.critics.fpr.hallucination import HallucinatingCritic, row_distance
from perceptloss.critics.fpr.invertible import Coupling, Couplings
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.networks.functional import weighted_mean
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.convert import convert, load_states

LAYOUT = json.loads((Path(__file__).parents[1] / "parity" / "fpr" / "case.json").read_text())["layout"]
RANDOM = torch.Generator().manual_seed(5)


@pytest.fixture
def fpr() -> FPR:
    critic = build_small("fpr").double()
    assert isinstance(critic, FPR)
    return critic


@pytest.fixture
def feature() -> FPRFeature:
    critic = build_small("fpr-feature").double()
    assert isinstance(critic, FPRFeature)
    return critic


def images(*size: int, n: int = 1) -> tuple[Tensor, Tensor]:
    return pair(n, *size, dtype=torch.float64)


def spread_out(critic: FPR) -> None:
    """Make the weights of patches differ much, and all of them positive."""
    critic.reader.gru.weight_ih_l0.data.mul_(20)
    critic.reader.gru.weight_hh_l0.data.mul_(4)
    critic.reader.weight.weight.data.mul_(4)
    critic.reader.weight.bias.data.fill_(4)


def equal_weights(critic: FPR, bias: float = 1.0) -> None:
    critic.reader.weight.weight.data.zero_()
    critic.reader.weight.bias.data.fill_(bias)


def authors_state(critic: Critic) -> dict[str, Tensor]:
    """The critic's own tensors under the authors' names."""
    own = critic.state_dict()
    found = {}
    for key in (row["key"] for row in LAYOUT):
        rule, match = next((rule, m) for rule in critic.rules if (m := re.fullmatch(rule.pattern, key)))
        found[key] = torch.ones(1) if rule.target is None else own[match.expand(rule.target)]
    return found


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=RANDOM, dtype=torch.float64)


class TestCouplings:
    def couplings(self, channels: int = 3, gain: float = 10.0) -> Couplings:
        found = Couplings(3, channels, 8).double()
        for parameter in found.parameters():
            parameter.data.mul_(gain)
            parameter.data.add_(0.1 * noise(*parameter.shape))
        return found

    @pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
    def test_are_undone(self, dtype, most):
        couplings = self.couplings().to(dtype)
        first, second = noise(2, 3, 4, 4).to(dtype), noise(2, 3, 4, 4).to(dtype)
        y1, y2, _ = couplings(first, second)
        assert (y1 - first).abs().mean() > 0.1
        assert (y2 - second).abs().mean() > 0.1
        back = couplings.inverse(y1, y2)
        assert (back[0] - first).abs().max() < most
        assert (back[1] - second).abs().max() < most

    def test_of_zero_networks_are_the_identity(self):
        couplings = Couplings(3, 3, 8)
        for parameter in couplings.parameters():
            parameter.data.zero_()
        first, second = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
        y1, y2, log_det = couplings(first, second)
        assert_same(y1, first)
        assert_same(y2, second)
        assert torch.equal(log_det, torch.zeros(2))

    def test_start_near_the_identity(self):
        couplings = Couplings(3, 32, 64)
        first, second = torch.randn(2, 32, 8, 8), torch.randn(2, 32, 8, 8)
        y1, y2, _ = couplings(first, second)
        assert 0 < (y1 - first).norm() < 0.01 * first.norm()
        assert 0 < (y2 - second).norm() < 0.01 * second.norm()

    def test_log_determinant_is_that_of_the_jacobian(self):
        couplings = self.couplings(2)

        def flat(v: Tensor) -> Tensor:
            return torch.cat([y.flatten() for y in couplings(*v.view(2, 1, 2, 2, 2))[:2]])

        v = noise(16)
        jacobian = torch.autograd.functional.jacobian(flat, v)
        log_det = couplings(*v.view(2, 1, 2, 2, 2))[2]
        assert log_det.abs() > 0.1
        torch.testing.assert_close(jacobian.det().log()[None], log_det.detach())

    def test_scales_stay_between_the_powers_of_e(self):
        coupling = Coupling(3, 8).double()
        for parameter in coupling.scale.parameters():
            parameter.data.mul_(1e4)
        first, second = 100 * noise(1, 3, 4, 4), noise(1, 3, 4, 4)
        y1, y2, log_det = coupling(first, second)
        scale = ((y2 - coupling.shift(y1)) / second).detach()
        assert scale.min() > 0.999 / torch.e
        assert scale.max() < 1.001 * torch.e
        assert scale.max() / scale.min() > 4
        assert log_det.abs() < first.numel()


class TestWeights:
    def test_load_from_a_file_as_the_authors_save_it(self, fpr, tmp_path):
        state = {f"module.{key}": tensor for key, tensor in authors_state(fpr.float()).items()}
        path = tmp_path / "model_best.pth"
        torch.save({"epoch": 7, "state_dict": state, "min_loss": 0.04}, path)
        for name in ("fpr", "fpr-feature"):
            other = build_small(name)
            for tensor in other.state_dict().values():
                tensor.zero_()
            load_states(other, [read_state(path)])
            assert all(torch.equal(tensor, fpr.state_dict()[key]) for key, tensor in other.state_dict().items())

    def test_foreign_and_missing_keys_are_named(self, fpr):
        state = authors_state(fpr)
        with pytest.raises(WeightsError, match=r"sfl4\.conv1\.conv\.0\.weight: unknown key"):
            convert(fpr, {**state, "sfl4.conv1.conv.0.weight": torch.rand(1)})
        with pytest.raises(WeightsError, match=r"InvRescaleNet\.operations\.3\.F\.conv1\.weight: no layer"):
            convert(fpr, {**state, "InvRescaleNet.operations.3.F.conv1.weight": torch.rand(1)})
        del state["swl2.bias"]
        with pytest.raises(WeightsError, match=r"reader\.weight\.bias: in no file"):
            load_states(fpr, [state])

    def test_counts_of_the_published_network(self):
        critic = create_critic("fpr", weights=None)
        gn = 512
        assert sum(p.numel() for p in critic.parameters()) == 16_576_388 - gn
        assert sum(p.numel() for p in critic.couplings.parameters()) == 7_094_016
        read = sum(p.numel() for name, p in critic.named_parameters() if not re.fullmatch(critic.unused[0], name))
        weighing = sum(p.numel() for part in (critic.reader.gru, critic.reader.weight) for p in part.parameters())
        assert round(read - weighing, -4) == 7_610_000

    def test_nothing_of_the_other_branch_reaches_the_score(self, fpr):
        x, _ = images(128)
        before = fpr(x)
        for part in (fpr.reference_encoder, fpr.couplings, fpr.reference_reader):
            for parameter in part.parameters():
                parameter.data.add_(noise(*parameter.shape))
        assert torch.equal(fpr(x), before)
        fpr.encoder[4][1].weight.data.mul_(1.1)
        assert not torch.equal(fpr(x), before)


class TestOrder:
    def test_is_down_the_columns_or_along_the_rows(self, fpr):
        image = noise(2, 3, 130, 200)  # two rows and three columns of patches, and a border
        places = [(0, 0), (64, 0), (0, 64), (64, 64), (0, 128), (64, 128)]
        for order, expected in (("columns", places), ("rows", sorted(places))):
            fpr.order = order
            found = fpr.patches(image)
            assert found.shape == (2, 6, 3, 64, 64)
            for number, (top, left) in enumerate(expected):
                assert torch.equal(found[:, number], image[..., top : top + 64, left : left + 64])

    def test_matters_through_the_recurrent_network(self, fpr):
        spread_out(fpr)
        x, _ = images(128, 192)
        columns = fpr(x)
        fpr.order = "rows"
        assert abs(fpr(x) - columns) > 1e-5 * abs(columns)
        equal_weights(fpr)
        rows = fpr(x)
        fpr.order = "columns"
        torch.testing.assert_close(fpr(x), rows)

    def test_a_patch_weighs_by_itself_and_those_before_it(self, fpr):
        vectors = noise(1, 5, fpr.reader.gru.input_size)
        changed = vectors.clone()
        changed[:, 2] += 1
        differ = (fpr.reader.relevance(vectors) != fpr.reader.relevance(changed))[0]
        assert differ.tolist() == [False, False, True, True, True]

    def test_is_checked_and_told(self, fpr):
        with pytest.raises(ConfigError, match=r"'columns' or 'rows', got 'shuffled'"):
            FPR(get_card("fpr"), order="shuffled", width=16)
        assert "order" not in fpr.signature
        fpr.order = "rows"
        assert fpr.signature.endswith("|order:rows")

    @pytest.mark.parametrize("order", ["columns", "rows"])
    def test_maps_are_where_the_patches_lie(self, fpr, order):
        fpr.order = order
        x, _ = images(128, 192, n=2)
        changed = x.clone()
        changed[..., 64:128, 128:192] = 1 - changed[..., 64:128, 128:192]
        maps = fpr.maps(x)
        assert maps.shape == (2, 1, 2, 3)
        assert (fpr.maps(changed) != maps)[0, 0].nonzero().tolist() == [[1, 2]]
        equal_weights(fpr)
        torch.testing.assert_close(fpr(x), maps.mean((1, 2, 3)))


class TestPooling:
    def test_by_hand(self):
        values, weights = torch.tensor([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([[1.0, 1.0], [3.0, 1.0]])
        torch.testing.assert_close(weighted_mean(values, weights), torch.tensor([2.0, 1.5]))
        torch.testing.assert_close(weighted_mean(values, 1e-8 * weights), torch.tensor([2.0, 1.5]))

    def test_dead_weights_leave_the_mean_and_its_slope(self, fpr):
        """Where the ReLU cuts every weight, patches count alike; no image is without a gradient."""
        x, _ = images(128)
        values = fpr.maps(x.requires_grad_())
        (wanted,) = torch.autograd.grad(values.mean(), x)
        equal_weights(fpr, -3.0)
        (found,) = torch.autograd.grad(fpr(x).sum(), x)
        torch.testing.assert_close(fpr(x)[0], values.mean())
        torch.testing.assert_close(found, wanted)
        assert found.abs().max() > 0

    def test_weights_are_held_in_the_gradient_unless_asked(self, fpr):
        spread_out(fpr)
        x, _ = images(128, 192)
        x.requires_grad_()
        values, weights = fpr.judge(*fpr.encode(fpr.patches(x)), 1, fpr.reader)
        share = (weights / weights.sum()).detach()
        assert share.max() > 1.05 * share.min()
        (wanted,) = torch.autograd.grad((values * share).sum(), x)
        (held,) = torch.autograd.grad(fpr(x).sum(), x)
        torch.testing.assert_close(held, wanted)
        fpr.hold_weights = False
        (exact,) = torch.autograd.grad(fpr(x).sum(), x)
        assert (exact - held).norm() > 1e-3 * held.norm()

    @pytest.mark.parametrize("name", ["fpr", "fpr-feature"])
    def test_pixels_beyond_the_last_patch_get_no_gradient(self, name):
        critic = build_small(name).double()
        x, y = images(100, 150)
        (gradient,) = torch.autograd.grad(critic(x.requires_grad_(), y).sum(), x)
        assert gradient[..., :64, :128].abs().amax((0, 1)).count_nonzero() > 0.9 * 64 * 128
        assert not gradient[..., 64:, :].any()
        assert not gradient[..., 128:].any()


class TestFullReferenceBranch:
    def test_reads_the_reference_first_and_equal_features_as_one(self, fpr):
        f, g = noise(3, 32, 8, 8), noise(3, 32, 8, 8)

        def read(first: Tensor, second: Tensor) -> Tensor:
            return weighted_mean(*fpr.judge(first, second, 1, fpr.reference_reader))

        ordered, equal = read(f, g), read(f, f)
        assert abs(read(g, f) - ordered) > 1e-4
        weight = fpr.reference_reader.reduce.weight.data
        weight.copy_(weight.roll(32, 1))  # the parts for the two features change places
        torch.testing.assert_close(read(g, f), ordered)
        torch.testing.assert_close(read(f, f), equal)


class TestFeatureDistance:
    def test_is_the_metric_of_the_triplet_loss(self):
        a, b = noise(1, 4, 8, 8), 0.1 * noise(1, 4, 8, 8)
        triplet = F.triplet_margin_loss(a, a, a + b, margin=10, p=2, eps=0)  # over the last axis, then the mean
        torch.testing.assert_close(row_distance(a, a + b)[0], 10 - triplet)

    def test_by_hand(self, feature):
        x, y = images(64, 128)
        total = 0.0
        for left in (0, 64):
            (dx, rx), (dy, ry) = (feature.hallucinate(image[None, ..., left : left + 64]) for image in (x, y))
            for a, b in ((dx, dy), (rx, ry)):
                total += sum((a[0, c, row] - b[0, c, row]).norm() for c in range(32) for row in range(8)) / (32 * 8)
        torch.testing.assert_close(feature(x, y)[0], total / 2)
        torch.testing.assert_close(feature.maps(x, y).mean(), total / 2)
        assert feature.maps(x, y).shape == (1, 1, 1, 2)

    def test_is_a_distance_with_no_slope_where_it_is_nothing(self, feature):
        x, y = images(64, n=2)
        x.requires_grad_()
        assert (feature(x, y) > 1e-3).all()
        torch.testing.assert_close(feature(x, y), feature(y, x.detach()))
        equal = feature(x, x.detach())
        (gradient,) = torch.autograd.grad(equal.sum(), x)
        assert not equal.any()
        assert not gradient.any()

    def test_grows_along_the_way_from_the_reference(self, feature):
        x, y = images(64, n=3)
        scores = torch.stack([feature(y + share * (x - y), y) for share in (0.0, 0.25, 0.5, 1.0)])
        assert (scores.diff(dim=0) > 0).all()

    def test_depends_on_both_halves_and_on_no_reader(self, feature):
        x, y = images(64)
        before = feature(x, y)
        for part in (feature.reader, feature.reference_reader, feature.reference_encoder):
            for parameter in part.parameters():
                parameter.data.add_(1)
        assert torch.equal(feature(x, y), before)
        channels = feature.encoder[4][1].weight
        for half in (slice(0, 32), slice(32, 64)):
            kept = channels.data.clone()
            channels.data[half] *= 2
            assert feature(x, y) > 1.1 * before
            channels.data.copy_(kept)

    def test_both_critics_read_one_file(self, fpr, feature):
        assert isinstance(feature, HallucinatingCritic)
        assert fpr.state_dict().keys() == feature.state_dict().keys()
        assert fpr.card.weights == feature.card.weights
