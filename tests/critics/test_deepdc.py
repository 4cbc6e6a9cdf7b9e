"""DeepDC beyond its parity case: what a distance correlation of channels sees, what it is blind to, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images import pair
from parity.parity import fill_tensor
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critics.deepdc import DeepDC, centred_distances, distance_correlation
from perceptloss.errors import WeightsError
from perceptloss.networks.trunks import IMAGENET
from perceptloss.weights.convert import convert

CHANNELS, SIDE = 64, 16


@pytest.fixture(scope="module")
def deepdc() -> DeepDC:
    return create_critic("deepdc", weights=None)


def maps(seed: int = 0, channels: int = CHANNELS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, SIDE, SIDE, generator=generator, dtype=torch.float64)


def distance(f: Tensor, g: Tensor) -> Tensor:
    return 1 - distance_correlation(centred_distances(f), centred_distances(g))


def by_definition(f: np.ndarray, g: np.ndarray) -> float:
    """Distance covariance as printed: a_ij - a_i. - a_.j + a_.., one image, channels as samples."""
    matrices = []
    for image in (f, g):
        samples = image.reshape(len(image), -1)
        a = np.array([[np.sqrt(((u - v) ** 2).sum() / len(samples) ** 2 + 1e-5) for v in samples] for u in samples])
        matrices.append(a - a.mean(0)[None] - a.mean(1)[:, None] + a.mean())
    a, b = matrices
    return 1 - ((a * b).sum() + 1e-6) / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6)


class TestDistance:
    def test_is_the_definition(self):
        f, g = maps(1, 7), maps(2, 7)
        expected = [by_definition(f[i].numpy(), g[i].numpy()) for i in range(2)]
        np.testing.assert_allclose(distance(f, g).numpy(), expected, rtol=1e-9)

    def test_rows_and_columns_are_centred_and_it_is_symmetric_in_its_arguments(self):
        f, g = maps(1), maps(2)
        matrix = centred_distances(f)
        for dim in (1, 2):
            torch.testing.assert_close(matrix.sum(dim), torch.zeros_like(matrix[:, 0]), rtol=0, atol=1e-12)
        torch.testing.assert_close(distance(f, g), distance(g, f))

    def test_ignores_where_things_are(self):
        """One image's pixels may be permuted, or rotated as a vector of pixels: only channel distances count."""
        f = maps()
        flat = f.flatten(2)
        order = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(3))
        square = torch.randn(SIDE**2, SIDE**2, generator=torch.Generator().manual_seed(4), dtype=f.dtype)
        rotation, _ = torch.linalg.qr(square)
        for changed in (flat[..., order], flat @ rotation):
            assert distance(f, changed.view_as(f)).abs().max() < 1e-7
            assert (changed.view_as(f) - f).abs().mean() > 0.5

    def test_ignores_a_map_added_to_all_channels(self):
        f = maps()
        assert distance(f, f + 3 * maps(5, 1)).abs().max() < 1e-7

    def test_nearly_ignores_gain(self):
        f = maps()
        assert distance(f, 3 * f).max() < 2e-5
        assert 1e-3 < distance(f, 0.01 * f).max() < 0.1  # there the stabiliser shows

    def test_sees_which_channel_is_which(self):
        f, g = maps(1), maps(2)
        order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(6))
        torch.testing.assert_close(distance(f[:, order], g[:, order]), distance(f, g))
        loud = f * torch.logspace(-1, 1, CHANNELS, dtype=f.dtype)[:, None, None]  # channels far apart, as trained ones
        assert distance(loud, loud[:, order]).min() > 0.4

    def test_grows_quadratically_with_noise(self):
        f, noise = maps(1), maps(2)
        small, medium, large = (distance(f, f + sigma * noise) for sigma in (0.01, 0.03, 0.3))
        assert (small > 0).all()
        torch.testing.assert_close(medium / small, torch.full_like(small, 9), rtol=0.2, atol=0)
        assert (medium < large).all()
        assert (large < distance(f, noise)).all()

    def test_two_channels_always_correlate(self):
        """Two samples have one distance, so that every pair of two-channel maps is the same up to its size."""
        assert distance(maps(1, 2), 5 * maps(2, 2)).abs().max() < 1e-4

    def test_stays_between_zero_and_one(self):
        for seed in range(8):
            f, g = maps(seed), maps(seed + 100)
            for x, y in ((f, g), (f, -f), (f.relu(), (-f).relu()), (1e-4 * f, g), (f.square(), g.relu())):
                assert (distance(x, y) > -1e-9).all()
                assert (distance(x, y) <= 1).all()


