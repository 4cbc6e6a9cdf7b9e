"""WResNet, and what it shares with RADN: the grid of patches, their weighted mean, and what a patch sees."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor

from perceptloss import create_critic
from perceptloss.critics.wresnet import WResNet
from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.patch_ladder import PatchLadderCritic, patch_grid
from perceptloss.weights.convert import convert, load_states

RANDOM = torch.Generator().manual_seed(11)


@pytest.fixture
def wresnet() -> WResNet:
    critic = build_small("wresnet").double()
    assert isinstance(critic, WResNet)
    return critic


@pytest.fixture(params=["wresnet", "radn"])
def either(request) -> PatchLadderCritic:
    critic = build_small(request.param).double()
    assert isinstance(critic, PatchLadderCritic)
    return critic


def spread_out(critic: PatchLadderCritic) -> None:
    """Make the patches of an image differ much in value and in weight."""
    critic.head.value[-1].weight.data.mul_(20)
    critic.head.weight[-1].weight.data.abs_().mul_(5)  # of features behind a ReLU: no weight is cut to the least


def authors_state(critic: WResNet) -> dict[str, Tensor]:
    """Random tensors of the critic's shapes under the authors' names."""
    widths = [stage[0].out_channels for stage in critic.ladder]
    hidden, features = critic.head.value[0].weight.shape
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for n in range(1, 21):
        width = widths[(n - 1) // 4]
        shapes[f"conv{n}.weight"] = (width, channels, 3, 3)
        shapes[f"conv{n}.bias"] = (width,)
        channels = width
    for letter in "qw":
        shapes |= {f"fc1_{letter}.weight": (hidden, features), f"fc1_{letter}.bias": (hidden,)}
        shapes |= {f"fc2_{letter}.weight": (1, hidden), f"fc2_{letter}.bias": (1,)}

    def filled(shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn(shape, generator=RANDOM, dtype=torch.float64)
        return noise * (2 / torch.Size(shape[1:]).numel()) ** 0.5 if len(shape) > 1 else 0.1 * noise

    return {key: filled(shape) for key, shape in shapes.items()}


def from_the_description(state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Score of one pair whose sides are multiples of 32, step by step and patch by patch."""

    def vector(patch: Tensor) -> Tensor:
        h = first = patch
        for n in range(1, 21):
            h = F.conv2d(h, state[f"conv{n}.weight"], state[f"conv{n}.bias"], 2 if n in (5, 9, 13, 17) else 1, 1)
            h = F.relu(h) if n > 1 else h
            first = h if n % 4 == 1 else first
            h = h + first if n % 4 == 0 else h
        return F.avg_pool2d(h, 2).flatten()

    def read(letter: str, f: Tensor) -> Tensor:
        hidden = F.relu(state[f"fc1_{letter}.weight"] @ f + state[f"fc1_{letter}.bias"])
        return (state[f"fc2_{letter}.weight"] @ hidden + state[f"fc2_{letter}.bias"]).squeeze()

    above = below = torch.zeros((), dtype=torch.float64)
    for top in range(0, x.shape[-2], 32):
        for left in range(0, x.shape[-1], 32):
            hx, hy = (vector(image[..., top : top + 32, left : left + 32]) for image in (x, y))
            f = torch.cat([hx - hy, hx, hy])
            weight = F.relu(read("w", f)) + 1e-6
            above, below = above + weight * read("q", f), below + weight
    return above / below


class TestNetwork:
    def test_is_the_description_under_the_authors_names(self, wresnet):
        state = authors_state(wresnet)
        load_states(wresnet, [state])
        x, y = pair(2, 64, 96, dtype=torch.float64)
        wanted = torch.stack([from_the_description(state, x[i : i + 1], y[i : i + 1]) for i in range(2)])
        assert (wanted[0] - wanted[1]).abs() > 1e-6
        torch.testing.assert_close(wresnet(x, y), wanted, rtol=1e-10, atol=1e-12)

    def test_has_as_many_parameters_as_published(self):
        critic = create_critic("wresnet", weights=None)
        assert sum(p.numel() for p in critic.ladder.parameters()) == 13_314_496
        assert sum(p.numel() for p in critic.head.parameters()) == 1_574_914

    def test_foreign_and_missing_keys_are_named(self, wresnet):
        state = authors_state(wresnet)
        with pytest.raises(WeightsError, match=r"conv21\.weight: unknown key"):
            convert(wresnet, {**state, "conv21.weight": torch.rand(1)})
        del state["fc2_w.bias"]
        with pytest.raises(WeightsError, match=r"head\.weight\.3\.bias: in no file"):
            load_states(wresnet, [state])


