"""What all trunks promise: what they keep changes nothing, in which type they run, what they share and never run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_trunks_residual import agree, pictures, randomised, tiny_resnet, tiny_vit
from torch import nn

from perceptloss.networks.lean import max_pool
from perceptloss.networks.trunks import (
    HALF,
    IMAGENET,
    InceptionResNet,
    JoinedTrunk,
    ResNet,
    Trunk,
    squeezenet,
    vgg19,
)


def joined() -> Trunk:
    return JoinedTrunk(vit=tiny_vit(), resnet=tiny_resnet(stages=1))


BUILDS: dict[str, Callable[[], Trunk]] = {
    "resnet18": lambda: tiny_resnet(18, 4),
    "resnet50": tiny_resnet,
    "resnet18, central differences": lambda: tiny_resnet(18, 2, (0.7, 0.3)),
    "squeezenet": squeezenet,
    "inception_resnet_v2": lambda: InceptionResNet(blocks=1),
    "vit": tiny_vit,
    "vit and resnet": joined,
}


@pytest.fixture(params=BUILDS)
def trunk(request) -> Trunk:
    return randomised(BUILDS[request.param]().double())


@pytest.mark.parametrize("keep", ["stages", "lean"])
def test_what_is_kept_changes_no_value_and_no_gradient(trunk, keep):
    x = pictures(*((80, 80) if trunk.arch == "inception_resnet_v2" else (64, 64))).requires_grad_()
    expected = trunk(x, trunk.tap_at)
    agree(trunk(x, trunk.tap_at, keep=keep), expected, x, rtol=1e-12)
    deepest = [max(trunk.tap_at, key=trunk.tap_at.__getitem__)]
    agree(trunk(x, deepest, keep=keep), {name: expected[name] for name in deepest}, x, rtol=1e-12)


@pytest.mark.parametrize(
    "build", [lambda: tiny_resnet(18, 3), tiny_resnet, vgg19], ids=["resnet18", "resnet50", "vgg19"]
)
def test_bf16_taps_are_close(build):
    trunk = randomised(build())
    x = pictures().float()
    expected, low = trunk(x, trunk.tap_at), trunk(x, trunk.tap_at, dtype=torch.bfloat16)
    for name, tap in low.items():
        assert tap.dtype == torch.bfloat16
        error = (tap.float() - expected[name]).norm() / expected[name].norm()
        assert 1e-4 < error < 0.03, name


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (4, 3, 2), (3, 2, 0)])
def test_lean_pooling_is_torchs(kernel, stride, padding, ceil):
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    x = -1 - torch.rand(2, 3, 11, 8, dtype=torch.float64)  # below what padding would give if it counted
    x.requires_grad_()
    agree({"pool": max_pool(x, pool, lean=True)}, {"pool": pool(x)}, x, rtol=1e-15)


# sharing, and what never runs


def test_unread_parameters_are_exactly_those_that_learn_nothing(trunk):
    taps = sorted(trunk.tap_at, key=trunk.tap_at.__getitem__)
    side = 80 if trunk.arch == "inception_resnet_v2" else 64
    for wanted in (taps[:1], taps[:2], taps):
        trunk.requires_grad_(True).zero_grad()
        sum(tap.square().sum() for tap in trunk(pictures(side, side, 1), wanted).values()).backward()
        silent = {id(p) for p in trunk.parameters() if p.grad is None}
        assert silent == {id(p) for p in trunk.unread(wanted)}
    assert not trunk.unread(taps)


def test_trunks_are_the_same_only_if_they_compute_the_same(trunk):
    build = next(build for build in BUILDS.values() if build().arch == trunk.arch)
    twin = randomised(build().double())
    assert twin.same_as(trunk)
    assert trunk.same_as(twin)
    assert trunk.same_as(trunk)
    assert not trunk.same_as(build().float())
    with torch.no_grad():
        list(twin.parameters())[-1].view(-1)[0] += 1e-9
    assert not twin.same_as(trunk)
    assert not any(trunk.same_as(other()) for other in BUILDS.values() if other().arch != trunk.arch)


def test_differences_beside_the_weights_count_too():
    pairs = {
        "normalisation": (ResNet(18, 1), ResNet(18, 1, HALF)),
        "theta": (ResNet(18, 1), ResNet(18, 1, theta=(0.5,))),
        "stages": (tiny_resnet(stages=1), tiny_resnet(stages=2)),
        "normalisation of a part": (
            JoinedTrunk(a=tiny_vit(), b=squeezenet()),
            JoinedTrunk(a=tiny_vit(normalise=IMAGENET), b=squeezenet()),
        ),
        "names of the parts": (JoinedTrunk(a=squeezenet()), JoinedTrunk(b=squeezenet())),
        "a trunk and a joined one": (JoinedTrunk(a=squeezenet(None)), squeezenet(None)),
    }
    for what, (one, other) in pairs.items():
        assert not one.same_as(other), what
        assert not other.same_as(one), what


def test_a_joined_trunk_is_its_parts_side_by_side():
    trunk = joined().double()
    x = pictures().requires_grad_()
    parts = {"vit": trunk.vit, "resnet": trunk.resnet}
    expected = {f"{n}.{tap}": t for n, part in parts.items() for tap, t in part(x, part.tap_at).items()}
    agree(trunk(x, trunk.tap_at), expected, x, rtol=1e-12)
    assert set(trunk(x, ("vit.block1",))) == {"vit.block1"}
    only_vit = {id(p) for p in trunk.unread(("vit.block2",))}
    assert only_vit == {id(p) for p in trunk.resnet.parameters()}


def test_random_trunks_agree_whatever_was_built_before(trunk):
    build = next(build for build in BUILDS.values() if build().arch == trunk.arch)
    torch.manual_seed(1)
    first = build().state_dict()
    torch.manual_seed(2)
    torch.rand(5)
    second = build().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_constants_are_rounded_once():
    trunk = tiny_resnet()
    wide, narrow = trunk.double().mean.flatten().tolist(), trunk.bfloat16().mean
    assert wide == [0.485, 0.456, 0.406]
    assert torch.equal(narrow.flatten(), torch.tensor(wide, dtype=torch.bfloat16))
    assert torch.equal(trunk.float().std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
