"""MonotonicIQA: its pooling, its heads, which of them a score and a loss read, and its checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images import pair
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critics.monotonic import DATASETS, Monotonic, PublishedHead, bilinear
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.networks.monotone import MonotoneHead
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.convert import load_states

HEADS = {"published": PublishedHead, "monotone": MonotoneHead}


@pytest.fixture
def small() -> Monotonic:
    built = build_small("monotonic").double()
    assert isinstance(built, Monotonic)
    return built


@pytest.fixture
def images() -> Tensor:
    return pair(3, 64, 96, dtype=torch.float64)[0]


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, 6, 4, 5, dtype=torch.float64).relu()


def random_head(name: str, scale: float = 1.0) -> nn.Module:
    head = HEADS[name]().double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=scale)
    return head


def qualities(n: int = 10_000, reach: float = 20.0) -> Tensor:
    return (reach * (2 * torch.rand(n, dtype=torch.float64) - 1)).requires_grad_()


def slopes(head: nn.Module, q: Tensor) -> Tensor:
    return torch.autograd.grad(head(q).sum(), q)[0]


class TestPooling:
    def test_is_the_formula(self, maps):
        for image, vector in zip(maps, bilinear(maps), strict=True):
            rows = image.reshape(6, -1).numpy()
            products = rows @ rows.T / rows.shape[1]
            roots = np.sign(products) * np.sqrt(np.abs(products) + 1e-8)
            np.testing.assert_allclose(vector, (roots / np.linalg.norm(roots)).ravel(), rtol=1e-12, atol=1e-15)

    def test_is_a_unit_vector_symmetric_and_of_positive_products(self, maps):
        maps = maps - 0.3  # as a 1x1 convolution may leave them
        vectors = bilinear(maps)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2, dtype=torch.float64))
        square = vectors.view(2, 6, 6)
        torch.testing.assert_close(square, square.mT)
        products = square.sign() * square.square()
        assert (products < 0).any()
        assert torch.linalg.eigvalsh(products).min() > -1e-6

    def test_neither_place_nor_scale_counts(self, small, images):
        maps = small.trunk(images, small.taps)["layer4"]
        q = small.quality(maps)
        order = torch.randperm(maps[0, 0].numel())
        shuffled = maps.flatten(2)[..., order].view_as(maps)
        assert not torch.equal(shuffled, maps)
        torch.testing.assert_close(small.quality(shuffled), q, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(small.quality(7 * maps), q, rtol=1e-6, atol=1e-6)

    def test_floor_bounds_the_slope_and_keeps_the_value(self):
        maps = torch.full((1, 3, 1, 1), 1.0, dtype=torch.float64)
        maps[0, 2] = 1e-7  # rarely active
        maps.requires_grad_()
        along = torch.arange(9, dtype=torch.float64).sin()
        exact, held = bilinear(maps), bilinear(maps, 1e-4)
        torch.testing.assert_close(held, exact, rtol=1e-12, atol=0)
        steep, gentle = (torch.autograd.grad((v * along).sum(), maps)[0][0, 2].abs().item() for v in (exact, held))
        assert gentle < 10 < 200 < steep

    def test_without_features_nothing_breaks(self, small):
        maps = torch.zeros(1, 16, 2, 2, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(small.quality(maps).sum(), maps)
        assert torch.equal(gradient, torch.zeros_like(gradient))


class TestPublishedHead:
    def test_is_a_line_through_zero_whose_gain_is_the_product_of_the_weights(self):
        head = random_head("published")
        gain = torch.eye(1, dtype=torch.float64)
        for layer in head.layers:
            gain = layer.weight.abs() @ gain
        q = qualities().abs().detach()
        assert head(torch.zeros(1, dtype=torch.float64)).item() == 0
        torch.testing.assert_close(head(q), gain.item() * q)
        torch.testing.assert_close(head(2 * q), 2 * head(q))
        torch.testing.assert_close(slopes(head, q.requires_grad_()), torch.full_like(q, gain.item()))

    def test_below_zero_it_bends_to_a_floor(self):
        head = random_head("published")
        low = head(torch.tensor([-1.0, -50.0, -100.0], dtype=torch.float64))
        assert 0 > low[0] > low[1]
        torch.testing.assert_close(low[1], low[2])

    def test_adds_no_bias(self):
        assert [name for name, _ in PublishedHead().named_parameters()] == [f"layers.{i}.weight" for i in range(5)]


class TestOrder:
    @pytest.mark.parametrize("name", HEADS)
    @pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
    def test_is_kept_by_any_weights(self, name, scale):
        head = random_head(name, scale)
        first, second = (side.detach() for side in qualities().view(2, -1))
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        assert (head(low) <= head(high)).all()
        assert (slopes(head, qualities()) >= 0).all()

    @pytest.mark.parametrize("name", HEADS)
    def test_ranks_of_good_images_are_the_same(self, name):
        head, q = random_head(name, 0.5), qualities(500, 3).detach().abs()
        assert torch.equal(head(q).argsort(), q.argsort())

    def test_slope_of_the_monotone_head_has_a_bound(self):
        head = random_head("monotone", 2.0)
        assert isinstance(head, MonotoneHead)
        least = nn.functional.softplus(head.gain)
        assert least > 0
        assert (slopes(head, qualities(reach=1e6)) >= least * (1 - 1e-12)).all()

    def test_labels_turned_round_cannot_turn_it_round(self):
        head, q = MonotoneHead().double(), torch.linspace(0, 3, 60, dtype=torch.float64)
        fit(head, q, 10 - 3 * q)
        assert (slopes(head, q.requires_grad_()) > 0).all()
        assert (head(q).diff() > 0).all()

    def test_only_the_monotone_head_follows_an_offset_and_a_bend(self):
        q = torch.linspace(0, 2.7, 60, dtype=torch.float64)
        labels = 2 + 6 * torch.sigmoid(4 * (q - 1.2))
        assert fit(MonotoneHead().double(), q, labels) < 0.1
        assert fit(random_head("published", 0.5), q, labels) > 0.5


def fit(head: nn.Module, q: Tensor, labels: Tensor) -> float:
    """Mean error after training."""
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        nn.functional.smooth_l1_loss(head(q), labels).backward()
        optimiser.step()
    return (head(q) - labels).abs().mean().item()


class TestScale:
    @pytest.mark.parametrize("name", ["monotonic", "monotonic-strict"])
    def test_dataset_chooses_the_scale_of_the_score_and_nothing_else(self, name, images):
        critic = build_small(name).double()
        assert isinstance(critic, Monotonic)
        q = critic(images)
        for dataset in DATASETS:
            critic.dataset = dataset
            score = critic(images)
            assert torch.equal(critic.linear(images), q)
            assert torch.equal(score, critic.heads[dataset](q))
            assert not torch.equal(score, q)
            assert torch.equal(score.argsort(), q.argsort())

    def test_a_loss_reads_the_quality_where_the_head_is_flat(self, small, images):
        small.fc[4].bias.sub_(200)
        small.dataset = "csiq"
        x = images[:1].requires_grad_()
        (flat,) = torch.autograd.grad(small(x).sum(), x)
        assert flat.norm() < 1e-12
        loss = CriticLoss([{"critic": small, "weight": 1.0, "shape": "softplus"}])
        (gradient,) = torch.autograd.grad(loss(x, images[1:2]), x)
        assert gradient.norm() > 1e-3

    def test_heads_learn_from_their_own_labels_only(self, small, images):
        small.unfreeze()
        q = small(images[:2])
        labels = torch.tensor([7.0, 2.0], dtype=torch.float64)
        losses = {name: nn.functional.smooth_l1_loss(head(q), labels) for name, head in small.heads.items()}
        for left_out in (None, "bid"):
            small.zero_grad()
            sum(loss for name, loss in losses.items() if name != left_out).backward(retain_graph=True)
            found = {name: p.grad for name, p in small.heads.named_parameters()}
            if left_out is None:
                expected = {name: grad.clone() for name, grad in found.items()}
                assert all(grad.any() for grad in expected.values())
        for name, grad in found.items():
            is_out = name.startswith("bid.")
            assert (grad is None) == is_out
            assert is_out or torch.equal(grad, expected[name])

    def test_other_datasets_have_heads_of_their_names(self):
        card = get_card("monotonic")
        critic = Monotonic(card, datasets=("live", "pipal"), dataset="pipal", widths=(4, 4, 4, 4), hidden=(8, 4))
        assert list(critic.heads) == ["live", "pipal"]
        with pytest.raises(
            ConfigError, match=r"(?s)head must be 'linear' or 'monotone', got 'spline'.*did you mean 'kadid-10k'"
        ):
            Monotonic(card, dataset="kadid10k", head="spline", widths=(4, 4, 4, 4), hidden=(8, 4))


class TestSize:
    def test_published(self):
        critic = create_critic("monotonic", weights=None)
        assert isinstance(critic, Monotonic)
        heads, fc = 6 * (10 + 200 + 400 + 200 + 10), 512**2 * 512 + 512 + 512 * 64 + 64 + 64 + 1
        assert count(critic) == 21_284_672 + fc + heads

    def test_strict(self):
        critic = create_critic("monotonic-strict", weights=None)
        assert isinstance(critic, Monotonic)
        assert all(isinstance(head, MonotoneHead) for head in critic.heads.values())
        assert count(critic.fc) == 64**2 * 512 + 512 + 512 * 64 + 64 + 64 + 1
        assert count(critic) < 24e6


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def authors_state(critic: Monotonic) -> dict[str, Tensor]:
    """The critic's own tensors under the names of the authors' network, with what that holds besides."""
    state = {}
    for key, tensor in critic.state_dict().items():
        first, _, rest = key.partition(".")
        if first == "trunk":
            state[f"backbone.{rest}"] = tensor
        elif first == "heads":
            dataset, _, layer, _ = rest.split(".")
            prefix = f"nlm{DATASETS.index(dataset) + 1}.{2 * int(layer)}.fc"
            state |= {f"{prefix}.weight": tensor, f"{prefix}.bias": torch.full((len(tensor),), 9.0)}
        else:
            state[key] = tensor
    state |= {f"backbone.fc.{name}": torch.randn(5, 16) for name in ("weight", "bias")}
    return state | {"backbone.bn1.num_batches_tracked": torch.tensor(7)}


class TestCheckpoint:
    def test_of_the_authors_trainer_loads(self, tmp_path, images):
        source, target = build_small("monotonic"), build_small("monotonic")
        assert isinstance(source, Monotonic)
        for tensor in source.state_dict().values():
            tensor.add_(0.01 * torch.randn_like(tensor))
        correlations = {"live": [np.float64(0.95)], "csiq": []}
        file = tmp_path / "BaseCNN-best1.pt"
        wrapped = {"epoch": 3, "state_dict": authors_state(source), "optimizer": {"state": {}}, "srcc": correlations}
        torch.save(wrapped, file)
        load_states(target, [read_state(file)])
        x = images.float()
        assert torch.equal(target(x), source(x))
        for name in DATASETS:
            assert torch.equal(target.heads[name](x), source.heads[name](x))

    def test_must_fit_exactly(self, small):
        state = authors_state(small)
        with pytest.raises(WeightsError, match=r"nlm7\.0\.fc\.weight: unknown key"):
            load_states(small, [state | {"nlm7.0.fc.weight": torch.ones(10, 1)}])
        del state["nlm3.4.fc.weight"]
        with pytest.raises(WeightsError, match=r"heads\.kadid-10k\.layers\.2\.weight: in no file"):
            load_states(small, [state])

    def test_published_heads_do_not_fit_monotone_ones(self, small):
        card = get_card("monotonic")
        strict = Monotonic(card, head="monotone", widths=(8, 10, 12, 16), hidden=(32, 16))
        with pytest.raises(WeightsError, match=r"no layer of this critic is called 'heads\.live\.layers\.0\.weight'"):
            load_states(strict, [authors_state(small)])
