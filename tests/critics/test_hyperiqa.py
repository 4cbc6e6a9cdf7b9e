"""HyperIQA beyond parity and contract: what an image's own weights are, its vectors, crops, and the converter."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from images import pair
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critics.hyperiqa import HyperIQA, HyperLayer, LocalVector
from perceptloss.errors import ConfigError, InputError, WeightsError
from perceptloss.weights.convert import convert, load_states

SIDE, GRID = 64, 2
TARGET = (20, 12, 8, 4, 3, 1)  # of the small build


@pytest.fixture(scope="module")
def hyper() -> HyperIQA:
    return build_small("hyperiqa").double()


@pytest.fixture
def blank() -> HyperIQA:
    """All generated weights are 0 until a test sets the biases of what makes them."""
    critic = build_small("hyperiqa").double()
    for layer in critic.layers.values():
        for part in (layer.matrix, layer.bias):
            nn.init.zeros_(part.weight)
    return critic


@pytest.fixture(scope="module")
def x() -> Tensor:
    return pair(2, SIDE, dtype=torch.float64)[0]


class TestSize:
    def test_is_that_of_the_authors(self):
        critic = create_critic("hyperiqa", weights=None)
        assert sum(p.numel() for p in critic.parameters()) == 27_375_369
        taps = critic.trunk(pair(1, 224)[0], critic.taps)
        vectors = [part(taps[tap]) for tap, part in zip(critic.taps, critic.local.values(), strict=True)]
        assert [v.shape[1] for v in vectors] == [16, 16, 16, 176]
        content = critic.content(taps["layer4"])
        assert content.shape == (1, 112, 7, 7)
        matrices = [layer.weights(content)[0].shape[1:] for layer in critic.layers.values()]
        assert matrices == [(b, a) for a, b in pairwise((224, 112, 56, 28, 14, 1))]

    def test_what_does_not_fit_is_refused(self):
        card = get_card("hyperiqa")
        with pytest.raises(ConfigError, match="multiple of 32, got 200"):
            HyperIQA(card, side=200)
        with pytest.raises(ConfigError, match="above 3 \\* local, got 48 with local=16"):
            HyperIQA(card, target=(48, 24))
        with pytest.raises(ConfigError, match="matrix of 112x224 does not fill 5x5 places evenly"):
            HyperIQA(card, side=160)
        with pytest.raises(InputError, match="at least 224x224"):
            create_critic("hyperiqa", weights=None)(torch.rand(1, 3, 223, 300))


class TestGeneratedWeights:
    def test_score_is_the_small_network_written_out(self, hyper, x):
        taps = hyper.trunk(x, hyper.taps)
        content = hyper.content(taps["layer4"])
        for n in range(2):
            v = hyper.distortions(taps)[n]
            assert v.shape == (TARGET[0],)
            for number, layer in hyper.layers.items():
                matrix, bias = (w[n] for w in layer.weights(content))
                v = F.linear(v, matrix, bias)
                v = v if number == "5" else 1 / (1 + (-v).exp())
            torch.testing.assert_close(hyper(x)[n], v[0], rtol=1e-12, atol=1e-12)

    def test_follow_the_content_of_each_image(self, hyper, x):
        content = hyper.content(hyper.trunk(x, ("layer4",))["layer4"])
        layer = hyper.layers["2"]
        (a, b), biases = layer.weights(content)
        assert (a != b).any()
        assert (biases[0] != biases[1]).any()
        vectors = torch.randn(2, TARGET[1], dtype=torch.float64)
        swapped = layer(vectors, content.flip(0))
        torch.testing.assert_close(swapped.flip(0), layer(vectors.flip(0), content))
        assert (swapped != layer(vectors, content)).any()

    def test_matrix_is_read_channel_by_channel_place_by_place(self):
        layer = HyperLayer(3, GRID, 6, 4).double()
        nn.init.zeros_(layer.matrix.weight)
        layer.matrix.bias.data = torch.arange(6, dtype=torch.float64)
        matrix, _ = layer.weights(torch.rand(1, 3, GRID, GRID, dtype=torch.float64))
        assert matrix[0].flatten().tolist() == [k // GRID**2 for k in range(24)]
        layer.matrix.weight.data[0, 0, 1, 1] = 1  # the first channel repeats the content's first
        content = torch.rand(1, 3, GRID, GRID, dtype=torch.float64)
        torch.testing.assert_close(layer.weights(content)[0][0].flatten()[:4], content[0, 0].flatten())

    def test_a_matrix_smaller_than_the_map_comes_from_its_mean(self):
        layer = HyperLayer(3, 4, 5, 1).double()
        assert isinstance(layer.matrix, nn.Linear)
        content = torch.rand(2, 3, 4, 4, dtype=torch.float64)
        matrix, bias = layer.weights(content)
        assert matrix.shape == (2, 1, 5)
        shuffled = content.flatten(2)[..., torch.randperm(16)].unflatten(2, (4, 4))
        torch.testing.assert_close(layer.weights(shuffled), (matrix, bias))

    def test_no_weights_leave_half_of_every_unit(self, blank, x):
        """Sigmoids of 0 are 0.5; the end has none, so that the last bias comes out as it is."""
        assert torch.equal(blank(x), torch.zeros(2, dtype=torch.float64))
        blank.layers["5"].bias.bias.data.fill_(1000)
        torch.testing.assert_close(blank(x), torch.full((2,), 1000.0, dtype=torch.float64))
        blank.layers["5"].matrix.bias.data.fill_(-2)
        torch.testing.assert_close(blank(x), torch.full((2,), 1000 - 2 * TARGET[4] * 0.5, dtype=torch.float64))


def test_a_stage_is_averaged_in_cells_and_read_row_by_row():
    part = LocalVector(2, 1, 2, 4, 4).double()
    part.reduce.weight.data = torch.tensor([1.0, 10.0]).double().view(1, 2, 1, 1)
    part.project.weight.data.copy_(torch.eye(4))
    part.project.bias.data.zero_()
    h = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    h[0, 0, 0, 2:] = 1  # the upper half of the cell above right
    h[0, 1, 3, 0] = 1  # one place of the cell below left
    assert part(h).tolist() == [[0, 0.5, 2.5, 0]]


class TestCrops:
    def test_a_larger_image_scores_the_mean_of_its_crops(self, hyper):
        wide = pair(2, 70, 150, dtype=torch.float64)[0]
        crops = [wide[..., t : t + SIDE, s : s + SIDE] for t in (0, 6) for s in (0, 43, 86)]
        mean = torch.stack([hyper(crop) for crop in crops]).mean(0)
        torch.testing.assert_close(hyper(wide), mean, rtol=1e-10, atol=1e-12)
        assert torch.equal(hyper(wide), hyper(wide))

    def test_an_image_of_the_side_is_taken_as_it_is(self, hyper, x):
        assert hyper.prepare(x) is x


def test_the_loss_stops_where_the_image_beats_its_reference(hyper, x):
    order = hyper(x).argsort()
    worse, best = x[order[:1]], x[order[1:]]
    loss_fn = CriticLoss([{"critic": hyper, "weight": 1.0}], grad="autograd")
    losses, slopes = [], []
    for judged, reference in ((best, worse), (worse, best)):
        leaf = judged.clone().requires_grad_()
        loss = loss_fn(leaf, reference)
        losses.append(loss.item())
        slopes.append(torch.autograd.grad(loss, leaf)[0])
    assert losses == pytest.approx([0, (hyper(best) - hyper(worse)).item()])
    assert not slopes[0].any()
    assert slopes[1].any()


class TestConverter:
    def test_names_of_the_authors(self, hyper):
        channels = hyper.content[4].out_channels
        theirs = {
            "res.layer1.0.downsample.0.weight": torch.rand_like(hyper.trunk.layer1[0].downsample[0].weight),
            "res.lda2_pool.0.weight": torch.rand(32, 40, 1, 1),
            "res.lda2_fc.weight": torch.rand(4, 32 * 16),
            "res.lda4_fc.bias": torch.rand(8),
            "conv1.2.bias": torch.rand(16),
            "fc1w_conv.weight": torch.rand(20 * 12 // 4, channels, 3, 3),
            "fc5w_fc.weight": torch.rand(3, channels),
            "fc5b_fc.bias": torch.rand(1),
        }
        ours = (
            "trunk.layer1.0.downsample.0.weight",
            "local.2.reduce.weight",
            "local.2.project.weight",
            "local.4.project.bias",
            "content.2.bias",
            "layers.1.matrix.weight",
            "layers.5.matrix.weight",
            "layers.5.bias.bias",
        )
        found = convert(hyper, {**theirs, "res.bn1.num_batches_tracked": torch.tensor(3)})
        assert found.keys() == set(ours)
        for name, tensor in zip(ours, theirs.values(), strict=True):
            assert torch.equal(found[name], tensor.double())

    def test_foreign_and_missing_keys_are_named(self, hyper):
        with pytest.raises(WeightsError, match=r"fc6w_conv\.weight: no layer of this critic is called"):
            convert(hyper, {"fc6w_conv.weight": torch.rand(3, 3, 3, 3)})
        with pytest.raises(WeightsError, match=r"res\.fc2\.bias: unknown key"):
            convert(hyper, {"res.fc2.bias": torch.rand(3)})
        with pytest.raises(WeightsError, match=r"content\.0\.bias: in no file"):
            load_states(hyper, [{k: v for k, v in hyper.state_dict().items() if k != "content.0.bias"}])
