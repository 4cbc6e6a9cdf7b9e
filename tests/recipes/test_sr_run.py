"""The super-resolution recipe as a user runs it: launched, killed, resumed, with one process and with two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import _lib.enlarging
import numpy as np
import pytest
import recipe_helpers
import sr
import torch
from _lib.networks import build_network, load_weights
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from perceptloss.compare import Settings, compare, load_results
from perceptloss.compare.report.timeline import timeline
from perceptloss.errors import ConfigError, NonFiniteLoss
from perceptloss.honesty.reactions import Verdict
from perceptloss.honesty.watch import Watch

Launch = Callable[..., "subprocess.Popen[str]"]
JOINT = "{share: 0.2, weights: null, options: {width: 8}, joint: {lr: 1.0e-3, replay: 0.5, penalty: 1.0e-4}}"
ABORT_AT_EXIT = "terminate called without an active exception"


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def records(folder: Path, kind: str = "train") -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in r.items() if k not in ("seconds_per_step", "peak_memory_mb")}
        for r in lines
        if r["kind"] == kind
    ]


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until the log has a step; a process that ends before fails the test."""
    log = folder / "log.jsonl"
    while not (log.exists() and f'"step": {step},' in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def assert_same_state(one: Path, other: Path) -> None:
    """Network, averages and optimizer, bit for bit."""
    for name in ("model.safetensors", "ema_0.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name
    a, b = (torch.load(p / "optimizer.bin", weights_only=True)["state"] for p in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[i][k], b[i][k]) for i in a for k in a[i])
    assert json.loads((one / "progress.json").read_text()) == json.loads((other / "progress.json").read_text())


@pytest.mark.usefixtures("in_process")
def test_a_run_leaves_everything_and_knows_that_it_is_finished(
    launch: Launch, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        *tiny,
        "--output",
        str(tmp_path / "run"),
        "--train.steps",
        "6",
        "--val.every",
        "3",
        "--log.trackers",
        "[tensorboard]",
    ]
    output = finish(launch("sr.py", *options))
    run = tmp_path / "run"
    results = load_results(run / "results.json")
    assert results.provenance["run"]["num_processes"] == 1
    assert {c.label: c.role for c in results.critics} == {"psnr-y": "judge", "haarpsi": "judge", "gmsd": "train"}
    assert "|y-bt601|fp32|crop:4|" in results.critics[0].signature
    assert (results.systems, results.baseline) == (("bicubic", "l1", "critics"), "l1")
    assert [image.key for image in results.images] == ["held0", "held1", "held2"]
    folders = {name: run / "images" / name for name in results.systems}
    again = compare(
        folders, run / "images" / "ground-truth", ["psnr-y", "haarpsi", "gmsd"], settings=Settings(crop_border=4)
    )
    assert again.values == results.values
    last = records(run, "val")[-1]["scores"]
    means = [cell.mean for cell in results.summary().standings[2].cells]
    assert list(last.values()) == pytest.approx(means, rel=1e-6)
    assert (run / "results.md").read_text() in output
    assert "gmsd ↓†" in output
    for system in ("bicubic", "l1", "critics", "ground-truth"):
        assert Image.open(run / "images" / system / "held2.png").size == (64, 48)
    assert Image.open(run / "picture.png").width > 4 * 48
    page = (run / "report.html").read_text("utf-8")
    assert "Trained and untrained critics" in page and page.count('data-pane="3"') == 3
    assert [r["step"] for r in records(run, "val")] == [3, 6]
    kept = {str(file): load_results(file) for file in sorted((run / "scores").iterdir())}
    course = timeline(kept)
    assert (course.moments, course.unit, len(list((run / "l1" / "scores").iterdir()))) == ((0, 3, 6), "step", 2)
    at_the_end = {column.label: row for column, row in zip(results.critics, results.values[2], strict=True)}
    for column, row in zip(course.results[-1].critics, course.results[-1].values[0], strict=True):
        assert row == pytest.approx(at_the_end[column.label], rel=1e-6)
    term = records(run)[-1]["terms"]["gmsd"]
    assert term["weighted"] == pytest.approx(0.5 * term["loss"])
    assert term["share"] == pytest.approx(1.0)
    assert records(run)[-1]["loss"] == pytest.approx(records(run)[-1]["pixel"] + term["weighted"])
    assert list((run / "trackers").rglob("events.*"))
    sr.main(options)
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.001 -> 0\.5[\s\S]*--overwrite"):
        sr.main([*options, "--train.lr", "0.5"])


@pytest.mark.usefixtures("in_process")
def test_killed_and_resumed_equals_uninterrupted(launch: Launch, tiny: list[str], tmp_path: Path) -> None:
    text = "--baseline false --train.steps 60 --log.checkpoint_every 8 --log.keep 9 --log.every 2"
    critics = f"{{gmsd: {{weight: 0.5, start: 3, ramp: 20, crop: 24}}, patch: {JOINT}}}"
    options = [*tiny, *text.split(), "--loss.critics", critics, "--loss.shift", "4"]
    sr.main([*options, "--output", str(tmp_path / "whole")])
    killed = launch("sr.py", *options, "--output", "cut")
    wait_for_step(tmp_path / "cut", 18, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "cut" / "results.json").exists()
    assert (tmp_path / "cut" / "checkpoints" / "last" / "progress.json").exists()
    output = finish(launch("sr.py", *options, "--output", "cut"))
    assert "going on from" in output
    assert_same_state(tmp_path / "whole" / "checkpoints" / "last", tmp_path / "cut" / "checkpoints" / "last")
    assert records(tmp_path / "whole") == records(tmp_path / "cut")
    assert len(records(tmp_path / "cut")) == 30
    whole, cut = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert whole["values"] == cut["values"]


def test_sigterm_saves_a_checkpoint_and_says_so_by_the_exit_code(
    launch: Launch, tiny: list[str], tmp_path: Path
) -> None:
    options = [
        *tiny,
        "--baseline",
        "false",
        "--train.steps",
        "100000",
        "--log.checkpoint_every",
        "100000",
        "--output",
        "run",
    ]
    process = launch("sr.py", *options)
    wait_for_step(tmp_path / "run", 5, process)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    last = tmp_path / "run" / "checkpoints" / "last"
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:  # the launcher may go before its child has saved
        time.sleep(0.05)
    step = json.loads((last / "progress.json").read_text())["step"]
    assert step >= 5
    assert records(tmp_path / "run")[-1]["step"] == step


@pytest.fixture
def run_here(tiny: list[str], tmp_path: Path, in_process: None) -> Callable[..., Path]:
    def run(name: str, *options: str) -> Path:
        sr.main([*tiny, "--output", str(tmp_path / name), *options])
        return tmp_path / name

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "models" / "net_g.safetensors")


