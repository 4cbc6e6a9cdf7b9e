"""AHIQ: the shapes of its table, its pooling, its offsets, its gradient, and its three weight files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import pair
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic, get_card, registry
from perceptloss.critic import Entry
from perceptloss.critics.ahiq import AHIQ, DeformNet, Regressor
from perceptloss.errors import WeightsError
from perceptloss.weights.convert import convert

SIDE = 64  # of the small build: 8 x 8 tokens, ResNet maps of 16 x 16


@pytest.fixture
def ahiq() -> AHIQ:
    return build_small("ahiq").double()


def taps(critic: AHIQ, *images: Tensor) -> list[dict[str, Tensor]]:
    return [critic.trunk(critic.prepare(image), critic.taps) for image in images]


def pictures(n: int = 2, height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor]:
    return pair(n, height, width, dtype=torch.float64)


# the published network


def test_every_step_has_the_published_shape():
    critic = create_critic("ahiq", weights=None).to("meta")
    net, judge = critic.deform_net, critic.regressor
    steps = {
        "tokens": critic.trunk.vit.blocks[0],
        "offsets": net.conv_offset,
        "reduced": net.conv1[0],
        "deformable branch": net,
        "fused": judge.down_channel,
        "wide": judge.feat_smoothing[0],
        "smooth": judge.feat_smoothing,
        "last": judge.conv1,
        "value": judge.conv,
        "weight": judge.conv_attent,
    }
    seen: dict[str, list[tuple[int, ...]]] = {name: [] for name in steps}
    for name, module in steps.items():
        module.register_forward_hook(lambda module, given, out, name=name: seen[name].append(tuple(out.shape)))
    image = torch.empty(1, 3, 224, 224, device="meta")
    found = critic.trunk(image, critic.taps)
    assert [tuple(found[tap].shape) for tap in critic.taps] == 5 * [(1, 768, 28, 28)] + 3 * [(1, 256, 56, 56)]
    assert critic.score(image, image).shape == (1,)
    assert {name: shapes[-1] for name, shapes in seen.items()} == {
        "tokens": (1, 785, 768),
        "offsets": (1, 18, 56, 56),
        "reduced": (1, 512, 28, 28),
        "deformable branch": (1, 768, 28, 28),
        "fused": (1, 256, 28, 28),
        "wide": (1, 1024, 28, 28),
        "smooth": (1, 512, 28, 28),
        "last": (1, 256, 28, 28),
        "value": (1, 1, 28, 28),
        "weight": (1, 1, 28, 28),
    }
    assert len(seen["offsets"]) == 1, "both arms are read at the same places"
    assert len(seen["deformable branch"]) == 2


def test_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        parts = DeformNet(5 * 768, 3 * 256, 512), Regressor(5 * 768 + 3 * 256, 256, (1024, 512))
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [13_010_450, 14_158_338]
    assert sum(counts) == 27_168_788


# pooling


def test_the_score_is_the_weighted_mean_of_the_values(ahiq):
    x, y = pictures()
    values, weights = ahiq.judge(*taps(ahiq, x, y))
    assert values.shape == weights.shape == (2, 64)
    assert ((weights > 0) & (weights < 1)).all()
    score = ahiq(x, y)
    expected = [np.average(v, weights=w) for v, w in zip(values.numpy(), weights.numpy(), strict=True)]
    torch.testing.assert_close(score, torch.tensor(expected))
    assert (values.amin(1) < score).all()
    assert (score < values.amax(1)).all()
    assert not torch.allclose(score, values.mean(1))


def test_a_constant_weight_map_gives_the_plain_mean(ahiq):
    nn.init.zeros_(ahiq.regressor.conv_attent[0].weight)
    nn.init.constant_(ahiq.regressor.conv_attent[0].bias, -3)
    x, y = pictures()
    values, weights = ahiq.judge(*taps(ahiq, x, y))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / (1 + np.exp(3))))
    torch.testing.assert_close(ahiq(x, y), values.mean(1))


def test_it_is_not_symmetric_and_judges_originals_differently(ahiq):
    x, y = pictures()
    assert not torch.isclose(ahiq(x, y), ahiq(y, x), rtol=1e-3).any()
    itself = ahiq(y, y)
    assert not torch.isclose(itself[0], itself[1], rtol=1e-3)


def test_larger_images_are_the_mean_over_even_crops(ahiq):
    x, y = pictures(2, SIDE + 16, SIDE + 70)
    crops = [(..., slice(t, t + SIDE), slice(left, left + SIDE)) for t in (0, 16) for left in (0, 35, 70)]
    expected = torch.stack([ahiq(x[crop], y[crop]) for crop in crops]).mean(0)
    torch.testing.assert_close(ahiq(x, y), expected)
    whole = x[..., :SIDE, :SIDE]
    assert ahiq.prepare(whole) is whole


# where the deformable convolution reads


@pytest.fixture
def offsets(ahiq, monkeypatch) -> list[Tensor]:
    """All offsets that the critic computes from now on."""
    found: list[Tensor] = []
    original = DeformNet.offset

    def noted(net: DeformNet, *given: object) -> Tensor:
        found.append(original(net, *given))
        return found[-1]

    monkeypatch.setattr(DeformNet, "offset", noted)
    return found


def test_offsets_are_those_of_the_reference(ahiq, offsets):
    x, y = pictures()
    for judged, reference in ((x, y), (y, y), (x, x)):
        ahiq(judged, reference)
    assert len(offsets) == 3
    assert torch.equal(offsets[0], offsets[1])
    assert not torch.allclose(offsets[0], offsets[2], rtol=1e-3)
    assert offsets[0].abs().mean() > 0.1, "the random build deforms nothing, this test proves nothing"


def test_offsets_are_constants_of_the_gradient(ahiq, offsets):
    x, y = pictures(1)
    ahiq(x.requires_grad_(), y)
    assert not offsets[0].requires_grad


def test_every_token_points_for_four_pixels_of_the_map(ahiq):
    tokens = torch.randn(1, 240, 8, 8, dtype=torch.float64)
    net = ahiq.deform_net
    expected = net.conv_offset(tokens.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(net.offset(tokens, (16, 16)), expected)


def test_without_offsets_the_branch_is_three_plain_convolutions(ahiq):
    net, h = ahiq.deform_net, torch.randn(1, 96, 16, 16, dtype=torch.float64)
    still = torch.zeros(1, 18, 16, 16, dtype=torch.float64)
    first = F.conv2d(h, net.deform.weight, net.deform.bias, padding=1)
    expected = net.conv1[2](F.relu(net.conv1[0](first)))
    assert expected.shape == (1, 96, 8, 8)
    torch.testing.assert_close(net(h, still), expected)


# gradient


def gradient(critic: AHIQ, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(critic(leaf, y).sum(), leaf)[0]


def test_gradient_reaches_the_judged_image_only(ahiq):
    x, y = pictures()
    x.requires_grad_()
    y.requires_grad_()
    ahiq(x, y).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    assert y.grad is None
    assert all(p.grad is None for p in ahiq.parameters())


def test_the_weight_map_is_held_in_the_gradient_unless_asked(ahiq):
    x, y = pictures()
    score = ahiq(x, y)
    held = gradient(ahiq, x, y)
    leaf = x.clone().requires_grad_()
    values, weights = ahiq.judge(*taps(ahiq, leaf, y))
    by_hand = (values * weights.detach()).sum(1) / weights.detach().sum(1)
    torch.testing.assert_close(held, torch.autograd.grad(by_hand.sum(), leaf)[0])
    ahiq.hold_weights = False
    assert torch.equal(ahiq(x, y), score)
    exact = gradient(ahiq, x, y)
    assert (exact - held).norm() > 1e-2 * held.norm()


def test_as_a_loss_it_starts_at_what_the_reference_scores(ahiq):
    x, y = pictures()
    ahiq.regressor.conv[0].weight.neg_()  # the random build prefers distorted images
    loss_fn = CriticLoss([{"critic": ahiq, "weight": 1.0}])
    assert loss_fn(y.clone().requires_grad_(), y) == 0
    expected = (ahiq(y, y) - ahiq(x, y)).clamp_min(0)
    assert expected.any(), "no image is worse than its reference, this test proves nothing"
    torch.testing.assert_close(loss_fn(x.clone().requires_grad_(), y).detach(), expected.mean())


def test_the_gradient_repeats_every_eight_pixels_and_moving_crops_evens_that_out():
    """What the card says about tokens of 8 x 8 pixels."""
    critic = build_small("ahiq")
    x, y = pair(8, SIDE + 8)
    profiles, total = [], torch.zeros_like(x)
    for shift in range(8):
        crop = (..., slice(shift, shift + SIDE), slice(shift, shift + SIDE))
        found = gradient(critic, x[crop], y[crop])
        profiles.append(by_phase(found))
        total[crop] += found
    assert torch.corrcoef(torch.stack([p.flatten() for p in profiles])).min() > 0.9
    still, moved = (p.std() / p.mean() for p in (profiles[0], by_phase(total[..., 8:SIDE, 8:SIDE])))
    assert still > 0.1
    assert moved < 0.6 * still


def by_phase(gradient: Tensor) -> Tensor:
    """Root mean square over images and tokens at each of the 8 x 8 places in a token."""
    return gradient.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).square().mean((0, 1, 2, 4)).sqrt()


# weight files


def files(own: dict[str, Tensor]) -> tuple[dict, dict, dict]:
    """The authors' checkpoint as their training wrote it, and the files of both trunks as timm has them."""
    vit = {key.removeprefix("trunk.vit."): t for key, t in own.items() if key.startswith("trunk.vit.")}
    vit |= {f"blocks.{k}.norm1.weight": torch.ones(48) for k in range(5, 12)}
    vit |= {"norm.weight": torch.ones(48), "head.weight": torch.ones(1000, 48), "head.bias": torch.ones(1000)}
    resnet = {key.removeprefix("trunk.resnet."): t for key, t in own.items() if key.startswith("trunk.resnet.")}
    resnet |= {"bn1.num_batches_tracked": torch.tensor(7), "layer1.0.bn1.num_batches_tracked": torch.tensor(7)}
    resnet |= {"layer2.0.conv1.weight": torch.ones(1), "layer4.2.bn3.bias": torch.ones(1), "fc.bias": torch.ones(1)}
    authors: dict[str, object] = {"epoch": 33}
    for part in ("regressor", "deform_net"):
        tensors = {key.removeprefix(f"{part}."): t for key, t in own.items() if key.startswith(f"{part}.")}
        authors[f"{part}_model_state_dict"] = tensors
    beside = {"optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "loss": np.float64(0.01)}
    return authors | beside | {"scheduler_state_dict": {"T_max": 50}}, vit, resnet


@pytest.fixture
def other() -> dict[str, Tensor]:
    """A state that no fresh critic has."""
    return {key: 0.9 * tensor + 0.01 for key, tensor in build_small("ahiq").state_dict().items()}


def test_the_authors_file_and_those_of_both_trunks_make_the_critic(other, tmp_path, monkeypatch):
    card = replace(get_card("ahiq"), name="ahiq-small", min_size=SIDE)
    monkeypatch.setitem(registry._registered, card.name, Entry(card, lambda card: build_small("ahiq")))
    paths = [tmp_path / name for name in ("authors.pth", "vit.pth", "resnet.pth")]
    for path, state in zip(paths, files(other), strict=True):
        torch.save(state, path)
    critic = create_critic("ahiq-small", weights=paths)
    assert all(torch.equal(tensor, other[key]) for key, tensor in critic.state_dict().items())
    x, y = (image.float() for image in pictures())
    assert not torch.equal(critic(x, y), build_small("ahiq")(x, y))


def test_one_file_may_hold_everything_under_the_prefixes_of_the_parts(other):
    authors, vit, resnet = files(other)
    whole = {f"vit.{key}": t for key, t in vit.items()} | {f"resnet50.{key}": t for key, t in resnet.items()}
    for part in ("regressor", "deform_net"):
        whole |= {f"{part}.{key}": t for key, t in authors[f"{part}_model_state_dict"].items()}
    assert convert(build_small("ahiq"), whole).keys() == other.keys()


@pytest.mark.parametrize("key", ["regressor.conv2.weight", "vit.blocks.4.ls1.gamma", "resnet50.layer1.3.conv1.weight"])
def test_keys_that_are_no_part_of_it_are_errors(key):
    with pytest.raises(WeightsError, match=rf"1 problems(?s:.*){key}: "):
        convert(build_small("ahiq"), {key: torch.ones(1)})
