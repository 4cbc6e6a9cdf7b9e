"""pMOS: the score as a weighted sum of its map, what the weights may and may not do, and the map as a loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, get_card
from perceptloss.critics.pmos import PMOS, PMOSMap, opinion, pooled, shares
from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.trunks import features
from perceptloss.weights.convert import load_states

SIZES = {"widths": (8, 10, 12, 16), "width": 12, "context": 10, "hidden": 8}


@pytest.fixture
def pmos() -> PMOS:
    return build_small("pmos").double()


@pytest.fixture
def pmos_map() -> PMOSMap:
    return build_small("pmos-map").double()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return pair(2, 64, 96, dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def random_maps(n: int = 2, height: int = 6, width: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 1, height, width, dtype=torch.float64), torch.randn(n, 1, height, width, dtype=torch.float64)


class TestPublishedSize:
    @pytest.fixture(scope="class")
    def full(self) -> PMOS:
        return PMOS(get_card("pmos")).freeze().to("meta")

    def test_shapes_at_384(self, full):
        image = torch.empty(1, 3, 384, 384, device="meta")
        maps = features(full.trunk, image, full.taps)
        stages = [maps[tap] for tap in full.taps]
        sides = (96, 48, 24, 12)
        assert [s.shape[1:] for s in stages] == [(c, s, s) for c, s in zip((256, 512, 1024, 2048), sides, strict=True)]
        assert [d.shape[1:] for d in full.decoder(stages)] == [(128, s, s) for s in sides]
        assert [m.shape for m in full.judge(maps)] == [(1, 1, 384, 384)] * 2

    def test_parameters(self, full):
        channels = 256 + 512 + 1024 + 2048
        lateral, smooth = channels * 128 + 4 * 128, 4 * (9 * 128 * 128 + 128)
        embedding = 2048 * 256 + 256 + 4 * (256 * 256 + 256)
        assert parameters(full.decoder) == lateral + smooth + embedding
        assert parameters(full.value) == 9 * 128 * 64 + 64 + 64 + 1
        assert parameters(full.weight) == 128 * 64 + 64 + 64

    def test_both_critics_are_one_network(self):
        pmos, other = build_small("pmos"), build_small("pmos-map")
        state = {key: tensor + 0.01 for key, tensor in pmos.state_dict().items()}
        other.load_state_dict(state)
        pmos.load_state_dict(state)
        x, _ = pair(1, 64)
        assert_same(opinion(other.judge(features(other.trunk, x, other.taps))[0]), pmos.maps(x))
        assert torch.equal(other.roi(x), pmos.roi(x))


class TestWeightedSum:
    """Of a map p by weights w = softmax(a), as the sheet of known answers says."""

    def test_constant_map_gives_the_constant(self):
        _, logits = random_maps()
        torch.testing.assert_close(pooled(torch.full_like(logits, 3.7), 9 * logits), torch.full((2,), 3.7).double())

    def test_even_weights_give_the_mean_and_one_hot_a_pixel(self):
        values, logits = random_maps()
        torch.testing.assert_close(pooled(values, torch.full_like(logits, -5)), values.mean((1, 2, 3)))
        hot = torch.zeros_like(logits)
        hot[:, :, 2, 3] = 1e4
        assert_same(pooled(values, hot), values[:, 0, 2, 3])

    def test_is_linear_and_its_slope_is_the_weight(self):
        values, logits = random_maps()
        other, _ = random_maps()
        torch.testing.assert_close(pooled(values + other, logits), pooled(values, logits) + pooled(other, logits))
        values.requires_grad_()
        (slope,) = torch.autograd.grad(pooled(values, logits).sum(), values)
        torch.testing.assert_close(slope, shares(logits))
        torch.testing.assert_close(slope.sum((1, 2, 3)), torch.ones(2).double())

    def test_a_constant_on_the_logits_changes_nothing(self):
        values, logits = random_maps()
        torch.testing.assert_close(pooled(values, logits + 100), pooled(values, logits))

    def test_lies_among_the_values(self):
        values, logits = random_maps(8)
        score = pooled(values, 5 * logits)
        assert (values.amin((1, 2, 3)) < score).all()
        assert (score < values.amax((1, 2, 3))).all()


class TestCritic:
    def test_score_is_the_sum_of_map_times_weights(self, pmos, images):
        x, _ = images
        quality, weights = pmos.maps(x), pmos.roi(x)
        assert quality.shape == weights.shape == (2, 1, 64, 96)
        torch.testing.assert_close((quality * weights).sum((1, 2, 3)), pmos(x))
        torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(2).double())
        assert quality.std() > 0
        assert weights.std() > 0

    def test_opinions_lie_between_1_and_5_and_their_middle_is_linear(self, pmos, images):
        x, _ = images
        value, logits = pmos.judge(features(pmos.trunk, x, pmos.taps))
        torch.testing.assert_close(pmos.maps(x), opinion(value))
        torch.testing.assert_close(pmos.linear(x), pooled(value, logits))
        around = torch.tensor([3.0, -1e3, 1e3], dtype=torch.float64).requires_grad_()
        slope = torch.autograd.grad(opinion(around).sum(), around)[0]
        assert opinion(around).tolist() == [3.0, 1.0, 5.0]
        assert slope.tolist() == [1.0, 0.0, 0.0]

    def test_losses_pull_where_the_published_end_is_flat(self, pmos, images):
        x, y = images
        pmos.value[-1].bias.fill_(-50)  # a picture that is judged to be hopeless
        x.requires_grad_()
        (flat,) = torch.autograd.grad(pmos(x).sum(), x)
        assert flat.norm() < 1e-12
        loss = CriticLoss([{"critic": pmos, "weight": 1.0, "shape": "softplus"}])(x, y)
        assert torch.autograd.grad(loss, x)[0].norm() > 1e-3

    def test_gradient_is_that_of_constant_weights(self, pmos, images):
        x, _ = images
        x.requires_grad_()
        weights = pmos.roi(x).detach()
        (expected,) = torch.autograd.grad((pmos.maps(x) * weights).sum(), x)
        (held,) = torch.autograd.grad(pmos(x).sum(), x)
        torch.testing.assert_close(held, expected)
        pmos.hold_weights = False
        (free,) = torch.autograd.grad(pmos(x).sum(), x)
        assert not torch.allclose(free, held)

    def test_weights_learn_only_when_the_critic_does(self, pmos, images):
        x, _ = images
        pmos.requires_grad_(True)
        pmos.score(x).sum().backward()  # which does not freeze again, as a call would
        assert all(p.grad.any() for p in pmos.value.parameters())
        assert all(p.grad is None for p in pmos.weight.parameters())
        pmos.unfreeze()(x).sum().backward()
        assert all(p.grad.any() for p in pmos.weight.parameters())

    def test_semantics_reach_the_whole_map_and_pixels_their_neighbourhood(self, pmos):
        """Without the embedding of the deepest stage a far corner is not heard of; with it, it is."""
        x, _ = pair(1, 32, 1024, dtype=torch.float64)
        changed = x.clone()
        changed[..., -32:] = 1 - changed[..., -32:]

        def far(critic: PMOS) -> Tensor:
            difference = critic.maps(changed) - critic.maps(x)
            return difference[..., :64].abs().max()

        assert far(pmos) > 1e-6
        for layer in pmos.decoder.film:
            layer.weight.zero_()
        assert far(pmos) < 1e-12

    def test_flipped_features_give_flipped_maps(self, pmos, images):
        """The decoder prefers no side: with symmetric kernels it commutes with a flip, which a stride would break."""
        for module in (*pmos.decoder.modules(), *pmos.value.modules()):
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
        taps = features(pmos.trunk, images[0], pmos.taps)
        value, logits = pmos.judge(taps)
        flipped = pmos.judge({name: tap.flip(3) for name, tap in taps.items()})
        torch.testing.assert_close(flipped[0].flip(3), value)
        torch.testing.assert_close(flipped[1].flip(3), logits)

    def test_never_looks_at_a_reference(self, pmos, images):
        x, y = images
        assert torch.equal(pmos(x, y), pmos(x))
        assert torch.equal(pmos.linear(x, y), pmos.linear(x))
        runs: list[int] = []
        pmos.decoder.register_forward_hook(lambda *_: runs.append(1))
        pmos.linear(x, y)
        assert len(runs) == 1

    def test_sizes(self, pmos):
        with pytest.raises(InputError, match="multiples of 32"):
            pmos(torch.rand(1, 3, 64, 80).double())


class TestMapAsLoss:
    def test_is_the_weighted_shortfall_inside_the_border(self, pmos_map, images):
        x, y = images
        (of_x, _), (of_y, logits) = (pmos_map.judge(features(pmos_map.trunk, i, pmos_map.taps)) for i in images)
        inner = (..., slice(16, -16), slice(16, -16))
        weights = logits[inner].flatten(1).softmax(1)
        expected = (weights * F.relu(of_y - of_x)[inner].flatten(1)).sum(1)
        torch.testing.assert_close(pmos_map(x, y), expected)
        torch.testing.assert_close(pmos_map.maps(x, y), F.relu(of_y - of_x))
        assert pmos_map.maps(x, y).shape == (2, 1, 64, 96)

    def test_is_zero_for_equal_and_for_better_images(self, pmos_map, images):
        x, y = images
        same = y.clone().requires_grad_()
        score = pmos_map(same, y)
        assert torch.equal(score, torch.zeros(2).double())
        assert not torch.autograd.grad(score.sum(), same)[0].any()
        judge, shift = pmos_map.judge, iter((10.0, 0.0))  # the judged image is read first, and all of it improved
        pmos_map.judge = lambda taps: (judge(taps)[0] + next(shift), judge(taps)[1])
        assert torch.equal(pmos_map(x, y), torch.zeros(2).double())

    def test_border_does_not_count(self, pmos_map, images):
        """Whatever stands in the outermost 16 pixels of the maps."""
        score, judge = pmos_map(*images), pmos_map.judge

        def spoilt(depth):
            edge = torch.full((1, 1, 64, 96), 7.0, dtype=torch.float64)
            edge[..., depth:-depth, depth:-depth] = 0
            signs = iter((-1, 1))  # x worse, y better
            return lambda taps: (judge(taps)[0] + next(signs) * edge, judge(taps)[1] + edge)

        pmos_map.judge = spoilt(16)
        torch.testing.assert_close(pmos_map(*images), score)
        pmos_map.judge = spoilt(17)
        assert (pmos_map(*images) > score + 0.1).all()

    def test_reference_and_its_weights_get_no_gradient(self, pmos_map, images):
        x, y = images
        x.requires_grad_()
        y.requires_grad_()
        pmos_map.requires_grad_(True)  # `score` does not freeze again, as a call would
        pmos_map.score(x, y.detach()).sum().backward()
        assert x.grad.any()
        assert y.grad is None
        assert all(p.grad is None for p in pmos_map.weight.parameters())

    def test_learns_from_both_images(self, pmos_map, images):
        pmos_map.unfreeze()(*images).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in pmos_map.weight.parameters())

    def test_in_a_loss(self, pmos_map, images):
        x, y = images
        x.requires_grad_()
        loss_fn = CriticLoss([{"critic": pmos_map, "weight": 0.5}])
        loss = loss_fn(x, y)
        loss.backward()
        torch.testing.assert_close(loss.detach(), 0.5 * pmos_map(x.detach(), y).mean())
        assert x.grad.any()

    def test_needs_room_inside_its_border(self, pmos_map):
        x, y = pair(1, 32, dtype=torch.float64)
        with pytest.raises(InputError, match="at least 64x64"):
            pmos_map(x, y)


class TestCheckpoints:
    def test_torchvisions_trunk_and_a_head_make_one(self, pmos):
        state = pmos.state_dict()
        trunk = {key.removeprefix("trunk."): t for key, t in state.items() if key.startswith("trunk.")}
        head = {key: t for key, t in state.items() if not key.startswith("trunk.")}
        extra = {"fc.weight": torch.zeros(1, 1), "fc.bias": torch.zeros(1), "bn1.num_batches_tracked": torch.tensor(0)}
        other = PMOSMap(get_card("pmos-map"), **SIZES).double()
        load_states(other, [{**trunk, **extra}, head])
        assert all(torch.equal(other.state_dict()[key], tensor) for key, tensor in state.items())
        with pytest.raises(WeightsError, match=r"in no file"):
            load_states(other, [trunk])
        with pytest.raises(WeightsError, match=r"decoder\.other: unknown key"):
            load_states(other, [trunk, head | {"decoder.other": torch.zeros(1)}])
