"""MANIQA: its channel attention, its pooling and what losses read of it, its crops and maps, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.maniqa.critic import MANIQA, ScaledSwin, TransposedAttention
from perceptloss.critics.maniqa.swin import relative_index, shift_mask
from perceptloss.errors import WeightsError
from perceptloss.weights.convert import convert, load_states

SIDE = 64  # of the small build: 8 x 8 tokens
LAYOUT = json.loads((Path(__file__).parents[1] / "parity" / "maniqa" / "case.json").read_text())["layout"]


@pytest.fixture
def maniqa() -> MANIQA:
    return build_small("maniqa").double()


def pictures(n: int = 2, height: int = SIDE, width: int = SIDE) -> Tensor:
    return pair(n, height, width, dtype=torch.float64)[0]


def judged(critic: MANIQA, x: Tensor) -> tuple[Tensor, Tensor]:
    return critic.judge(critic.trunk(critic.prepare(x), critic.taps))


def gradient(value: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), x)[0]


# the published network


def test_every_step_has_the_published_shape():
    critic = create_critic("maniqa", weights=None).to("meta")
    names = ("trunk.blocks.9", "tablock1.1", "conv1", "swintransformer1", "tablock2.1", "conv2", "swintransformer2")
    seen: dict[str, tuple[int, ...]] = {}
    for name in names:
        critic.get_submodule(name).register_forward_hook(
            lambda module, given, out, name=name: seen.update({name: tuple(out.shape)})
        )
    assert critic.score(torch.empty(2, 3, 224, 224, device="meta")).shape == (2,)
    assert seen == {
        "trunk.blocks.9": (2, 785, 768),
        "tablock1.1": (2, 3072, 784),
        "conv1": (2, 768, 28, 28),
        "swintransformer1": (2, 768, 28, 28),
        "tablock2.1": (2, 768, 784),
        "conv2": (2, 384, 28, 28),
        "swintransformer2": (2, 384, 28, 28),
    }
    unused = sum(np.prod(row["shape"]) for row in LAYOUT if ".downsample." in row["key"])
    published = sum(np.prod(row["shape"]) for row in LAYOUT)
    assert published == 120_801_250
    assert sum(p.numel() for p in critic.parameters()) == published - unused


def test_the_taps_are_blocks_6_to_9_in_this_order(maniqa):
    x, given = pictures(1), []
    maniqa.tablock1[0].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    outputs: list[Tensor] = []
    for block in maniqa.trunk.blocks:
        block.register_forward_hook(lambda module, inputs, out: outputs.append(out))
    maniqa(x)
    expected = torch.cat([out[:, 1:].mT for out in outputs[6:10]], 1)
    assert len(outputs) == 10
    assert torch.equal(given[0], expected)


def test_channels_attend_to_channels_and_are_read_again_in_another_order():
    block = TransposedAttention(4).double()
    h = torch.randn(1, 3, 4, dtype=torch.float64)
    q, k, v = (layer(h)[0].detach().numpy() for layer in (block.c_q, block.c_k, block.c_v))
    logits = q @ k.T / 2
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert weights.shape == (3, 3)
    shuffled = (weights @ v).T.ravel().reshape(3, 4)
    torch.testing.assert_close(block(h), h + torch.from_numpy(shuffled))


def test_swin_layers_add_what_they_found_times_the_scale():
    net, h = ScaledSwin(6, 8, 4, 2, 5), torch.randn(2, 6, 8, 8)
    assert torch.equal(net(h, 0.0), h)
    first = h + 0.3 * net.layers[0](h)
    torch.testing.assert_close(net(h, 0.3), first + 0.3 * net.layers[1](first))
    assert (net.layers[0](h) >= 0).all()


def test_another_scale_is_another_critic_and_shows_in_its_signature(maniqa):
    x = pictures()
    score, signature = maniqa(x), maniqa.signature
    assert "scale" not in signature
    maniqa.scale = 0.13
    assert not torch.isclose(maniqa(x), score, rtol=1e-6).any()
    assert maniqa.signature == f"{signature}|scale:0.13"


# pooling, and what losses read


def test_the_score_is_the_weighted_mean_of_the_rectified_values(maniqa):
    nn.init.constant_(maniqa.fc_score[2].bias, 0)
    x = pictures()
    values, weights = judged(maniqa, x)
    assert values.shape == weights.shape == (2, 64)
    assert (values < 0).any()
    assert (values > 0).any()
    assert ((weights > 0) & (weights < 1)).all()
    for rectified, found in ((values.clamp_min(0), maniqa(x)), (values, maniqa.linear(x))):
        expected = [np.average(v, weights=w) for v, w in zip(rectified.numpy(), weights.numpy(), strict=True)]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_a_constant_weight_gives_the_plain_mean(maniqa):
    nn.init.zeros_(maniqa.fc_weight[2].weight)
    nn.init.constant_(maniqa.fc_weight[2].bias, -2)
    x = pictures()
    values, weights = judged(maniqa, x)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / (1 + np.exp(2))))
    torch.testing.assert_close(maniqa(x), values.relu().mean(1))


def test_losses_have_a_slope_where_the_published_score_is_flat(maniqa):
    nn.init.constant_(maniqa.fc_score[2].bias, -5)
    x = pictures().requires_grad_()
    score = maniqa(x)
    assert torch.equal(score, torch.zeros_like(score))
    assert not gradient(score, x).any()
    assert (gradient(maniqa.linear(x), x).flatten(1).norm(dim=1) > 0).all()
    nn.init.constant_(maniqa.fc_score[2].bias, 0)
    linear = maniqa.linear(x)
    nn.init.constant_(maniqa.fc_score[2].bias, -5)
    torch.testing.assert_close(maniqa.linear(x), linear - 5)


@pytest.mark.parametrize("grad", ["autograd", "fused"])
def test_as_a_loss_it_starts_at_what_the_reference_scores(maniqa, grad):
    x, y = pair(2, SIDE, dtype=torch.float64)
    nn.init.constant_(maniqa.fc_score[2].bias, -5)  # so that published scores are all 0
    if maniqa.linear(x).sum() > maniqa.linear(y).sum():
        x, y = y, x
    loss_fn = CriticLoss([{"critic": maniqa, "weight": 1.0}], grad=grad)
    leaf = x.clone().requires_grad_()
    value = loss_fn(leaf, y)
    expected = (maniqa.linear(y) - maniqa.linear(x)).clamp_min(0).mean()
    assert expected > 0
    torch.testing.assert_close(value.detach(), expected)
    assert gradient(value, leaf).abs().sum() > 0
    assert loss_fn(y.clone().requires_grad_(), y) == 0


def test_the_weights_of_tokens_are_held_in_the_gradient_unless_asked(maniqa):
    x = pictures().requires_grad_()
    values, weights = judged(maniqa, x)
    by_hand = (values * weights.detach()).sum(1) / weights.detach().sum(1)
    held = gradient(maniqa(x), x)
    torch.testing.assert_close(held, gradient(by_hand, x))
    maniqa.hold_weights = False
    assert (gradient(maniqa(x), x) - held).norm() > 1e-3 * held.norm()


# crops and maps


def test_larger_images_are_the_mean_over_even_crops(maniqa):
    x = pictures(2, SIDE + 16, SIDE + 70)
    crops = [x[..., t : t + SIDE, left : left + SIDE] for t in (0, 16) for left in (0, 35, 70)]
    torch.testing.assert_close(maniqa(x), torch.stack([maniqa(crop) for crop in crops]).mean(0))
    torch.testing.assert_close(maniqa.linear(x), torch.stack([maniqa.linear(crop) for crop in crops]).mean(0))


def test_the_map_holds_the_value_of_every_token(maniqa):
    nn.init.constant_(maniqa.fc_score[2].bias, 0)
    x = pictures()
    found = maniqa.maps(x)
    values, weights = judged(maniqa, x)
    assert found.shape == (2, 1, 8, 8)
    assert_same(found.flatten(1), values.relu())
    torch.testing.assert_close((found.flatten(1) * weights).sum(1) / weights.sum(1), maniqa(x))


def test_the_maps_of_crops_lie_as_the_crops_do(maniqa):
    x = pictures(2, SIDE + 16, SIDE + 70)
    found = maniqa.maps(x)
    assert found.shape == (2, 1, 16, 24)
    torch.testing.assert_close(found[..., 8:, 8:16], maniqa.maps(x[..., 16:, 35 : 35 + SIDE]))
    torch.testing.assert_close(found[..., :8, 16:], maniqa.maps(x[..., :SIDE, 70:]))


def test_a_token_is_the_patch_at_its_place(maniqa):
    """With the ways between tokens closed, a changed patch changes its own value only."""
    for block in maniqa.trunk.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    for tab in (*maniqa.tablock1, *maniqa.tablock2):
        nn.init.zeros_(tab.c_v.weight)
    maniqa.scale = 0.0
    x = pictures(1)
    changed = x.clone()
    changed[..., 16:24, 40:48] = 1 - changed[..., 16:24, 40:48]
    before, after = judged(maniqa, x)[0], judged(maniqa, changed)[0]
    assert ((before - after).abs() > 1e-9).nonzero().tolist() == [[0, 2 * 8 + 5]]


# weight files


def authors(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file as the authors' training writes it."""
    state = {}
    for key, tensor in own.items():
        key = key.replace("trunk.", "vit.")
        state[key.replace(".2.", ".3.") if key.startswith("fc_") else key] = tensor
    for n, dim in ((1, 24), (2, 12)):
        state[f"swintransformer{n}.downsample.weight"] = torch.ones(dim, dim, 3, 3)
        for layer in range(2):
            blocks = f"swintransformer{n}.layers.{layer}.blocks"
            state |= {f"{blocks}.{k}.attn.relative_position_index": relative_index(4) for k in range(2)}
            state[f"{blocks}.1.attn_mask"] = shift_mask(8, 8, 4, 2)
    vit = {"blocks.10.norm1.weight": torch.ones(24), "blocks.11.mlp.fc1.bias": torch.ones(96)}
    vit |= {"norm.bias": torch.ones(24), "head.weight": torch.ones(1000, 24)}
    return state | {f"vit.{key}": tensor for key, tensor in vit.items()}


