"""A thousand images of four systems by five critics: within memory, stopped and gone on with, as one small page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).parents[2]
IMAGES, SYSTEMS, CRITICS = 1000, ("a", "b", "c", "d"), ("mini-nr", "ssim", "gmsd", "psnr", "tv")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("scale")
    generator = np.random.default_rng(0)
    for folder in ("gt", *SYSTEMS):
        (home / folder).mkdir()
    for n in range(IMAGES):
        clean = np.kron(generator.integers(40, 200, (8, 8, 3)), np.ones((6, 6, 1))).astype(int)
        for strength, folder in enumerate(("gt", *SYSTEMS)):
            dirty = clean + 4 * strength * generator.integers(-1, 2, clean.shape)
            Image.fromarray(dirty.astype(np.uint8)).save(home / folder / f"im{n:04d}.png", compress_level=1)
    return home


def start(home: Path, *more: str) -> subprocess.Popen[bytes]:
    words = ["compare", *(f"{name}={name}" for name in SYSTEMS), "--ref", "gt", "--cache", "kept", *more]
    words += [part for name in CRITICS for part in ("-c", name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PERCEPTLOSS_OFFLINE": "1"}
    command = [sys.executable, "-m", "perceptloss", *words]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells let what runs in the background ignore it
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=home, env=environment, preexec_fn=heard, **quiet)


def kept(home: Path) -> int:
    """Scores on disk."""
    return sum(max(0, file.read_bytes().count(b"\n") - 1) for file in home.glob("kept/*.jsonl"))


def test_a_thousand_images_stopped_and_gone_on_with(home):
    run = start(home)
    until = time.monotonic() + 300
    while kept(home) < 1000:
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    assert b"interrupted" in run.communicate(timeout=60)[1] and run.returncode == 130
    before = kept(home)
    assert 1000 <= before < 20_000

    run = start(home, "--output", "out.json", "--report", "out.html")
    said = run.stderr.read()
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    assert run.returncode == 0, said.decode()
    assert usage.ru_maxrss < 2 * 2**20  # KiB
    damaged = said.count(b"damaged")  # the stop may cut a line off
    blank = len(CRITICS)  # files that are opened again begin with a new line
    assert 20_000 <= kept(home) <= 20_000 + damaged + blank
    values = np.array(json.loads((home / "out.json").read_text())["values"], dtype=np.float64)
    assert values.shape == (4, 5, IMAGES) and np.isfinite(values).all()
    means = values[:, 3].mean(axis=1)
    assert (np.diff(means) < 0).all()  # psnr falls as strength grows
    assert (home / "out.html").stat().st_size < 15e6
