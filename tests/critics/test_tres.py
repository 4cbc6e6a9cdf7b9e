"""TReS beyond parity and contract: tokens and their places, pooling, maps, consistency, crops, and the converter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critics.tres import TReS, sine_positions
from perceptloss.errors import ConfigError, InputError, WeightsError
from perceptloss.networks.layers import L2Pool
from perceptloss.networks.trunks import IMAGENET
from perceptloss.weights.convert import convert, load_states

SIDE, GRID = 64, 2
NAMES = ("tres", "tres-resnet34", "tres-resnet18")


@pytest.fixture(scope="module")
def tres() -> TReS:
    return build_small("tres-resnet18").double()


@pytest.fixture(scope="module")
def wide() -> Tensor:
    """Two images that are cut into two rows and three columns of crops."""
    return pair(2, 100, 150, dtype=torch.float64)[0]


def taps_of(critic: TReS, x: Tensor) -> dict[str, Tensor]:
    return critic.trunk(x, critic.taps)


class TestSize:
    @pytest.mark.parametrize(
        ("name", "parameters", "width"),
        [("tres", 152_452_265 - 2_049_000, 3840), ("tres-resnet18", 19_820_457 - 513_000, 960)],
    )
    def test_is_that_of_the_authors_without_the_classifier(self, name, parameters, width):
        critic = create_critic(name, weights=None)
        assert sum(p.numel() for p in critic.parameters()) == parameters
        assert critic.positions.shape == (49, width)
        if name == "tres-resnet18":
            x = pair(1, 224)[0]
            assert critic.tokens(taps_of(critic, x)).shape == (1, 49, width)

    @pytest.mark.parametrize("name", NAMES)
    def test_tokens_join_the_four_maps_of_one_grid(self, name):
        critic = build_small(name)
        channels = [(4 if name == "tres" else 1) * c for c in (8, 12, 16, 28)]
        taps = taps_of(critic, pair(1, SIDE)[0])
        assert [taps[f"layer{n}"].shape[1:] for n in (1, 2, 3, 4)] == [
            (c, s, s) for c, s in zip(channels, (16, 8, 4, 2), strict=True)
        ]
        assert critic.tokens(taps).shape == critic.encode(taps).shape == (1, GRID**2, sum(channels))

    def test_sides_that_fit_no_grid_are_refused(self):
        with pytest.raises(ConfigError, match="multiple of 32, got 200"):
            TReS(get_card("tres"), side=200)
        with pytest.raises(ConfigError, match="60, of 4 and heads, 16"):
            TReS(get_card("tres"), depth=18, widths=(8, 8, 16, 28))
        for name in NAMES:
            assert get_card(name).min_size == 224
        with pytest.raises(InputError, match="at least 224x224"):
            create_critic("tres-resnet18", weights=None)(torch.rand(1, 3, 223, 300))


class TestPooling:
    def test_kernel_is_the_authors_hann_window(self, tres):
        row = np.hanning(5)[1:-1]
        kernel = np.outer(row, row) / np.outer(row, row).sum()
        for pool, channels in zip(tres.pools, (8, 12, 16, 28), strict=True):
            assert pool.filter.shape == (channels, 1, 3, 3)
            np.testing.assert_allclose(pool.filter[-1, 0].numpy(), kernel, atol=1e-12)
        assert tres.pools[0].filter[0, 0, 0].tolist() == [1 / 16, 1 / 8, 1 / 16]

    def test_a_constant_stays_and_a_factor_comes_out(self, tres):
        pool = tres.pools[0]
        flat = torch.full((1, 8, 6, 6), -3.0, dtype=torch.float64)
        torch.testing.assert_close(pool(flat)[..., 1:-1, 1:-1], flat[..., 1:-1, 1:-1].abs())
        h = torch.randn(1, 8, 6, 6, dtype=torch.float64)
        torch.testing.assert_close(pool(-2.5 * h), 2.5 * pool(h), rtol=1e-9, atol=1e-9)
        assert pool(h).shape == h.shape

    @pytest.mark.parametrize("stride", [1, 2])
    def test_slope_is_the_true_one_and_none_at_zero(self, stride):
        pool = L2Pool(2, stride).double()
        h = torch.randn(1, 2, 5, 4, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(pool, h)
        assert torch.autograd.gradgradcheck(pool, h)
        (gradient,) = torch.autograd.grad(pool(h * 0).sum(), h)
        assert not gradient.any()

    def test_the_size_of_a_map_does_not_count(self, tres):
        taps = taps_of(tres, pair(1, SIDE, dtype=torch.float64)[0])
        scaled = {**taps, "layer2": 7 * taps["layer2"], "layer4": 0.1 * taps["layer4"]}
        torch.testing.assert_close(tres.tokens(scaled), tres.tokens(taps), rtol=1e-7, atol=1e-9)

    def test_slope_is_limited_where_there_are_next_to_no_features(self, tres, monkeypatch):
        """Of the mean colour, a random trunk without biases makes zeros; the published unit vectors then explode."""
        mean = torch.tensor(IMAGENET[0], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
        grain = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64)

        def slope(size: float) -> float:
            x = (mean + size * grain).requires_grad_()
            return torch.autograd.grad(tres(x).sum(), x)[0].norm().item()

        assert all(slope(size) < 2e4 for size in (0.0, 1e-12, 1e-9, 1e-6, 1e-3))
        monkeypatch.setattr("perceptloss.critics.tres.unit_norm", lambda h: F.normalize(h, dim=1))
        assert slope(1e-9) > 1e6


class TestPlaces:
    def test_are_sines_and_cosines_of_row_and_column(self):
        grid, width = 7, 24
        half = width // 2
        found = sine_positions(grid, width).view(grid, grid, width)
        for row in range(grid):
            for column in range(grid):
                for channel in range(width):
                    place = row if channel < half else column
                    k = channel % half
                    angle = 2 * math.pi * (place + 1) / grid / 10_000 ** (2 * (k // 2) / half)
                    wanted = math.cos(angle) if k % 2 else math.sin(angle)
                    assert found[row, column, channel].item() == pytest.approx(wanted, abs=2e-6)

    def test_decide_what_a_token_becomes(self, tres):
        taps = taps_of(tres, pair(1, SIDE, dtype=torch.float64)[0])
        order = torch.tensor([2, 0, 3, 1])
        tokens = tres.tokens(taps)

        def encoded(tokens: Tensor, positions: Tensor) -> Tensor:
            for layer in tres.layers:
                tokens = layer(tokens, positions)
            return tres.norm(tokens)

        nowhere = torch.zeros_like(tres.positions)
        there, here = encoded(tokens[:, order], nowhere), encoded(tokens, nowhere)[:, order]
        torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(encoded(tokens, tres.positions), tres.encode(taps))
        told = encoded(tokens[:, order], tres.positions) - encoded(tokens, tres.positions)[:, order]
        assert told.abs().max() > 1e-4


class TestCrops:
    def test_a_larger_image_scores_the_mean_of_its_crops(self, tres, wide):
        tops, lefts = (0, 36), (0, 43, 86)
        crops = [wide[..., t : t + SIDE, s : s + SIDE] for t in tops for s in lefts]
        mean = torch.stack([tres(crop) for crop in crops]).mean(0)
        torch.testing.assert_close(tres(wide), mean, rtol=1e-10, atol=1e-12)

    def test_an_image_of_the_side_is_taken_as_it_is(self, tres):
        x = pair(1, SIDE, dtype=torch.float64)[0]
        assert tres.prepare(x) is x

    def test_nothing_is_random_even_while_it_learns(self, wide):
        learning = build_small("tres-resnet18").double().unfreeze().train()
        assert torch.equal(learning(wide), learning(wide))
        assert_same(learning(wide), learning.freeze()(wide))


class TestMaps:
    @pytest.mark.parametrize("name", NAMES)
    def test_average_to_the_score(self, name, wide):
        critic = build_small(name).double()
        assert critic.maps(wide).shape == (2, 1, 2 * GRID, 3 * GRID)
        torch.testing.assert_close(critic.maps(wide).mean((1, 2, 3)), critic(wide), rtol=1e-9, atol=1e-9)

    def test_lie_side_by_side_as_the_crops_do(self, tres, wide):
        found = tres.maps(wide)
        for row, top in enumerate((0, 36)):
            for column, left in enumerate((0, 43, 86)):
                alone = tres.maps(wide[..., top : top + SIDE, left : left + SIDE])
                part = found[..., GRID * row : GRID * (row + 1), GRID * column : GRID * (column + 1)]
                torch.testing.assert_close(part, alone, rtol=1e-9, atol=1e-9)


class TestConsistency:
    def test_is_nothing_for_a_symmetric_image(self, tres):
        half = pair(2, SIDE, SIDE // 2, dtype=torch.float64)[0]
        x = torch.cat([half, half.flip(-1)], 3)
        assert torch.equal(tres(x), tres(x.flip(-1)))
        assert torch.equal(tres.consistency(x), torch.zeros(2, dtype=torch.float64))

    def test_is_the_difference_of_the_maps_in_the_two_views(self, tres):
        x = pair(2, SIDE, dtype=torch.float64)[0]
        here, there = taps_of(tres, x), taps_of(tres, x.flip(-1))
        tokens = (tres.encode(here) - tres.encode(there)).abs().flatten(1).mean(1)
        last = (here["layer4"] - there["layer4"]).abs().flatten(1).mean(1)
        torch.testing.assert_close(tres.consistency(x), tokens + last)
        assert (tres.consistency(x) > 1e-3).all()
        torch.testing.assert_close(tres.consistency(x.flip(-1)), tres.consistency(x))

    def test_averages_crops_and_has_a_slope(self, tres, wide):
        tops, lefts = (0, 36), (0, 43, 86)
        crops = [tres.consistency(wide[..., t : t + SIDE, s : s + SIDE]) for t in tops for s in lefts]
        x = wide.clone().requires_grad_()
        found = tres.consistency(x)
        torch.testing.assert_close(found, torch.stack(crops).mean(0), rtol=1e-10, atol=1e-12)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()


class TestConverter:
    def test_names_of_the_authors(self, tres):
        width = tres.positions.shape[1]
        theirs = {
            "transformer.encoder.layers.1.self_attn.in_proj_weight": torch.rand(3 * width, width),
            "transformer.encoder.layers.0.self_attn.out_proj.bias": torch.rand(width),
            "transformer.encoder.layers.0.linear2.weight": torch.rand(width, 16),
            "transformer.encoder.layers.1.norm1.weight": torch.rand(width),
            "transformer.encoder.norm.bias": torch.rand(width),
            "fc2.weight": torch.rand(28, width),
            "fc.bias": torch.rand(1),
            "model.layer4.1.bn2.running_var": torch.rand(28),
        }
        ours = (
            "layers.1.in_proj.weight",
            "layers.0.out_proj.bias",
            "layers.0.linear2.weight",
            "layers.1.norm1.weight",
            "norm.bias",
            "reduce.weight",
            "head.bias",
            "trunk.layer4.1.bn2.running_var",
        )
        left_out = {
            "model.fc.weight": torch.rand(1000, 28),
            "model.bn1.num_batches_tracked": torch.tensor(3),
            "L2pooling_l3.filter": L2Pool(16).filter,
        }
        found = convert(tres, {**theirs, **left_out})
        assert found.keys() == set(ours)
        for name, tensor in zip(ours, theirs.values(), strict=True):
            assert torch.equal(found[name], tensor.double())

    def test_another_pooling_filter_is_refused(self, tres):
        with pytest.raises(WeightsError, match=r"L2pooling_l1\.filter: expected the binomial pooling filter"):
            convert(tres, {"L2pooling_l1.filter": torch.full((8, 1, 3, 3), 1 / 9)})

    def test_foreign_and_missing_keys_are_named(self, tres):
        with pytest.raises(WeightsError, match=r"transformer\.decoder\.norm\.bias: unknown key"):
            convert(tres, {"transformer.decoder.norm.bias": torch.rand(3)})
        with pytest.raises(WeightsError, match=r"reduce\.bias: in no file"):
            load_states(tres, [{k: v for k, v in tres.state_dict().items() if k != "reduce.bias"}])