@pytest.fixture
def other() -> dict[str, Tensor]:
    """A state that no fresh critic has."""
    return {key: 0.9 * tensor + 0.01 for key, tensor in build_small("maniqa").state_dict().items()}


def test_the_authors_file_makes_the_critic(other):
    critic = build_small("maniqa")
    x = pictures().float()
    before = critic(x)
    load_states(critic, [authors(other)])
    assert all(torch.equal(tensor, other[key]) for key, tensor in critic.state_dict().items())
    assert not torch.isclose(critic(x), before, rtol=1e-3).any()


def test_only_what_is_not_run_is_left_out(other):
    critic, state = build_small("maniqa"), authors(other)
    assert convert(critic, state).keys() == other.keys()
    names = ("downsample", "relative_position_index", "attn_mask", "vit.blocks.1", "vit.norm.", "vit.head")
    for key in set(state) - {k for k in state if any(name in k for name in names)}:
        assert len(convert(critic, {key: state[key]})) == 1, key


@pytest.mark.parametrize("name", ["relative_position_index", "attn_mask"])
def test_tables_of_other_windows_are_errors(other, name):
    state = authors(other)
    key = next(key for key in state if key.endswith(name))
    state[key] = state[key].flip(-1)
    with pytest.raises(WeightsError, match=rf"1 problems(?s:.*){name}: expected "):
        convert(build_small("maniqa"), state)
    state[key] = F.pad(state[key], (0, 1))
    with pytest.raises(WeightsError, match=rf"1 problems(?s:.*){name}: expected "):
        convert(build_small("maniqa"), state)


@pytest.mark.parametrize("key", ["conv3.weight", "tablock1.1.c_q.weight", "vit.ln.weight", "fc_score.4.weight"])
def test_keys_that_are_no_part_of_it_are_errors(key):
    with pytest.raises(WeightsError, match=rf"1 problems(?s:.*){key}: "):
        convert(build_small("maniqa"), {key: torch.ones(1)})
