"""URanker: what it counts, how it pads, its attention written out once more, and the authors' way to store it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import pair
from small import build_small
from torch import Tensor

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.uranker.coat import FactorisedAttention, ParallelBlock, Positions, RelativePositions
from perceptloss.critics.uranker.critic import URanker, histogram, padded
from perceptloss.errors import WeightsError
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.convert import load_states


@pytest.fixture
def uranker() -> URanker:
    critic = build_small("uranker").double()
    assert isinstance(critic, URanker)
    return critic


def picture(height: int = 64, width: int = 96) -> Tensor:
    return pair(1, height, width, dtype=torch.float64)[1]


def gradient(critic: URanker, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x)[0]


def test_has_as_many_parameters_as_published():
    ours = sum(p.numel() for p in create_critic("uranker", weights=None).parameters())
    assert ours + 2 * 152 == 21_588_823  # of a normalisation that nothing reads


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_the_published_size_has_a_bounded_gradient_on_flat_images(kind, value):
    critic = create_critic("uranker", weights=None)
    critic.histogram = kind
    slope = gradient(critic, torch.full((1, 3, 32, 40), value))
    assert 0 < slope.norm() < 1e3


class TestHistogram:
    def test_of_a_flat_grey_is_one_bin_per_channel(self):
        counts = histogram(torch.full((1, 3, 128, 128), 0.5)).unflatten(1, (3, 64))
        assert torch.equal(counts[0, :, 32], torch.full((3,), 128.0 * 128))
        assert counts.sum() == 3 * 128 * 128

    @pytest.mark.parametrize("kind", ["hard", "soft"])
    def test_holds_every_pixel_also_those_of_the_padding_and_beyond_the_range(self, kind):
        x = 1.6 * picture(85, 117) - 0.3
        counts = histogram(padded(x), kind=kind).unflatten(1, (3, 64))
        torch.testing.assert_close(counts.sum(2), torch.full((1, 3), 96.0 * 128, dtype=torch.float64))
        assert (counts[..., 0] >= 96 * 128 - 85 * 117).all()

    def test_is_that_of_numpy_channel_after_channel(self):
        x = torch.rand(2, 3, 40, 50, dtype=torch.float64)
        x[0, :, 0, :2] = torch.tensor([0.0, 1.0])
        expected = [[np.histogram(plane, 64, (0, 1))[0] for plane in planes.numpy()] for planes in x]
        assert np.array_equal(histogram(x).view(2, 3, 64).numpy(), np.array(expected))

    def test_soft_equals_hard_at_the_centres_of_bins(self):
        x = (torch.randint(0, 64, (2, 3, 9, 7), generator=torch.Generator().manual_seed(0)) + 0.5).double() / 64
        assert torch.equal(histogram(x, kind="soft"), histogram(x))

    def test_soft_shares_a_pixel_among_neighbours(self):
        counts = histogram(torch.full((1, 1, 1, 1), (10 + 0.5 + 0.25) / 64, dtype=torch.float64), kind="soft")
        assert counts[0, 10:12].tolist() == pytest.approx([0.75, 0.25])

    def test_only_soft_has_a_gradient_and_it_is_the_slope(self):
        x = torch.rand(1, 2, 3, 4, dtype=torch.float64).requires_grad_()
        assert not histogram(x).requires_grad
        assert torch.autograd.gradcheck(lambda x: histogram(x, kind="soft"), x, eps=1e-8)

    def test_soft_pushes_what_hard_only_sees(self, uranker):
        x = picture()
        hard = gradient(uranker, x)
        published = uranker.signature
        uranker.histogram = "soft"
        assert uranker.signature == f"{published}|histogram:soft"
        soft = gradient(uranker, x)
        assert not torch.allclose(soft, hard, rtol=1e-3)
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        ahead, behind = (uranker((x + step * along).clamp(0, 1).requires_grad_()) for step in (1e-8, -1e-8))
        inside = ((x > 0) & (x < 1)).to(x)
        expected = (soft * along * inside).sum().item()
        assert (ahead - behind).item() / 2e-8 == pytest.approx(expected, abs=0.02 * soft.norm().item())

    def test_is_read_by_the_score(self, uranker):
        x = picture()
        expected = uranker(x)
        with torch.no_grad():
            for stage in uranker.stages:
                stage.counts.weight.zero_()
        assert abs(uranker(x) - expected) > 1e-6


class TestPadding:
    def test_puts_the_smaller_half_above_and_on_the_left(self):
        image = padded(torch.ones(1, 3, 85, 118))
        assert image.shape == (1, 3, 96, 128)
        rows, columns = image[0, 0].nonzero().unbind(1)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 89, 5, 122)

    def test_an_image_of_129x130_scores_as_if_padded_before(self, uranker):
        x = picture(129, 130)
        before = F.pad(x, (15, 15, 15, 16))
        assert before.shape[2:] == (160, 160)
        assert torch.equal(uranker(x), uranker(before))

    def test_leaves_multiples_of_32_alone(self):
        x = picture(64, 96)
        assert torch.equal(padded(x), x)


class TestBlocks:
    size = (3, 4)

    def tokens(self, seed: int = 0, dim: int = 16, size: tuple[int, int] = (3, 4)) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(2, 2 + size[0] * size[1], dim, generator=generator, dtype=torch.float64)

    def test_attention_written_out(self):
        attention = FactorisedAttention(16, 8).double()
        relative = RelativePositions(16, {3: 2, 5: 3, 7: 3}).double()
        tokens = self.tokens()
        q, k, v = F.linear(tokens, attention.qkv.weight, attention.qkv.bias).split(16, 2)
        read = torch.zeros_like(tokens)
        for head in range(8):
            for i in (2 * head, 2 * head + 1):
                share = k[..., i].exp() / k[..., i].exp().sum(1, keepdim=True)
                for o in (2 * head, 2 * head + 1):
                    read[..., o] += q[..., i] * (share * v[..., o]).sum(1, keepdim=True) / math.sqrt(2)
        for o in range(16):
            window, part, place = ((3, 0, o), (5, 1, o - 4), (7, 2, o - 10))[(o >= 4) + (o >= 10)]
            conv, image = relative.conv_list[part], v[:, 2:, o].view(2, 1, *self.size)
            seen = F.conv2d(image, conv.weight[place][None], conv.bias[place][None], padding=window // 2)
            read[:, 2:, o] += q[:, 2:, o] * seen.flatten(1)
        expected = F.linear(read, attention.proj.weight, attention.proj.bias)
        torch.testing.assert_close(attention(tokens, self.size, relative), expected)

    def test_attention_has_a_second_derivative(self):
        attention = FactorisedAttention(8, 8).double()
        relative = RelativePositions(8, {3: 2, 5: 3, 7: 3}).double()
        tokens = self.tokens(dim=8, size=(1, 2)).requires_grad_()
        assert torch.autograd.gradgradcheck(lambda t: attention(t, (1, 2), relative).square(), tokens)

    def test_positions_leave_extra_tokens_alone(self):
        tokens = self.tokens()
        placed = Positions(16).double()(tokens, self.size)
        assert torch.equal(placed[:, :2], tokens[:, :2])
        assert not torch.allclose(placed[:, 2:], tokens[:, 2:])

    @pytest.mark.parametrize("gain", range(6))
    def test_each_gain_opens_one_way_between_two_scales(self, gain):
        """In the authors' order: 3 to 2, 4 to 2, 4 to 3, 2 to 3, 3 to 4, 2 to 4."""
        target, source = ((0, 1), (0, 2), (1, 2), (1, 0), (2, 1), (2, 0))[gain]
        sizes = [(4, 4), (2, 2), (1, 1)]
        block = ParallelBlock(16, 8, 2, gain=0.0).double()
        with torch.no_grad():
            block.gains[gain].fill_(1)
        positions = [Positions(16).double() for _ in sizes]
        relative = [RelativePositions(16, {3: 2, 5: 3, 7: 3}).double() for _ in sizes]
        tokens = [self.tokens(seed, size=size) for seed, size in enumerate(sizes)]
        before = block(tokens, sizes, positions, relative)
        for scale in range(3):
            changed = [t + 1 * (n == scale) * torch.linspace(0, 1, 16).double() for n, t in enumerate(tokens)]
            after = block(changed, sizes, positions, relative)
            moved = {n for n in range(3) if not torch.equal(after[n], before[n])}
            assert moved == ({scale, target} if scale == source else {scale})


