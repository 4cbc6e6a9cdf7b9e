"""The stereo recipe as a user runs it, small: what it leaves, what it says, and that it resumes to the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import _lib.training
import numpy as np
import pytest
import recipe_helpers
import stereo_sr
import torch
from _lib.networks import start_of
from _lib.stereo_data import Scene, whole_scene
from _lib.stereo_report import anaglyph, coloured, depth_report
from accelerate import Accelerator
from safetensors.torch import load_file

from perceptloss.compare import load_results
from perceptloss.errors import ConfigError
from perceptloss.runs import config as options
from perceptloss.weights.search import find

JOINT = "weights: null, start: 2, joint: {lr: 1.0e-3, replay: 0.5}"
SRQA = f"stereo-srqa: {{share: 0.1, {JOINT}, options: {{widths: [4, 6, 8], matched: 4, hidden: 8}}}}"
MATCHING = "stereo-matching: {share: 0.1, options: {every: 2}}"
CRITICS = f"{{gmsd: {{share: 0.2}}, stereo-consistency: {{share: 0.2}}, {SRQA}}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, and a pair with its disparity."""
    home = tmp_path_factory.mktemp("scenes")
    for n in range(3):
        recipe_helpers.photograph(home / "photos" / f"p{n}.png", n, 100, 120)
    for n, view in enumerate(("left", "right")):
        recipe_helpers.photograph(home / "pairs" / f"street_{view}.png", 5 + n, 64, 160)
    np.savez(home / "pairs" / "street_disp.npz", np.full((64, 160), 5.0, dtype=np.float32))
    return home


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    text = "--data.patch 40 --data.columns 64 --data.disparity 12 --data.batch 2 --train.steps 6 --train.warmup 1 "
    text += "--train.ema 0.9 --loss.shift 4 --loss.budget {} --val.judges [mini-stereo,haarpsi] --val.guests [] "
    text += "--val.best psnr-y --log.every 1 --log.checkpoint_every 2 --model.weights null"
    own = ["--data.photos", str(folder / "photos"), "--data.val", str(folder / "pairs"), "--output", str(output)]
    network = ["--model.options", "{num_feat: 4, num_conv: 2, upscale: 4, num_looks: 1}"]
    return [*text.split(), *own, *network, "--loss.critics", CRITICS, "--views", "{gmsd: {share: 0.3}}", *more]


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads, output = torch.get_num_threads(), tmp_path_factory.mktemp("run") / "whole"
    with torch.random.fork_rng():
        stereo_sr.main(arguments(folder, output))
    torch.set_num_threads(threads)
    return output


def test_a_run_compares_three_trainings_by_both_views(finished: Path) -> None:
    results = load_results(finished / "results.json")
    assert results.systems == ("bicubic", "l1", "views", "critics") and results.baseline == "l1"
    roles = {column.label: column.role for column in results.critics}
    assert roles["mini-stereo"] == roles["haarpsi"] == roles["psnr-y"] == "judge"
    assert roles["stereo-srqa"] == roles["stereo-consistency"] == roles["gmsd"] == "train"
    assert [image.key for image in results.images] == ["street"]
    for system in (*results.systems, "ground-truth"):
        assert {file.name for file in (finished / "images" / system).iterdir()} == {"street_L.png", "street_R.png"}
    text = (finished / "results.md").read_text()
    assert "Depth: disparity that a fixed matcher" in text and "EPE to true" in text and "warp error" in text
    assert "Honesty:" in text
    for name in ("stereo.png", "picture.png", "report.html", "l1/models/net_g.safetensors", "views/models/net_g.pth"):
        assert (finished / name).is_file(), name
    drawn = {file.name for file in (finished / "stereo").iterdir()}
    assert {"street_anaglyph_critics.png", "street_disparity_l1.png", "street_anaglyph_ground-truth.png"} <= drawn


def records(home: Path) -> list[dict]:
    return [json.loads(line) for line in (home / "log.jsonl").read_text().splitlines()]


def test_all_trainings_start_alike_and_see_the_same_patches(finished: Path) -> None:
    first = [
        next(
            r for r in map(json.loads, (finished / home / "log.jsonl").read_text().splitlines()) if r["kind"] == "train"
        )
        for home in (".", "l1", "views")
    ]
    assert len({record["pixel"] for record in first}) == 1 and first[0]["step"] == 1
    state = load_file(finished / "models" / "stereo-srqa.safetensors")
    assert any(name.startswith("between") for name in state)


