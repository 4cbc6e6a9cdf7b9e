"""Muon beside AdamW: what its steps are, what it keeps, and that it learns."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from torch import nn

from perceptloss.runs.launch import sharding_problems
from perceptloss.runs.optimizers import Muon, make_optimizer
from perceptloss.runs.options import Train


def a_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 24, 3))


def push(network, seed=1):
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)


def test_a_step_of_a_matrix_is_orthogonal_and_as_long_as_adams():
    network = a_network()
    before = copy.deepcopy(network)
    push(network)
    Muon(network.parameters(), lr=0.01).step()
    for new, old in zip(network.parameters(), before.parameters(), strict=True):
        if new.ndim > 1:
            step = (old - new).detach().flatten(1)
            values = torch.linalg.svdvals(step) / (0.01 * 0.2 * max(step.shape) ** 0.5)
            assert values.min() > 0.6 and values.max() < 1.3
            assert step.square().mean().sqrt() == pytest.approx(0.01 * 0.2, rel=0.25)


def test_the_steps_of_all_else_are_those_of_adamw():
    network, twin = a_network(), a_network()
    options = {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1}
    pairs = (network, Muon(network.parameters(), **options)), (twin, torch.optim.AdamW(twin.parameters(), **options))
    for seed in range(5):
        for owner, optimizer in pairs:
            push(owner, seed)
            optimizer.step()
    for name, parameter in network.named_parameters():
        same = torch.allclose(parameter, dict(twin.named_parameters())[name], rtol=1e-5, atol=1e-7)
        assert same is (parameter.ndim == 1), name


def test_it_goes_on_where_it_stopped_to_the_bit():
    network = a_network()
    optimizer = Muon(network.parameters(), lr=0.01)
    push(network)
    optimizer.step()
    twin = copy.deepcopy(network)
    resumed = Muon(twin.parameters(), lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for owner, each in ((network, optimizer), (twin, resumed)):
        push(owner, 2)
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_directions_that_the_gradient_hardly_sees_are_learned_as_fast():
    torch.manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(12, 12))
    seen, wanted = torch.randn(64, 12) * torch.logspace(0, -2, 12) @ turned, torch.randn(6, 12)
    left = {}
    for name in ("adamw", "muon"):
        weights = nn.Parameter(torch.zeros(6, 12))
        optimizer = make_optimizer([weights], Train(optimizer=name))
        for step in range(300):
            optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 300)
            optimizer.zero_grad()
            ((weights - wanted) @ seen.T).square().mean().backward()
            optimizer.step()
        left[name] = (weights - wanted).norm().item()
    assert left["muon"] < 0.25 * left["adamw"], left


def test_what_has_no_gradient_stays():
    network = a_network()
    before = copy.deepcopy(network.state_dict())
    Muon(network.parameters(), lr=0.1, weight_decay=0.5).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    nn.init.ones_(network[0].weight)
    network[0].weight.grad = torch.zeros_like(network[0].weight)
    Muon(network.parameters(), lr=0.1).step()
    assert torch.equal(network[0].weight, torch.ones_like(network[0].weight))


def test_a_closure_is_called_with_gradients():
    weights = nn.Parameter(torch.ones(2, 2))

    def closure():
        loss = weights.sum()
        loss.backward()
        return loss

    assert Muon([weights], lr=0.1).step(closure).item() == 4.0
    assert (weights < 1).all()


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_processes_that_keep_parts_of_matrices_are_refused(kind):
    sharded = SimpleNamespace(distributed_type=kind)
    [problem] = sharding_problems(sharded, Train(optimizer="muon", ema=0.0), has_baseline=False)
    assert problem.startswith("train.optimizer") and kind.value in problem and "adamw" in problem
    assert sharding_problems(sharded, Train(ema=0.0), has_baseline=False) == []
