"""REQA: feedback that starts afresh, tokens and sizes as described, and a slope where the published end has none."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from images import pair
from small import build_small, small_card
from torch import Tensor, nn

from perceptloss import CriticLoss, get_card
from perceptloss.critics.reqa import REQA, Feedback
from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.trunks import features
from perceptloss.weights.convert import load_states

SIZES = {"side": 64, "widths": (8, 10, 12, 16), "hidden": (4, 6, 8), "local": 16, "context": 80, "width": 24}
SIZES |= {"heads": 3, "inner": 20}


@pytest.fixture
def reqa() -> REQA:
    return build_small("reqa").double()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return pair(2, 64, dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class TestPublishedSize:
    @pytest.fixture(scope="class")
    def full(self) -> REQA:
        return REQA(get_card("reqa")).freeze().to("meta")

    def test_shapes(self, full):
        image = torch.empty(2, 3, 224, 224, device="meta")
        taps = features(full.trunk, image, full.taps)
        assert [taps[t].shape[1:] for t in full.taps] == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
        flat, tokens = [], []
        for layer in full.reduce:
            layer.register_forward_pre_hook(lambda _m, arguments: flat.append(arguments[0].shape[1]))
        full.context.layer.register_forward_pre_hook(lambda _m, arguments: tokens.append(arguments[0].shape[1:]))
        fused = list(full._fused(taps))
        assert flat == 4 * [1024, 512, 256]
        assert tokens == [(50, 224)], "49 places and the class token, once"
        assert [f.shape for f in fused] == 4 * [(2, 224)]
        assert [(layer.in_features, layer.out_features) for layer in full.head] == [
            (224, 112),
            (112, 56),
            (56, 28),
            (28, 14),
            (14, 1),
        ]

    def test_parameters(self, full):
        gates = [4 * h * (c + h) + 2 * 4 * h for c, h in ((256, 16), (512, 32), (1024, 64))]
        assert [parameters(cell) for cell in full.feedback] == gates
        assert parameters(full.reduce) == (1024 + 512 + 256) * 32 + 3 * 32
        layer = 4 * (224 * 224 + 224) + 4 * 224 + (224 * 176 + 176) + (176 * 224 + 224)
        assert parameters(full.context) == (2048 * 224 + 224) + 51 * 224 + layer + (224 * 128 + 128)
        assert full.context.layer.heads == 14


class TestFeedback:
    def cell(self) -> Feedback:
        torch.manual_seed(3)
        return Feedback(5, 3).double()

    def test_gates_are_those_of_an_lstm(self):
        """A cell on a 1x1 map is torch's own LSTM cell, whose order of gates is: enters, stays, new, leaves."""
        cell, f = self.cell(), torch.randn(4, 5, 1, 1, dtype=torch.float64)
        cell.norm.weight.data.uniform_(0.5, 2)
        cell.norm.bias.data.normal_()
        scale = (cell.norm.weight / (1 + cell.norm.eps) ** 0.5)[:, None]
        order = torch.tensor([0, 1, 3, 2])[:, None] * 3 + torch.arange(3)
        lstm = nn.LSTMCell(5, 3, dtype=torch.float64)
        with torch.no_grad():
            for ours, theirs in ((cell.seen.weight, lstm.weight_ih), (cell.kept.weight, lstm.weight_hh)):
                theirs.copy_((scale * ours.flatten(1))[order.flatten()])
            lstm.bias_ih.copy_(cell.norm.bias[order.flatten()])
            lstm.bias_hh.zero_()
        state = torch.zeros(4, 3).double(), torch.zeros(4, 3).double()
        for h in cell(f, 4):
            state = lstm(f[..., 0, 0], state)
            torch.testing.assert_close(h[..., 0, 0], state[0])

    def test_places_do_not_mix(self):
        cell, f = self.cell(), torch.randn(1, 5, 4, 6, dtype=torch.float64)
        changed = f.clone()
        changed[..., 2, 3] += 1
        difference = sum((a - b).abs().sum(1) for a, b in zip(cell(f, 4), cell(changed, 4), strict=True))
        assert difference.nonzero().tolist() == [[0, 2, 3]]

    def test_state_evolves_and_starts_afresh(self):
        cell, f = self.cell(), torch.randn(1, 5, 4, 6, dtype=torch.float64)
        first, again = list(cell(f, 4)), list(cell(f, 4))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert all(not torch.allclose(a, b) for a, b in pairwise(first))