class TestAsALoss:
    @pytest.mark.parametrize(
        ("score", "expected"), [(0.0, 0.5), (2.0, 1 / (1 + math.e**2)), (-3.0, 1 / (1 + math.e**-3))]
    )
    def test_the_term_of_the_authors_restorer_is_a_sigmoid(self, uranker, score, expected):
        loss_fn = CriticLoss([{"critic": uranker, "weight": 1.0, "shape": "sigmoid"}], grad="autograd")
        slope = -expected * (1 - expected)  # -1/4 at 0
        x = picture().requires_grad_()
        with torch.no_grad():
            missing = score - uranker(x)
            for head in uranker.heads:
                head.bias += missing
        loss = loss_fn(x)
        (found,) = torch.autograd.grad(loss, x)
        assert loss.item() == pytest.approx(expected)
        torch.testing.assert_close(found, slope * gradient(uranker, x.detach()))

    def test_the_default_stops_at_the_reference(self, uranker):
        loss_fn = CriticLoss({"uranker": {"weight": 1.0, "critic": uranker}}, grad="autograd")
        x, y = pair(2, 64, 64, dtype=torch.float64)
        expected = F.relu(uranker(y) - uranker(x)).mean()
        torch.testing.assert_close(loss_fn(x.requires_grad_(), y), expected)
        assert loss_fn(y.clone().requires_grad_(), y) == 0


