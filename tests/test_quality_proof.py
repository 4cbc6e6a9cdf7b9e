"""`python -m benchmarks quality`: trainings that are done are not done again, and all losses see the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from images import photographs
from PIL import Image

from benchmarks.quality import GAN, Proof
from perceptloss.errors import PerceptlossError


@pytest.mark.thorough
def test_losses_are_compared_from_one_start_and_what_is_done_is_kept(tmp_path: Path) -> None:
    if importlib.util.find_spec("basicsr") is None or importlib.util.find_spec("peft") is None:
        pytest.skip("needs BasicSR and peft")
    (tmp_path / "val").mkdir()
    for i, photo in enumerate(photographs(96)[:2]):
        Image.fromarray((photo.permute(1, 2, 0) * 255).round().byte().numpy()).save(tmp_path / "val" / f"{i}.png")
    losses = ("l1", "joint", "lora", GAN)
    proof = Proof(tmp_path / "runs", tmp_path / "val", None, 21, (0,), losses, ("gmsd", "psnr-y"))
    results = proof.results()
    assert results.systems == losses and results.baseline == "l1"
    assert json.loads((tmp_path / "runs" / "gan-0" / "steps.json").read_text())["steps"] >= 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("net_g.safetensors")}
    assert len(before) == len(losses)
    again = proof.results()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.to_json() == results.to_json()


def test_a_judge_that_cannot_be_asked_is_told_before_any_training(tmp_path: Path) -> None:
    proof = Proof(tmp_path / "runs", tmp_path, losses=("l1",), judges=("gmsd", "no-such-judge"))
    with pytest.raises(PerceptlossError, match="no-such-judge"):
        proof.results()
    assert not (tmp_path / "runs").exists()
