"""The recipe that teaches critics as a user runs it: launched, stopped, resumed, with one process and with two."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import critic
import pytest
import recipe_helpers
import torch
import yaml
from critic_helpers import CRITIC, PLAN, make_set, tiny
from safetensors.torch import load_file

from perceptloss import create_critic
from perceptloss.errors import ConfigError
from perceptloss.runs.state import StopSignal
from perceptloss.teach.leaks.hashing import LeakError
from perceptloss.teach.run.enlargers import KNOWN
from perceptloss.teach.run.export import STARTING

Launch = Callable[..., "subprocess.Popen[str]"]
ABORT_AT_EXIT = "terminate called without an active exception"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("critic")
    make_set(folder)
    return folder


@pytest.fixture
def write(folder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """A configuration file, as options of the command line."""

    def write(**changed: Any) -> list[str]:
        (tmp_path / "critic.yaml").write_text(yaml.safe_dump(tiny(folder, **changed)))
        return ["--config", str(tmp_path / "critic.yaml")]

    return write


@pytest.fixture
def run_here(write: Callable[..., list[str]], tmp_path: Path, in_process: None) -> Callable[..., Path]:
    def run(name: str, *options: str, **changed: Any) -> Path:
        critic.main([*write(**changed), "--output", str(tmp_path / name), *options])
        return tmp_path / name

    return run


def records(run: Path, kind: str = "train") -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    costs = ("seconds_per_step", "peak_memory_mb", "images_per_step")
    return [{k: v for k, v in line.items() if k not in costs} for line in lines if line["kind"] == kind]


def weights(run: Path, end: str = "_last") -> dict[str, torch.Tensor]:
    return load_file(run / "models" / f"{CRITIC}{end}.safetensors")


@pytest.mark.usefixtures("in_process")
def test_a_run_leaves_weights_figures_and_a_card(
    launch: Launch, write: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*write(), "--output", str(tmp_path / "run"), "--log.trackers", "[tensorboard]"]
    output = launch("critic.py", *options).communicate(timeout=240)[0]
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text())
    exam = results["exams"]["photos"]
    assert (results["num_processes"], results["origin"]["steps"], exam["images"]) == (1, 4, 16)
    assert set(exam["figures"]) == {CRITIC, "ssim"}
    assert exam["unseen_families"] == ["noise"]
    own = exam["figures"][CRITIC]
    assert set(own) >= {"all", "seen", "unseen", "family:noise"}
    assert own["all"]["srcc"]["low"] <= own["all"]["srcc"]["value"] <= own["all"]["srcc"]["high"]
    assert (run / "results.md").read_text() in output
    assert [r["step"] for r in records(run, "val")] == [2, 4]
    best = max(r["exams"]["photos"]["all"]["srcc"]["value"] for r in records(run, "val"))
    assert own["all"]["srcc"]["value"] == pytest.approx(best, abs=1e-6)
    assert set(records(run)[0]["objectives"]) == {"photos/pearson", "photos/order", "photos/identity"}
    file = run / "models" / f"{CRITIC}.safetensors"
    x, y = torch.rand(2, 1, 3, 48, 48)
    assert torch.isfinite(create_critic(CRITIC, weights=file)(x, y)).all()
    card = file.with_suffix(".md").read_text()
    for part in (results["sha256"], "CC0-1.0", "labels, as a teacher", "- everything", "noise", "ssim: teachers"):
        assert part in card, card
    assert "gmsd: labels" in card and f"accelerate launch recipes/critic.py --config {tmp_path}" in card
    assert list((run / "trackers").rglob("events.*"))

    critic.main(options)
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.001 -> 0\.5"):
        critic.main([*options, "--train.lr", "0.5"])
    changed = ["--card.known_failures", "[moonlight]", "--val.peers", "[gmsd]"]
    critic.main([*options, "--evaluate_only", str(file), *changed])
    again = json.loads((run / "results.json").read_text())
    assert again["exams"]["photos"]["figures"][CRITIC] == own
    assert again["origin"] == results["origin"]
    assert set(again["exams"]["photos"]["figures"]) == {CRITIC, "gmsd"}
    assert "- moonlight" in file.with_suffix(".md").read_text()
    elsewhere = tmp_path / "examined" / "there"
    critic.main([*options, "--evaluate_only", str(file), "--output", str(elsewhere)])
    assert json.loads((elsewhere / "results.json").read_text())["exams"]["photos"]["figures"][CRITIC] == own


def test_order_and_attacks_are_examined_beside_targets(
    run_here: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    for i in range(3):
        recipe_helpers.photograph(tmp_path / "unseen" / f"q{i}.png", 50 + i, 60, 66)
    enlarged = {"kind": "enlargers", "photos": [str(tmp_path / "unseen")], "crop": 48, "factors": [2, 4]}
    val = {**tiny(folder)["val"], "sets": [enlarged], "attacks": {"exam": "photos", "limit": 3}, "peers": []}
    run = run_here("run", "--train.steps", "2", "--critic.weights", "default", val=val)
    results = json.loads((run / "results.json").read_text())
    own = results["exams"]["enlargers"]["figures"][CRITIC]
    assert set(own["all"]) == {"levels", *KNOWN} and {"family:factor 2", "family:factor 4"} <= set(own)
    assert own["all"]["nearest below bilinear"]["count"] == 6
    attacks = results["attacks"]
    assert (attacks["exam"], attacks["images"], set(attacks["figures"])) == ("photos", 3, {CRITIC, STARTING})
    assert set(attacks["figures"][CRITIC]) == {"FGSM", "PGD-10", "MI-FGSM"}
    assert "| enlargers, all | nearest below bilinear |" in (run / "results.md").read_text()
    card = (run / "models" / f"{CRITIC}.md").read_text()
    for part in ("### photos", "### enlargers", "## Under attack", "| factor 4 |", "PGD-10", "8/255"):
        assert part in card, card


def test_two_processes_equal_one_with_twice_the_photographs(
    launch: Launch, write: Callable[..., list[str]], run_here: Callable[..., Path], tmp_path: Path, folder: Path
) -> None:
    for attempt in range(2):
        process = launch("critic.py", *write(), "--output", f"two{attempt}", processes=2)
        output = process.communicate(timeout=240)[0]
        if process.returncode == 0 or ABORT_AT_EXIT not in output:  # rare, after the results are written
            break
    two = tmp_path / f"two{attempt}"
    assert (two / "results.json").exists(), output
    source = {**tiny(folder)["data"][0], "contents": 4}
    one = run_here("one", data=[source])
    results = [json.loads((run / "results.json").read_text()) for run in (one, two)]
    assert [r["num_processes"] for r in results] == [1, 2]
    for a, b in zip(records(one), records(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-2)
        assert a["objectives"] == pytest.approx(b["objectives"], rel=2e-3, abs=1e-6)
    figures = [r["exams"]["photos"]["figures"]["ssim"] for r in results]
    for part, wanted in figures[0].items():
        for figure, row in wanted.items():
            close = {k: pytest.approx(v, rel=1e-4) if isinstance(v, float) else v for k, v in row.items()}
            assert figures[1][part][figure] == close, (part, figure)
    assert "--num_processes 2" in results[1]["origin"]["command"]


def test_stopped_and_resumed_equals_uninterrupted(
    run_here: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path
) -> None:
    changed = {
        "balance": "uncertainty",
        "objectives": {"regression": {"head": "monotone"}, "order": 0.5},
        "train": {"steps": 6, "warmup": 1, "lr": 1e-3, "ema": 0.9, "accumulate": 2},
        "card": {"write": False},
    }
    whole = run_here("whole", **changed)
    asked = iter([0, 0, signal.SIGTERM])
    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "agreed", lambda self, accelerator: next(asked))
        with pytest.raises(SystemExit) as caught:
            run_here("cut", **changed)
    assert caught.value.code == 128 + signal.SIGTERM
    cut = run_here("cut", **changed)
    assert records(cut) == records(whole) and len(records(cut)) == 6
    assert records(cut, "val") == records(whole, "val")
    for end in ("", "_last"):
        a, b = weights(whole, end), weights(cut, end)
        assert all(torch.equal(a[key], b[key]) for key in a)
    last = [run / "checkpoints" / "last" / "critics.pt" for run in (whole, cut)]
    a, b = (torch.load(path, weights_only=True) for path in last)
    assert "parts.0_regression.gain" in a
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_bf16_and_channels_last_train_to_about_the_same(run_here: Callable[..., Path]) -> None:
    from accelerate.state import AcceleratorState

    changed = {"card": {"write": False}, "train": {"steps": 2, "warmup": 0, "lr": 1e-4, "ema": 0}}
    full = run_here("full", **changed)
    AcceleratorState._reset_state(True)  # precision is fixed once per process
    try:
        low = run_here("low", "--mixed_precision", "bf16", "--critic.channels_last", "true", **changed)
    finally:
        AcceleratorState._reset_state(True)
    assert records(low)[0]["loss"] != records(full)[0]["loss"]
    assert records(low)[-1]["loss"] == pytest.approx(records(full)[-1]["loss"], rel=0.1)
    assert json.loads((low / "results.json").read_text())["mixed_precision"] == "bf16"


def test_photographs_of_an_exam_are_not_taught_on_in_disguise(
    run_here: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    from PIL import Image, ImageOps

    with Image.open(folder / "photos" / "p3.png") as image:
        (tmp_path / "exam").mkdir()
        ImageOps.mirror(image).resize((90, 82)).save(tmp_path / "exam" / "seems_new.png")
    source = {"kind": "ladders", "photos": [str(folder / "photos")], "crop": 40, "contents": 2, "versions": 1}
    held = {"kind": "ladders", "name": "exam", "photos": [str(tmp_path / "exam")], "crop": 40}
    changed = {"data": [source], "val": {"sets": [held]}, "objectives": {"order": 1}, "card": {"write": False}}
    with pytest.raises(LeakError, match=r"p3\.png = .*seems_new\.png"):
        run_here("run", **changed)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_several_sources_teach_in_one_step_and_build_only_stops_before(
    run_here: Callable[..., Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tiny(folder)["data"][0]
    ladders = {
        "kind": "ladders",
        "photos": [str(folder / "photos")],
        "crop": 40,
        "contents": 1,
        "versions": 1,
        "weight": 0.5,
        "objectives": {"order": {"scale": 0.05}},
    }
    changed = {"data": [first, ladders], "card": {"write": False}, "val": {"look_alikes": []}}
    whole = {**first, **PLAN, "photos": [str(folder / "photos")]}  # reuses the set
    with pytest.raises(LeakError):  # what is held out is trained on by the ladders
        run_here("leak", **{**changed, "data": [whole, ladders]})
    changed["data"] = [{**first, "hold_out": 0}, ladders]
    with pytest.raises(ConfigError, match="there is no exam"):
        run_here("none", **changed)
    changed["data"] = [{**first, "hold_out": 0}, {**ladders, "hold_out": 0.0, "name": "steps"}]
    own = folder / "other"
    if not own.exists():
        from recipe_helpers import photograph

        for i in range(2):
            photograph(own / f"new{i}.png", 50 + i, 60, 70)
    changed["val"] = {"sets": [{**ladders, "name": "held", "photos": [str(own)]}], "best": "held/all/levels"}
    run = run_here("built", "--build_only", "true", **changed)
    assert "exam held: " in capsys.readouterr().out and not (run / "log.jsonl").exists()
    run = run_here("run", **changed)
    assert set(records(run)[0]["objectives"]) == {"photos/pearson", "photos/order", "photos/identity", "steps/order"}
    assert set(json.loads((run / "results.json").read_text())["exams"]) == {"held"}


def test_everything_wrong_with_a_configuration_comes_at_once(run_here: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        run_here(
            "run",
            "--critic.name",
            "mini-ff",
            data=[{"kind": "nothing"}],
            objectives={"pearsn": 1},
            train={"steps": 5, "warmup": 5},
            card={},
        )
    text = str(caught.value)
    for part in ("unknown critic 'mini-ff'", "there is no 'nothing'", "'pearsn'", "train.warmup", "card.licence"):
        assert part in text, text


def test_look_alikes_are_pairs(run_here: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"val\.look_alikes: expected pairs of photographs, \[a, b\], got 'a'"):
        run_here("run", val={"look_alikes": ["a", ["b", "c"]]})


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"objectives": {"pairwise": {"kind": "bc"}}}, "kind: one of hinge, bce, fidelity, got 'bc'"),
        ({"objectives": {"tres": {"consistency": 1.0}}}, "tres: is for critics TReS, not 'lpips-squeeze'"),
        ({"critic": {"name": CRITIC, "tap": "nowhere"}}, "'nowhere' is no tap or module of 'lpips-squeeze'"),
        ({"critic": {"name": CRITIC, "remember": True}}, "the trunk learns"),
    ],
)
def test_build_only_finds_what_the_first_step_would(
    run_here: Callable[..., Path], changed: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        run_here("run", "--build_only", "true", **changed)
