"""IQA-Conformer: positions, one projection for both, attention across, and the authors' checkpoint."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from images import pair
from small import build_small
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critics.iqa_conformer import IQAConformer
from perceptloss.errors import InputError, WeightsError
from perceptloss.weights.convert import load_states


@pytest.fixture(scope="module")
def small() -> IQAConformer:
    return build_small("iqa-conformer").double()


def maps(critic: IQAConformer, n: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (2, n, critic.channels, critic.map_side, critic.map_side)
    difference, reference = torch.randn(shape, dtype=torch.float64, generator=generator)
    return difference, reference.relu()


def test_published_sizes():
    critic = create_critic("iqa-conformer", weights=None)
    assert critic.positions.shape == (441, 128)
    assert critic.conv_proj.weight.shape == (128, 1920, 1, 1)
    assert critic.encoder[0].conv_module.depthwise.weight.shape == (128, 1, 7, 7)
    assert critic.encoder[0].cross_attention_module is None
    assert sum(p.numel() for p in critic.parameters()) == 2_831_841
    with pytest.raises(InputError, match="at least 192x192"):
        critic(*pair(1, 191))


def test_other_crops_have_other_positions():
    critic = IQAConformer(get_card("iqa-conformer"), side=256, layers=2, blocks=2)
    assert critic.positions.shape == (841, 128)
    x, y = pair(1, 256)
    critic.freeze()(x.requires_grad_(), y).sum().backward()
    assert 0 < x.grad.norm() < 1e3


@torch.no_grad()
def test_difference_and_reference_are_projected_by_one_layer(small):
    difference, reference = maps(small)
    encoded = small.encode(difference)
    other = copy.deepcopy(small)
    other.conv_proj.weight.mul_(2)
    assert not torch.allclose(other.encode(difference), encoded)
    assert not torch.allclose(other.decode(reference, encoded), small.decode(reference, encoded))


@torch.no_grad()
def test_the_decoder_reads_the_reference_and_the_encoded_difference(small):
    difference, reference = maps(small)
    encoded = small.encode(difference)
    decoded = small.decode(reference, encoded)
    assert not torch.allclose(small.decode(reference.flip(0), encoded), decoded)
    assert not torch.allclose(small.decode(reference, encoded.flip(0)), decoded)


@torch.no_grad()
def test_attention_across_does_not_normalise_what_it_reads(small):
    """Only the queries are: scaling the other map scales what is found there, where attention is even."""
    layer = copy.deepcopy(small.decoder[0].cross_attention_module)
    layer.query.weight.zero_()
    layer.query.bias.zero_()
    h, other = torch.randn(2, 1, 3, 3, 16, dtype=torch.float64)
    found = layer.out(layer.value(2 * other).mean((1, 2))).view(1, 1, 1, 16).expand_as(h)
    torch.testing.assert_close(layer(h, 2 * other), found)


@torch.no_grad()
def test_stored_statistics_normalise_the_convolution(small):
    other = copy.deepcopy(small)
    part = other.encoder[0].conv_module
    part.stats.running_mean.add_(0.3)
    part.depthwise.bias.add_(0.3)
    difference, _ = maps(small)
    torch.testing.assert_close(other.encode(difference), small.encode(difference))
    part.stats.running_var.mul_(2)
    assert not torch.allclose(other.encode(difference), small.encode(difference))


AUTHORS = (
    (r"trunk\.mixed_5b\.", "mixed5b.7."),
    (r"trunk\.conv2d_1a\.", "mixed5b.0."),
    (r"trunk\.conv2d_2a\.", "mixed5b.1."),
    (r"trunk\.conv2d_2b\.", "mixed5b.2."),
    (r"trunk\.conv2d_3b\.", "mixed5b.4."),
    (r"trunk\.conv2d_4a\.", "mixed5b.5."),
    (r"trunk\.repeat\.([01])\.", r"block35_2.\1."),
    (r"(en|de)coder\.(\d+)\.", r"\1coder.blocks.\2."),
    (r"(ff_module[12])\.norm", r"\1.layers.0"),
    (r"expand", "layers.1"),
    (r"reduce", "layers.4"),
    (r"conv_module\.norm", "conv_module.layers.0"),
    (r"gate", "layers.1"),
    (r"depthwise", "layers.3"),
    (r"stats", "layers.4"),
    (r"mix\.", "layers.6."),
    (r"(query|key|value)\.", r"attention.\1_layer."),
    (r"module\.out\.", "module.attention.output_layer."),
    (r"^positions", "emb_p.weight"),
    (r"^head\.0", "head.1"),
    (r"^head\.2", "head.3"),
)


def authors(critic: IQAConformer) -> dict[str, Tensor]:
    """Our tensors under the authors' names, with the counters of their normalisations."""
    state = {}
    for key, value in critic.state_dict().items():
        for ours, theirs in AUTHORS:
            key = re.sub(ours, theirs, key)
        state[key] = value
        if key.endswith("running_var"):
            state[key.replace("running_var", "num_batches_tracked")] = torch.tensor(43479)
    return state


class TestCheckpoints:
    def other(self) -> IQAConformer:
        critic = build_small("iqa-conformer")
        for tensor in critic.state_dict().values():
            tensor.mul_(1.25).add_(0.5)
        return critic

    def test_the_authors_file_makes_the_whole(self):
        source, critic = self.other(), build_small("iqa-conformer")
        state = authors(source)
        assert not any(key.startswith("trunk") for key in state)
        load_states(critic, [state])
        for key, value in source.state_dict().items():
            assert torch.equal(critic.state_dict()[key], value), key

    def test_nothing_is_missed_or_skipped(self):
        state = authors(self.other())
        with pytest.raises(WeightsError, match="unknown key"):
            load_states(build_small("iqa-conformer"), [{**state, "decoder.extra": torch.ones(1)}])
        del state["emb_p.weight"]
        with pytest.raises(WeightsError, match="positions"):
            load_states(build_small("iqa-conformer"), [state])