class TestGrid:
    @pytest.mark.parametrize(
        ("size", "rows", "columns"),
        [
            ((288, 288), 9, 9),
            ((64, 96), 2, 3),
            ((101, 131), 3, 4),
            ((100, 100), 3, 3),
            ((64, 65), 1, 2),
            ((33, 33), 1, 1),
        ],
    )
    def test_is_the_authors(self, size, rows, columns):
        tops, lefts = patch_grid(*size)
        assert list(tops) == [32 * i for i in range(rows)]
        assert list(lefts) == [32 * i for i in range(columns)]

    def test_every_accepted_image_has_a_patch_and_every_patch_is_inside(self):
        for height in range(33, 130):
            for width in range(33, 130):
                tops, lefts = patch_grid(height, width)
                assert len(tops)
                assert len(lefts)
                assert tops[-1] + 32 <= height
                assert lefts[-1] + 32 <= width
                assert height - tops[-1] - 32 <= 63
                assert width - lefts[-1] - 32 <= 63

    def test_the_card_refuses_what_would_have_none(self, either):
        x, y = pair(1, 33, dtype=torch.float64)
        assert torch.isfinite(either(x, y)).all()
        with pytest.raises(InputError, match=r"at least 33x33, got x of 32x33"):
            either(x[..., :32, :], y[..., :32, :])

    def test_pixels_below_and_right_of_the_last_patch_get_no_gradient(self, either):
        x, y = pair(1, 70, 100, dtype=torch.float64)  # the 70 rows hold two patches, the 100 columns three
        (gradient,) = torch.autograd.grad(either(x.requires_grad_(), y).sum(), x)
        assert gradient[..., :64, :96].abs().amax((0, 1)).count_nonzero() > 0.9 * 64 * 96
        assert not gradient[..., 64:, :].any()
        assert not gradient[..., 96:].any()


class TestWeightedMean:
    def test_is_between_the_smallest_and_the_largest_value(self, either):
        spread_out(either)
        x, y = pair(3, 96, dtype=torch.float64)
        values, weights = either.judge(x, y)
        score = either(x, y)
        assert values.shape == weights.shape == (3, 9)
        assert (weights >= 1e-6).all()
        assert (values.amin(1) < score).all()
        assert (score < values.amax(1)).all()
        assert ((score - values.mean(1)).abs() > 1e-4).all(), "the weights do nothing"
        torch.testing.assert_close(score, (values * weights).sum(1) / weights.sum(1))

    @pytest.mark.parametrize("bias", [2.0, -3.0], ids=["equal", "all irrelevant"])
    def test_of_constant_weights_is_the_mean(self, either, bias):
        spread_out(either)
        either.head.weight[-1].weight.data.zero_()
        either.head.weight[-1].bias.data.fill_(bias)
        x, y = pair(2, 96, dtype=torch.float64)
        torch.testing.assert_close(either(x, y), either.judge(x, y)[0].mean(1))

    def test_maps_are_the_values_where_the_patches_lie(self, either):
        x, y = pair(2, 64, 96, dtype=torch.float64)
        maps = either.maps(x, y)
        assert maps.shape == (2, 1, 2, 3)
        assert_same(maps.flatten(1), either.judge(x, y)[0])

    def test_weights_are_held_in_the_gradient_unless_asked(self, either):
        spread_out(either)
        x, y = pair(1, 64, dtype=torch.float64)
        x.requires_grad_()
        values, weights = either.judge(x, y)
        share = (weights / weights.sum()).detach()
        (wanted,) = torch.autograd.grad((values * share).sum(), x)
        (held,) = torch.autograd.grad(either(x, y).sum(), x)
        torch.testing.assert_close(held, wanted)
        either.hold_weights = False
        (exact,) = torch.autograd.grad(either(x, y).sum(), x)
        assert (exact - held).norm() > 1e-3 * held.norm()

    def test_dropout_follows_training(self, either):
        x, y = pair(1, 64, dtype=torch.float64)
        frozen = either(x, y)
        either.unfreeze().train()
        assert not torch.equal(either(x, y), either(x, y))
        either.eval()
        torch.testing.assert_close(either(x, y), frozen)


class TestPatches:
    def test_see_only_themselves(self, wresnet):
        x, y = pair(1, 96, dtype=torch.float64)
        changed = x.clone()
        changed[..., 32:64, 64:96] = 1 - changed[..., 32:64, 64:96]
        differ = (wresnet.maps(changed, y) != wresnet.maps(x, y))[0, 0]
        assert differ.nonzero().tolist() == [[1, 2]]

    def test_send_their_gradient_nowhere_else(self, wresnet):
        x, y = pair(1, 64, 96, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(wresnet.maps(x.requires_grad_(), y)[0, 0, 1, 1], x)
        patch = gradient[..., 32:64, 32:64]
        assert patch.any()
        patch.zero_()
        assert not gradient.any()
