"""Residual and large trunks against torchvision and timm, and how weight files of both are read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from perceptloss import create_critic
from perceptloss.errors import InputError, PerceptlossError
from perceptloss.networks.batchnorm import BatchStats
from perceptloss.networks.trunks import (
    HALF,
    IMAGENET,
    InceptionResNet,
    ResNet,
    Trunk,
    VisionTransformer,
    inception_rules,
    resnet_rules,
    vgg19,
    vit_rules,
)
from perceptloss.weights.rules import Rule

DEPTHS = (18, 34, 50)
TINY_VIT = {"embed_dim": 24, "num_heads": 3, "img_size": 64}


def tiny_vit(blocks: int = 3, normalise=HALF) -> Trunk:
    return VisionTransformer("vit_base_patch8_224", blocks, normalise, **TINY_VIT)


def tiny_resnet(depth: int = 50, stages: int = 2, theta: tuple[float, ...] = (0.0,) * 4) -> Trunk:
    return ResNet(depth, stages, IMAGENET, theta, widths=(8, 12, 16, 20))


def pictures(height: int = 64, width: int = 64, n: int = 2) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def randomised(net: nn.Module) -> nn.Module:
    """The same network with other normalisations than a fresh one has."""
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, BatchStats)):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.normal_(1, 0.2, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return net


def normalised(x: Tensor, normalise) -> Tensor:
    mean, std = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in normalise)
    return (x - mean) / std


def noted(modules: dict[str, nn.Module], run: Callable[[], object]) -> dict[str, Tensor]:
    """What these modules return while `run` runs."""
    found: dict[str, Tensor] = {}
    hooks = [
        # a copy: the next layer may overwrite it
        module.register_forward_hook(lambda m, given, out, name=name: found.update({name: out.clone()}))
        for name, module in modules.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def agree(ours: dict[str, Tensor], theirs: dict[str, Tensor], x: Tensor, rtol: float = 1e-9) -> None:
    """Taps, and gradients of a random sum over all of them, to `rtol` of their largest element."""
    assert ours.keys() == theirs.keys()
    gradients = []
    for found in (ours, theirs):
        generator = torch.Generator().manual_seed(3)
        names = sorted(found)
        along = [torch.randn(found[name].shape, generator=generator, dtype=x.dtype) for name in names]
        gradients.append(torch.autograd.grad([found[name] for name in names], x, along, retain_graph=True)[0])
    for name, wanted in theirs.items():
        torch.testing.assert_close(ours[name], wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=rtol, atol=rtol * gradients[1].abs().max().item())


# against torchvision


def torchvision_resnet(depth: int) -> nn.Module:
    return randomised(getattr(torchvision.models, f"resnet{depth}")(weights=None).double().eval())


def resnet_taps(peer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    stem: list[Tensor] = []
    modules: dict[str, nn.Module] = {}
    for stage in range(1, 5):
        blocks = getattr(peer, f"layer{stage}")
        modules |= {f"layer{stage}.{k}": block for k, block in enumerate(blocks)} | {f"layer{stage}": blocks}
    hook = peer.maxpool.register_forward_pre_hook(lambda m, given: stem.append(given[0].clone()))
    found = noted(modules, lambda: peer(normalised(x, IMAGENET)))
    hook.remove()
    return {"stem": stem[0], **found}


@pytest.mark.parametrize("depth", DEPTHS)
def test_residual_trunks_are_those_of_torchvision(depth):
    peer, trunk = torchvision_resnet(depth), ResNet(depth).double()
    trunk.load_state_dict({k: t for k, t in peer.state_dict().items() if not k.startswith("fc.") and "num_b" not in k})
    x = pictures(70, 51).requires_grad_()
    expected = resnet_taps(peer, x)
    assert set(expected) == set(trunk.tap_at)
    agree(trunk(x, trunk.tap_at), expected, x)


def test_a_trunk_of_fewer_stages_is_the_beginning_of_the_whole():
    whole, part = randomised(tiny_resnet(50, 4).double()), tiny_resnet(50, 2).double()
    part.load_state_dict({key: whole.state_dict()[key] for key in part.state_dict()})
    assert set(part.tap_at) == {tap for tap in whole.tap_at if tap[:6] not in ("layer3", "layer4")}
    x = pictures().requires_grad_()
    agree(part(x, part.tap_at), whole(x, part.tap_at), x)


def test_vgg19_is_that_of_torchvision():
    peer, trunk = torchvision.models.vgg19(weights=None).features.double().eval(), vgg19().double()
    own = {f"features.{key}": tensor for key, tensor in peer.state_dict().items()}
    trunk.load_state_dict(own)
    x = pictures(32, 40, 1).requires_grad_()
    modules = {name: peer[at] for name, at in trunk.tap_at.items()}
    assert len(modules) == 32
    agree(trunk(x, trunk.tap_at), noted(modules, lambda: peer(normalised(x, IMAGENET))), x)


# against timm


def test_inception_resnet_v2_is_that_of_timm():
    timm = pytest.importorskip("timm")
    peer, trunk = timm.create_model("inception_resnet_v2", pretrained=False), InceptionResNet().double()
    peer = randomised(peer.double().eval())
    trunk.load_state_dict({key: peer.state_dict()[key] for key in trunk.state_dict()})
    x = pictures(80, 96, 1).requires_grad_()
    modules = {"mixed_5b": peer.mixed_5b} | {f"block35_{k + 1}": block for k, block in enumerate(peer.repeat)}
    expected = noted(modules, lambda: peer.repeat(through(peer, normalised(x, HALF))))
    assert set(expected) == set(trunk.tap_at)
    assert expected["mixed_5b"].shape == (1, 320, 7, 9)
    agree(trunk(x, trunk.tap_at), expected, x)


def through(peer: nn.Module, h: Tensor) -> Tensor:
    """The layers of timm's network up to its Block35s, in the order of its own forward."""
    for name, layer in peer.named_children():
        if name == "repeat":
            return h
        h = layer(h)
    raise AssertionError("no Block35")


