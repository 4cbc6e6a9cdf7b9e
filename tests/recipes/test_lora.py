"""Networks that learn by additions of low rank."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import recipe_helpers  # noqa: F401 - puts the recipes on the path
import sr
import torch
from _lib.critics import settle_budget
from _lib.lora import add_lora, merged
from safetensors.torch import load_file
from torch import nn

from perceptloss.errors import ConfigError

pytestmark = pytest.mark.usefixtures("in_process")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(96, 2))


def test_merged_weights_do_what_the_additions_do() -> None:
    pytest.importorskip("peft")
    x, plain, adapted = torch.rand(2, 3, 6, 6), network(), network()
    add_lora(adapted, 2)
    torch.testing.assert_close(adapted(x), plain(x), rtol=0, atol=0)  # nothing is added at first
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in adapted.named_parameters() if ".lora_" in name} and len(learning) == 4
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    state = merged(adapted.state_dict())
    assert list(state) == list(plain.state_dict())
    assert torch.equal(state["1.weight"], plain.state_dict()["1.weight"])  # of groups: as it was
    plain.load_state_dict(state)
    assert (adapted(x) - network()(x)).abs().max() > 0.1
    torch.testing.assert_close(plain(x), adapted(x), rtol=1e-5, atol=1e-5)


def test_a_state_without_additions_is_left_as_it_is() -> None:
    state = network().state_dict()
    assert merged(state).keys() == state.keys()


def test_what_cannot_be_added_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="linear layers and convolutions; ReLU has none"):
        add_lora(nn.ReLU(), 2)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install \"perceptloss\[lora\]\""):
        add_lora(network(), 2)


def test_a_run_delivers_weights_of_the_plain_network(tiny: list[str], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    first = [*tiny, "--baseline", "false", "--train.steps", "4", "--loss.critics", "{}"]
    sr.main([*first, "--output", str(tmp_path / "start")])
    start = tmp_path / "start" / "models" / "net_g.safetensors"
    second = [
        *tiny,
        "--baseline",
        "false",
        "--train.steps",
        "4",
        "--train.lr",
        "0.1",
        "--output",
        str(tmp_path / "run"),
    ]
    with pytest.raises(ConfigError, match=r"model\.lora adds to the weights of a start"):
        sr.main([*second, "--model.lora", "2"])
    sr.main([*second, "--model.lora", "2", "--model.weights", str(start), "--loss.budget", "{psnr: -0.5}"])
    before, after = load_file(start), load_file(tmp_path / "run" / "models" / "net_g_ema.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.endswith("weight") for name in moved)
    for name in moved:
        assert torch.linalg.matrix_rank((after[name] - before[name]).flatten(1), rtol=1e-3) <= 2


def test_half_of_the_way_is_half_of_what_was_added() -> None:
    pytest.importorskip("peft")
    plain, end = nn.Conv2d(2, 4, 1), nn.Sequential(nn.Conv2d(2, 4, 1))
    end[0].load_state_dict(plain.state_dict())
    add_lora(end, 1)
    with torch.no_grad():
        end[0].lora_B["default"].weight.fill_(1.0)
    added = merged(end.state_dict())["0.weight"] - plain.weight

    def build() -> nn.Module:
        start = nn.Sequential(nn.Conv2d(2, 4, 1))
        start[0].load_state_dict(plain.state_dict())
        add_lora(start, 1)  # its factors that start at random are others
        return start

    def spent(change: dict[str, float]) -> float:
        return change["norm"] / float(added.norm()) * 2

    def scores(network: nn.Module, device: object) -> dict[str, float]:
        return {"norm": float((merged(network.state_dict())["0.weight"] - plain.weight).detach().norm())}

    budget = SimpleNamespace(spent_of=spent, spent=0.0, near=0.1)
    run = SimpleNamespace(
        loss=SimpleNamespace(budget=budget),
        accelerator=SimpleNamespace(unwrap_model=lambda network: network, device="cpu", is_main_process=False),
        network=end,
        ema=None,
        strips=SimpleNamespace(scores=scores),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("_lib.critics.loop", SimpleNamespace(averaged=nullcontext, write=lambda *_: None))
        settle_budget(run, build)
    assert run.kept == pytest.approx(0.5, abs=0.05)
