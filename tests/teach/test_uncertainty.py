"""Losses weighed by uncertainties that are learned."""

from __future__ import annotations

import math

import pytest
import torch

from perceptloss.errors import ConfigError
from perceptloss.teach.objectives.balance import UncertaintyWeights


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
    assert values[-1] == pytest.approx(-2.5)
    assert weigh.log_variances["a"].item() > -6  # stopped, not running away behind the clamp
    step(1.0)
    assert weigh.log_variances["a"].item() > -5


def test_what_uncertainty_weights_refuse():
    for wrong, told in ((["a", "a"], "twice"), (["a.b"], "cannot be called"), ([], "at least one")):
        with pytest.raises(ConfigError, match=told):
            UncertaintyWeights(wrong)
