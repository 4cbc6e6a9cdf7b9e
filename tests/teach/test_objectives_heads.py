"""Heads per dataset, losses weighed by uncertainty, and learning from images without opinions."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.monotone import MonotoneHead, PublishedHead
from perceptloss.teach.objectives.balance import UncertaintyWeights
from perceptloss.teach.objectives.heads import DatasetHeads
from perceptloss.teach.objectives.regression import norm_in_norm
from perceptloss.teach.objectives.unlabelled import (
    PseudoLabels,
    pseudo_label_loss,
    pu_loss,
    pu_losses,
    ramp,
)

LN2 = math.log(2)
SETS = ("live", "csiq", "kadid-10k", "bid", "live-challenge", "koniq-10k")


def spearman(a, b):
    a, b = (t.argsort().argsort().double() for t in (a, b))
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def drawn(heads):
    """Heads far from their start."""
    with torch.no_grad():
        for p in heads.parameters():
            p.add_(torch.randn_like(p))
    return heads


def batch(count=24):
    q, labels = torch.randn(count, requires_grad=True), 10 * torch.rand(count)
    return q, labels, [SETS[i % 6] for i in range(count)]


def gradients(heads):
    return {name: torch.cat([p.grad.flatten() for p in heads.heads[name].parameters()]) for name in heads.datasets}


# heads of datasets


@pytest.mark.parametrize("head", [MonotoneHead, PublishedHead])
def test_heads_keep_the_order(head):
    heads = drawn(DatasetHeads(nn.ModuleDict({name: head() for name in SETS})))
    q = 2.5 * torch.rand(300)
    for name in SETS:
        assert spearman(q, heads(q, name)) == pytest.approx(1)
    x = torch.linspace(-5, 5, 10_000, requires_grad=True)
    heads(x, "bid").sum().backward()
    assert (x.grad >= 0).all()


def test_each_image_goes_through_the_head_of_its_set():
    heads = drawn(DatasetHeads(SETS))
    q, _, names = batch()
    expected = torch.stack([heads.heads[name](one) for one, name in zip(q, names, strict=True)])
    assert torch.allclose(heads(q, names), expected, atol=1e-6)


def test_joint_loss_by_its_definition():
    heads = drawn(DatasetHeads(SETS))
    q, labels, names = batch()
    by_hand = []
    for name in SETS:
        at = [i for i, own in enumerate(names) if own == name]
        mapped = heads.heads[name](q[at])
        by_hand.append(F.smooth_l1_loss(mapped, labels[at]) + norm_in_norm(mapped, labels[at]))
    assert list(heads.losses(q, labels, names)) == list(SETS)
    assert torch.allclose(heads.loss(q, labels, names), torch.stack(by_hand).mean())
    # the average is over the sets that are there
    two = [i for i, name in enumerate(names) if name in ("csiq", "bid")]
    found = heads.loss(q[two], labels[two], [names[i] for i in two])
    assert torch.allclose(found, (by_hand[1] + by_hand[3]) / 2)


def test_silencing_one_set_leaves_the_gradients_of_the_other_heads():
    heads = drawn(DatasetHeads(SETS))
    q, labels, names = batch()
    heads.loss(q, labels, names).backward()
    before = gradients(heads)
    heads.zero_grad()
    heads.loss(q, labels, names, weights={"csiq": 0.0}).backward()
    after = gradients(heads)
    assert before["csiq"].abs().max() > 0 and after["csiq"].eq(0).all()
    for name in set(SETS) - {"csiq"}:
        assert before[name].abs().max() > 0 and torch.equal(before[name], after[name])


def test_one_quality_is_learned_from_scales_that_disagree():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(120, 3, generator=generator)
    true = features @ torch.tensor([1.0, -0.7, 0.4])
    scales = {"live": lambda t: 8 + t, "csiq": lambda t: 10 * torch.sigmoid(2 * t), "bid": lambda t: 1 + t.exp() / 2}
    names = [list(scales)[i % 3] for i in range(120)]
    labels = torch.stack([scales[name](t) for name, t in zip(names, true, strict=True)])
    trunk, heads = nn.Linear(3, 1), DatasetHeads(scales)
    optimiser = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=0.1)
    first = None
    for _ in range(60):
        optimiser.zero_grad()
        loss = heads.loss(trunk(features).flatten(), labels, names)
        first = loss.item() if first is None else first
        loss.backward()
        optimiser.step()
    q = trunk(features).flatten().detach()
    assert loss.item() < first / 4
    assert spearman(q, true) > 0.99
    assert spearman(q, labels) < 0.95  # what pooling the labels would have aimed at


def test_a_dataset_is_added_to_a_finished_critic():
    heads = drawn(DatasetHeads(("live", "csiq")))
    q = torch.randn(200, requires_grad=True)
    mos = 20 + 70 * torch.sigmoid(1.5 * q.detach() - 1)
    kept = copy.deepcopy(heads.state_dict())
    heads.add("pipal")
    before = heads.loss(q, mos, "pipal").item()
    final = heads.fit("pipal", q, mos)
    assert heads.loss(q, mos, "pipal").item() == pytest.approx(final, rel=1e-3, abs=1e-4)
    assert final < before / 50
    assert (heads(q, "pipal") - mos).abs().mean() < 1
    assert spearman(q, heads(q, "pipal")) == pytest.approx(1)
    assert q.grad is None
    assert all(torch.equal(heads.state_dict()[key], value) for key, value in kept.items())
    assert heads.datasets == ("live", "csiq", "pipal")
    # what it was before does not matter
    first = heads(q, "pipal").detach()
    drawn(heads.heads["pipal"])
    heads.fit("pipal", q, mos)
    assert torch.equal(heads(q, "pipal"), first)


def test_a_published_head_is_fitted_too():
    heads = DatasetHeads(nn.ModuleDict({"live": PublishedHead()}))
    q = 2 * torch.rand(50)
    assert heads.fit("live", q, 3 * q) < 1e-2


def test_heads_of_a_critic_are_shared():
    theirs = nn.ModuleDict({"live": MonotoneHead()})
    heads = DatasetHeads(theirs)
    heads.add("bid")
    assert heads.heads is theirs and "bid" in theirs
    other = DatasetHeads(("live", "bid"))
    other.load_state_dict(drawn(heads).state_dict())
    q = torch.randn(9)
    assert torch.equal(heads(q, "bid"), other(q, "bid"))


def test_lists_that_say_little_are_finite():
    heads = DatasetHeads(("live", "csiq"))
    for q, labels in (
        (torch.randn(1), torch.rand(1)),
        (torch.full((5,), 2.0), torch.rand(5)),
        (torch.randn(5), torch.full((5,), 3.0)),
        (torch.randn(5).half(), torch.rand(5).half()),
        (torch.randn(0), torch.rand(0)),
    ):
        q.requires_grad_()
        loss = heads.loss(q, labels, "live")
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(q.grad).all() and loss.dtype == torch.float32
        assert heads(q, "live").shape == q.shape


def test_what_heads_refuse():
    heads = DatasetHeads(("live", "kadid-10k"))
    q, labels = torch.randn(3), torch.rand(3)
    with pytest.raises(ConfigError, match="did you mean 'kadid-10k'"):
        heads.loss(q, labels, ["live", "live", "kadid10k"])
    with pytest.raises(ConfigError, match="'bid' has no head"):
        heads.loss(q, labels, "live", weights={"bid": 1.0})
    with pytest.raises(InputError, match="N datasets"):
        heads(q, ["live", "live"])
    with pytest.raises(InputError, match="one label per quality"):
        heads.loss(q, labels[:2], "live")
    with pytest.raises(ConfigError, match="has a head already"):
        heads.add("live")
    for name in ("v1.0", "", "train"):
        with pytest.raises(ConfigError, match="cannot be called"):
            heads.add(name)
    with pytest.raises(ConfigError, match="at least one dataset"):
        DatasetHeads(())
    for broken in (torch.zeros(3), torch.tensor([1, 2, math.nan])):
        with pytest.raises(InputError, match="not all equal"):
            heads.fit("live", broken, labels)


# uncertainty


def test_optimum_of_the_log_variances():
    weigh = UncertaintyWeights(["quality"], ["native"])
    losses = {"quality": torch.tensor(4.0), "native": torch.tensor(0.3)}
    search = torch.optim.LBFGS(weigh.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = weigh(losses)
        loss.backward()
        return loss

    search.step(closure)
    assert weigh.log_variances["quality"].item() == pytest.approx(math.log(4), abs=1e-4)
    assert weigh.log_variances["native"].item() == pytest.approx(math.log(0.6), abs=1e-4)
    assert weigh(losses).item() == pytest.approx(0.5 + math.log(4) / 2 + 0.5 + math.log(0.6) / 2, abs=1e-5)
    assert weigh.weights() == pytest.approx({"quality": 1 / 8, "native": 1 / 0.6}, rel=1e-3)


def test_new_weights_are_half_and_one():
    weigh = UncertaintyWeights(["a"], ["b"])
    losses = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(3.0, requires_grad=True)}
    total = weigh(losses)
    total.backward()
    assert total.item() == pytest.approx(4)
    assert (losses["a"].grad.item(), losses["b"].grad.item()) == (0.5, 1.0)
    assert weigh.log_variances["a"].grad.item() == pytest.approx(-0.5)
    assert weigh.log_variances["b"].grad.item() == pytest.approx(-2.5)
    assert weigh({"b": torch.tensor(3.0)}).item() == pytest.approx(3)


def test_log_variances_are_bounded_and_come_back():
    weigh = UncertaintyWeights(["a"])
    optimiser = torch.optim.SGD(weigh.parameters(), lr=1.0)

    def step(loss):
        optimiser.zero_grad()
        value = weigh({"a": torch.tensor(loss)})
        value.backward()
        optimiser.step()
        return value.item()

    values = [step(0.0) for _ in range(30)]
    assert values[-1] == pytest.approx(-2.5) and weigh.weights()["a"] == pytest.approx(0.5 * math.exp(5))
    assert weigh.log_variances["a"].item() > -6  # stopped, not running away behind the clamp
    step(1.0)
    assert weigh.log_variances["a"].item() > -5


def test_a_restorers_step_does_not_teach_the_log_variances():
    weigh = UncertaintyWeights(["a"])
    loss = torch.tensor(2.0, requires_grad=True)
    weigh({"a": loss}, learn=False).backward()
    assert weigh.log_variances["a"].grad is None and loss.grad.item() == 0.5


def test_what_uncertainty_weights_refuse():
    weigh = UncertaintyWeights(["quality"], ["native"])
    with pytest.raises(ConfigError) as caught:
        weigh({"qualty": torch.tensor(1.0), "native": torch.ones(2)})
    assert len(caught.value.problems) == 2
    assert "did you mean 'quality'" in str(caught.value) and "must be a scalar" in str(caught.value)
    with pytest.raises(ConfigError, match="at least one"):
        weigh({})
    for wrong, told in ((["a", "a"], "twice"), (["a.b"], "cannot be called"), ([], "at least one")):
        with pytest.raises(ConfigError, match=told):
            UncertaintyWeights(wrong)


# positive and unlabelled


@pytest.mark.parametrize("decision", ["entropy", "nearest"])
def test_undecided_logits_cost_ln_2_each(decision):
    parts = pu_losses(torch.zeros(4), torch.zeros(6), decision=decision)
    assert [part.item() for part in parts] == pytest.approx([LN2] * 3)
    assert pu_loss(torch.zeros(4), torch.zeros(6), decision=decision).item() == pytest.approx(3 * LN2)
    weighed = pu_loss(torch.zeros(4), torch.zeros(6), weights=(1, 2, 0.5), decision=decision)
    assert weighed.item() == pytest.approx(3.5 * LN2)


def test_parts_by_their_formulas():
    labelled, unlabelled = torch.randn(5, dtype=torch.float64), 2 * torch.randn(7, dtype=torch.float64)
    h, u = torch.sigmoid(labelled), torch.sigmoid(unlabelled)
    entropy = -(u * u.log() + (1 - u) * (1 - u).log()).mean()
    nearest = torch.minimum(-u.log(), -(1 - u).log()).mean()
    expected = [-h.log().mean().item(), entropy.item(), -(1 - u.min()).log().item()]
    assert [part.item() for part in pu_losses(labelled, unlabelled)] == pytest.approx(expected)
    assert pu_losses(labelled, unlabelled, decision="nearest").unlabelled.item() == pytest.approx(nearest.item())


def test_the_negative_part_condemns_exactly_one_image():
    for logits in (torch.zeros(6), torch.tensor([2.0, -1.0, 0.5, -1.0])):
        u = logits.clone().requires_grad_()
        pu_losses(torch.zeros(2), u).negative.backward()
        assert u.grad.count_nonzero() == 1
        assert u.grad[logits.argmin()].item() == pytest.approx(torch.sigmoid(logits.min()).item())


@pytest.mark.parametrize("decision", ["entropy", "nearest"])
def test_sure_logits_are_finite(decision):
    for dtype in (torch.float32, torch.float16):
        labelled = torch.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
        unlabelled = torch.tensor([-1e4, 1e4, 2e4], dtype=dtype, requires_grad=True)
        parts = pu_losses(labelled, unlabelled, decision=decision)
        sum(parts).backward()
        assert parts.positive.item() == pytest.approx(5e3) and parts.positive.dtype == torch.float32
        assert parts.unlabelled.item() == 0 and parts.negative.item() == 0
        assert torch.isfinite(labelled.grad).all() and torch.isfinite(unlabelled.grad).all()
    all_positive = pu_losses(torch.zeros(1), torch.tensor([1e4, 2e4]), decision=decision)
    assert all_positive.negative.item() == pytest.approx(1e4)


def test_a_batch_without_one_kind():
    some = torch.randn(3, requires_grad=True)
    none = torch.zeros(0, requires_grad=True)
    assert pu_losses(some, none).unlabelled.item() == 0 and pu_losses(none, some).positive.item() == 0
    (pu_loss(some, none) + pu_loss(none, some) + pu_loss(none, none)).backward()
    assert torch.isfinite(some.grad).all()


def test_a_classifier_learns_which_images_are_outliers():
    generator = torch.Generator().manual_seed(0)
    labelled = torch.randn(64, 2, generator=generator) + 2
    alike = torch.randn(48, 2, generator=generator) + 2
    outliers = torch.randn(16, 2, generator=generator) - 2
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        pu_loss(net(labelled), net(torch.cat([alike, outliers]))).backward()
        optimiser.step()
    assert (net(alike) > 0).float().mean() > 0.9 and (net(outliers) < 0).float().mean() > 0.9


# pseudo-labels


def test_the_gate():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    labels = torch.tensor([0.0, 0.0, 0.0, 0.0], requires_grad=True)
    logits = torch.tensor([1.0, -1.0, 2.0, 0.0], requires_grad=True)
    loss = pseudo_label_loss(scores, labels, logits)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 9) / 2)
    assert scores.grad.tolist() == [1, 0, 3, 0]
    assert labels.grad is None and logits.grad is None
    # rejected images might as well not be there, whatever their scores are
    assert pseudo_label_loss(scores[[0, 2]], labels[[0, 2]], logits[[0, 2]]).item() == loss.item()
    assert pseudo_label_loss(torch.tensor([1.0, math.inf]), torch.zeros(2), torch.tensor([1.0, -1.0])).item() == 1
    assert pseudo_label_loss(scores, labels, logits, threshold=0.8).item() == pytest.approx(9)
    none = pseudo_label_loss(scores, labels, torch.full((4,), -1.0))
    scores.grad = None
    none.backward()
    assert none.item() == 0 and scores.grad.eq(0).all()


def test_no_pseudo_label_above_the_score_of_the_reference():
    scores, logits = torch.zeros(3), torch.ones(3)
    labels = torch.tensor([1.0, 5.0, 3.0])
    assert pseudo_label_loss(scores, labels, logits, cap=3.0).item() == pytest.approx((1 + 9 + 9) / 3)
    each = pseudo_label_loss(scores, labels, logits, cap=torch.tensor([2.0, 4.0, 1.0], requires_grad=True))
    assert each.item() == pytest.approx((1 + 16 + 1) / 3) and not each.requires_grad
    with pytest.raises(InputError, match="one number or as many as labels"):
        pseudo_label_loss(scores, labels, logits, cap=torch.ones(2))
    store = PseudoLabels(0.5)
    assert store.update(["a", "b"], torch.tensor([9.0, 1.0]), cap=4.0).tolist() == [4, 1]
    assert store.update(["a", "b"], torch.tensor([9.0, 9.0]), cap=torch.tensor([6.0, 6.0])).tolist() == [6, 5]
    # the critic moved, the references fell, and so do labels that stand above
    assert store.update(["a"], torch.tensor([6.0]), cap=2.0).tolist() == [2]
    assert store.labels(["b", "a"]).tolist() == [5, 2]


def test_moving_averages():
    store = PseudoLabels(0.95)
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    assert store.update(["a", "b"], scores).tolist() == [1, 2]
    found = store.update(["b", "c"], torch.tensor([4.0, 7.0]))
    assert found.tolist() == pytest.approx([0.95 * 2 + 0.05 * 4, 7])
    assert not found.requires_grad and len(store) == 3 and "c" in store and "d" not in store
    for _ in range(300):
        last = store.update(["a"], torch.tensor([3.0]))
    assert last.item() == pytest.approx(3, abs=1e-5)


def test_a_store_goes_through_a_file():
    store = PseudoLabels(0.9)
    store.update(["a/1.png", "b"], torch.tensor([0.1, -3.0], dtype=torch.float64))
    file = io.BytesIO()
    torch.save(store.state_dict(), file)
    file.seek(0)
    other = PseudoLabels()
    other.update(["old"], torch.ones(1))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.momentum == 0.9 and "old" not in other
    again = torch.tensor([5.0, 5.0], dtype=torch.float64)
    assert torch.equal(other.update(["b", "a/1.png"], again), store.update(["b", "a/1.png"], again))
    with pytest.raises(ConfigError, match="expected labels, momentum, samples"):
        other.load_state_dict({"labels": torch.ones(1)})


def test_what_a_store_refuses_changes_nothing():
    store = PseudoLabels()
    store.update(["a"], torch.ones(1))
    for samples, scores, cap, told in (
        (["a", "b"], torch.ones(1), None, "2 names"),
        (["a", "a"], torch.ones(2), None, "1 different"),
        (["a", "b"], torch.tensor([2.0, math.nan]), None, "not those of b"),
        (["a", "b"], torch.tensor([2.0, math.inf]), 1.0, "not those of b"),
        (["a", "b"], torch.ones(2), torch.tensor([math.nan, 1]), "not those of a"),
        (["a"], torch.ones(1, 1), None, r"list of numbers \(N,\)"),
    ):
        with pytest.raises(InputError, match=told):
            store.update(samples, scores, cap)
    assert len(store) == 1 and store.labels(["a"]).item() == 1
    with pytest.raises(InputError, match="no pseudo-label yet for b"):
        store.labels(["a", "b"])
    with pytest.raises(ConfigError, match="momentum"):
        PseudoLabels(1.0)


def test_ramp():
    assert [ramp(step, 100) for step in (0, 15, 30, 90)] == pytest.approx([0, 0.5, 1, 1])
    assert ramp(5, 10, share=1.0) == 0.5
    with pytest.raises(ConfigError, match="step >= 0"):
        ramp(-1, 10)


def test_unequal_lists_and_unknown_options():
    with pytest.raises(InputError, match="2 scores, 3 labels and 2 logits"):
        pseudo_label_loss(torch.ones(2), torch.ones(3), torch.ones(2))
    with pytest.raises(ConfigError, match="threshold"):
        pseudo_label_loss(torch.ones(2), torch.ones(2), torch.ones(2), threshold=1.0)
    with pytest.raises(ConfigError, match="'entropy' or 'nearest'"):
        pu_loss(torch.ones(2), torch.ones(2), decision="both")
    with pytest.raises(InputError, match="labelled_logits"):
        pu_loss(torch.ones(2, 1), torch.ones(2))
