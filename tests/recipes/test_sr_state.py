"""What survives an interruption."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import recipe_helpers  # noqa: F401 - puts the recipes on the path
import torch
from _lib.critics import keeps_budget
from accelerate import Accelerator
from torch import nn

from perceptloss.errors import PerceptlossError
from perceptloss.loss.budget import Budget
from perceptloss.runs.state import Ema, RunLog, StopSignal, checkpoints, load_checkpoint, read_progress, save_checkpoint

pytestmark = pytest.mark.usefixtures("in_process")


def trained() -> tuple[Accelerator, nn.Module, torch.optim.Optimizer, Ema]:
    """A network with dropout, after one step."""
    accelerator = Accelerator(cpu=True)
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    network, optimizer = accelerator.prepare(network, torch.optim.AdamW(network.parameters(), 0.1))
    ema = Ema(network.parameters(), 0.5)
    step(network, optimizer, ema, 1)
    return accelerator, network, optimizer, ema


def step(network: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, number: int) -> float:
    """One step on data that come from the global generators."""
    shift = random.random() + float(np.random.rand())
    loss = (network(torch.randn(3, 4)) + shift).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    ema.update(number)
    return loss.item()


def test_a_checkpoint_restores_weights_averages_and_all_random_generators(tmp_path: Path) -> None:
    accelerator, network, optimizer, ema = trained()
    save_checkpoint(accelerator, tmp_path, {"step": 1, "samples": 2}, ema, None, keep=2)
    expected = [step(network, optimizer, ema, n) for n in (2, 3)]
    weights, averages = [p.clone() for p in network.parameters()], [s.clone() for s in ema.shadow]
    accelerator, network, optimizer, ema = trained()
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    load_checkpoint(accelerator, tmp_path / "last", ema, None)
    assert read_progress(tmp_path / "last") == {"step": 1, "samples": 2}
    assert [step(network, optimizer, ema, n) for n in (2, 3)] == expected
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(averages, ema.shadow, strict=True))


@pytest.mark.parametrize("dies_in", ["save_state", "replace"])
def test_an_interrupted_write_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    accelerator, *_, ema = trained()
    save_checkpoint(accelerator, tmp_path, {"step": 1}, ema, None, keep=2)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((accelerator, "save_state", die) if dies_in == "save_state" else (os, "replace", die)))
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(accelerator, tmp_path, {"step": 2}, ema, None, keep=2)
    assert list(tmp_path.glob(".partial_*"))
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000001"]
    assert read_progress(tmp_path / "last") == {"step": 1}
    save_checkpoint(accelerator, tmp_path, {"step": 2}, ema, None, keep=2)
    assert read_progress(tmp_path / "last") == {"step": 2}
    assert not list(tmp_path.glob(".partial_*"))


def test_only_the_newest_stay(tmp_path: Path) -> None:
    accelerator, *_, ema = trained()
    for number in (1, 2, 10):
        save_checkpoint(accelerator, tmp_path, {"step": number}, ema, None, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000002", "step_00000010"]
    assert (tmp_path / "last").resolve().name == "step_00000010"


def test_a_folder_without_progress_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(PerceptlossError, match=r"progress\.json"):
        read_progress(tmp_path)


def test_ema_is_the_average_and_leaves_the_network_alone() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    ema = Ema([weight], 0.25)
    expected = weight.detach().clone()
    for number in (1, 2, 3):
        weight.data += 1
        decay = min(0.25, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weight.detach()
        ema.update(number)
    assert torch.allclose(ema.shadow[0], expected)
    before = weight.detach().clone()
    with ema.swapped_in():
        assert torch.equal(weight, ema.shadow[0])
    assert torch.equal(weight, before)


def test_low_precision_weights_are_averaged_in_fp32() -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    ema = Ema([weight], 0.999)
    weight.data += 1
    for number in range(100_000, 100_003):
        ema.update(number)
    assert ema.shadow[0].dtype == torch.float32
    assert ema.shadow[0].item() == pytest.approx(2 - 0.999**3, abs=1e-6)  # bf16 would not have moved at all


def test_log_forgets_what_came_after_the_checkpoint_and_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = RunLog(path, through=2)
    log.write({"step": 3, "loss": float("nan"), "terms": {"a": {"share": float("inf")}}})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "loss": None, "terms": {"a": {"share": None}}},
    ]


@pytest.mark.parametrize(("spent", "kept"), [(0.4, True), (1.0, True), (1.3, False)])
def test_weights_beyond_a_budget_are_not_the_best(spent: float, kept: bool) -> None:
    budget = Budget({"psnr": -0.5})
    budget.spent = spent
    assert keeps_budget(SimpleNamespace(loss=SimpleNamespace(budget=budget))) is kept
    for loss in (None, SimpleNamespace(budget=None)):
        assert keeps_budget(SimpleNamespace(loss=loss))


def test_first_signal_is_remembered_second_interrupt_kills() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed(Accelerator(cpu=True)) == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
