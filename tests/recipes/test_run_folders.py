"""The folder of a run: one run at a time, damaged checkpoints, changed data, and links."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import recipe_helpers
import sr
from test_sr_run import assert_same_state, records

from perceptloss.errors import ConfigError
from perceptloss.output import locks
from perceptloss.output.locks import give_back, hold
from perceptloss.runs.launch import alone_in_folder, claim, resume_point
from perceptloss.runs.options import RunOptions
from perceptloss.runs.whole import damage, seal

Run = Callable[..., Path]
SHORT = ("--baseline", "false", "--log.checkpoint_every", "2", "--log.keep", "2")
_HOLD = "import sys, time; from pathlib import Path; from perceptloss.output.locks import hold; "
_HOLD += "print(hold(Path(sys.argv[1])), flush=True); time.sleep(60)"


@pytest.fixture
def run_here(tiny: list[str], tmp_path: Path, in_process: None) -> Run:
    """Run the recipe in this process; the folder of the run."""

    def run(name: str, *args: str) -> Path:
        sr.main([*tiny, "--output", str(tmp_path / name), *SHORT, *args])
        return tmp_path / name

    return run


def interrupted(run: Path) -> Path:
    """As if the run had ended after its last checkpoint but one."""
    for name in ("results.json", "models"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    return run


def test_a_folder_has_one_run_at_a_time_and_is_free_once_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    config = RunOptions(output=str(tmp_path))
    other = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], text=True, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == "True\n"
    try:
        with pytest.raises(ConfigError, match="another run is at work there: wait for its end"):
            claim(config, tmp_path)
    finally:
        other.kill()
        other.wait()
    assert hold(tmp_path) and hold(tmp_path)

    @alone_in_folder
    def main(argv: Sequence[str]) -> None:
        claim(config, tmp_path)

    main([])
    assert (
        subprocess.run(
            [sys.executable, "-c", _HOLD.replace("60", "0"), str(tmp_path)], text=True, capture_output=True, check=True
        ).stdout
        == "True\n"
    )


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [truncated, flipped, Path.unlink])
@pytest.mark.parametrize("name", ["model.bin", "deep/state.pt", "files.json"])
def test_every_damage_of_a_sealed_folder_is_found(tmp_path: Path, harm: Callable[[Path], None], name: str) -> None:
    (tmp_path / "deep").mkdir()
    for n, file in enumerate(("model.bin", "deep/state.pt", "progress.json")):
        (tmp_path / file).write_bytes(bytes(range(40 + n)))
    seal(tmp_path)
    assert damage(tmp_path) == ""
    harm(tmp_path / name)
    if (harm, name) == (Path.unlink, "files.json"):
        assert damage(tmp_path) == ""  # as checkpoints were before there were seals
    else:
        assert name in damage(tmp_path) or ((harm, name) == (flipped, "files.json") and damage(tmp_path))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_gives_the_same_end(
    run_here: Run, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run_here("whole", "--train.steps", "6")
    broken = interrupted(run_here("broken", "--train.steps", "6"))
    assert [p.name for p in sorted((broken / "checkpoints").glob("step_*"))] == ["step_00000004", "step_00000006"]
    truncated(broken / "checkpoints" / "step_00000006" / "model.safetensors")
    run_here("broken", "--train.steps", "6")
    assert "step_00000006 is damaged: model.safetensors has" in caplog.text
    assert "going on from the one before" in caplog.text
    assert_same_state(*(run / "checkpoints" / "step_00000006" for run in (whole, broken)))
    assert records(whole) == records(broken)
    assert damage(broken / "checkpoints" / "step_00000006") == ""
    for checkpoint in (broken / "checkpoints").glob("step_*"):
        (checkpoint / "progress.json").write_text("")
    interrupted(broken)
    with pytest.raises(ConfigError, match=r"step_00000006 is damaged[\s\S]*step_00000004 is damaged[\s\S]*--overwrite"):
        run_here("broken", "--train.steps", "6")
    with pytest.raises(ConfigError, match="step_00000004 is damaged"):
        resume_point(broken / "elsewhere", str(broken / "checkpoints" / "step_00000004"))


def test_what_changed_while_a_run_was_down_is_said(
    run_here: Run, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos / "train", data)
    run = ("run", "--train.steps", "4", "--data.train", str(data))
    interrupted(run_here(*run))
    run_here(*run)
    assert "data" not in caplog.text
    interrupted(tmp_path / "run")
    recipe_helpers.photograph(data / "more.png", 99, 64, 64)
    recipe_helpers.photograph(data / "photo1.png", 77, 64, 72)
    (data / "photo0.png").unlink()
    run_here(*run, "--log.every", "2")
    for text in ("1 new: more", "1 gone: photo0", "1 changed: photo1", "goes on with other options: log.every: 1 -> 2"):
        assert text in caplog.text
    assert json.loads((tmp_path / "run" / "data.json").read_text())["data.train"].keys() >= {"more", "photo1"}


def test_overwriting_follows_no_links_and_takes_no_folders_that_are_not_of_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, precious = tmp_path / "run", tmp_path / "precious"
    for folder in (precious / "step_00000001", run / "models", run / "scores", run / "other"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    os.symlink(precious, run / "checkpoints")
    os.symlink(precious / "step_00000001" / "file", run / "log.jsonl")
    os.symlink(precious, run / "models" / "link")
    config = RunOptions(output=str(run), overwrite=True)
    with pytest.raises(ConfigError, match=r"it holds models, scores, but no config\.yaml of a run, so nothing was"):
        claim(config, run)
    assert (run / "models" / "file").exists() and (run / "checkpoints").is_symlink()
    (run / "config.yaml").write_text("")
    with caplog.at_level(logging.WARNING):
        claim(config, run)
    give_back()
    assert "checkpoints was a link to" in caplog.text
    assert {path.name for path in run.iterdir()} == {"other", "config.yaml", ".lock"}
    assert (precious / "step_00000001" / "file").read_text() == "x"
