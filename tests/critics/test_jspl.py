"""JSPL: its ladder, what the attention does, where the reference stands, the guard, the classifier, and its weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from images import pair
from rounding import are_apart, assert_same
from small import build_small
from torch import Tensor

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.jspl.critic import JSPL
from perceptloss.critics.jspl.local_sw import local_sliced_wasserstein
from perceptloss.errors import InputError, WeightsError
from perceptloss.weights.convert import load_states

SIDE = 64


@pytest.fixture
def jspl() -> JSPL:
    return build_small("jspl").double()


def pictures(n: int = 3) -> tuple[Tensor, Tensor]:
    return pair(n, SIDE, SIDE + 1, dtype=torch.float64)


def taps(critic: JSPL, *images: Tensor) -> list[dict[str, Tensor]]:
    return [critic.trunk(image, critic.taps) for image in images]


def random_taps(critic: JSPL, n: int = 1, side: int = 32) -> dict[str, Tensor]:
    sides = (side, side // 2, side // 4)
    directions = (getattr(critic, f"directions_{tap}") for tap in critic.taps)
    shapes = zip(critic.taps, directions, sides, strict=True)
    return {tap: torch.rand(n, len(d), s, s, dtype=torch.float64) for tap, d, s in shapes}


def gradient(critic: JSPL, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(critic(leaf, y).sum(), leaf)[0]


# architecture


def test_published_size_has_the_documented_shapes():
    critic = create_critic("jspl", weights=None)
    assert 5.0e6 < sum(p.numel() for p in critic.parameters()) < 5.25e6
    shapes = {name: tuple(tap.shape) for name, tap in taps(critic, torch.rand(1, 3, SIDE, SIDE))[0].items()}
    assert shapes == {"stage2": (1, 128, 32, 32), "stage3": (1, 256, 16, 16), "stage4": (1, 256, 8, 8)}
    # 3 stages, 2 windows, 8 attention maps
    assert critic.regressor.kinds.in_features == 48


def test_ladder_is_four_convolutions_and_a_shortcut_per_stage(jspl):
    x, _ = pictures(1)
    h = 2 * x - 1
    for number, stage in enumerate(jspl.trunk.stages, 1):
        h = first = F.relu(F.conv2d(h, stage[0].weight, stage[0].bias, 1 if number == 1 else 2, 1))
        for layer in list(stage)[1:]:
            h = F.relu(F.conv2d(h, layer.weight, layer.bias, 1, 1))
        h = h + first
        name = f"stage{number}"
        torch.testing.assert_close(jspl.trunk(x, (name,))[name], h, rtol=1e-10, atol=1e-12)


def test_score_is_the_documented_formula(jspl):
    x, y = pictures()
    fx, fy = taps(jspl, x, y)
    distances = []
    for tap, attend in zip(jspl.taps, jspl.attend, strict=True):
        logits = F.conv2d(fy[tap], attend.weight, attend.bias)
        for window, stride in ((2, 1), (8, 4)):
            map_ = local_sliced_wasserstein(fx[tap], fy[tap], getattr(jspl, f"directions_{tap}"), window, stride)
            extra = [-(length - window) % stride for length in logits.shape[-2:]]
            seen = F.avg_pool2d(F.pad(logits, (0, extra[1], 0, extra[0]), mode="replicate"), window, stride)
            weights = seen.flatten(2).exp() / seen.flatten(2).exp().sum(-1, keepdim=True)
            distances.append((weights * map_.flatten(2)).sum(-1))
    head = jspl.regressor
    kinds = F.relu(head.kinds((1 + torch.cat(distances, 1)).log()))
    seen = 2 / (1 + torch.exp(-head.visibility(fy["stage4"].mean((2, 3)))))
    torch.testing.assert_close(jspl(x, y), head.out(kinds * seen)[:, 0], rtol=1e-9, atol=1e-12)


def test_small_windows_close_the_loophole_of_the_large_ones(jspl):
    """Scrambled in one 8x8 window of the smallest map: free for that window, not for 2x2 ones."""
    fy = random_taps(jspl)
    fx = dict(fy, stage4=fy["stage4"].flatten(2)[..., torch.randperm(64)].view_as(fy["stage4"]))
    distances = jspl.distances(fx, fy).view(3, 2, -1)  # stage, window, attention map
    assert distances[2, 1].max() < 1e-12
    assert distances[2, 0].min() > 1e-3
    assert not distances[:2].any()


def test_attention_of_the_reference_decides_where_differences_count(jspl):
    fy = random_taps(jspl, side=64)
    fy["stage2"][:, 0] = (torch.arange(64) >= 32).double()  # the right half is marked
    fx = copy.deepcopy(fy)
    fx["stage2"][:, 1:, :, :20] += 1.0
    found = {}
    for strength in (60.0, 0.0, -60.0):
        jspl.attend[0].weight.data.zero_()[:, 0] = strength
        found[strength] = jspl.distances(fx, fy).view(3, 2, -1)[0]
    assert found[60.0].max() < 1e-6
    assert found[0.0].min() > 0.05
    assert (found[-60.0] > 1.3 * found[0.0]).all()


def test_extreme_attention_stays_finite(jspl):
    x, y = pictures(1)
    for attend in jspl.attend:
        attend.weight.data.mul_(-1e6)
    assert torch.isfinite(gradient(jspl, x, y)).all()


# reference and repetition


@pytest.mark.parametrize("size", ["published", "small"])
def test_new_critic_ranks_the_reference_first(size):
    critic = create_critic("jspl", weights=None) if size == "published" else build_small("jspl")
    x, y = (image.float() for image in pictures(4))
    assert (critic(x, y) < critic(y, y)).all()
    assert critic(x, y).abs().max() > 0.01


def test_score_of_the_reference_depends_on_the_image_once_learned(jspl):
    _, y = pictures()
    jspl.regressor.kinds.bias.data.fill_(0.5)
    itself = jspl(y, y)
    assert are_apart(itself, itself.roll(1)).all()


def test_hinge_is_silent_at_the_reference_and_pulls_elsewhere(jspl):
    x, y = pictures()
    jspl.regressor.kinds.bias.data.fill_(0.5)
    loss_fn = CriticLoss([{"critic": jspl, "weight": 1.0}])
    for image, is_silent in ((y, True), (x, False)):
        leaf = image.clone().requires_grad_()
        loss = loss_fn(leaf, y)
        loss.backward()
        assert (loss.item() == 0) == is_silent
        assert (not leaf.grad.any()) == is_silent


def test_directions_do_not_follow_the_step(jspl):
    x, y = pictures(1)
    before = jspl(x, y)
    torch.manual_seed(77)
    torch.rand(5)
    assert torch.equal(jspl(x, y), before)
    assert sum("directions" in name for name in jspl.state_dict()) == 3


# guard


def test_guard_scales_gradients_and_leaves_scores(jspl):
    x, y = pictures()
    jspl.classifier[-2].bias.data.fill_(-1.0)
    score, plain, confidence = jspl(x, y), gradient(jspl, x, y), jspl.confidence(x, y)
    jspl.guard = True
    assert torch.equal(jspl(x, y), score)
    assert_same(gradient(jspl, x, y), confidence[:, None, None, None] * plain)
    assert are_apart(confidence, confidence.roll(1)).all()
    assert ((confidence > 0) & (confidence < 1)).all()
    assert not confidence.requires_grad


def test_guard_can_be_asked_for_when_building():
    torch.manual_seed(0)
    card = create_critic("jspl", weights=None).card
    assert not JSPL(card, widths=(4, 4, 4, 4)).guard
    assert JSPL(card, widths=(4, 4, 4, 4), guard=True).guard


def test_guard_that_is_sure_of_an_outlier_silences_it(jspl):
    x, y = pictures()
    jspl.guard = True
    jspl.classifier[-2].weight.data.zero_()
    plain = None
    for bias, factor in ((30.0, 1.0), (0.0, 0.5), (-30.0, 1e-13)):
        jspl.classifier[-2].bias.data.fill_(bias)
        found = gradient(jspl, x, y)
        plain = found if plain is None else plain
        torch.testing.assert_close(found, factor * plain, rtol=0.1, atol=0)


@pytest.mark.parametrize("options", [{"grad": "checkpoint"}, {"grad": "fused", "micro_batch": 2, "lean": True}])
def test_guard_works_in_every_grad_mode(jspl, options):
    x, y = pictures()
    jspl.guard = True
    found = []
    for settings in ({"grad": "autograd"}, options):
        leaf = x.clone().requires_grad_()
        CriticLoss([{"critic": jspl, "weight": 1.0}], share_every=0, **settings)(leaf, y).backward()
        found.append(leaf.grad)
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-14)


# learning


def test_classifier_learns_alone(jspl):
    jspl.unfreeze()
    x, y = pictures()
    x.requires_grad_()
    jspl.logit(x, y).sum().backward()
    assert x.grad is None
    touched = {name.split(".")[0] for name, p in jspl.named_parameters() if p.grad is not None}
    assert touched == {"classifier"}
    jspl.zero_grad()
    jspl.guard = True
    jspl(x, y).sum().backward()
    assert all(p.grad is None for p in jspl.classifier.parameters())


def test_classifier_can_tell_outliers_and_scores_stay(jspl):
    x, y = pictures(2)
    outliers = torch.rand(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    score = jspl(x, y)
    jspl.unfreeze()
    optimiser = torch.optim.Adam(jspl.classifier.parameters(), 0.05)
    for _ in range(15):
        inside, outside = jspl.logit(x, y), jspl.logit(outliers, y)
        loss = F.softplus(-inside).mean() + F.softplus(outside).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    jspl.freeze()
    assert jspl.confidence(x, y).min() > 0.6
    assert jspl.confidence(outliers, y).max() < 0.4
    assert torch.equal(jspl(x, y), score)


def test_both_arms_teach_a_trunk_that_learns(jspl):
    x, y = pictures(1)
    frozen = jspl(x, y)
    jspl.unfreeze()
    score = jspl(x, y)
    assert_same(score.detach(), frozen)
    weight = jspl.trunk.stages[1][0].weight
    (slope,) = torch.autograd.grad(score.sum(), weight)
    along = torch.randn_like(weight)
    step = 1e-7
    with torch.no_grad():
        weight.add_(step * along)
        ahead = jspl(x, y)
        weight.sub_(2 * step * along)
        behind = jspl(x, y)
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx((slope * along).sum().item(), rel=1e-4)


# weights and refusals


def test_weights_are_our_own_layout_and_complete(jspl):
    x, y = pictures(1)
    state = {name: tensor * 1.01 for name, tensor in jspl.state_dict().items()}
    other = build_small("jspl").double()
    load_states(other, [state])
    assert other.weights_id != "random"
    assert not torch.equal(other(x, y), jspl(x, y))
    with pytest.raises(WeightsError, match=r"directions_stage3: in no file"):
        load_states(other, [{name: t for name, t in state.items() if name != "directions_stage3"}])
    with pytest.raises(WeightsError, match=r"fc\.weight: unknown key"):
        load_states(other, [{**state, "fc.weight": torch.ones(1)}])


def test_confidence_checks_its_images(jspl):
    x, y = pictures(1)
    with pytest.raises(InputError, match="at least 64x64"):
        jspl.confidence(x[..., :32, :32], y[..., :32, :32])
