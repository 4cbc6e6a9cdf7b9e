"""DFSS beyond its parity case: deviations with known values, pooling, bounded slopes, and the anchored form."""

from __future__ import annotations

import json
import math
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
from perceptloss.critics.dfss.critic import DFSS, DFSSDeviation
from perceptloss.critics.dfss.feature_statistics import deviation, pooled_statistics
from perceptloss.errors import InputError, WeightsError
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.convert import convert, load_states

LAYOUT = json.loads((Path(__file__).parents[1] / "parity" / "dfss" / "case.json").read_text())["layout"]
RANDOM = torch.Generator().manual_seed(6)


@pytest.fixture
def dfss() -> DFSS:
    critic = build_small("dfss").double()
    assert isinstance(critic, DFSS)
    return critic


@pytest.fixture
def anchored() -> DFSSDeviation:
    critic = build_small("dfss-deviation").double()
    assert isinstance(critic, DFSSDeviation)
    return critic


def images(*size: int, n: int = 1) -> tuple[Tensor, Tensor]:
    return pair(n, *size, dtype=torch.float64)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=RANDOM, dtype=torch.float64)


def patches_of(mean: float, variance: float) -> Tensor:
    """Four patches of one channel with this mean and this biased variance."""
    away = math.sqrt(variance)
    return torch.tensor([mean - away, mean + away] * 2, dtype=torch.float64).view(1, 4, 1)


def flat_with_noise(n: int = 2) -> Tensor:
    return 0.5 + 1e-4 * noise(n, 3, 128, 128)


def gradient_of(critic: DFSS | DFSSDeviation, x: Tensor, y: Tensor | None = None) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(critic(x, y).sum(), x)[0]


def authors_state(critic: DFSS) -> dict[str, Tensor]:
    """The critic's own tensors under the authors' names, and other values where it has none."""
    own = critic.state_dict()
    found = {}
    for row in LAYOUT:
        key = row["key"]
        rule, match = next((rule, m) for rule in critic.rules if (m := re.fullmatch(rule.pattern, key)))
        found[key] = noise(*row["shape"]) if rule.target is None else own[match.expand(rule.target)]
    return found


