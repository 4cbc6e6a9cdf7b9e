"""DDB-Net: what is known of outer products and their roots, two encoders of two layers, and how checkpoints load."""

from __future__ import annotations

import copy

import pytest
import torch
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critics.ddbnet import DDBNet, outer_product, signed_root
from perceptloss.errors import ConfigError, InputError, WeightsError
from perceptloss.networks.layers import unit_norm
from perceptloss.networks.trunks import features
from perceptloss.weights.convert import convert, load_states

WIDTH = 6


@pytest.fixture
def ddbnet() -> DDBNet:
    return build_small("ddbnet").double()


@pytest.fixture
def pictures() -> Tensor:
    return pair(2, 64, 96, dtype=torch.float64)[0]


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pooled(r: Tensor, i: Tensor) -> Tensor:
    return unit_norm(signed_root(unit_norm(outer_product(r, i).flatten(1))))


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class TestPublishedSize:
    @pytest.fixture(scope="class")
    def full(self) -> DDBNet:
        return DDBNet(get_card("ddbnet")).freeze().to("meta")

    def test_shapes_at_256(self, full):
        image = torch.empty(1, 3, 256, 256, device="meta")
        assert [tuple(layer.shape) for layer in full.trunk.decompose(image)] == [(1, 3, 256, 256), (1, 1, 256, 256)]
        found = features(full.trunk, image, full.taps)
        sides = ((128, 32), (256, 16), (512, 8)) * 2
        assert [tuple(found[tap].shape) for tap in full.taps] == [(1, c, s, s) for c, s in sides]
        assert full.pooled(found).shape == (1, 3, 4096)

    def test_parameters(self, full):
        convolutions = [(4, 64, 9), *[(64, 64, 3)] * 5, (64, 1, 3)]
        assert parameters(full.trunk.decomposition) == sum(a * b * k * k + b for a, b, k in convolutions) == 206_017
        assert parameters(full.trunk.reflectance) == parameters(full.trunk.illumination) == 11_176_512
        assert parameters(full.reflectance) == (128 + 256 + 512) * 64 + 3 * 64
        assert parameters(full.head) == 3 * 4096 * 256 + 256 + 256 + 1


class TestBilinearPooling:
    def test_is_the_mean_outer_product(self):
        r, i = maps(2, 3, 4, 5), maps(2, 4, 4, 5, seed=1)
        expected = sum(
            r[:, :, row, column, None] * i[:, None, :, row, column] for row in range(4) for column in range(5)
        )
        torch.testing.assert_close(outer_product(r, i), expected / 20)

    def test_gains_multiply_it_and_leave_the_vector_but_for_the_sign(self):
        r, i = maps(2, 3, 4, 5), maps(2, 4, 4, 5, seed=1)
        for a, b in ((2.0, 3.0), (0.01, 40.0), (-1.0, -7.0), (-0.5, 30.0)):
            torch.testing.assert_close(outer_product(a * r, b * i), a * b * outer_product(r, i))
            sign = 1 if a * b > 0 else -1
            torch.testing.assert_close(pooled(a * r, b * i), sign * pooled(r, i), rtol=1e-6, atol=1e-9)

    def test_places_count_only_together(self):
        r, i = maps(2, 3, 4, 5), maps(2, 4, 4, 5, seed=1)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
        moved_r, moved_i = (m.flatten(2)[..., order].unflatten(2, (4, 5)) for m in (r, i))
        torch.testing.assert_close(outer_product(moved_r, moved_i), outer_product(r, i))
        assert (outer_product(moved_r, i) - outer_product(r, i)).abs().max() > 0.01

    @pytest.mark.parametrize(("height", "width", "rank"), [(1, 1, 1), (1, 3, 3), (2, 2, 4), (4, 4, 6)])
    def test_rank_is_at_most_the_number_of_places(self, height, width, rank):
        product = outer_product(maps(1, 6, height, width), maps(1, 6, height, width, seed=1))
        assert torch.linalg.matrix_rank(product).item() == rank

    def test_even_illumination_leaves_the_mean_reflectance(self):
        r, c = maps(2, 3, 4, 5), maps(2, 4, 1, 1, seed=1)
        expected = r.mean((2, 3))[:, :, None] * c.flatten(1)[:, None]
        torch.testing.assert_close(outer_product(r, c.expand(-1, -1, 4, 5)), expected)


