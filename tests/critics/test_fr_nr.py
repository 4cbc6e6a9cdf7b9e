"""FR with NR features: which image each part sees, the additive form's facts, the cap on the gradient, and weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import are_apart, assert_same
from small import build_small
from torch import Tensor

from perceptloss import Critic, CriticLoss, create_critic, get_card
from perceptloss.critics.fr_nr import FRNR, FRNRAdditive
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.loss.evaluate import share_trunks
from perceptloss.weights.convert import convert, load_states

SIDE = 32
VGG = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}


@pytest.fixture(scope="module")
def built() -> dict[str, Critic]:
    return {name: build_small(name).double() for name in ("fr-nr", "fr-nr-additive")}


@pytest.fixture
def concat(built) -> FRNR:
    return copy.deepcopy(built["fr-nr"])


@pytest.fixture
def additive(built) -> FRNRAdditive:
    """The no-reference head speaks up: new ones differ by a thousandth between images."""
    critic = copy.deepcopy(built["fr-nr-additive"])
    critic.quality[2].weight.data.mul_(30)
    return critic


def pictures(n: int = 2) -> tuple[Tensor, Tensor]:
    return pair(n, SIDE, SIDE + 1, dtype=torch.float64)


def gradient(score, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(score(leaf).sum(), leaf)[0]


def norms(g: Tensor) -> Tensor:
    return g.flatten(1).norm(dim=1)


class TestConcatenated:
    def test_score_is_the_documented_formula(self, concat):
        x, y = pictures()
        vgg = [f"fr.{tap}" for tap in VGG]
        fx, fy = (concat.trunk(image, concat.taps) for image in (x, y))
        pooled = lambda maps: (1 + torch.cat([m.mean((2, 3)) for m in maps], 1)).log()  # noqa: E731
        vectors = [
            concat.difference(pooled([(fx[tap] - fy[tap]).abs() for tap in vgg])),
            concat.reference(pooled([fy[tap] for tap in vgg])),
            concat.alone(pooled([fx[f"nr.layer{n}"] for n in (1, 2, 3, 4)])),
        ]
        _, first, _, last, _ = concat.regressor
        expected = last(F.relu(first(F.relu(torch.cat(vectors, 1)))))[:, 0]
        torch.testing.assert_close(concat(x, y), expected, rtol=1e-9, atol=1e-12)

    def test_taps_have_the_published_channels(self, concat):
        assert concat.taps == (*(f"fr.{tap}" for tap in VGG), *(f"nr.layer{n}" for n in (1, 2, 3, 4)))
        found = concat.trunk(pictures(1)[0], concat.taps)
        assert [found[tap].shape[1] for tap in concat.taps] == [*VGG.values(), 64, 128, 256, 512]
        full = FRNR(get_card("fr-nr"))
        assert full.difference.in_features == sum(VGG.values())
        assert full.alone.in_features == 256 + 512 + 1024 + 2048

    def test_no_reference_part_sees_the_judged_image_alone_and_moves_it(self, concat):
        x, y = pictures(2)
        for layer in (concat.difference, concat.reference):
            layer.weight.data.zero_()
        assert torch.equal(concat(x, y), concat(x, y.flip(0)))
        assert (norms(gradient(lambda leaf: concat(leaf, y), x)) > 0).all()
        concat.alone.weight.data.zero_()
        assert not gradient(lambda leaf: concat(leaf, y), x).any()

    def test_hinge_is_silent_at_the_reference(self, concat):
        _, y = pictures(2)
        assert are_apart(*concat(y, y))
        loss_fn = CriticLoss([{"critic": concat, "weight": 1.0}])
        leaf = y.clone().requires_grad_()
        loss = loss_fn(leaf, y)
        loss.backward()
        assert loss.item() == 0
        assert not leaf.grad.any()


class TestAdditive:
    def test_without_the_second_part_it_is_lpips(self):
        lpips = create_critic("lpips-vgg", weights=None)
        alone = FRNRAdditive(get_card("fr-nr-additive"), depth=18, hidden=8, nr_weight=0.0).freeze()
        heads = {f"lin{i}.model.1.weight": head[None, :, None, None] for i, head in enumerate(lpips.heads)}
        alone.load_state_dict(convert(alone, heads), strict=False)
        alone.trunk.nr.register_forward_hook(lambda *args: pytest.fail("the ResNet ran"))
        x, y = (image.float() for image in pictures())
        assert_same(alone(x, y), lpips(x, y))
        assert_same(*(gradient(lambda leaf, c=critic: c(leaf, y), x) for critic in (alone, lpips)))
        assert not alone.parts(x, y)[1].any()

    def test_score_is_the_sum_of_its_parts(self, additive):
        x, y = pictures()
        distance, penalty = additive.parts(x, y)
        assert_same(additive(x, y), distance + penalty)
        fx, fy = (additive.trunk(image, additive.taps) for image in (x, y))
        vectors = [(1 + torch.cat([f[f"nr.layer{n}"].mean((2, 3)) for n in (1, 2, 3, 4)], 1)).log() for f in (fx, fy)]
        first, _, last, _, _ = additive.quality
        qx, qy = (torch.sigmoid(last(F.relu(first(v))))[:, 0] for v in vectors)
        torch.testing.assert_close(penalty, 0.05 * (qy - qx).clamp_min(0), rtol=1e-9, atol=1e-15)
        assert penalty.max() > 0

    def test_is_exactly_nothing_at_the_reference(self, additive):
        _, y = pictures()
        assert not additive(y, y).any()
        assert not gradient(lambda leaf: additive(leaf, y), y).any()
        assert not gradient(lambda leaf: additive.parts(leaf, y)[0], y).any()
        assert not additive.nr_share(y, y).any()

    def test_looking_better_than_the_reference_gains_nothing(self, additive):
        x, y = pictures()
        there, back = additive.parts(x, y)[1], additive.parts(y, x)[1]
        assert ((there > 0) ^ (back > 0)).all()
        for a, b, penalty in ((x, y, there), (y, x, back)):
            silent = penalty == 0
            assert silent.any()
            whole = gradient(lambda leaf, b=b: additive(leaf, b), a)
            distance = gradient(lambda leaf, b=b: additive.parts(leaf, b)[0], a)
            torch.testing.assert_close(whole[silent], distance[silent], rtol=1e-12, atol=1e-16)
            assert (norms(whole - distance)[~silent] > 0).all()

    def test_penalty_is_bounded_however_loud_the_head(self, additive):
        x, y = pictures(1)
        additive.quality[2].weight.data.mul_(1e4)
        read_outs: list[Tensor] = []
        hook = additive.quality[2].register_forward_hook(lambda module, given, out: read_outs.append(out))
        additive(x, y)
        hook.remove()
        additive.quality[2].bias.data.sub_(torch.cat(read_outs).mean())  # between the two images
        penalty = torch.cat([additive.parts(x, y)[1], additive.parts(y, x)[1]])
        assert penalty.max() > 0.04
        assert penalty.max() <= 0.05

    def test_options_out_of_range(self):
        card = get_card("fr-nr-additive")
        for options in ({"nr_weight": -1.0}, {"nr_weight": float("nan")}, {"nr_cap": 1.0}, {"nr_cap": -0.1}):
            with pytest.raises(ConfigError, match=r"nr_weight.*nr_cap, got"):
                FRNRAdditive(card, depth=18, **options)


class TestShare:
    def test_is_that_of_the_two_gradients(self, additive):
        x, y = pictures()
        distance, penalty = (norms(gradient(lambda leaf, i=i: additive.parts(leaf, y)[i], x)) for i in (0, 1))
        share = additive.nr_share(x, y)
        torch.testing.assert_close(share, penalty / (distance + penalty), rtol=1e-6, atol=1e-12)
        assert share.max() > 0.5

    @pytest.mark.parametrize("cap", [0.0, 0.1, 0.5])
    def test_stays_below_the_cap(self, additive, cap):
        x, y = pictures()
        free, score = additive.nr_share(x, y), additive(x, y)
        distance = gradient(lambda leaf: additive.parts(leaf, y)[0], x)
        second = gradient(lambda leaf: additive.parts(leaf, y)[1], x)
        additive.trunk.cap = cap
        torch.testing.assert_close(additive.nr_share(x, y), free.clamp_max(cap), rtol=1e-6, atol=1e-12)
        assert torch.equal(additive(x, y), score)
        # shortened, not turned
        length = torch.minimum(norms(second), cap / (1 - cap) * norms(distance))
        expected = distance + second * (length / norms(second).clamp_min(1e-300))[:, None, None, None]
        torch.testing.assert_close(gradient(lambda leaf: additive(leaf, y), x), expected, rtol=1e-7, atol=1e-12)

    def test_a_cap_that_does_not_bind_changes_nothing(self, additive):
        x, y = pictures()
        before = gradient(lambda leaf: additive(leaf, y), x)
        additive.trunk.cap = 0.999
        torch.testing.assert_close(gradient(lambda leaf: additive(leaf, y), x), before, rtol=1e-9, atol=1e-14)

    @pytest.mark.parametrize("options", [{"grad": "checkpoint"}, {"grad": "fused", "micro_batch": 2, "lean": True}])
    def test_cap_holds_in_every_grad_mode(self, additive, options):
        x, y = pictures()
        additive.trunk.cap = 0.1
        expected = gradient(lambda leaf: additive(leaf, y).mean(), x)
        loss_fn = CriticLoss([{"critic": additive, "weight": 1.0}], share_every=0, **options)
        torch.testing.assert_close(gradient(lambda leaf: loss_fn(leaf, y), x), expected, rtol=1e-8, atol=1e-13)

    def test_a_capped_trunk_is_not_shared(self, additive):
        def shared(cap: float | None) -> bool:
            first, second = copy.deepcopy(additive), copy.deepcopy(additive)
            second.trunk.cap = cap
            share_trunks([first, second])
            return first.trunk is second.trunk

        assert shared(None)
        assert not shared(0.1)


class TestWeights:
    def files(self, critic: Critic) -> list[dict[str, Tensor]]:
        """As torchvision and the LPIPS authors lay them out, and the rest under our own names."""
        state = critic.state_dict()
        vgg = {k.removeprefix("trunk.fr."): v for k, v in state.items() if k.startswith("trunk.fr.")}
        resnet = {k.removeprefix("trunk.nr."): v for k, v in state.items() if k.startswith("trunk.nr.")}
        heads = {f"lin{k[-1]}.model.1.weight": v[None, :, None, None] for k, v in state.items() if "heads" in k}
        own = {k: v for k, v in state.items() if not k.startswith(("trunk", "heads"))}
        vgg["classifier.0.weight"] = resnet["fc.weight"] = resnet["fc.bias"] = torch.ones(3)
        resnet["bn1.num_batches_tracked"] = torch.tensor(7)
        return [vgg, resnet, own, *([heads] if heads else [])]

    @pytest.mark.parametrize("name", ["fr-nr", "fr-nr-additive"])
    def test_trunks_and_heads_come_from_their_files(self, built, name):
        critic, other = built[name], copy.deepcopy(built[name])
        for parameter in other.parameters():
            parameter.data.zero_()
        load_states(other, self.files(critic))
        x, y = pictures(1)
        assert torch.equal(other(x, y), critic(x, y))
        with pytest.raises(WeightsError, match="in no file"):
            load_states(other, self.files(critic)[1:])
        with pytest.raises(WeightsError, match=r"neck\.weight: unknown key"):
            load_states(other, [{**critic.state_dict(), "neck.weight": torch.ones(1)}])

    def test_torchvision_names_every_layer_of_the_resnet(self, built):
        torchvision = pytest.importorskip("torchvision")
        state = torchvision.models.resnet18().state_dict()
        found = convert(built["fr-nr"], state)
        assert {k for k in built["fr-nr"].state_dict() if k.startswith("trunk.nr.")} == set(found)