def test_vision_transformer_is_that_of_timm():
    timm = pytest.importorskip("timm")
    peer = timm.create_model("vit_base_patch8_224", pretrained=False, **TINY_VIT).double().eval()
    nn.init.normal_(peer.cls_token)
    trunk = tiny_vit().double()
    trunk.load_state_dict({key: peer.state_dict()[key] for key in trunk.state_dict()})
    x = pictures().requires_grad_()
    modules = {f"block{k}": peer.blocks[k] for k in range(3)}
    tokens = noted(modules, lambda: peer(normalised(x, HALF)))
    assert tokens["block0"].shape == (2, 1 + 64, 24)
    expected = {name: t[:, 1:].permute(0, 2, 1).reshape(2, 24, 8, 8) for name, t in tokens.items()}
    agree(trunk(x, trunk.tap_at), expected, x)


def test_a_vision_transformer_takes_one_size_only():
    with pytest.raises(InputError, match="takes 64x64 images, got 64x72"):
        tiny_vit()(torch.rand(1, 3, 64, 72), ("block0",))


@pytest.mark.parametrize("build", [InceptionResNet, tiny_vit])
def test_large_trunks_never_train(build):
    trunk = build()
    nn.Sequential(trunk).train()
    assert not any(module.training for module in trunk.modules())
    assert not any(p.requires_grad for p in trunk.parameters())


@pytest.mark.parametrize("name", ["ahiq", "iqa-conformer"])
def test_without_timm_its_trunks_say_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(PerceptlossError, match=r'needs timm: pip install "perceptloss\[timm\]"'):
        create_critic(name, weights=None)


# weight files


def placed(rules: tuple[Rule, ...], keys: list[str]) -> set[str]:
    """Where the rules put these keys; every one must be known."""
    found = set()
    for key in keys:
        rule = next(rule for rule in rules if re.fullmatch(rule.pattern, key))
        if rule.target is not None:
            found.add(re.fullmatch(rule.pattern, key).expand(rule.target))
    return found


def own_keys(trunk: Trunk, target: str = "trunk") -> set[str]:
    return {f"{target}.{key}" for key in trunk.state_dict()}


@pytest.mark.parametrize("stages", [1, 3, 4])
@pytest.mark.parametrize("depth", [18, 50])
def test_rules_place_every_tensor_of_torchvisions_files(depth, stages):
    keys = list(getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict())
    trunk = ResNet(depth, stages)
    assert placed(resnet_rules(stages=stages), keys) == own_keys(trunk)
    wrapped = placed(resnet_rules(r"net\.", stages, "trunk.resnet"), [f"net.{key}" for key in keys])
    assert wrapped == own_keys(trunk, "trunk.resnet")


def test_rules_place_every_tensor_of_timms_files():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        files = {name: timm.create_model(name) for name in ("inception_resnet_v2", "vit_base_patch8_224")}
    inception, vit = (list(net.state_dict()) for net in files.values())
    assert placed(inception_rules(), inception) == own_keys(InceptionResNet())
    assert placed(vit_rules(blocks=3), vit) == own_keys(tiny_vit())
    prefixed = placed(vit_rules(r"vit\.", "trunk.vit", 3), [f"vit.{key}" for key in vit])
    assert prefixed == own_keys(tiny_vit(), "trunk.vit")
