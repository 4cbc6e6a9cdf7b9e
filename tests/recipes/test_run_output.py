"""Where a run writes: found out before it does anything, and nothing of what is there is lost."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import critic
import pytest
import recipe_helpers  # noqa: F401  (puts the recipes on the path)
import sr

from perceptloss.errors import ConfigError
from perceptloss.teach.sets.build import build
from perceptloss.teach.sets.plan import Plan, ScoredSetError, TeacherSpec


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("recipe", [sr, critic], ids=["sr", "critic"])
@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("afile", "afile is a file, not a folder"),
        ("afile/run", "afile/run cannot be written"),
        ("run", r"run/results.md is a folder, not a file\n.*run/models is a file, not a folder"),
        ("/proc/run", "/proc/run cannot be written"),
        ("/dev/full", "/dev/full is a pipe or device, not a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_error_at_the_start(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: ModuleType, output: str, why: str
) -> None:
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "run" / "results.md").mkdir(parents=True)
    (tmp_path / "run" / "models").write_text("mine")
    for built in ("build_critics", "build_critic"):
        monkeypatch.setattr(recipe, built, lambda *given: pytest.fail("too late"), raising=False)
    before = tree(tmp_path)
    options = (
        tiny
        if recipe is sr
        else ["--data", "[{kind: ladders, photos: [x]}]", "--threads", "1", "--card.write", "false"]
    )
    with pytest.raises(ConfigError, match=why):
        recipe.main([*options, "--output", str(tmp_path / output), "--overwrite"])
    assert tree(tmp_path) == before
    if recipe is critic:
        with pytest.raises(ConfigError, match=why):
            recipe.main([*options, "--output", str(tmp_path / output), "--evaluate_only", "weights.safetensors"])


def test_a_scored_set_that_cannot_be_written_is_an_error_at_the_start(photos: Path) -> None:
    plan = Plan((photos / "train" / "photo0.png",), crop=32, teachers={"gmsd": TeacherSpec()})
    with pytest.raises(ScoredSetError, match="/proc/set/shards cannot be written"):
        build(plan, "/proc/set", processes=1, progress=False)