class TestDeviation:
    @pytest.mark.parametrize(
        ("mean", "variance", "wanted"), [(0, 1, 0), (1, 1, 0.5), (0, math.e, 0.5 * (math.e - 2)), (-2, 1, 2)]
    )
    def test_known_values(self, mean, variance, wanted):
        assert deviation(patches_of(mean, variance)).item() == pytest.approx(wanted, abs=1e-9)

    @pytest.mark.parametrize("mean", [0.0, 1.5])
    def test_of_equal_patches(self, mean):
        wanted = -0.5 * (1 + math.log(1e-12)) + mean**2 / 2
        assert wanted - mean**2 / 2 == pytest.approx(13.3155, abs=1e-4)
        for count in (1, 4):
            assert deviation(torch.full((1, count, 1), mean, dtype=torch.float64)).item() == pytest.approx(wanted)

    def test_is_never_negative_and_nothing_only_at_a_unit_gaussian(self):
        statistics = noise(5, 7, 40) * noise(5, 1, 40).exp() + noise(5, 1, 40)
        assert (deviation(statistics) > 0).all()
        unit = patches_of(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(deviation(unit).sum(), unit)
        assert gradient.abs().max() < 1e-9

    def test_is_the_divergence_that_torch_computes(self):
        statistics = noise(2, 6, 9)
        found = torch.distributions.Normal(statistics.mean(1), statistics.std(1, unbiased=False))
        wanted = torch.distributions.kl_divergence(found, torch.distributions.Normal(0.0, 1.0))
        torch.testing.assert_close(deviation(statistics), wanted)

    @pytest.mark.parametrize("variance", [1e-14, 1e-8, 0.99e-4, 1.01e-4, 1.0])
    def test_guard_keeps_values_and_bounds_slopes(self, variance):
        slopes = []
        for floor in (0.0, 1e-4):
            statistics = patches_of(0.3, variance).requires_grad_()
            value = deviation(statistics, floor)
            slopes.append(torch.autograd.grad(value.sum(), statistics)[0])
            assert value.item() == pytest.approx(deviation(patches_of(0.3, variance)).item(), rel=1e-12)
        if variance > 1e-4:
            torch.testing.assert_close(slopes[1], slopes[0])
        else:
            assert slopes[1].abs().max() < min(50.0, 1.02 * slopes[0].abs().max().item())
        if variance < 1e-6:
            assert slopes[0].abs().max() > 1e3


class TestPooling:
    def test_of_a_constant(self):
        found = pooled_statistics(torch.full((1, 2, 7, 7), 0.75))
        assert torch.equal(found[:, :2], torch.full((1, 2, 3, 3), 0.75))
        assert torch.equal(found[:, 2:], torch.zeros(1, 2, 3, 3))

    def test_of_a_checkerboard(self):
        a, b = 0.2, -1.4
        board = torch.where((torch.arange(6)[:, None] + torch.arange(6)) % 2 == 0, a, b)[None, None]
        found = pooled_statistics(board)
        torch.testing.assert_close(found[:, 0], torch.full((1, 3, 3), (a + b) / 2))
        torch.testing.assert_close(found[:, 1], torch.full((1, 3, 3), abs(a - b) / 2))

    @pytest.mark.parametrize("side", [2, 4, 8, 16])
    def test_cells_share_pixels_where_the_side_is_no_multiple_of_three(self, side):
        h = noise(2, 3, side, side)
        spans = [slice(i * side // 3, -(-(i + 1) * side // 3)) for i in range(3)]
        for row, rows in enumerate(spans):
            for column, columns in enumerate(spans):
                cell = h[..., rows, columns].flatten(2)
                found = pooled_statistics(h)[..., row, column]
                torch.testing.assert_close(found[:, :3], cell.mean(2))
                torch.testing.assert_close(found[:, 3:], cell.std(2, unbiased=False), atol=1e-7, rtol=1e-7)

    def test_of_one_pixel_is_the_pixel_with_the_slope_of_the_mean_alone(self):
        h = noise(4, 5, 1, 1).requires_grad_()
        found = pooled_statistics(h)
        assert_same(found[:, :5], h.expand(4, 5, 3, 3))
        assert found[:, 5:].abs().max() < 1e-6  # the root of a rounding at most
        (gradient,) = torch.autograd.grad(found.sum(), h)
        torch.testing.assert_close(gradient, torch.full_like(h, 9))

    def test_slope_is_the_true_one_and_no_steeper_than_one(self):
        """However small the deviation: along pixels it is a norm."""
        for scale in (1e-6, 1e-2, 1.0):
            h = (0.3 + scale * noise(1, 1, 6, 6)).requires_grad_()
            (gradient,) = torch.autograd.grad(pooled_statistics(h)[:, 1, 1, 1].sum(), h)
            assert gradient.norm() == pytest.approx(0.5, rel=1e-3)  # 1 / sqrt(pixels of the cell)
        assert torch.autograd.gradcheck(pooled_statistics, noise(1, 2, 8, 8).requires_grad_())


class TestScore:
    def test_order_and_repetition_of_patches_do_not_matter(self, dfss):
        x, _ = images(96, 128)
        score = dfss(x)
        assert score.shape == (1,)
        cells = dfss.patches(x)[:, torch.randperm(12, generator=RANDOM)]
        shuffled = cells.unflatten(1, (3, 4)).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        assert not torch.equal(shuffled, x)
        torch.testing.assert_close(dfss(shuffled), score, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(dfss(x.tile(1, 1, 2, 3)), score, rtol=1e-6, atol=1e-9)

    def test_all_patches_of_a_large_image_count(self, dfss):
        """Where a test of at most 1024 patches would stop."""
        x = images(32 * 3, 32 * 350)[0].float()
        critic = dfss.float()
        changed = x.clone()
        changed[..., -32:, -32:] = 1 - changed[..., -32:, -32:]
        with torch.no_grad():
            assert critic.patches(x).shape[1] == 1050
            assert critic(changed) != critic(x)

    def test_by_hand(self, dfss):
        """Small parts, one by one, from what the patches show."""
        x, _ = images(64, 96)
        content, statistics = dfss.vectors(dfss.patches(x))
        mean, variance = statistics[0].mean(0), statistics[0].var(0, unbiased=False)
        d = -0.5 * (1 + torch.log(variance + 1e-12) - mean**2 - variance)
        torch.testing.assert_close(dfss.deviation(x)[0], d)
        first, second = dfss.gate[0], dfss.gate[2]
        hidden = F.leaky_relu(first.weight @ content[0].mean(0) + first.bias, 0.01)
        gate = torch.sigmoid(second.weight @ hidden + second.bias)
        torch.testing.assert_close(dfss(x)[0], (dfss.out.weight[0] * gate * d).sum() + dfss.out.bias[0])

    def test_what_weighs_deviations_is_held_in_the_gradient_unless_asked(self, dfss):
        x, _ = images(64)
        x.requires_grad_()
        gate = dfss.gate(dfss.vectors(dfss.patches(x))[0].mean(1)).detach()
        (wanted,) = torch.autograd.grad(dfss.out(gate * dfss.deviation(x)).sum(), x)
        held = gradient_of(dfss, x)
        torch.testing.assert_close(held, wanted)
        dfss.hold_weights = False
        assert (gradient_of(dfss, x) - held).norm() > 1e-3 * held.norm()

    def test_one_row_of_patches_is_too_few(self, dfss):
        x, _ = images(64)
        with pytest.raises(InputError, match=r"at least 64x64"):
            dfss(x[..., :32, :])

    def test_pixels_beyond_the_last_patch_get_no_gradient(self, dfss):
        gradient = gradient_of(dfss, images(90, 100)[0])
        assert gradient[..., :64, :96].abs().amax((0, 1)).count_nonzero() > 0.9 * 64 * 96
        assert not gradient[..., 64:, :].any()
        assert not gradient[..., 96:].any()

    def test_guard_bounds_the_slope_on_flat_content_and_keeps_the_score(self, dfss):
        x = flat_with_noise()
        guarded, score = gradient_of(dfss, x).flatten(1).norm(dim=1), dfss(x)
        dfss.is_guarded = False
        exact = gradient_of(dfss, x).flatten(1).norm(dim=1)
        torch.testing.assert_close(dfss(x), score, rtol=1e-12, atol=0)
        assert ((guarded > 0) & (guarded < 10)).all()
        assert (exact > 100).all()

    def test_guard_leaves_ordinary_images_alone(self, dfss):
        x, _ = images(96)
        guarded = gradient_of(dfss, x)
        dfss.is_guarded = False
        torch.testing.assert_close(guarded, gradient_of(dfss, x), rtol=1e-9, atol=1e-12)


class TestWeights:
    def test_counts_of_the_published_network(self):
        critic = create_critic("dfss", weights=None)
        assert sum(p.numel() for p in critic.parameters()) == 10_752_273
        assert sum(p.numel() for p in critic.aggregate.parameters()) == 8_520_704
        whole = DFSS(get_card("dfss"), classes=50)
        branch = sum(math.prod(r["shape"]) for r in LAYOUT if re.match(r"sf0\..*(weight|bias)$", r["key"]))
        assert sum(p.numel() for p in whole.parameters()) + branch == 10_792_393

    def test_load_from_a_file_as_the_authors_save_it(self, dfss, tmp_path):
        state = authors_state(dfss.float())
        path = tmp_path / "model_best.pth"
        torch.save({"epoch": 7, "state_dict": {f"module.{k}": t for k, t in state.items()}, "min_loss": 0.1}, path)
        other = build_small("dfss")
        for tensor in other.state_dict().values():
            tensor.zero_()
        load_states(other, [read_state(path)])
        assert all(torch.equal(tensor, dfss.state_dict()[key]) for key, tensor in other.state_dict().items())

    def test_what_only_training_reads_does_not_matter(self, dfss):
        x, _ = images(64)
        score = dfss(x)
        state = authors_state(dfss)
        for key in state:
            if key.startswith(("sf0.", "distype_cls.")):
                state[key] = torch.zeros(46)  # as many classes as SCID has, or anything
        load_states(dfss, [state])
        assert torch.equal(dfss(x), score)

    def test_a_classifier_is_kept_if_asked_for(self, dfss):
        classifier = {"0.weight": noise(16, 32), "0.bias": noise(16), "2.weight": noise(5, 16), "2.bias": noise(5)}
        state = authors_state(dfss) | {f"distype_cls.{key}": tensor for key, tensor in classifier.items()}
        whole = DFSS(get_card("dfss"), width=8, classes=5).double().freeze()
        load_states(whole, [state])
        x, _ = images(64, n=2)
        assert torch.equal(whole(x), dfss(x))
        statistics = whole.vectors(whole.patches(x))[1]
        hidden = F.leaky_relu(statistics.mean(1) @ classifier["0.weight"].T + classifier["0.bias"], 0.2)
        torch.testing.assert_close(whole.classify(statistics), hidden @ classifier["2.weight"].T + classifier["2.bias"])

    def test_foreign_and_missing_keys_are_named(self, dfss):
        state = authors_state(dfss)
        with pytest.raises(WeightsError, match=r"sfl4\.weight: unknown key"):
            convert(dfss, {**state, "sfl4.weight": torch.rand(1)})
        del state["scw.bias"]
        with pytest.raises(WeightsError, match=r"out\.bias: in no file"):
            load_states(dfss, [state])


class TestAnchored:
    def test_is_the_mean_of_what_deviates_more(self, anchored):
        x, y = images(96, n=2)
        dx, dy = anchored.deviation(x), anchored.deviation(y)
        more = dx > dy
        assert more.any(1).all()
        assert not more.all(1).any()
        wanted = torch.stack([(a - b)[m].sum() / a.numel() for a, b, m in zip(dx, dy, more, strict=True)])
        torch.testing.assert_close(anchored(x, y), wanted)
        assert (anchored(x, y) > 0).all()
        assert not anchored(y, y).any()

    def test_pulls_only_at_channels_that_deviate_more(self, anchored):
        x, y = images(96)
        x.requires_grad_()
        dx, dy = anchored.deviation(x), anchored.deviation(y)
        (wanted,) = torch.autograd.grad(dx[dx > dy].sum() / dx.numel(), x)
        torch.testing.assert_close(gradient_of(anchored, x, y), wanted)

    def test_slope_on_flat_content_is_bounded_too(self, anchored):
        x, y = flat_with_noise(), images(128, n=2)[1]
        assert (gradient_of(anchored, x, y).flatten(1).norm(dim=1) < 10).all()
        anchored.is_guarded = False
        assert (gradient_of(anchored, x, y).flatten(1).norm(dim=1) > 100).all()

    def test_reads_the_deviations_of_the_blind_critic(self, dfss, anchored):
        load_states(anchored, [dfss.state_dict()])
        x, y = images(64)
        torch.testing.assert_close(anchored(x, y), F.relu(dfss.deviation(x) - dfss.deviation(y)).mean(1))
        before = anchored(x, y)
        for part in (anchored.gate, anchored.out):
            for parameter in part.parameters():
                parameter.data.add_(1)
        assert torch.equal(anchored(x, y), before)
