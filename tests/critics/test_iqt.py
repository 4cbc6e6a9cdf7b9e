"""IQT as the paper has it and as its public port computes it: tokens, the port's mask, and checkpoints."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import are_apart, assert_same
from small import build_small
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critics.iqt import IQT, Attention, MaskedIQT
from perceptloss.errors import InputError, WeightsError
from perceptloss.weights.checkpoints import plain_tensors
from perceptloss.weights.convert import load_states


@pytest.fixture(scope="module")
def paper() -> IQT:
    return build_small("iqt").double()


@pytest.fixture(scope="module")
def port() -> MaskedIQT:
    return build_small("iqt-port").double()


def maps(critic: IQT, n: int = 2) -> tuple[Tensor, Tensor]:
    """Random differences and reference maps, as `judge` takes them."""
    generator = torch.Generator().manual_seed(4)
    shape = (2, n, critic.channels, critic.map_side, critic.map_side)
    difference, reference = torch.randn(shape, dtype=torch.float64, generator=generator)
    return difference, reference.relu()


def attend_all(layer: Attention, tokens: Tensor, others: Tensor, is_causal: bool = False) -> Tensor:
    projected = layer.W_Q(tokens), layer.W_K(others), layer.W_V(others)
    q, k, v = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in projected)
    return layer.linear(F.scaled_dot_product_attention(q, k, v, is_causal=is_causal).transpose(1, 2).flatten(2))


def decode_all(critic: IQT, reference: Tensor, encoded: Tensor, is_causal: bool) -> Tensor:
    """Every token of the decoder, by torch's attention and its own causal mask."""
    h = critic.decoder.embed(critic.conv_dec(reference))
    for layer in critic.decoder.layers:
        h = layer.layer_norm1(h + attend_all(layer.self_attn, h, h, is_causal))
        h = layer.layer_norm2(h + attend_all(layer.dec_enc_attn, h, encoded))
        h = layer.layer_norm3(h + layer.pos_ffn(h))
    return h


class TestSettings:
    def test_pipal_is_the_default(self):
        critic = create_critic("iqt", weights=None)
        assert critic.encoder.pos_embedding.shape == critic.decoder.pos_embedding.shape == (1, 1 + 441, 128)
        assert critic.conv_enc.weight.shape == critic.conv_dec.weight.shape == (128, 1920, 1, 1)
        (layer,) = critic.decoder.layers
        assert layer.self_attn.W_Q.weight.shape == (4 * 128, 128)
        assert layer.pos_ffn.conv1.weight.shape == (1024, 128)
        assert [p.shape for p in critic.projection.parameters()] == [(128, 128), (1, 128)]
        assert sum(p.numel() for p in critic.parameters()) == 3_613_664
        with pytest.raises(InputError, match="at least 192x192"):
            critic(*pair(1, 191))

    def test_live_csiq_and_tid2013(self):
        critic = IQT(get_card("iqt"), side=256, layers=2, width=256, head=512).freeze()
        assert critic.encoder.pos_embedding.shape == (1, 1 + 841, 256)
        assert len(critic.encoder.layers) == len(critic.decoder.layers) == 2
        assert critic.projection[0].weight.shape == (512, 256)
        with pytest.raises(InputError, match="at least 256x256"):
            critic(*pair(1, 255))
        x, y = pair(1, 256)
        critic(x.requires_grad_(), y).sum().backward()
        assert 0 < x.grad.norm() < 1e3


class TestMask:
    """The port's mask hides every token of the reference from the quality token."""

    @torch.no_grad()
    def test_the_quality_token_is_that_of_the_whole_decoder(self, paper, port):
        for critic, is_causal in ((paper, False), (port, True)):
            difference, reference = maps(critic)
            encoded = critic.encode(difference)
            expected = decode_all(critic, reference, encoded, is_causal)[:, :1]
            torch.testing.assert_close(critic.decode(reference, encoded), expected)

    @torch.no_grad()
    def test_the_reference_reaches_the_score_only_without_it(self, paper, port):
        for critic, reaches in ((paper, True), (port, False)):
            difference, reference = maps(critic)
            first, second = critic.judge(difference, reference), critic.judge(difference, reference.flip(0))
            assert are_apart(first, second).any() == reaches

    @torch.no_grad()
    def test_identical_pairs_have_one_score_only_with_it(self, paper, port):
        y = pair(3, 64, dtype=torch.float64)[1]
        score = port(y, y)
        assert_same(score, score[:1].expand(3))
        score = paper(y, y)
        assert are_apart(score, score.roll(1)).all()

    @pytest.mark.parametrize("name", ["iqt", "iqt-port"])
    def test_exactly_the_parameters_called_unused_have_no_gradient(self, name):
        """Through the whole decoder, in which they are used but masked."""
        critic = build_small(name).double().unfreeze()
        difference, reference = maps(critic)
        tokens = decode_all(critic, reference, critic.encode(difference), is_causal=name == "iqt-port")
        critic.projection(tokens[:, 0]).sum().backward()
        heads = {n: p for n, p in critic.named_parameters() if not n.startswith("trunk.")}
        unused = {n for n in heads if any(re.fullmatch(pattern, n) for pattern in critic.unused)}
        assert len(unused) == (10 if name == "iqt-port" else 0)
        unmoving = {n for n in heads if n.endswith("W_K.bias")}  # adds the same to all logits of a softmax
        assert {n for n, p in heads.items() if p.grad.abs().max() < 1e-13} == unused | unmoving


def published(critic: IQT, outer: str) -> dict[str, Tensor]:
    """The tensors behind the trunk under the port's names; point-wise convolutions have a third dimension."""
    state = {}
    for key, value in critic.state_dict().items():
        if key.startswith("trunk."):
            continue
        inner = "transformer." if key.startswith(("encoder", "decoder")) else ""
        state[f"{outer}{inner}{key}"] = value[..., None] if key.endswith(("conv1.weight", "conv2.weight")) else value
    return state


class TestCheckpoints:
    def other(self) -> MaskedIQT:
        critic = build_small("iqt-port")
        for tensor in critic.state_dict().values():
            tensor.mul_(1.25).add_(0.5)
        return critic

    def trunk_file(self, critic: IQT) -> dict[str, Tensor]:
        """As timm has it: counters, and layers behind the last tap."""
        own = {k.removeprefix("trunk."): v for k, v in critic.state_dict().items() if k.startswith("trunk.")}
        counters = {k.replace("running_var", "num_batches_tracked"): torch.tensor(7) for k in own if "running_var" in k}
        return {**own, **counters, "conv2d_7b.conv.weight": torch.ones(2), "classif.weight": torch.ones(2)}

    @pytest.mark.parametrize("outer", ["", "transformer."])
    def test_trunk_and_published_file_make_the_whole(self, outer):
        source, critic = self.other(), build_small("iqt-port")
        head = plain_tensors({"epoch": 40, "model_state_dict": published(source, outer), "loss": 0.1}, "epoch40.pth")
        load_states(critic, [self.trunk_file(source), head])
        for key, value in source.state_dict().items():
            assert torch.equal(critic.state_dict()[key], value), key

    def test_nothing_is_missed_or_skipped(self):
        source, critic = self.other(), build_small("iqt-port")
        head = published(source, "")
        with pytest.raises(WeightsError, match=r"no layer of this critic is called .encoder\.extra"):
            load_states(critic, [self.trunk_file(source), {**head, "transformer.encoder.extra": torch.ones(1)}])
        del head["transformer.decoder.cls_token"]
        with pytest.raises(WeightsError, match=r"decoder\.cls_token"):
            load_states(critic, [self.trunk_file(source), head])
