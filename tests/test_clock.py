"""In which step a loss is that nobody tells: with accumulation, recomputation, several optimizers, after resuming."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
import toys
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from toys import MODES, flat, term

from perceptloss import CriticLoss
from perceptloss.errors import InputError


def late(start: int = 2, **options: object) -> CriticLoss:
    return CriticLoss([term(toys.difference(), start=start)], **options)


class Net(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


def weights(loss_fn: CriticLoss, net: nn.Module, optimizer: torch.optim.Optimizer, micro: int, steps: int = 4) -> list:
    """Weight of the term in each micro-batch of each step."""
    seen = []
    for _ in range(steps):
        for _ in range(micro):
            (loss_fn(net(flat(0.5)), flat(0.25)) / micro).backward()
            seen.append(loss_fn.report["difference"]["weight"])
        optimizer.step()
    return seen


@pytest.mark.parametrize("grad", MODES)
@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_are_of_one_step(grad, micro):
    net, loss_fn = Net(), late(grad=grad)
    seen = weights(loss_fn, net, torch.optim.Adam(net.parameters()), micro)
    assert seen == [0.0] * 2 * micro + [1.0] * 2 * micro
    assert loss_fn.step == 4


def test_micro_batches_before_a_closure():
    """As Lightning does it: the last micro-batch of a step runs inside `optimizer.step`."""
    net, loss_fn = Net(), late()
    optimizer, seen = torch.optim.Adam(net.parameters()), []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn(net(flat(0.5)), flat(0.25)) / 2
        loss.backward()
        seen.append(loss_fn.report["difference"]["weight"])
        return loss

    for _ in range(4):
        closure()
        optimizer.step(closure)
    assert seen == [0.0] * 4 + [1.0] * 4


def test_an_optimizer_that_comes_late_ends_the_first_step():
    """Backward passes are counted until one is seen to update."""
    loss_fn, leaf = late(start=100), nn.Parameter(flat(0.5))
    for _ in range(4):
        loss_fn(leaf, flat(0.25)).backward()
    assert loss_fn.step == 4
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1).step()
    assert loss_fn.step == 1


def test_only_the_optimizer_of_what_it_trains_counts():
    net, other, loss_fn = Net(), Net(), late()
    mine, foreign = (torch.optim.SGD(module.parameters(), 0.1) for module in (net, other))
    for step in range(3):
        assert loss_fn.step == step
        loss_fn(net(flat(0.5)), flat(0.25)).backward()
        foreign.step()
        foreign.step()
        assert loss_fn.step == step
        mine.step()
        mine.step()


def test_without_an_optimizer_a_backward_is_a_step():
    loss_fn, x = late(), flat(0.5).requires_grad_()
    values = [loss_fn(x, flat(0.25)) for _ in range(2)]
    assert loss_fn.step == 0, "a forward alone is none"
    sum(values).backward()
    assert loss_fn.step == 1, "and several forwards of one backward are one"


@pytest.mark.parametrize("grad", MODES)
@pytest.mark.parametrize("with_optimizer", [False, True])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_is_recomputed_repeats_its_step(grad, with_optimizer, use_reentrant):
    torch.manual_seed(0)
    net, y = Net(), torch.rand(1, 3, 40, 40)
    images = [torch.rand(1, 3, 40, 40, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD(net.parameters(), 0.0) if with_optimizer else None
    gradients = []
    for again in (False, True):
        loss_fn = CriticLoss([term(toys.difference(), crop=8)], grad=grad, share_every=0)
        for _ in range(3):
            net.zero_grad()

            def part(x: Tensor, loss_fn: CriticLoss = loss_fn) -> Tensor:
                return loss_fn(net(x), y)

            total = sum(checkpoint(part, x, use_reentrant=use_reentrant) if again else part(x) for x in images)
            total.backward()
            gradients.append(net.weight.grad.clone())
            if optimizer is not None:
                optimizer.step()
        assert loss_fn.step == 3
    for plain, repeated in zip(gradients[:3], gradients[3:], strict=True):
        torch.testing.assert_close(repeated, plain)
    assert not torch.equal(gradients[0], gradients[1]), "another step looks elsewhere"


def test_a_told_step_wins():
    net, loss_fn = Net(), late()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss_fn(net(flat(0.5)), flat(0.25), step=7).backward()
    optimizer.step()
    assert loss_fn.step == 8
    loss_fn.value_and_gradient(flat(0.5), flat(0.25), step=11)
    assert loss_fn.step == 12


def test_copies_count_for_themselves():
    net, loss_fn = Net(), late()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    weights(loss_fn, net, optimizer, 1, steps=2)
    twin = copy.deepcopy(loss_fn)
    weights(twin, net, optimizer, 2, steps=1)
    assert (twin.step, loss_fn.step) == (3, 2)
    stored = CriticLoss({"gmsd": {"weight": 1.0, "start": 2}})
    stored.step = 7
    assert pickle.loads(pickle.dumps(stored)).step == 7


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adagrad])
@pytest.mark.parametrize("cure", [None, "state", "step", "no schedule", "fresh"])
def test_a_schedule_that_begins_again_is_said(kind, cure, caplog):
    net = Net()
    first = kind(net.parameters())
    past = late()
    weights(past, net, first, 1)
    optimizer, loss_fn = kind(net.parameters()), late(start=0 if cure == "no schedule" else 2)
    if cure != "fresh":
        optimizer.load_state_dict(first.state_dict())
    if cure == "state":
        loss_fn.load_state(past.state())
    caplog.set_level(logging.WARNING, "perceptloss")
    for step in range(4, 6):
        loss_fn(net(flat(0.5)), flat(0.25), step=step if cure == "step" else None).backward()
        optimizer.step()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (cure is None)
    assert cure or "the schedule of difference began again at step 0" in said[0]


def test_a_schedule_that_stands_still_is_said(caplog, monkeypatch):
    monkeypatch.setattr("perceptloss.loss.clock._PATIENCE", 3)
    net, loss_fn = Net(), late()
    kept = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(5):
        loss_fn(net(flat(0.5)), flat(0.25)).backward()
    assert [record.getMessage()[:40] for record in caplog.records] == ["no optimizer step was seen in 3 backward"]
    del kept


def test_a_later_optimizer_of_the_same_net_goes_on_counting():
    net, loss_fn = Net(), late()
    for kind in (torch.optim.Adam, torch.optim.SGD):
        kept = kind(net.parameters())  # the earlier one stays alive
        weights(loss_fn, net, kept, 2, steps=3)
    loss_fn(net(flat(0.5)), flat(0.25))
    assert loss_fn.step == 6


def test_a_resumed_optimizer_whose_closure_calls_the_loss_is_noticed(caplog):
    """As Lightning and LBFGS step; an earlier loss of the process, whose optimizer is gone, is none of its business."""
    net, past = Net(), late()
    optimizer = torch.optim.Adam(net.parameters())
    weights(past, net, optimizer, 1)
    state = optimizer.state_dict()
    optimizer, loss_fn = torch.optim.Adam(net.parameters()), late()
    optimizer.load_state_dict(state)

    def closure() -> Tensor:
        loss = loss_fn(net(flat(0.5)), flat(0.25))
        loss.backward()
        return loss

    caplog.set_level(logging.WARNING, "perceptloss")
    for _ in range(2):
        optimizer.step(closure)
    assert len(caplog.records) == 1
    assert loss_fn.step == 2


class Peculiar(torch.optim.Optimizer):
    """Keeps settings and empty buffers in its state from the beginning."""

    def __init__(self, parameters) -> None:
        parameters = list(parameters)
        super().__init__(parameters, {})
        self.state["rule"] = 3
        for parameter in parameters:
            self.state[parameter]["buffer"] = torch.zeros_like(parameter)

    def step(self, closure=None) -> None:
        pass


def test_any_state_of_an_optimizer_is_read(caplog):
    net, loss_fn = Net(), late()
    weights(loss_fn, net, Peculiar(net.parameters()), 1, steps=2)
    assert loss_fn.step == 2
    assert not caplog.records


def test_an_evaluation_at_a_told_step_does_not_move_what_is_recomputed():
    net, y, x = Net(), torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)
    gradients = []
    for is_evaluated in (False, True):
        net.zero_grad()
        loss_fn = CriticLoss([term(toys.difference(), crop=8)])
        loss = checkpoint(lambda x, loss_fn=loss_fn: loss_fn(net(x), y), x, use_reentrant=False)
        if is_evaluated:
            with torch.no_grad():
                loss_fn(x, y, step=500)
        loss.backward()
        gradients.append(net.weight.grad.clone())
    assert torch.equal(*gradients)


def test_steps_are_whole_numbers_of_any_library():
    loss_fn, x = CriticLoss([term(toys.difference(), crop=4, start=2, ramp=4)]), torch.rand(1, 3, 16, 16)
    values = {float(loss_fn(x, 1 - x, step=step)) for step in (3, np.int64(3), torch.tensor(3))}
    assert len(values) == 1
    for wrong in (3.0, "3", -1, torch.tensor(2.5)):
        with pytest.raises(InputError, match="a step is a whole number of at least 0, got"):
            loss_fn(x, x, step=wrong)
