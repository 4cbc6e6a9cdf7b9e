"""GSN: shapes and sizes of our definition, what attends to what, and how checkpoints load."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import are_apart, assert_same
from small import build_small

from perceptloss import get_card
from perceptloss.critics.gsn import GSN
from perceptloss.errors import WeightsError
from perceptloss.networks.trunks import features
from perceptloss.weights.convert import load_states

WIDTHS = (8, 10, 12, 16)


@pytest.fixture
def gsn() -> GSN:
    return build_small("gsn").double()


@pytest.fixture
def taps(gsn):
    x, y = pair(2, 64, 96, dtype=torch.float64)
    return tuple(features(gsn.trunk, image, gsn.taps) for image in (x, y))


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def with_theta(gsn: GSN, *theta: float) -> GSN:
    """The same weights behind other central differences."""
    other = GSN(gsn.card, theta=theta, widths=WIDTHS, width=12, fused=16, hidden=8).double()
    other.load_state_dict(gsn.state_dict())
    return other.freeze()


class TestPublishedSize:
    @pytest.fixture(scope="class")
    def full(self) -> GSN:
        return GSN(get_card("gsn")).freeze().to("meta")

    def test_shapes_at_256(self, full):
        image = torch.empty(1, 3, 256, 256, device="meta")
        maps = features(full.trunk, image, full.taps)
        sides = (64, 32, 16, 8)
        channels = (256, 512, 1024, 2048)
        assert [tuple(maps[t].shape) for t in full.taps] == [(1, c, s, s) for c, s in zip(channels, sides, strict=True)]
        assert [tuple(a.shape) for a in full.attentions(maps)] == [(1, 1, s, s) for s in sides]
        pairs = full.pairs(maps, maps)
        assert [tuple(p.shape) for p in pairs] == [(1, 128, s, s) for s in sides]
        assert full.fuse(pairs).shape == (1, 256, 16, 16)
        assert [tuple(m.shape) for m in full.judge(maps, maps)] == [(1, 1, 16, 16)] * 2

    def test_parameters(self, full):
        assert full.trunk.theta == (0.7, 0.7, 0.0, 0.0)
        assert parameters(full.trunk) == 23_508_032
        assert parameters(full.pair) == 3 * (256 + 512 + 1024 + 2048) * 128 + 4 * 128
        assert parameters(full.attention) == 4 * (2 * 49 + 1)
        assert parameters(full) - parameters(full.trunk) == 2_262_926


class TestCentralDifferences:
    def test_each_stage_has_its_own(self, gsn):
        x, y = pair(1, 64, dtype=torch.float64)
        image = (x, gsn.taps)
        expected = gsn.trunk(*image)
        for stage in range(4):
            theta = [0.7, 0.7, 0.0, 0.0]
            theta[stage] = 0.35
            other = with_theta(gsn, *theta)
            changed = [not torch.equal(other.trunk(*image)[tap], expected[tap]) for tap in gsn.taps]
            assert changed == [later >= stage for later in range(4)]
            assert not torch.equal(other(x, y), gsn(x, y))
        assert torch.equal(with_theta(gsn, 0.7, 0.7, 0.0, 0.0)(x, y), gsn(x, y))

    def test_pure_differences_are_blind_to_flat_images(self, gsn):
        """Inside a flat image each block of stage 1 then gives its shortcut, so that the stage ends as it began."""
        flat = torch.full((1, 3, 128, 128), 0.4, dtype=torch.float64)
        blind, plain = with_theta(gsn, 1.0, 0.0, 0.0, 0.0), with_theta(gsn, 0.0, 0.0, 0.0, 0.0)
        inside = (..., slice(8, -8), slice(8, -8))

        def ends(gsn: GSN) -> list[torch.Tensor]:
            found = gsn.trunk(flat, ("layer1.0", "layer1.2"))
            return [found[tap][inside] for tap in ("layer1.0", "layer1.2")]

        torch.testing.assert_close(*ends(blind), rtol=0, atol=1e-12)
        first, last = ends(plain)
        assert (first - last).abs().max() > 1e-3


class TestHead:
    def test_pairs_are_one_convolution_of_reference_image_and_difference(self, gsn, taps):
        fx, fy = taps
        levels = zip(gsn.taps, gsn.pair, gsn.attentions(fy), gsn.pairs(fx, fy), strict=True)
        for tap, conv, attention, got in levels:
            joined = torch.cat([fy[tap], fx[tap], fy[tap] - fx[tap]], 1)
            torch.testing.assert_close(got, F.gelu(conv(joined)) * attention)

    def test_attention_is_the_references_alone(self, gsn, taps):
        _, fy = taps
        for tap, conv, got in zip(gsn.taps, gsn.attention, gsn.attentions(fy), strict=True):
            summary = torch.stack([fy[tap].mean(1), fy[tap].max(1).values], 1)
            torch.testing.assert_close(got, torch.sigmoid(conv(summary)))
            assert got.min() > 0
            assert got.max() < 1
            assert got.std() > 0

    def test_no_gradient_leads_through_attention_or_reference(self, gsn):
        x, y = pair(1, 32, 64, dtype=torch.float64)
        x, y = x.requires_grad_(), y.requires_grad_()
        gsn.unfreeze()
        gsn.trunk.requires_grad_(False)  # a trunk that learns does so through the attention too
        seen: list[torch.Tensor] = []
        for conv in gsn.attention:
            conv.register_forward_hook(lambda _m, arguments, _o: seen.append(arguments[0]))
        gsn(x, y).sum().backward()
        assert len(seen) == 4
        assert not any(summary.requires_grad for summary in seen)
        assert all(conv.weight.grad.any() for conv in gsn.attention)
        assert y.grad is None

    def test_levels_meet_at_a_sixteenth(self, gsn):
        """Flat levels stay flat, and each keeps its place among the joined channels."""
        levels = [torch.full((1, 12, 16 >> k, 24 >> k), k + 1.0, dtype=torch.float64) for k in range(4)]
        seen: list[torch.Tensor] = []
        gsn.fusion.register_forward_pre_hook(lambda _m, arguments: seen.append(arguments[0]))
        gsn.fuse(levels)
        expected = torch.arange(1.0, 5.0, dtype=torch.float64).repeat_interleave(12)[None, :, None, None]
        torch.testing.assert_close(seen[0], expected.expand(1, 48, 4, 6))

    def test_constant_weights_give_the_plain_mean(self, gsn):
        x, y = pair(2, 64, 96, dtype=torch.float64)
        weighted = gsn(x, y)
        gsn.weight[-1].weight.zero_()
        gsn.weight[-1].bias.fill_(-1.7)
        torch.testing.assert_close(gsn(x, y), gsn.maps(x, y).mean((1, 2, 3)))
        assert not torch.allclose(gsn(x, y), weighted)

    def test_score_lies_among_the_values(self, gsn, taps):
        gsn.weight[-1].weight.mul_(30)
        value, weight = gsn.judge(*taps)
        x, y = pair(2, 64, 96, dtype=torch.float64)
        score = gsn(x, y)
        torch.testing.assert_close(score, (value * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)))
        assert (value.amin((1, 2, 3)) < score).all()
        assert (score < value.amax((1, 2, 3))).all()
        assert weight.min() >= 1e-6
        assert_same(gsn.maps(x, y), value)
        assert value.shape == (2, 1, 4, 6)

    def test_is_not_symmetric(self, gsn):
        x, y = pair(4, 64, dtype=torch.float64)
        assert are_apart(gsn(x, y), gsn(y, x)).all()

    def test_held_weights_cannot_be_moved_but_learn(self, gsn):
        x, y = pair(2, 64, dtype=torch.float64)
        x.requires_grad_()
        (held,) = torch.autograd.grad(gsn(x, y).sum(), x)
        fx, fy = (gsn.trunk(image, gsn.taps) for image in (x, y))
        value, weight = gsn.judge(fx, fy)
        shares = (weight / weight.sum((1, 2, 3), keepdim=True)).detach()
        (expected,) = torch.autograd.grad((shares * value).sum(), x)
        torch.testing.assert_close(held, expected)
        gsn.hold_weights = False
        (free,) = torch.autograd.grad(gsn(x, y).sum(), x)
        assert not torch.allclose(free, held)
        gsn.hold_weights = True
        gsn.unfreeze()(x, y).sum().backward()
        assert gsn.weight[0].weight.grad.any()


class TestCheckpoints:
    def test_torchvisions_trunk_and_a_head_make_one(self, gsn):
        torchvision = pytest.importorskip("torchvision")
        trunk = {key.removeprefix("trunk."): t for key, t in gsn.state_dict().items() if key.startswith("trunk.")}
        head = {key: t for key, t in gsn.state_dict().items() if not key.startswith("trunk.")}
        with torch.device("meta"):
            names = set(torchvision.models.resnet50().state_dict())
        extra = {key: torch.zeros(()) for key in names - set(trunk)}
        assert {key for key in extra if "num_batches_tracked" not in key} == {"fc.weight", "fc.bias"}
        other = GSN(gsn.card, widths=WIDTHS, width=12, fused=16, hidden=8).double()
        load_states(other, [{**trunk, **extra}, head])
        x, y = pair(1, 32, dtype=torch.float64)
        assert torch.equal(other.freeze()(x, y), gsn(x, y))
        with pytest.raises(WeightsError, match=r"pair\.0\.weight: in no file"):
            load_states(other, [trunk])
        with pytest.raises(WeightsError, match=r"layer5\.weight: unknown key"):
            load_states(other, [{**trunk, "layer5.weight": torch.zeros(1)}, head])
