"""The watch over a training: a critic with a hole sets it off, an honest run does not; a resumed one is the same."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from honest import photograph
from torch import Tensor
from toys import toy

from perceptloss import create_critic, get_card
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.errors import ConfigError, DeceivedCritics
from perceptloss.honesty.watch import Watch

SIDE = 128
JUDGES = ("ssim-full", "gmsd", "haarpsi")
TRUTH = torch.cat([photograph(name, SIDE) for name in ("astronaut", "chelsea", "coffee", "rocket")])


def _checkers(x: Tensor, y: Tensor | None) -> Tensor:
    """Sharpness as a careless network measures it: local contrast of neighbours in one phase of a stride of 2."""
    sign = (-1.0) ** (torch.arange(x.shape[-2])[:, None] + torch.arange(x.shape[-1]))
    return F.avg_pool2d(x * sign, 8).relu().mean((1, 2, 3))


def _vivid(x: Tensor, y: Tensor | None) -> Tensor:
    """Colourfulness without an end."""
    return x.std(1).mean((1, 2))


def _reddish(x: Tensor, y: Tensor | None) -> Tensor:
    return (x[:, 0] - x[:, 1]).mean((1, 2))


def _grainy(x: Tensor, y: Tensor | None) -> Tensor:
    """Detail as energy at pixels, wherever they are."""
    return (x - F.avg_pool2d(x, 3, 1, 1)).abs().mean((1, 2, 3))


HOLES = {
    "checkers": (_checkers, 3.0, {"grid corner", "mirror", "above the ground truth", "critic up, judges down"}),
    "vivid": (_vivid, 3.0, {"saturation", "above the ground truth"}),
    "reddish": (_reddish, 1.2, {"chroma drift", "above the ground truth"}),
    "grainy": (_grainy, 2.0, {"edge density", "flat noise", "above the ground truth", "critic up, judges down"}),
}


def blurred() -> Tensor:
    small = F.interpolate(TRUTH, scale_factor=0.5, mode="bicubic", antialias=True)
    return F.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def judges():
    return {name: create_critic(name) for name in JUDGES}


def watch_over(function, judges, **keys):
    critic = toy("hole", function)
    return Watch({"hole": critic}, {name: judge.card for name, judge in judges.items()}, **keys)


@torch.no_grad()
def look(watch, judges, step, x):
    x = x.detach().clamp(0, 1)
    means = {name: float(judge(x, TRUTH).mean()) for name, judge in judges.items()}
    means |= {name: float(critic(x).mean()) for name, critic in watch.trained.items()}
    return watch.look(step, zip(x, TRUTH, strict=True), means)


def refined(watch, judges, weight, steps=60, every=10):
    """L1 and a critic, on the pixels themselves: what the best of networks would come to."""
    x = blurred().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=5e-3)
    (critic,) = watch.trained.values()
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - (step - 1) / steps)
        optimizer.zero_grad()
        loss = F.l1_loss(x, TRUTH) - (weight * critic(x).mean() if weight else 0)
        loss.backward()
        optimizer.step()
        if step % every == 0:
            yield step, look(watch, judges, step, x)


@pytest.mark.parametrize("hole", HOLES)
def test_a_critic_with_a_hole_sets_it_off(hole, judges):
    function, weight, expected = HOLES[hole]
    watch = watch_over(function, judges)
    for _, alarms in refined(watch, judges, weight):
        last = alarms
    rung = {alarm.about if alarm.name == "content" else alarm.name for alarm in last}
    assert expected <= rung
    assert all(str(alarm) in watch.summary() for alarm in last)
    assert f"{len(last)} alarms at the end (6 validations, the last at step 60)" in watch.summary()


@pytest.mark.parametrize("hole", HOLES)
def test_an_honest_run_does_not(hole, judges):
    watch = watch_over(HOLES[hole][0], judges, reaction="stop")
    for step, alarms in refined(watch, judges, 0):
        assert alarms == (), step
        assert watch.react().factor == 1
    assert "no alarm at the end" in watch.summary()
    assert "**no**" not in watch.summary()


def test_a_frozen_critic_stops_pulling(judges):
    watch = watch_over(_vivid, judges, reaction="anneal")
    factors = [watch.react().factor for _ in refined(watch, judges, 3.0, steps=30)]
    assert factors[-1] < 1
    assert sorted(factors, reverse=True) == factors
    assert f"multiplied by {factors[-1]:g}" in watch.summary()
    watch.reaction = "stop"
    with pytest.raises(DeceivedCritics, match="saturation"):
        watch.react()


def test_nothing_is_reacted_to_before_critics_have_a_say(judges):
    watch = watch_over(_vivid, judges, reaction="stop", start=20)
    red, redder = (TRUTH + torch.tensor([by, 0, 0]).view(3, 1, 1) for by in (0.1, 0.2))
    for step, x in ((10, redder), (20, red), (30, red)):
        look(watch, judges, step, x)
        assert [alarm.from_start for alarm in watch.alarms if alarm.about == "chroma drift"] == [True]
        if step <= 20:
            assert watch.react().factor == 1
    look(watch, judges, 40, redder)  # as it once was, but not when the critics started
    with pytest.raises(DeceivedCritics, match="chroma drift"):
        watch.react()


def test_a_resumed_watch_is_the_same(judges):
    one = watch_over(_checkers, judges)
    looks = refined(one, judges, 3.0)
    for _ in range(3):
        next(looks)
    kept = json.loads(json.dumps(one.state()))
    other = watch_over(_checkers, judges)
    other.load_state(kept)
    assert other.alarms == one.alarms
    step, alarms = next(looks)
    last = one.history.validations[-1]
    assert other.record(step, last.sights, last.means) == alarms
    assert other.state() == one.state()
    assert other.summary() == one.summary()
    with pytest.raises(ConfigError, match="damaged"):
        other.load_state({"validations": [{"step": 1}], "rung": [], "factor": 1})


def test_an_alarm_that_passed_is_still_told(judges):
    watch = watch_over(_vivid, judges)
    look(watch, judges, 10, (TRUTH + 8 / 255 * torch.randn(TRUTH.shape)).clamp(0, 1))
    assert "flat noise" in {alarm.about for alarm in watch.alarms}
    assert look(watch, judges, 20, TRUTH) == ()
    assert "no alarm at the end" in watch.summary()
    assert "- over: content, flat noise" in watch.summary()


def test_a_learning_critic_is_left_as_it_was(judges):
    critic = toy("hole", lambda x, y: x.mean((1, 2, 3)) * critic.gain.weight.sum())
    critic.gain = torch.nn.Linear(1, 1)
    critic.norm = torch.nn.BatchNorm1d(1)
    critic.unfreeze().train()
    critic.norm.eval()
    watch = Watch({"hole": critic}, {})
    watch.look(1, [(TRUTH[0], TRUTH[0])], {"hole": 0.5})
    assert critic.training and not critic.norm.training
    assert critic.gain.weight.requires_grad and critic.gain.weight.grad is None


def test_images_that_are_lost_ring_and_spoil_nothing(judges):
    watch = watch_over(_vivid, judges)
    look(watch, judges, 10, TRUTH)
    lost = TRUTH[0].clone()
    lost[0, 0, 0] = torch.nan
    alarms = watch.look(20, [(lost, TRUTH[0]), (TRUTH[1], TRUTH[1])], {"hole": None})
    assert [alarm.name for alarm in alarms] == ["not finite"]
    assert watch.look(30, [(lost, TRUTH[0])], {}) != ()
    assert "| saturation |" not in watch.summary()


def test_references_of_a_distance_are_mirrored_too():
    watch = Watch({"gmsd": create_critic("gmsd")}, {"ssim": get_card("ssim")})
    sight = watch.sight(blurred()[0], TRUTH[0])
    scores = sight.scores["gmsd"]
    assert scores.truth is None
    assert scores.mirrored == pytest.approx(scores.output, abs=1e-3)
    assert scores.output > 0.01


def test_a_critic_that_leaves_its_anchors_is_told(judges):
    labels = torch.tensor([0.1, 0.3, 0.6, 0.9])
    anchors = {"shades": (labels[:, None, None, None].expand(4, 3, 64, 64), None, labels)}
    critic = toy("hole", lambda x, y: x.mean((1, 2, 3)))
    watch = Watch({"hole": critic, "gmsd": create_critic("gmsd")}, {})
    assert watch.agreement(anchors) == {"hole": pytest.approx(1.0)}  # gmsd compares, and there are no references
    pairs = [(TRUTH[0], TRUTH[0])]
    assert watch.look(0, pairs, {}, watch.agreement(anchors)) == ()
    critic.score = lambda x, y=None: -x.mean((1, 2, 3))
    assert watch.agreement(anchors) == {"hole": pytest.approx(-1.0)}
    critic.score = lambda x, y=None: 0 * x.mean((1, 2, 3))
    (alarm,) = [a for a in watch.look(10, pairs, {}, watch.agreement(anchors)) if a.name == "anchors"]
    assert alarm.about == "hole"
    critic.score = lambda x, y=None: x.mean((1, 2, 3))
    with pytest.raises(ProtocolError):
        watch.agreement({"equal": (anchors["shades"][0], None, torch.ones(4))})


def test_only_those_that_learn_are_asked_of_labels():
    """Labelled images fit them, and may be too small for others."""
    labels = torch.tensor([0.1, 0.3, 0.6])
    shades = labels[:, None, None, None].expand(3, 3, 64, 64)
    critic = toy("hole", lambda x, y: x.mean((1, 2, 3)))
    watch = Watch({"hole": critic, "ms-ssim": create_critic("ms-ssim")}, {})
    assert watch.agreement({"shades": (shades, shades, labels)}, [critic]) == {"hole": pytest.approx(1.0)}


def test_nothing_seen_is_nothing_known(judges):
    assert "nothing is known" in watch_over(_vivid, judges).summary()
