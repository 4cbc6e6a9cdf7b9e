"""Fixtures for recipes: small photographs, and runs in this process or launched as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from recipe_helpers import RECIPES, TINY, photograph


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ (five images, one in a subfolder) and val/ (three)."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        photograph(folder / "train" / ("deep" if i == 4 else "") / f"photo{i}.png", i, 60 + 4 * i, 72)
    for i in range(3):
        photograph(folder / "val" / f"held{i}.png", 10 + i, 48, 60 + 3 * i)
    return folder


@pytest.fixture
def tiny(photos: Path, tmp_path: Path) -> list[str]:
    """Options of a run that takes a second; they can be given again on the command line."""
    data = {**TINY["data"], "train": [str(photos / "train")], "val": [str(photos / "val")]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "data": data}))
    return ["--config", str(tmp_path / "tiny.yaml")]


@pytest.fixture
def in_process() -> Iterator[None]:
    """Undo what a recipe does to its process: threads and torch's global random state."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `accelerate launch recipes/<name>` in a process group of its own, away from the repository."""

    def start(recipe: str, *args: str, processes: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "accelerate.commands.launch"]
        if processes > 1:  # --cpu instead of the variable would silently run one process
            command += ["--multi_gpu", "--num_processes", str(processes)]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, str(RECIPES / recipe), *args],
            cwd=tmp_path,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start