def as_published(critic: URanker) -> dict[str, Tensor]:
    """The state dict of the authors' module: shared tensors under every name, and a normalisation nobody reads."""
    state = {"norm1.weight": torch.ones(16), "norm1.bias": torch.zeros(16)}
    for number, stage in enumerate(critic.stages, 1):
        state[f"cls_token{number}"] = stage.token
        for name, part in (("historgram_embed", stage.counts), ("cpe", stage.positions), ("crpe", stage.relative)):
            state |= {f"{name}{number}.{key}": t for key, t in part.state_dict().items()}
        for name, part in (("proj", stage.proj), ("norm", stage.norm)):
            state |= {f"patch_embed{number}.{name}.{key}": t for key, t in part.state_dict().items()}
        for place, block in enumerate(stage.blocks):
            head = f"serial_blocks{number}.{place}"
            state |= {f"{head}.cpe.{key}": t for key, t in stage.positions.state_dict().items()}
            state |= {f"{head}.factoratt_crpe.crpe.{key}": t for key, t in stage.relative.state_dict().items()}
            for key, t in block.state_dict().items():
                state[f"{head}.{key.replace('attention', 'factoratt_crpe')}"] = t
    for place, block in enumerate(critic.parallel):
        head = f"parallel_blocks.{place}"
        state |= {f"{head}.alpha{n}": t for n, t in enumerate(block.gains, 1)}
        for n in (2, 3, 4):
            parts = (("norm1", block.norm1), ("norm2", block.norm2), ("factoratt_crpe", block.attention))
            state |= {f"{head}.{name}{n}.{key}": t for name, p in parts for key, t in p[n - 2].state_dict().items()}
            state |= {f"{head}.mlp{n}.{key}": t for key, t in block.mlp.state_dict().items()}
            relative = critic.stages[n - 1].relative.state_dict()
            state |= {f"{head}.factoratt_crpe{n}.crpe.{key}": t for key, t in relative.items()}
    for n in (2, 3, 4):
        for name, part in (("norm", critic.norms), ("head", critic.heads)):
            state |= {f"{name}{n}.{key}": t for key, t in part[n - 2].state_dict().items()}
    return {key: t.detach().clone() for key, t in state.items()}


class TestConverter:
    @pytest.fixture
    def blank(self) -> URanker:
        critic = build_small("uranker")
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.zero_()
        return critic

    def test_reads_the_authors_file_with_shared_tensors_under_every_name(self, tmp_path, blank):
        critic = build_small("uranker")
        state = as_published(critic)
        assert len(state) > len(critic.state_dict()) + 2
        torch.save({"net": state, "epoch": 3}, tmp_path / "uranker.pth")
        load_states(blank, [read_state(tmp_path / "uranker.pth")])
        x = picture().float()
        assert torch.equal(blank(x), critic(x))

    @pytest.mark.parametrize(
        "key",
        [
            "serial_blocks1.0.cpe.proj.weight",
            "serial_blocks2.0.factoratt_crpe.crpe.conv_list.0.bias",
            "parallel_blocks.1.factoratt_crpe3.crpe.conv_list.2.weight",
            "parallel_blocks.0.mlp4.fc2.weight",
        ],
    )
    def test_refuses_copies_of_a_shared_tensor_that_differ(self, blank, key):
        state = as_published(build_small("uranker"))
        state[key] += 1e-3
        with pytest.raises(WeightsError, match="contradicts another tensor"):
            load_states(blank, [state])

    def test_refuses_what_is_missing_or_unknown(self, blank):
        state = as_published(build_small("uranker"))
        with pytest.raises(WeightsError, match=r"heads\.1\.weight: in no file"):
            load_states(blank, [{key: t for key, t in state.items() if key != "head3.weight"}])
        with pytest.raises(WeightsError, match=r"head5\.weight: unknown key"):
            load_states(blank, [{**state, "head5.weight": torch.ones(1, 24)}])
