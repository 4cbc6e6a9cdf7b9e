"""Unified: one network in two modes; what it reads in each, and what two critics that share it share."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import are_apart
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, get_card
from perceptloss.critics.unified import EncoderLayer, Unified, UnifiedCritic, UnifiedFR, UnifiedNR, sine_positions
from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.trunks import features
from perceptloss.weights.convert import load_states

MODES = ("unified-fr", "unified-nr")


@pytest.fixture
def fr() -> UnifiedCritic:
    return build_small("unified-fr").double()


@pytest.fixture
def nr(fr) -> UnifiedCritic:
    return fr.twin()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return pair(2, 64, 96, dtype=torch.float64)


def levels(critic: UnifiedCritic, image: Tensor) -> list[Tensor]:
    taps = features(critic.trunk, image, critic.taps)
    return [taps[tap] for tap in critic.taps]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class TestPublishedSize:
    @pytest.fixture(scope="class")
    def full(self) -> UnifiedFR:
        return UnifiedFR(get_card("unified-fr")).freeze().to("meta")

    @pytest.mark.parametrize("size", [192, 224, 256])
    def test_197_tokens_of_128_at_any_size(self, full, size):
        seen: list[Tensor] = []
        handle = full.net.encoder.register_forward_pre_hook(lambda _m, arguments: seen.append(arguments[0]))
        image = torch.empty(2, 3, size, size, device="meta")
        assert full.score(image, image).shape == (2,)
        handle.remove()
        assert [h.shape for h in seen] == [(2, 4 * 49 + 1, 128)]

    def test_parameters(self, full):
        net = full.net
        assert parameters(full.trunk) == 23_508_032
        assert parameters(net.project) == (256 + 512 + 1024 + 2048) * 128 + 512
        assert parameters(net.encoder) == 396_544
        assert parameters(net) == 930_821

    @pytest.mark.parametrize("name", MODES)
    def test_other_sizes_are_refused(self, name):
        image = torch.zeros(1, 3, 224, 225)
        with pytest.raises(InputError, match=r"multiples of 32, got x of 224x225"):
            build_small(name)(image, image)


class TestNetwork:
    def test_tokens_are_projections_averaged_per_cell(self, fr, images):
        maps = levels(fr, images[0])
        expected = []
        for project, m in zip(fr.net.project, maps, strict=True):
            projected = F.conv2d(m, project.weight[..., None, None], project.bias)
            expected.append(F.adaptive_avg_pool2d(projected, 7).flatten(2).transpose(1, 2))
        torch.testing.assert_close(fr.net.tokens(maps), torch.cat(expected, 1))

    def test_differences_vanish_at_the_reference(self, fr, images):
        of_x, of_y = (levels(fr, image) for image in images)
        assert not fr.net.differences(of_y, levels(fr, images[1].clone())).any()
        expected = []
        for project, a, b in zip(fr.net.project, of_x, of_y, strict=True):
            projected = F.conv2d((a - b).abs(), project.weight[..., None, None])
            expected.append(F.adaptive_avg_pool2d(projected, 7).flatten(2).transpose(1, 2))
        torch.testing.assert_close(fr.net.differences(of_x, of_y), torch.cat(expected, 1))

    def test_what_averages_out_in_a_cell_is_seen_beside_the_reference(self, fr, images):
        maps = levels(fr, images[0])
        whole = [F.interpolate(m, scale_factor=7 * 2, mode="nearest") for m in maps]  # cells of an even width
        noisy = [m + 0.5 * (-1.0) ** torch.arange(m.shape[3]) for m in whole]
        torch.testing.assert_close(fr.net.tokens(noisy), fr.net.tokens(whole), rtol=1e-4, atol=1e-4)
        assert (fr.net(noisy, whole) - fr.net(whole, whole)).abs().min() > 1e-4

    def test_without_differences_the_modes_differ_by_their_scale(self, fr, images):
        """A null token of zeros is what equal images give."""
        _, y = images
        fr.net.null.zero_()
        maps = levels(fr, y)
        torch.testing.assert_close(fr.net(maps, None, "fr"), fr(y, y))
        gain, offset = fr.net.affine["nr"].copy_(torch.tensor([2.0, 0.5]))
        torch.testing.assert_close(fr.net(maps, None), gain * fr(y, y) + offset)
        torch.testing.assert_close(fr.net(maps, maps, "nr"), fr.net(maps, None))

    def test_cells_have_a_place_by_their_position_alone(self, fr, images):
        maps = levels(fr, images[0])
        mirrored = [m.flip(3) for m in maps]
        assert (fr.net(mirrored) - fr.net(maps)).abs().min() > 1e-6
        fr.net.positions.zero_()
        torch.testing.assert_close(fr.net(mirrored), fr.net(maps))

    def test_positions(self):
        places = sine_positions(7, 128)
        assert places.shape == (49, 128)
        assert torch.equal(places[0].unflatten(0, (4, 32))[:, :1], torch.tensor([[0.0], [1.0], [0.0], [1.0]]))
        rows, columns = places.unflatten(0, (7, 7)).chunk(2, -1)
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
        assert torch.equal(columns, rows.transpose(0, 1))
        torch.testing.assert_close(rows[:, 0, 0], torch.arange(7).sin())
        torch.testing.assert_close(places.square().sum(1), torch.full((49,), 64.0))
        assert len(torch.unique(places, dim=0)) == 49

    def test_encoder_layer_is_torchs(self):
        ours = EncoderLayer(16, 4, 24, 0.1).double().eval()
        theirs = nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True, norm_first=True).double()
        for own, part in (
            (ours.qkv, theirs.self_attn),
            (ours.out, theirs.self_attn.out_proj),
            (ours.feed[0], theirs.linear1),
            (ours.feed[3], theirs.linear2),
            (ours.norm_1, theirs.norm1),
            (ours.norm_2, theirs.norm2),
        ):
            for kind in ("weight", "bias"):
                target = getattr(part, f"in_proj_{kind}" if own is ours.qkv else kind)
                target.data.copy_(getattr(own, kind).data.normal_(std=0.4))
        h = torch.randn(2, 9, 16, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(ours(h), theirs.eval()(h))
        assert torch.autograd.gradgradcheck(ours, h[:1, :3].detach().requires_grad_())

    def test_dropout_is_of_training_only(self, fr, images):
        assert torch.equal(fr(*images), fr(*images))
        learning = fr.unfreeze().train()
        assert not torch.equal(learning(*images), learning(*images))
        learning.eval()
        assert torch.equal(learning(*images), learning(*images))


class TestModes:
    def test_without_reference_it_reads_none(self, nr, images):
        x, y = images
        assert torch.equal(nr(x, y), nr(x))
        assert torch.equal(nr(x, 1 - y), nr(x))

    def test_with_reference_it_reads_it(self, fr, images):
        x, y = images
        assert are_apart(fr(x, y), fr(x, y.flip(0))).all()

    def test_neighbours_do_not_matter(self, fr, nr, images):
        x, y = images
        torch.testing.assert_close(fr(x, y)[:1], fr(x[:1], y[:1]))
        torch.testing.assert_close(nr(x)[1:], nr(x[1:]))

    def test_gradient_reaches_x_and_never_y(self, fr, nr, images):
        x, y = (image.requires_grad_() for image in images)
        for critic in (fr, nr):
            critic(x, y).sum().backward()
            assert (x.grad.flatten(1).norm(dim=1) > 0).all()
            assert y.grad is None
            x.grad = None

    def test_each_mode_has_its_own_scale(self, fr, nr, images):
        x, y = images
        before = fr(x, y), nr(x)
        fr.net.affine["nr"][1] += 3
        assert torch.equal(fr(x, y), before[0])
        torch.testing.assert_close(nr(x), before[1] + 3)


class TestOneNetwork:
    def test_one_state_serves_both(self, fr, images):
        x, _ = images
        other = build_small("unified-nr").double()
        for tensor in fr.state_dict().values():
            tensor.add_(0.01)
        assert list(other.state_dict()) == list(fr.state_dict())
        trunk, net = ({k: t for k, t in fr.state_dict().items() if k.startswith(part)} for part in ("trunk.", "net."))
        torchvisions = {k.removeprefix("trunk."): t for k, t in trunk.items()} | {"fc.bias": torch.zeros(9)}
        load_states(other, [torchvisions, net])
        assert torch.equal(other(x), fr.twin()(x))
        with pytest.raises(WeightsError, match=r"net\.null: in no file"):
            load_states(other, [trunk])

    def test_one_loss_with_both_runs_the_trunk_once_per_image(self, fr, images):
        x, y = images
        terms = [{"critic": fr, "weight": 1.0, "shape": "softplus"}]
        terms.append({"critic": fr.twin(), "weight": 0.1, "shape": "softplus"})
        loss_fn = CriticLoss(terms, micro_batch=None, share_every=0)
        calls: list[Tensor] = []
        fr.trunk.register_forward_pre_hook(lambda _m, arguments: calls.append(arguments[0]))
        value = loss_fn(x.requires_grad_(), y)
        assert [torch.equal(call, image) for call, image in zip(calls, (x, y), strict=True)] == [True, True]
        expected = F.softplus(fr(y, y) - fr(x, y)).mean()
        twin = loss_fn.terms[1].critic
        assert isinstance(twin, UnifiedNR)
        expected = expected + 0.1 * F.softplus(twin(y) - twin(x)).mean()
        torch.testing.assert_close(value, expected)

    def test_both_learn_together(self, fr, nr, images):
        x, y = images
        fr.unfreeze()
        assert not nr.is_frozen
        before = nr(x).detach()
        learner = torch.optim.SGD(fr.parameters(), lr=1e-3)
        (fr(x, y) + nr(x)).sum().backward()
        assert [name for name, p in fr.named_parameters() if p.grad is None] == []
        assert all(fr.get_parameter(f"net.affine.{scale}").grad.any() for scale in ("fr", "nr"))
        learner.step()
        assert not torch.equal(nr(x), before)
        assert all(a is b for a, b in zip(fr.parameters(), nr.parameters(), strict=True))
        nr.freeze()
        assert fr.is_frozen
        assert not any(p.requires_grad for p in fr.parameters())

    def test_dropped_references_keep_the_scale(self, fr, images):
        """A network on its own, as training calls it: no reference, labels of the scale with references."""
        net = Unified((32, 40, 48, 64), width=16, heads=2, inner=32, hidden=8).double()
        maps = levels(fr, images[0])
        net(maps, None, "fr").sum().backward()
        assert net.affine["nr"].grad is None
        assert all(part.grad.any() for part in (net.affine["fr"], net.null))

    def test_there_is_one_twin(self, fr, nr):
        assert fr.twin() is nr
        assert nr.twin() is fr

    def test_copies_share_among_themselves(self, fr, nr, images):
        x, _ = images
        copied = copy.deepcopy(fr)
        twin = copied.family[1]
        assert twin.net is copied.net is not fr.net
        assert twin.trunk is copied.trunk
        assert torch.equal(twin(x), nr(x))
        assert twin.weights_id == fr.weights_id
        assert {type(critic) for critic in copied.family} == {UnifiedFR, UnifiedNR}