@pytest.mark.usefixtures("in_process")
def test_interrupted_and_resumed_equals_uninterrupted(
    finished: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = _lib.training.take_step, []

    def failing(*given: object) -> None:
        calls.append(given)
        if len(calls) in (4, 13):  # in l1, and in the main training
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(_lib.training, "take_step", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stereo_sr.main(arguments(folder, tmp_path / "cut"))
    stereo_sr.main(arguments(folder, tmp_path / "cut"))
    for home in (".", "l1", "views"):
        for name in ("net_g.safetensors", "net_g_ema.safetensors"):
            one, other = (load_file(run / home / "models" / name) for run in (finished, tmp_path / "cut"))
            assert all(torch.equal(one[key], other[key]) for key in one), (home, name)
    one, other = (json.loads((run / "results.json").read_text()) for run in (finished, tmp_path / "cut"))
    assert one["values"] == other["values"]


def failure(config: stereo_sr.Config) -> str:
    return "\n".join(stereo_sr.problems(config))


def test_contradictions_are_told_all_at_once() -> None:
    given = ["--data.columns", "190", "--data.val_lq", "[a]", "--views", "{mini-stereo: 1.0}"]
    text = failure(options.load(stereo_sr.Config, given))
    assert "data.columns: 190 is not a multiple of model.scale 4" in text
    assert "data.val_lq: low-quality pairs are made here" in text
    assert "'mini-stereo' judges pairs: put it in loss.critics" in text
    assert not failure(stereo_sr.Config())
    shared = options.load(stereo_sr.Config, ["--loss.critics", "{mini-stereo: 1.0}"])
    assert "judge 'mini-fr' reads lite0-smooth" in failure(shared)


def test_a_pair_that_is_trained_on_and_validated_on_is_refused(folder: Path, tmp_path: Path) -> None:
    argv = arguments(folder, tmp_path / "run", "--data.train", str(folder / "pairs"))
    with pytest.raises(ConfigError, match="is trained on and validated on"):
        stereo_sr.main(argv)


def test_photographs_are_given_a_depth_to_validate_on_too(folder: Path, tmp_path: Path) -> None:
    recipe_helpers.photograph(tmp_path / "val" / "a.png", 9, 64, 80)
    given = ["--data.photos", str(folder / "photos"), "--data.val_photos", str(tmp_path / "val")]
    given += ["--data.patch", "40", "--data.columns", "64", "--data.disparity", "12"]
    config = options.load(stereo_sr.Config, given)
    _, validation = stereo_sr.find(config, 32, Accelerator())
    assert [scene.name for scene in validation] == ["val/a"]
    assert stereo_sr.whole(config, validation[0])[1].shape == (6, 64, 68)
    with pytest.raises(ConfigError, match=r"data.val_photos: .*a.png: 64x80 pixels; at least 70x83 are needed"):
        stereo_sr.find(config, 70, Accelerator())


def test_the_demonstration_starts_from_what_ships() -> None:
    config = stereo_sr.Config()
    assert start_of(config.model) == "stereo-start" and start_of(replace(config.model, options={})) is None
    state = load_file(find("stereo-start"))
    network = stereo_sr.network(config).state_dict()
    assert all(torch.equal(tensor, state[name].float()) for name, tensor in network.items())


def test_the_configuration_of_that_start_trains_its_last_convolutions_alone() -> None:
    path = recipe_helpers.RECIPES / "configs" / "stereo_start.yaml"
    config = options.load(stereo_sr.Config, ["--config", str(path)])
    assert not failure(config)
    network = stereo_sr.network(config)
    learns = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learns == {"body.24", "body.25", "body.26"} and len(network.body) == 27


def test_red_is_of_the_left_eye_and_unknown_depth_is_grey() -> None:
    pair = torch.rand(6, 4, 5)
    assert torch.equal(anaglyph(pair), torch.stack([pair[0], pair[4], pair[5]]))
    drawn = coloured(torch.tensor([[0.0, 32.0, float("nan")]]), 64)
    assert (drawn[:, 0, 2] == 0.5).all() and drawn[:, 0, 0].sum() < drawn[:, 0, 1].sum()


def test_the_ground_truth_has_its_own_depth(folder: Path, tmp_path: Path) -> None:
    """A system that gives the ground truth back has no disparity error against it."""
    recipe_helpers.photograph(tmp_path / "photo.png", 3, 96, 300)
    scene = Scene("made", tmp_path / "photo.png")
    gt = whole_scene(scene, 4)[1]
    systems = {"perfect": lambda lq: gt, "half": lambda lq: gt.roll(40, 2).clamp(0, 1)}
    (text,) = depth_report(tmp_path, systems, [scene], lambda s: whole_scene(s, 4), torch.device("cpu"))
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "0.00 | 0.0 | 0.0" in rows["perfect"] and "0.00 | 0.0 | 0.0" not in rows["half"]


def test_the_configuration_for_serious_use_is_valid() -> None:
    path = recipe_helpers.RECIPES / "configs" / "stereo_nafssr.yaml"
    config = options.load(stereo_sr.Config, ["--config", str(path)])
    assert not failure(config)
    fresh = stereo_sr.network(replace(config, model=replace(config.model, weights=None)))
    assert sum(p.numel() for p in fresh.parameters()) == pytest.approx(1.56e6, rel=0.01), "NAFSSR-S, as published"
