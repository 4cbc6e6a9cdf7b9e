"""EfficientNet-B0 against torchvision's, its ways to save memory, and how files are read."""

from __future__ import annotations

import pytest
import torch
import torchvision
from test_trunks_residual import agree, normalised, noted, pictures, randomised
from torch import nn

from perceptloss.networks.trunks import IMAGENET, EfficientNet, efficientnet_rules
from perceptloss.weights.rules import Rule

SMALL = {"stem": 8, "widths": (6, 8, 8, 10, 12, 12, 16), "head": 24}


def torchvision_b0() -> nn.Module:
    """The features of torchvision's network, with the epsilon of the original."""
    peer = torchvision.models.efficientnet_b0(weights=None).features
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    return randomised(peer.double().eval())


@pytest.mark.parametrize("size", [(64, 96), (70, 51)])
def test_is_torchvisions_with_another_epsilon(size):
    peer, trunk = torchvision_b0(), EfficientNet().double()
    theirs = [tensor for key, tensor in peer.state_dict().items() if "num_batches" not in key]
    trunk.load_state_dict(dict(zip(trunk.state_dict(), theirs, strict=True)))
    x = pictures(*size, n=1).requires_grad_()
    blocks = [block for stage in peer[1:8] for block in stage]
    modules = {"stem": peer[0], "head": peer[8]} | {f"block{k}": block for k, block in enumerate(blocks)}
    assert set(modules) == set(trunk.tap_at)
    agree(trunk(x, trunk.tap_at), noted(modules, lambda: peer(normalised(x, IMAGENET))), x)


def test_has_the_published_size():
    trunk = EfficientNet().to("meta")
    assert sum(p.numel() for p in trunk.parameters()) == 5_288_548 - 1_281_000  # without the classifier
    taps = trunk(torch.empty(1, 3, 224, 224, device="meta"), trunk.tap_at)
    shapes = {name: tuple(taps[name].shape[1:]) for name in ("stem", "block0", "block2", "block4", "block10", "head")}
    assert shapes == {
        "stem": (32, 112, 112),
        "block0": (16, 112, 112),
        "block2": (24, 56, 56),
        "block4": (40, 28, 28),
        "block10": (112, 14, 14),
        "head": (1280, 7, 7),
    }


@pytest.mark.parametrize("keep", ["stages", "lean"])
def test_saving_memory_changes_nothing(keep):
    trunk = randomised(EfficientNet(**SMALL).double())
    x = pictures().requires_grad_()
    taps = ("stem", "block4", "head")
    agree(trunk(x, taps, keep=keep), trunk(x, taps), x)


def test_lean_keeps_less_for_the_backward():
    trunk, x = EfficientNet(**SMALL), torch.rand(1, 3, 64, 64).requires_grad_()
    kept = {}
    for keep in ("all", "lean"):
        found: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, found=found: found.update({t.data_ptr(): t.numel() * t.element_size()}) or t, lambda t: t
        ):
            trunk(x, ("head",), keep=keep)
        kept[keep] = sum(found.values())
    assert kept["lean"] < 0.8 * kept["all"]


def test_random_features_stay_of_one_size():
    taps = EfficientNet()(torch.rand(1, 3, 224, 224), ("stem", "block2", "block4", "block10", "head"))
    assert all(0.1 < tap.std() < 10 for tap in taps.values()), {name: tap.std() for name, tap in taps.items()}


def test_what_lies_behind_the_last_tap_never_runs():
    trunk = EfficientNet(**SMALL)
    unread = {id(p) for p in trunk.unread(("block2", "block1"))}
    behind = {id(p) for module in (*trunk.blocks[3:], trunk.head, trunk.head_norm) for p in module.parameters()}
    assert unread == behind


def placed(key: str, rules: tuple[Rule, ...]) -> str | None:
    import re

    for rule in rules:
        match = re.fullmatch(rule.pattern, key)
        if match:
            return match.expand(rule.target) if rule.target else None
    raise AssertionError(f"no rule for {key!r}")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "stem.weight"),
        ("_bn0.running_var", "stem_norm.running_var"),
        ("_blocks.11._expand_conv.weight", "blocks.11.expand.weight"),
        ("_blocks.11._bn0.bias", "blocks.11.expand_norm.bias"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.depthwise.weight"),
        ("_blocks.0._bn1.running_mean", "blocks.0.depthwise_norm.running_mean"),
        ("_blocks.3._se_reduce.bias", "blocks.3.squeeze.bias"),
        ("_blocks.3._se_expand.weight", "blocks.3.excite.weight"),
        ("_blocks.15._project_conv.weight", "blocks.15.project.weight"),
        ("_blocks.15._bn2.weight", "blocks.15.project_norm.weight"),
        ("_conv_head.weight", "head.weight"),
        ("_bn1.bias", "head_norm.bias"),
        ("_bn1.num_batches_tracked", None),
        ("_blocks.2._bn2.num_batches_tracked", None),
        ("_fc.weight", None),
    ],
)
def test_names_of_the_package_efficientnet_pytorch(theirs, ours):
    own = EfficientNet(**SMALL).state_dict()
    assert ours is None or ours in own
    assert placed(theirs, efficientnet_rules()) == (ours and f"trunk.{ours}")
    assert placed(f"net.{theirs}", efficientnet_rules(r"net\.", "trunk.a")) == (ours and f"trunk.a.{ours}")
