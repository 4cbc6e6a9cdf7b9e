"""RankSRGAN's ranker: sizes, the two poolings, what it keeps for the backward, and how checkpoints load."""

from __future__ import annotations

import copy

import pytest
import torch
from images import pair
from rounding import assert_same

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critics.ranker import Ranker
from perceptloss.errors import ConfigError, InputError, WeightsError
from perceptloss.networks.trunks import features

WIDTHS = (6, 8, 10, 12, 12)


@pytest.fixture
def ranker() -> Ranker:
    torch.manual_seed(1)
    return Ranker(get_card("ranker"), widths=WIDTHS, hidden=9).freeze().double()


def published(ranker: Ranker) -> Ranker:
    other = copy.deepcopy(ranker)
    other.pool = "published"
    return other


def test_published_size():
    full = Ranker(get_card("ranker")).freeze().to("meta")
    assert sum(p.numel() for p in full.parameters()) == 13_734_281
    taps = tuple(full.trunk.tap_at)
    maps = features(full.trunk, torch.empty(1, 3, 296, 296, device="meta"), taps)
    assert [maps[tap].shape[2] for tap in taps] == [296, 148, 148, 74, 74, 37, 37, 18, 18, 9]
    assert [maps[tap].shape[1] for tap in taps] == [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]


class TestPooling:
    @pytest.mark.parametrize("side", [32, 47, 64, 96])
    def test_the_two_agree_on_squares(self, ranker, side):
        x, _ = pair(2, side, dtype=torch.float64)
        assert_same(ranker(x), published(ranker)(x))

    def test_published_reads_the_left_square(self, ranker):
        x, _ = pair(2, 64, 100, dtype=torch.float64)  # a map of 2x3
        other = x.clone()
        other[..., -1] = 1 - other[..., -1]
        assert not torch.equal(ranker(other), ranker(x))
        assert not torch.equal(published(ranker)(x), ranker(x))
        last = features(ranker.trunk, x, ranker.taps)[ranker.taps[0]]
        assert last.shape[2:] == (2, 3)
        torch.testing.assert_close(published(ranker)(x), ranker.classifier(last[..., :2].mean((2, 3)))[:, 0])

    @pytest.mark.parametrize("size", [(96, 64), (64, 128)])
    def test_published_refuses_what_its_code_cannot_take(self, ranker, size):
        x, _ = pair(1, *size, dtype=torch.float64)
        assert torch.isfinite(ranker(x)).all()
        with pytest.raises(InputError, match=r"at least as wide as tall.*pool='global'"):
            published(ranker)(x)

    @pytest.mark.parametrize("size", [(32, 32), (33, 61), (75, 32), (50, 131)])
    def test_any_size_from_32_on(self, ranker, size):
        x = pair(2, *size, dtype=torch.float64)[0].requires_grad_()
        (gradient,) = torch.autograd.grad(ranker(x).sum(), x)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()

    def test_unknown(self):
        with pytest.raises(ConfigError, match="'global' or 'published', got 'max'"):
            Ranker(get_card("ranker"), pool="max", widths=WIDTHS)


class TestTraining:
    def test_lean_keeps_signs_only(self, ranker):
        x = pair(2, 64, dtype=torch.float64)[0].requires_grad_()
        weights = {p.data_ptr() for p in ranker.parameters()}

        def kept(keep: str) -> int:
            sizes = {}

            def note(tensor: torch.Tensor) -> torch.Tensor:
                if tensor.data_ptr() not in weights and tensor.ndim == 4 and tensor.shape[0] == 2:
                    sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                found = ranker.trunk(x, ranker.taps, keep=keep)[ranker.taps[0]]
                (gradient,) = torch.autograd.grad(found.square().sum(), x)
            gradients[keep] = gradient
            return sum(sizes.values())

        gradients: dict[str, torch.Tensor] = {}
        assert kept("lean") < 0.3 * kept("all")
        torch.testing.assert_close(gradients["lean"], gradients["all"], rtol=1e-9, atol=1e-12)

    def test_statistics_never_move(self, ranker):
        ranker.unfreeze().train()
        before = {name: buffer.clone() for name, buffer in ranker.named_buffers()}
        x, _ = pair(3, 64, dtype=torch.float64)
        first = ranker(x)
        for _ in range(3):
            ranker(x)
        assert len(before) == 2 * 9 + 2  # and the mean and deviation of the trunk's input
        assert all(torch.equal(buffer, before[name]) for name, buffer in ranker.named_buffers())
        torch.testing.assert_close(ranker(x[:1]), first[:1])

    def test_the_loss_is_a_mean(self, ranker):
        """The authors sum over the batch, so that their weight depends on its size."""
        x, _ = pair(2, 64, dtype=torch.float64)
        loss_fn = CriticLoss([{"critic": ranker, "weight": 1.0, "shape": "sigmoid"}])
        assert loss_fn(torch.cat([x, x])).item() == pytest.approx(loss_fn(x).item(), rel=1e-12)
        assert loss_fn(x).item() == pytest.approx(torch.sigmoid(ranker(x)).mean().item(), rel=1e-9)


class TestFiles:
    def state(self) -> dict[str, torch.Tensor]:
        """The authors' layout, with counters."""
        state = {}
        for key, tensor in create_critic("ranker", weights=None).state_dict().items():
            state[key.removeprefix("trunk.")] = 0.9 * tensor
            if key.endswith("running_var"):
                state[key.removeprefix("trunk.").replace("running_var", "num_batches_tracked")] = torch.tensor(5)
        return state

    def test_the_authors_layout(self):
        state = self.state()
        assert len(state) == 20 + 9 * 5 + 4
        for layout in (state, {f"module.{key}": tensor for key, tensor in state.items()}):
            critic = create_critic("ranker", weights=layout)
            assert torch.equal(critic.trunk.conv3_1.weight, state["conv3_1.weight"])
            assert torch.equal(critic.trunk.bn3_1.running_var, state["bn3_1.running_var"])
            assert torch.equal(critic.classifier[2].bias, state["classifier.2.bias"])

    def test_other_layers_are_refused(self):
        with pytest.raises(WeightsError, match=r"(?s)no layer .*trunk.bn0_0.weight.*unknown key"):
            create_critic("ranker", weights={**self.state(), "bn0_0.weight": torch.ones(64), "head": torch.ones(1)})