class TestPredictions:
    def test_the_last_is_the_score(self, reqa, images):
        x, _ = images
        found = reqa.predictions(x)
        assert found.shape == (2, 4)
        assert torch.equal(found[:, -1], reqa(x))
        linear = reqa.predictions(x, linear=True)
        assert torch.equal(found, F.relu(linear))
        assert torch.equal(linear[:, -1], reqa.linear(x))
        assert (linear.diff(dim=1) != 0).all(), "an iteration changes nothing"

    def test_closed_gates_keep_the_state_so_all_iterations_agree(self, reqa, images):
        x, _ = images
        for cell in reqa.feedback:
            enters, stays, _, _ = cell.norm.bias.chunk(4)
            enters.fill_(-1e4)
            stays.fill_(1e4)
        linear = reqa.predictions(x, linear=True)
        assert torch.equal(linear, linear[:, :1].expand(-1, 4))

    def test_no_state_is_left_between_calls(self, reqa, images):
        """Neither does a score depend on what was seen before, nor does a graph outlive its call."""
        x, y = images
        alone = reqa(x)
        reqa(y.requires_grad_()).sum().backward()
        assert torch.equal(reqa(x), alone)
        x.requires_grad_()
        for _ in range(2):
            reqa(x).sum().backward()

    def test_learns_through_all_iterations(self, reqa, images):
        x, _ = images
        coarse, *_, last = reqa.unfreeze().predictions(x, linear=True).sum(0)
        kept = [cell.kept.weight for cell in reqa.feedback]
        assert not any(g.any() for g in torch.autograd.grad(coarse, kept, retain_graph=True)), "feedback before any"
        assert all(g.any() for g in torch.autograd.grad(last, kept))

    def test_checks_its_images(self, reqa):
        with pytest.raises(InputError, match="at least 64x64"):
            reqa.predictions(torch.rand(1, 3, 63, 64))


class TestScore:
    def test_published_end_is_flat_and_losses_are_not(self, reqa, images):
        x, y = images
        reqa.head[-1].bias.fill_(-100)
        assert torch.equal(reqa(x), torch.zeros(2).double())
        x.requires_grad_()
        assert not torch.autograd.grad(reqa(x).sum(), x)[0].any()
        loss_fn = CriticLoss([{"critic": reqa, "weight": 1.0, "shape": "softplus"}])
        loss = loss_fn(x, y)
        assert torch.autograd.grad(loss, x)[0].norm() > 1e-4
        assert loss_fn.report["reqa"]["score"] == 0

    def test_is_ten_times_the_head(self, reqa, images):
        x, _ = images
        linear = reqa.linear(x)
        reqa.head[-1].bias.add_(0.3)
        torch.testing.assert_close(reqa.linear(x), linear + 3)

    def test_larger_images_are_the_mean_of_evenly_spaced_squares(self, reqa):
        x, _ = pair(2, 64, 150, dtype=torch.float64)
        parts = torch.stack([reqa.linear(x[..., left : left + 64]) for left in (0, 43, 86)])
        torch.testing.assert_close(reqa.linear(x), parts.mean(0))
        torch.testing.assert_close(reqa(x), F.relu(parts.mean(0)))

    def test_never_looks_at_a_reference(self, reqa, images):
        x, y = images
        runs = []
        reqa.context.register_forward_hook(lambda *_: runs.append(1))
        assert torch.equal(reqa(x, y), reqa(x))
        assert len(runs) == 2

    def test_frozen_scores_know_no_dropout(self, reqa, images):
        x, _ = images
        reqa.train()
        assert torch.equal(reqa(x), reqa(x))
        reqa.unfreeze().train()
        assert not torch.equal(reqa(x), reqa(x))


class TestCheckpoints:
    def test_torchvisions_trunk_and_a_head_make_one(self, reqa, images):
        x, _ = images
        state = reqa.state_dict()
        trunk = {key.removeprefix("trunk."): t for key, t in state.items() if key.startswith("trunk.")}
        head = {key: t for key, t in state.items() if not key.startswith("trunk.")}
        extra = {"fc.weight": torch.zeros(1, 1), "fc.bias": torch.zeros(1), "bn1.num_batches_tracked": torch.tensor(0)}
        other = REQA(small_card("reqa", 64), **SIZES).double()
        load_states(other, [{**trunk, **extra}, head])
        assert torch.equal(other.freeze()(x), reqa(x))
        with pytest.raises(WeightsError, match="in no file"):
            load_states(other, [trunk])