class TestLimits:
    def test_channels_that_are_all_alike_have_no_gradient(self):
        """The published root has slope infinity there, hence NaN."""
        normal = centred_distances(maps(1))
        for flat in (torch.zeros_like(maps()), maps(3, 1).expand(-1, CHANNELS, -1, -1).contiguous()):
            flat.requires_grad_()
            itself = distance_correlation(centred_distances(flat), centred_distances(flat).detach())
            torch.testing.assert_close(itself, torch.ones_like(itself))
            against = distance_correlation(centred_distances(flat), normal)
            (gradient,) = torch.autograd.grad(against.sum(), flat)
            assert torch.isfinite(gradient).all()
            assert gradient.norm() < 1e-3

    @pytest.mark.parametrize("size", [1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    def test_gradient_is_bounded_on_the_way_there(self, size):
        f = (size * maps().float()).requires_grad_()
        (gradient,) = torch.autograd.grad(distance(f, maps(1).float()).sum(), f)
        assert gradient.norm() < 1e3

    def test_large_features_in_single_precision(self):
        f, g = (50 * maps(seed).float() for seed in (1, 2))
        big = f.repeat(1, 1, 16, 16)  # the size of the first tap of a 256x256 image
        assert torch.isfinite(centred_distances(big)).all()
        torch.testing.assert_close(distance(f, g).double(), distance(f.double(), g.double()), rtol=1e-4, atol=1e-6)

    def test_gradient_vanishes_at_the_reference(self, deepdc):
        x, y = pair(1, 64)
        away, near = (image.clone().requires_grad_() for image in (x, y))
        gradients = [torch.autograd.grad(deepdc(image, y).sum(), image)[0].norm() for image in (away, near)]
        assert gradients[1] < 1e-4 * gradients[0]


class TestTrunk:
    def test_four_taps_are_behind_their_relu_and_the_last_before_it(self, deepdc):
        with torch.no_grad():
            taps = deepdc.trunk(pair(1, 64)[1], deepdc.taps)
        assert [taps[name].shape[1] for name in deepdc.taps] == [64, 128, 256, 512, 512]
        assert [bool((taps[name] < 0).any()) for name in deepdc.taps] == [False] * 4 + [True]

    def test_the_variant_differs_by_the_normalisation_of_its_input_alone(self, deepdc):
        variant = create_critic("deepdc-imagenet", weights=None)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)
        x, y = pair(2, 64)
        assert not torch.allclose(variant(x, y), deepdc(x, y), rtol=0.01)
        with torch.no_grad():
            by_hand = deepdc.score((x - mean) / std, (y - mean) / std)
        torch.testing.assert_close(variant(x, y), by_hand, rtol=1e-4, atol=1e-6)
        assert get_card("deepdc").fidelity == "official-parity"


class TestConverter:
    @pytest.fixture(scope="class")
    def features(self, deepdc) -> dict[str, Tensor]:
        own = deepdc.state_dict()
        return {
            key.removeprefix("trunk."): torch.from_numpy(fill_tensor(key, list(tensor.shape)))
            for key, tensor in own.items()
        }

    def test_reads_the_authors_and_torchvisions_layout(self, features):
        classifier = {"classifier.0.weight": torch.zeros(4096, 25088), "classifier.0.bias": torch.zeros(4096)}
        theirs = create_critic(
            "deepdc", weights={f"module.features_extractor.{key}": value for key, value in features.items()}
        )
        torchvisions = create_critic("deepdc", weights={**features, **classifier})
        assert theirs.weights_id == torchvisions.weights_id != "random"
        assert torch.equal(theirs.trunk.features[34].weight, features["features.34.weight"])

    def test_refuses_vgg16_and_unknown_keys(self, deepdc, features):
        with pytest.raises(WeightsError, match=r"features\.7\.weight: shape \(128, 64, 3, 3\)"):
            convert(deepdc, {"features.7.weight": torch.zeros(128, 64, 3, 3)})
        with pytest.raises(WeightsError, match=r"unknown key"):
            convert(deepdc, {**features, "alpha": torch.zeros(1)})
