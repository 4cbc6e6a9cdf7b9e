"""VMAF by ffmpeg's filter libvmaf, as scores from outside: a `.csv` for `perceptloss compare --scores-from`.

Li et al., "Toward a Practical Perceptual Video Quality Metric", Netflix 2016; https://github.com/Netflix/vmaf
(BSD-2-Clause-Patent). VMAF looks at luma alone, here that of BT.709 in the range of video, at full resolution.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from torch import Tensor

from perceptloss.compare.jobs import file_jobs
from perceptloss.compare.pixels import as_bytes
from perceptloss.compare.plan import Plan
from perceptloss.errors import ConfigError, PerceptlossError

__all__ = ["MODEL", "find_ffmpeg", "table_of", "vmaf", "vmaf_scores"]

MODEL: Final = "vmaf_v0.6.1"
_GRAPH: Final = (
    "[0:v]{luma}[x];[1:v]{luma}[y];[x][y]libvmaf=model=version={model}:log_fmt=json:log_path=vmaf.json:n_threads=1"
)
_LUMA: Final = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p"


def find_ffmpeg(asked: str | None = None) -> str:
    """The ffmpeg to call, which has the filter libvmaf.

    Args:
        asked: A path or name; None for `ffmpeg`.

    Raises:
        PerceptlossError: if there is none, or it was built without the filter.
    """
    found = shutil.which(asked or "ffmpeg")
    if found is None:
        raise PerceptlossError(
            f"{asked or 'ffmpeg'!r} is not on this machine: install an ffmpeg with libvmaf, such as that of "
            "pip install imageio-ffmpeg, and give its path as --ffmpeg."
        )
    found = os.path.abspath(found)  # it is called in another folder
    try:
        filters = subprocess.run([found, "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise PerceptlossError(
            f"{found} does not run here: {error.strerror or error}; give another as --ffmpeg."
        ) from error
    if " libvmaf " not in filters.stdout:
        raise PerceptlossError(
            f"{found} was built without libvmaf; that of pip install imageio-ffmpeg has it: give its path as --ffmpeg."
        )
    return found


def vmaf(x: Tensor, y: Tensor, ffmpeg: str, model: str = MODEL) -> float:
    """VMAF of an image, 0 to 100; higher is better.

    Args:
        x: The judged image, (3, H, W), RGB in [0, 1]; of 8 bits are looked at.
        y: The reference, same shape.
        ffmpeg: What `find_ffmpeg` found.
        model: Name of a model that libvmaf brings.

    Raises:
        PerceptlossError: with what ffmpeg says, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs: list[str] = []
        for name, image in (("x", x), ("y", y)):
            Path(folder, f"{name}.rgb").write_bytes(as_bytes(image).tobytes())
            size = f"{image.shape[-1]}x{image.shape[-2]}"
            inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", f"{name}.rgb"]
        graph = _GRAPH.format(luma=_LUMA, model=model)
        command = [
            ffmpeg,
            "-nostdin",
            "-hide_banner",
            "-loglevel",
            "error",
            *inputs,
            "-lavfi",
            graph,
            "-f",
            "null",
            "-",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        log = Path(folder, "vmaf.json")
        if done.returncode or not log.is_file():
            raise PerceptlossError(f"{ffmpeg} failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
        try:
            return float(json.loads(log.read_text(encoding="utf-8"))["pooled_metrics"]["vmaf"]["mean"])
        except (ValueError, KeyError, TypeError) as error:
            raise PerceptlossError(
                f"{ffmpeg} wrote a log that does not say pooled_metrics.vmaf.mean ({type(error).__name__}: {error}); "
                "libvmaf of version 2 or 3 does."
            ) from error


def vmaf_scores(
    plan: Plan, ffmpeg: str, model: str = MODEL, progress: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, str, float]]:
    """Image, system and VMAF of every output of a plan, as they come.

    Raises:
        ConfigError: if there are no references.
        PerceptlossError: as `vmaf`.
    """
    if plan.rules.stereo or plan.images[0].reference is None:
        raise ConfigError(["VMAF compares single images with references: give --ref"], "vmaf")
    for job in file_jobs(plan):
        loaded = job.load()
        assert loaded.y is not None
        yield plan.images[job.image].key, plan.systems[job.system], vmaf(loaded.x, loaded.y, ffmpeg, model)
        progress()


def table_of(scores: Iterator[tuple[str, str, float]]) -> str:
    """The `.csv`, sorted by image and in the order of systems otherwise."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "system", "vmaf:higher"])
    writer.writerows((image, system, f"{score:.6f}") for image, system, score in sorted(scores, key=lambda row: row[0]))
    return text.getvalue()