class TestSignedRoot:
    def test_is_a_root_far_from_zero_and_odd(self):
        v = torch.tensor([1.0, 4.0, 9.0, 100.0], dtype=torch.float64)
        torch.testing.assert_close(signed_root(v, 1e-12), v.sqrt(), rtol=1e-5, atol=0)
        assert torch.equal(signed_root(-v), -signed_root(v))
        assert signed_root(torch.zeros(1)) == 0

    def test_slope_is_bounded_and_true(self):
        v = torch.tensor([0.0, 1e-300, 1e-12, -1e-6, 1e-4, -0.3], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(signed_root(v).sum(), v)
        assert slope.max().item() == pytest.approx(1 / (2 * 1e-4**0.5))
        torch.testing.assert_close(slope, 0.5 / (v.detach().abs() + 1e-4).sqrt(), rtol=1e-9, atol=0)
        assert torch.autograd.gradcheck(signed_root, v.detach()[3:].requires_grad_())


class TestVectors:
    def test_every_stage_has_unit_length(self, ddbnet, pictures):
        vectors = ddbnet.pooled(features(ddbnet.trunk, pictures, ddbnet.taps))
        assert vectors.shape == (2, 3, WIDTH**2)
        torch.testing.assert_close(vectors.norm(dim=2), torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-6)

    def test_of_nothing_is_nothing_with_a_finite_gradient(self, ddbnet):
        nothing = {tap: torch.zeros(1, c, 4, 4).double() for tap, c in zip(ddbnet.taps, (10, 12, 16) * 2, strict=True)}
        for projection in (*ddbnet.reflectance, *ddbnet.illumination):
            projection.bias.zero_()
        for tap in nothing.values():
            tap.requires_grad_()
        vectors = ddbnet.pooled(nothing)
        assert not vectors.any()
        gradients = torch.autograd.grad(vectors.sum(), tuple(nothing.values()))
        assert all(torch.isfinite(g).all() for g in gradients)

    def test_score_does_not_see_the_gain_of_either_map(self, ddbnet, pictures):
        expected = ddbnet(pictures)
        for projection in ddbnet.illumination:
            projection.weight.mul_(3)
            projection.bias.mul_(3)
        torch.testing.assert_close(ddbnet(pictures), expected, rtol=1e-6, atol=1e-9)
        ddbnet.illumination[0].weight.mul_(-1)
        ddbnet.illumination[0].bias.mul_(-1)
        assert ((ddbnet(pictures) - expected).abs() > 1e-3).all()


class TestDecomposition:
    def test_gives_reflectance_and_illumination_between_0_and_1(self, ddbnet, pictures):
        reflectance, illumination = ddbnet.decompose(pictures)
        assert reflectance.shape == (2, 3, 64, 96)
        assert illumination.shape == (2, 1, 64, 96)
        for layer in (reflectance, illumination):
            assert layer.min() >= 0
            assert layer.max() <= 1
            assert layer.std() > 1e-3
        with pytest.raises(InputError, match=r"\[0, 1\]"):
            ddbnet.decompose(2 * pictures)

    def test_layers_make_the_image_and_light_covers_it(self, ddbnet, pictures):
        ddbnet = copy.deepcopy(ddbnet)
        for bias in (-1.0, 0.0, 1.0):
            ddbnet.trunk.decomposition[-1].bias.fill_(bias)
            reflectance, illumination = ddbnet.decompose(pictures)
            assert (illumination >= pictures.amax(1, keepdim=True)).all()
            torch.testing.assert_close(reflectance * (illumination + 0.01), pictures)

    def test_black_and_white_have_finite_layers_and_gradients(self, ddbnet):
        for value in (0.0, 1.0):
            x = torch.full((1, 3, 32, 32), value, dtype=torch.float64, requires_grad=True)
            layers = ddbnet.decompose(x)
            torch.cat(layers, 1).sum().backward()
            assert all(layer.isfinite().all() and layer.max() <= 1 for layer in layers)
            assert x.grad.isfinite().all() and x.grad.abs().max() <= 1 / 0.01 + 10

    def test_is_what_the_encoders_see(self, ddbnet, pictures):
        reflectance, illumination = ddbnet.decompose(pictures)
        taps = features(ddbnet.trunk, pictures, ddbnet.taps)
        parts = {"reflectance": reflectance, "illumination": illumination.repeat(1, 3, 1, 1)}
        for name, layer in parts.items():
            expected = getattr(ddbnet.trunk, name)(layer, ("layer2", "layer3", "layer4"))
            for stage, values in expected.items():
                torch.testing.assert_close(taps[f"{name}.{stage}"], values)

    def test_starts_from_the_image_and_its_brightest_channel(self, ddbnet, pictures):
        seen: list[Tensor] = []
        first, *others = ddbnet.trunk.decomposition
        h = first(torch.cat([pictures, pictures.max(1, keepdim=True).values], 1))
        for layer in others:
            seen.append(h)
            h = layer(h)
            h = h if layer is others[-1] else h.relu()
        illumination = torch.maximum(torch.sigmoid(h), pictures.max(1, keepdim=True).values)
        torch.testing.assert_close(ddbnet.decompose(pictures), (pictures / (illumination + 0.01), illumination))
        assert seen[0].min() < 0, "no ReLU behind the first convolution"

    def test_distances_of_either_layer_reach_the_image(self, ddbnet, pictures):
        x, y = pictures[:1].clone().requires_grad_(), pictures[1:]
        for ours, theirs in zip(ddbnet.decompose(x), ddbnet.decompose(y), strict=True):
            (gradient,) = torch.autograd.grad((ours - theirs).abs().mean(), x, retain_graph=True)
            assert gradient.abs().sum() > 0


class TestNetwork:
    def test_encoders_are_not_shared(self, ddbnet, pictures):
        swapped = copy.deepcopy(ddbnet)
        trunk = swapped.trunk
        trunk.reflectance, trunk.illumination = trunk.illumination, trunk.reflectance
        assert ((swapped(pictures) - ddbnet(pictures)).abs() > 1e-3).all()
        assert not swapped.trunk.same_as(ddbnet.trunk)

    def test_another_decomposition_is_another_trunk(self, ddbnet):
        other = copy.deepcopy(ddbnet)
        assert other.trunk.same_as(ddbnet.trunk)
        other.trunk.decomposition[-1].bias.add_(1e-9)
        assert not other.trunk.same_as(ddbnet.trunk)

    @pytest.mark.parametrize("keep", ["stages", "lean"])
    def test_what_is_kept_for_the_backward_changes_nothing(self, ddbnet, pictures, keep):
        def run(kept: str) -> tuple[Tensor, Tensor]:
            x = pictures.clone().requires_grad_()
            score = ddbnet.compare(x, None, features(ddbnet.trunk, x, ddbnet.taps, keep=kept), {})
            return score.detach(), torch.autograd.grad(score.sum(), x)[0]

        for ours, expected in zip(run(keep), run("all"), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)

    def test_an_all_black_crop_is_finite(self, ddbnet):
        x = torch.zeros(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
        for bias in (0.0, 0.01, -0.01):
            for layer in ddbnet.trunk.decomposition:
                layer.bias.data.fill_(bias)
            score = ddbnet(x)
            (gradient,) = torch.autograd.grad(score.sum(), x)
            assert torch.isfinite(score).all()
            assert gradient.norm() < 1e3

    def test_dropout_belongs_to_learning(self, ddbnet, pictures):
        frozen = ddbnet(pictures)
        assert_same(ddbnet.train()(pictures), frozen)
        ddbnet.unfreeze().train()
        assert not torch.equal(ddbnet(pictures), ddbnet(pictures))


class TestCheckpoints:
    def test_torchvisions_file_starts_both_encoders(self):
        torchvision = pytest.importorskip("torchvision")
        critic = create_critic("ddbnet", weights=None)
        state = torchvision.models.resnet18().state_dict()
        found = convert(critic, state)
        encoders = ("trunk.reflectance.", "trunk.illumination.")
        assert set(found) == {key for key in critic.state_dict() if key.startswith(encoders)}
        for key in ("conv1.weight", "layer3.0.downsample.1.running_var", "layer4.1.bn2.bias"):
            for encoder in encoders:
                assert torch.equal(found[encoder + key], state[key])

    def test_parts_and_the_whole_load(self, ddbnet, pictures):
        state = ddbnet.state_dict()
        encoder = {k.removeprefix("trunk.reflectance."): v for k, v in state.items() if "trunk.reflectance" in k}
        rest = {k: v for k, v in state.items() if not k.startswith(("trunk.reflectance", "trunk.illumination"))}
        other = build_small("ddbnet").double()
        load_states(other, [encoder, rest])
        for key, value in encoder.items():
            assert torch.equal(other.state_dict()[f"trunk.illumination.{key}"], value)
        assert not torch.equal(other(pictures), ddbnet(pictures))
        load_states(other, [state])
        assert torch.equal(other(pictures), ddbnet(pictures))
        with pytest.raises(WeightsError, match=r"head\.1\.weight: in no file"):
            load_states(other, [{k: v for k, v in state.items() if not k.startswith("head")}])
        with pytest.raises(WeightsError, match=r"layer5\.weight: unknown key"):
            load_states(other, [{**state, "layer5.weight": torch.ones(1)}])


class TestStages:
    def test_the_finest_is_read_too_if_asked(self, pictures):
        fine = DDBNet(get_card("ddbnet"), widths=(8, 10, 12, 16), width=4, hidden=6, decomposition=4, stages=4).double()
        assert [tap for tap in fine.taps if tap.endswith("layer1")] == ["reflectance.layer1", "illumination.layer1"]
        assert fine.pooled(features(fine.trunk, pictures, fine.taps)).shape == (len(pictures), 4, 16)

    @pytest.mark.parametrize("stages", [0, 5])
    def test_there_are_four(self, stages):
        with pytest.raises(ConfigError, match="stages: from 1 to 4"):
            DDBNet(get_card("ddbnet"), stages=stages)