def assert_close(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert all(torch.allclose(a[k], b[k], atol=2e-5) for k in a)
    for x, y in zip(records(one), records(other), strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-3)
        assert x["terms"]["gmsd"]["score"] == pytest.approx(y["terms"]["gmsd"]["score"], rel=1e-4)


def test_two_processes_equal_one_with_twice_the_batch(
    launch: Launch, tiny: list[str], run_here: Callable[..., Path], tmp_path: Path
) -> None:
    options = ["--baseline", "false", "--train.steps", "4", "--val.every", "2", "--log.checkpoint_every", "2"]
    options += ["--loss.critics", f"{{gmsd: 0.5, patch: {JOINT}}}"]
    for attempt in range(2):
        process = launch("sr.py", *tiny, *options, "--output", f"two{attempt}", processes=2)
        output = process.communicate(timeout=240)[0]
        if process.returncode == 0 or ABORT_AT_EXIT not in output:  # rare, after the results are written
            break
    two = tmp_path / f"two{attempt}"
    assert (two / "results.json").exists(), output
    results = load_results(two / "results.json")
    assert results.provenance["run"]["num_processes"] == 2
    assert sorted(p.name for p in (two / "checkpoints" / "last").glob("random_*.pt")) == ["random_0.pt", "random_1.pt"]
    one = run_here("one", *options, "--data.batch", "4")
    assert_close(one, two)
    assert [r["samples"] for r in records(two)] == [4, 8, 12, 16]
    alone = load_results(one / "results.json")
    assert alone.provenance["run"]["num_processes"] == 1
    assert [image.key for image in results.images] == ["held0", "held1", "held2"]  # three images over two processes
    joint = [column.label for column in results.critics].index("patch")  # what learns adds up its own rounding
    assert results.array() == pytest.approx(alone.array(), rel=1e-2)
    assert np.delete(results.array(), joint, 1) == pytest.approx(np.delete(alone.array(), joint, 1), rel=1e-3)
    assert results.provenance["inputs"].keys() == {"bicubic", "critics", "the reference"}
    assert results.provenance["inputs"]["bicubic"]["images"] == 3


def test_a_budget_is_held_or_walked_back_to(run_here: Callable[..., Path]) -> None:
    adamw = ["--train.optimizer", "adamw"]
    start = (
        run_here("start", *adamw, "--loss.critics", "{}", "--train.steps", "60") / "models" / "net_g_ema.safetensors"
    )
    options = [
        *adamw,
        "--baseline",
        "false",
        "--model.weights",
        str(start),
        "--train.steps",
        "60",
        "--loss.budget_every",
        "1000",
    ]
    options += ["--train.lr", "0.2", "--loss.pixel_weight", "0", "--loss.critics", "{tv: 1.0}"]
    run = run_here("run", *options, "--loss.budget", "{psnr: -0.02}")
    (held,) = records(run, "budget")
    assert held["spent"] <= 1.05
    assert held["kept"] < 1  # such steps ruin any network
    before, after, ours = (
        load_file(p) for p in (start, run / "models" / "net_g.safetensors", run / "models" / "net_g_ema.safetensors")
    )
    assert any(not torch.equal(before[k], ours[k]) for k in before)
    assert any(not torch.equal(after[k], ours[k]) for k in before)
    (last,) = records(run, "val")  # of the network that is delivered, after the way back
    results = load_results(run / "results.json")
    means = {
        c.label: m for c, m in zip(results.critics, results.array()[results.systems.index("critics")], strict=True)
    }
    assert last["scores"]["psnr-y"] == pytest.approx(means["psnr-y"].mean(), abs=1e-3)
    text = (run / "results.md").read_text()
    assert "Budget psnr -0.02: held on strips" in text
    (run / "results.json").unlink()  # as if it had been killed after the walk
    assert run_here("run", *options, "--loss.budget", "{psnr: -0.02}") == run
    again = load_file(run / "models" / "net_g_ema.safetensors")
    assert all(torch.equal(again[k], ours[k]) for k in ours)
    with pytest.raises(ConfigError, match=r"loss\.budget is held against the start: give model\.weights"):
        run_here("none", "--loss.budget", "{psnr: -0.1}")


def test_a_resumed_run_goes_on_with_its_budget_and_its_reaction_to_alarms(
    run_here: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def halve(watch: Watch) -> Verdict:
        watch.factor /= 2
        return Verdict(watch.factor, ())

    monkeypatch.setattr(Watch, "react", halve)
    adamw = ["--train.optimizer", "adamw"]
    start = run_here("start", *adamw, "--loss.critics", "{}", "--train.steps", "3") / "models" / "net_g_ema.safetensors"
    text = (
        "--baseline false --train.steps 8 --train.lr 0.05 --loss.budget_every 2 --val.every 3 --log.checkpoint_every 4"
        " --train.optimizer adamw"
    )
    options = [*text.split(), "--model.weights", str(start), "--loss.budget", "{psnr: -0.01}"]
    whole = run_here("whole", *options)
    cut = run_here("cut", *options, "--resume", str(whole / "checkpoints" / "step_00000004"))
    assert records(cut) == records(whole)[4:]
    budgets = [torch.load(run / "checkpoints" / "last" / "critics.pt")["budget"] for run in (whole, cut)]
    assert budgets[0] == budgets[1]
    assert budgets[0]["factor"] < 1
    assert records(cut, "budget") == records(whole, "budget")  # a walk back is taken once


def test_the_best_weights_need_a_judge_that_is_here(run_here: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"val\.best: the weights of 'tres' are not here"):
        run_here("run", "--val.guests", "[tres]", "--val.best", "tres")


def test_one_validation_image_is_enough(run_here: Callable[..., Path], photos: Path) -> None:
    run = run_here("run", "--train.steps", "3", "--val.every", "1", "--data.val", str(photos / "val" / "held0.png"))
    assert len(load_results(run / "results.json").images) == 1


def test_accumulation_equals_the_larger_batch(run_here: Callable[..., Path]) -> None:
    options = ["--baseline", "false", "--train.steps", "4"]
    once = run_here("once", *options, "--data.batch", "4")
    twice = run_here("twice", *options, "--data.batch", "2", "--train.accumulate", "2")
    assert_close(once, twice)


def test_baseline_starts_from_the_same_weights_and_patches(run_here: Callable[..., Path]) -> None:
    run = run_here("run", "--train.steps", "3")
    l1, critics = records(run / "l1")[0], records(run)[0]
    assert l1["pixel"] == critics["pixel"]
    assert l1["terms"] == {}
    assert l1["loss"] != critics["loss"]


def test_weights_load_in_our_way_and_in_basicsrs(run_here: Callable[..., Path]) -> None:
    run = run_here("run", "--baseline", "false", "--train.steps", "3")
    stored = torch.load(run / "models" / "net_g.pth", weights_only=True)
    assert set(stored) == {"params", "params_ema"}
    model = sr.Model(options={"num_feat": 4, "num_conv": 1, "upscale": 4})
    ours, theirs = build_network(model, 8), build_network(replace(model, arch="SRVGGNetCompact"), 8)
    load_weights(ours, run / "models" / "net_g_ema.safetensors")
    theirs.load_state_dict(stored["params_ema"])
    lq = torch.rand(1, 3, 8, 8)
    assert torch.equal(ours(lq), theirs(lq))
    assert not torch.equal(weights(run)["body.0.weight"], stored["params_ema"]["body.0.weight"])
    with safe_open(run / "models" / "net_g.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["arch"], json.loads(metadata["options"])["num_feat"], metadata["step"]) == (
        "Compact",
        4,
        "3",
    )


def test_going_on_from_another_runs_checkpoint(run_here: Callable[..., Path]) -> None:
    first = run_here("first", "--baseline", "false", "--train.steps", "3")
    second = run_here(
        "second", "--baseline", "false", "--train.steps", "5", "--resume", str(first / "checkpoints" / "last")
    )
    assert [r["step"] for r in records(second)] == [4, 5]
    assert [r["samples"] for r in records(second)] == [8, 10]


def test_folders_are_protected(run_here: Callable[..., Path], tmp_path: Path) -> None:
    options = ["--baseline", "false", "--train.steps", "3"]
    run = run_here("run", *options)
    (run / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="other options"):
        run_here("run", *options, "--train.seed", "1")
    (run / "results.json").unlink()
    with pytest.raises(ConfigError, match="--resume none"):
        run_here("run", *options, "--resume", "none")
    before = weights(run)["body.0.weight"]
    run_here("run", *options, "--train.seed", "1", "--overwrite")
    assert not torch.equal(before, weights(run)["body.0.weight"])
    assert (run / "mine.txt").read_text() == "keep"


def test_paired_folders_train(run_here: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    from _lib.data import whole_pair

    from perceptloss.compare.pixels import write_png
    from perceptloss.runs.images import find_pairs

    for part in ("train", "val"):
        for pair in find_pairs([str(photos / part)], [], 4, part):
            write_png(whole_pair(pair, 4)[0], tmp_path / f"{part}_lq" / f"{pair.name}.png")
    options = ["--baseline", "false", "--train.steps", "3"]
    paired = run_here(
        "paired", *options, "--data.train_lq", str(tmp_path / "train_lq"), "--data.val_lq", str(tmp_path / "val_lq")
    )
    assert records(paired)[-1]["loss"] == pytest.approx(records(run_here("made", *options))[-1]["loss"], rel=1e-3)


def test_bad_images_and_shared_images_stop_the_run_before_training(
    run_here: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        recipe_helpers.photograph(tmp_path / "bad" / name, 0, 64, 64)
        (tmp_path / "bad" / name).write_bytes((tmp_path / "bad" / name).read_bytes()[:-300])
    with pytest.raises(ConfigError) as caught:
        run_here("run", "--data.train", f"[{photos / 'train'}, {tmp_path / 'bad'}]")
    assert [Path(p.split(": ")[1]).name for p in caught.value.problems] == ["a.png", "b.png"]
    with pytest.raises(ConfigError, match="trained on and validated on"):
        run_here("run", "--data.train", str(photos / "val"))


@pytest.mark.parametrize("folder", [None, recipe_helpers.RECIPES / "basicsr"], ids=["nothing", "a folder of that name"])
def test_without_basicsr_its_networks_are_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, folder: Path | None
) -> None:
    for name in ("perceptloss.integrations.basicsr", "basicsr.archs", "basicsr.train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = None if folder is None else ModuleType("basicsr")
    if module is not None:
        module.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "basicsr", module)
    build_network(sr.Model(options={"num_feat": 4, "num_conv": 1}), 8)
    with pytest.raises(ConfigError, match=r"'RRDBNet' is not one of ours \([\w, ]+\), and BasicSR could not"):
        build_network(sr.Model(arch="RRDBNet"), 8)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--model.arch", "SRVGGNetCompat"], "did you mean 'SRVGGNetCompact'"),
        (["--model.options", "{num_feet: 4, upscale: 4}"], "has no 'num_feet'; did you mean 'num_feat'"),
        (["--model.scale", "2"], "but model.scale is 2"),
    ],
)
def test_wrong_networks_are_explained(run_here: Callable[..., Path], options: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        run_here("run", "--train.steps", "3", *options)


def test_bf16_trains_and_its_losses_are_fp32(run_here: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import AcceleratorState

    seen: list[torch.dtype] = []
    l1_loss = torch.nn.functional.l1_loss
    monkeypatch.setattr(torch.nn.functional, "l1_loss", lambda x, y: (seen.append(x.dtype), l1_loss(x, y))[1])
    AcceleratorState._reset_state(True)  # precision is fixed once per process
    try:
        low = run_here("low", "--baseline", "false", "--train.steps", "3", "--mixed_precision", "bf16")
    finally:
        AcceleratorState._reset_state(True)
    full = run_here("full", "--baseline", "false", "--train.steps", "3")
    assert set(seen) == {torch.float32}
    assert load_results(low / "results.json").provenance["run"]["mixed_precision"] == "bf16"
    assert records(low)[0]["loss"] != records(full)[0]["loss"]
    assert records(low)[-1]["loss"] == pytest.approx(records(full)[-1]["loss"], rel=0.02)


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_steps_with_a_gradient_that_is_not_finite(
    run_here: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    build = _lib.enlarging.build_network

    def poisoned(*args: object) -> torch.nn.Module:
        network, calls = build(*args), [0]

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            return gradient * float("nan") if calls[0] == 2 else gradient

        next(network.parameters()).register_hook(spoil)
        return network

    monkeypatch.setattr(_lib.enlarging, "build_network", poisoned)
    options = ["--baseline", "false", "--train.steps", "4", "--loss.on_nonfinite", policy]
    if policy == "raise":
        with pytest.raises(NonFiniteLoss, match="step 2"):
            run_here("run", *options)
        return
    run = run_here("run", *options)
    assert [r["skipped_steps"] for r in records(run)] == [0, 1, 1, 1]
    assert all(torch.isfinite(w).all() for w in weights(run).values())


def test_pictures_of_windowed_networks_are_padded_and_cut() -> None:
    from _lib.networks import restore

    sizes: list[torch.Size] = []

    def network(lq: torch.Tensor) -> torch.Tensor:
        sizes.append(lq.shape)
        return lq.repeat_interleave(2, -1).repeat_interleave(2, -2)

    lq = torch.rand(3, 13, 9)
    assert torch.equal(restore(network, lq, 2, 8), lq.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert sizes == [(1, 3, 16, 16)]


def test_artefacts_are_weighed_beside_what_the_average_restores(run_here: Callable[..., Path]) -> None:
    losses = {}
    for name, weight, ema in (("plain", 0, 0.9), ("weighed", 1000, 0.9), ("alone", 1000, 0)):
        flags = [f"--loss.artefacts={weight}", f"--train.ema={ema}", "--train.steps=3", "--baseline=false"]
        losses[name] = [row["loss"] for row in records(run_here(name, *flags))]
    assert losses["weighed"][0] > losses["plain"][0]
    assert losses["alone"][1] > losses["weighed"][1], "without an average no pixel is spared"
    assert np.isfinite(losses["weighed"]).all()
