"""DACNN: the shapes of its table, its gates, its crops, that nothing in it is random, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.dacnn import DACNN, Gates, MultiScale
from perceptloss.errors import WeightsError
from perceptloss.weights.convert import convert

SIDE = 64  # of the small build
LAYOUT = json.loads((Path(__file__).parents[1] / "parity" / "dacnn" / "case.json").read_text())["layout"]


@pytest.fixture
def dacnn() -> DACNN:
    """A small build whose two trunks differ, as those of any checkpoint do."""
    critic = build_small("dacnn").double()
    with torch.no_grad():
        for parameter in critic.trunk.synthetic.parameters():
            parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(4)))
    return critic


def pictures(n: int = 2, height: int = SIDE, width: int = SIDE) -> Tensor:
    return pair(n, height, width, dtype=torch.float64)[0]


def vector(critic: DACNN, x: Tensor) -> Tensor:
    return critic.vector(critic.trunk(critic.prepare(x), critic.taps))


# the published network


def test_every_step_has_the_published_shape():
    critic = create_critic("dacnn", weights=None).to("meta")
    image = torch.empty(2, 3, 224, 224, device="meta")
    found = critic.trunk(image, critic.taps)
    expected = [(2, 24, 56, 56), (2, 40, 28, 28), (2, 112, 14, 14), (2, 1280, 7, 7)]
    assert [tuple(found[tap].shape) for tap in critic.taps] == 2 * expected
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in critic.named_modules():
        if isinstance(module, (MultiScale, nn.Conv2d)):
            module.register_forward_hook(lambda module, given, out, name=name: seen.update({name: tuple(out.shape)}))
    assert critic.vector(found).shape == (2, 288)
    for level, size in enumerate((28, 14, 7, 4)):
        for part in ("authentic", "synthetic"):
            assert seen[f"{part}.{level}"] == (2, 72, size, size)
        assert seen[f"gates.{level}.synthetic"] == (2, 72, size, size)
        half = (size + 1) // 2
        assert seen[f"fused.{level}"] == (2, 72, half, half)
    assert critic.score(image).shape == (2,)


def test_it_has_the_published_number_of_parameters():
    critic = create_critic("dacnn", weights=None)
    sizes = {row["key"]: torch.Size(row["shape"]).numel() for row in LAYOUT if row["dtype"] == "float32"}
    learned = {key: size for key, size in sizes.items() if not key.endswith(("running_mean", "running_var"))}
    assert sum(learned.values()) == 14_308_236
    unused = sum(size for key, size in learned.items() if "_fc." in key or key.startswith("SDANet.fc"))
    assert sum(p.numel() for p in critic.parameters()) == 14_308_236 - unused


def test_a_map_is_seen_at_three_scales():
    block, h = MultiScale(5, 2), torch.randn(1, 5, 7, 8)
    kernels = dict(block.named_parameters())
    point = F.conv2d(h, kernels["point.weight"], kernels["point.bias"], stride=2)
    near, far = (F.conv2d(h, kernels[f"{n}.weight"], kernels[f"{n}.bias"], 2, 1) for n in ("near", "far.0"))
    far = F.conv2d(far, kernels["far.1.weight"], kernels["far.1.bias"], padding=1)
    assert block(h).shape == (1, 6, 4, 4)
    torch.testing.assert_close(block(h), torch.cat([point, near, far], 1))


# gates


def test_gates_weigh_each_branch_by_what_both_say():
    gates, (a, s) = Gates(3), torch.randn(2, 1, 3, 4, 4)
    both = torch.cat([a, s], 1)
    expected = [a * torch.sigmoid(gates.authentic(both)), s * torch.sigmoid(gates.synthetic(both))]
    torch.testing.assert_close(gates(a, s), torch.cat(expected, 1))
    assert not torch.allclose(gates(a, s)[:, :3], gates(a, -s)[:, :3])


def close(gate: nn.Conv2d) -> None:
    nn.init.zeros_(gate.weight)
    nn.init.constant_(gate.bias, -1e4)


def hold_open(gate: nn.Conv2d) -> None:
    nn.init.zeros_(gate.weight)
    nn.init.constant_(gate.bias, 1e4)


@pytest.mark.parametrize("silenced", ["authentic", "synthetic"])
def test_a_closed_gate_leaves_the_other_branch_alone(dacnn, silenced):
    heard = {"authentic": "synthetic", "synthetic": "authentic"}[silenced]
    x = pictures()
    taps = dacnn.trunk(dacnn.prepare(x), dacnn.taps)
    strange = {name: torch.randn_like(tap) if name.startswith(silenced) else tap for name, tap in taps.items()}
    assert not torch.isclose(dacnn.compare(x, None, taps, {}), dacnn.compare(x, None, strange, {})).any()
    for gates in dacnn.gates:
        close(getattr(gates, silenced))
        hold_open(getattr(gates, heard))
    alone = dacnn.compare(x, None, taps, {})
    assert_same(dacnn.compare(x, None, strange, {}), alone)
    branch = getattr(dacnn, heard)
    expected = []
    for tap, view, fused in zip(("block2", "block4", "block10", "head"), branch, dacnn.fused, strict=True):
        found = view(taps[f"{heard}.{tap}"])
        pair_of = [found, torch.zeros_like(found)]
        expected.append(fused(torch.cat(pair_of if heard == "authentic" else pair_of[::-1], 1)).mean((2, 3)))
    torch.testing.assert_close(dacnn.vector(taps), torch.cat(expected, 1))


def test_both_trunks_are_heard_at_every_level(dacnn):
    x = pictures(1).requires_grad_()
    taps = dacnn.trunk(dacnn.prepare(x), dacnn.taps)
    gradients = torch.autograd.grad(dacnn.compare(x, None, taps, {}).sum(), list(taps.values()))
    assert len(gradients) == 8
    assert all(gradient.norm() > 0 for gradient in gradients)


# nothing is random


def test_scores_repeat_also_while_it_learns(dacnn):
    x = pictures()
    score = dacnn(x)
    assert torch.equal(dacnn(x), score)
    state = {key: tensor.clone() for key, tensor in dacnn.state_dict().items()}
    dacnn.unfreeze().train()
    for _ in range(3):
        assert_same(dacnn(x).detach(), score)
    assert all(torch.equal(tensor, state[key]) for key, tensor in dacnn.state_dict().items())


def test_larger_images_are_the_mean_over_even_crops(dacnn):
    x = pictures(2, SIDE + 16, SIDE + 70)
    crops = [x[..., t : t + SIDE, left : left + SIDE] for t in (0, 16) for left in (0, 35, 70)]
    torch.testing.assert_close(dacnn(x), torch.stack([dacnn(crop) for crop in crops]).mean(0))
    assert vector(dacnn, x).shape == (12, 72)


def test_the_direction_of_its_labels_decides_what_a_loss_pulls(dacnn):
    x, y = pair(2, SIDE, dtype=torch.float64)
    difference = (dacnn(y) - dacnn(x)).detach()
    assert difference.abs().min() > 1e-6
    for better, sign in (("higher", 1), ("lower", -1)):
        dacnn.turn(better)
        loss_fn = CriticLoss([{"critic": dacnn, "weight": 1.0}])
        expected = (sign * difference).clamp_min(0).mean()
        torch.testing.assert_close(loss_fn(x.clone().requires_grad_(), y).detach(), expected)


# weight files

NAMES = {"point": "conv1_MSFB", "near": "conv3_MSFB_s2_1", "far.0": "conv3_MSFB_s2_2", "far.1": "conv3_MSFB_s1"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *((f"msfb31.{name}.weight", f"authentic.2.{part}.weight") for part, name in NAMES.items()),
        *((f"msfb12.{name}.bias", f"synthetic.0.{part}.bias") for part, name in NAMES.items()),
        *((f"msfb_4.{name}.bias", f"fused.3.{part}.bias") for part, name in NAMES.items()),
        ("wgb2.conv3_s1_1.weight", "gates.1.authentic.weight"),
        ("wgb2.conv3_s1_2.weight", "gates.1.synthetic.weight"),
        ("fc1.weight", "head.0.weight"),
        ("prelu1.weight", "head.1.weight"),
        ("fc2.bias", "head.2.bias"),
        ("prelu2.weight", "head.3.weight"),
        ("fc3.weight", "head.4.weight"),
        ("ADANet._blocks.0._bn2.weight", "trunk.authentic.blocks.0.project_norm.weight"),
        ("_blocks.0._bn2.weight", "trunk.authentic.blocks.0.project_norm.weight"),
        ("SDANet.efficient._conv_head.weight", "trunk.synthetic.head.weight"),
    ],
)
def test_where_the_authors_tensors_go(dacnn, theirs, ours):
    tensor = torch.randn_like(dacnn.state_dict()[ours])
    found = convert(dacnn, {theirs: tensor})
    assert list(found) == [ours]
    assert torch.equal(found[ours], tensor)


def test_what_the_score_does_not_read_is_left_out(dacnn):
    unused = ("ADANet._fc.weight", "SDANet.efficient._fc.bias", "SDANet.fc2.weight")
    counters = ("ADANet._bn0.num_batches_tracked", "SDANet.efficient._blocks.3._bn1.num_batches_tracked")
    assert convert(dacnn, dict.fromkeys((*unused, *counters), torch.ones(3))) == {}


@pytest.mark.parametrize(
    "key", ["msfb51.conv1_MSFB.bias", "wgb1.conv3_s1_3.bias", "SDANet.efficient._blocks.16._bn1.bias", "fc4.bias"]
)
def test_keys_that_are_no_part_of_it_are_errors(dacnn, key):
    with pytest.raises(WeightsError, match=rf"1 problems(?s:.*){key}: "):
        convert(dacnn, {key: torch.ones(1)})
