"""What losses do for pictures: one network, one start, the same patches and steps under each, judged by others.

Every training is a run of `recipes/sr.py`, so that an interrupted proof goes on where it stopped; every picture is then
scored by judges that none of the losses uses, and images are what is resampled, with all seeds of an image together.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from perceptloss.compare import Analysis, Results, Settings, compare
from perceptloss.compare.panel import build, parse_critics

__all__ = ["GAN", "JUDGES", "LOSSES", "Proof"]

_PATCH: Final = "{share: %s, weights: null, start: 100, ramp: 100, joint: {lr: 7.0e-4, penalty: 5.0e-5, replay: 0.2}}"
_JOINT: Final = "{lpips-squeeze: {share: 0.5}, grid: {share: 0.1}, patch: " + _PATCH % "0.18" + "}"
LOSSES: Final[Mapping[str, tuple[str, ...]]] = {
    "l1": ("--loss.critics", "{}", "--loss.budget", "{}"),
    "lpips-squeeze": ("--loss.critics", "{lpips-squeeze: {share: 0.65}}", "--loss.budget", "{}", "--loss.shift", "0"),
    "mini-fr": ("--loss.critics", "{mini-fr: {share: 0.65}}", "--loss.budget", "{}"),
    "mini-nr": ("--loss.critics", "{mini-nr: {share: 0.2}}", "--loss.budget", "{}"),
    "frozen": ("--loss.critics", "{lpips-squeeze: {share: 0.65}, grid: {share: 0.1}}"),
    "patch": ("--loss.critics", "{grid: {share: 0.1}, patch: " + _PATCH % "0.3" + "}"),
    "joint": ("--loss.critics", _JOINT, "--loss.budget", "{}"),
    "joint, 0.2 dB": ("--loss.critics", _JOINT, "--loss.budget", "{psnr: -0.2}"),
    "joint, 0.25 dB": ("--loss.critics", _JOINT),
    "joint, 0.5 dB": ("--loss.critics", _JOINT, "--loss.budget", "{psnr: -0.5}"),
    "lora": ("--loss.critics", "{mini-nr: {share: 0.2}}", "--loss.budget", "{}", "--model.lora", "8"),
}
"""Name of a loss to options of the recipe; the budget is that of the recipe, 0.25 dB, where it says no other."""
_AT_EQUAL_FIDELITY: Final = "joint, 0.2 dB"  # to `frozen`; asked for by name, as each loss more makes stars rarer
GAN: Final = "gan"
"""BasicSR's own GAN training, see `benchmarks.gan`: for as long as `joint` takes."""
JUDGES: Final = (
    *("lpips-alex", "st-lpips-alex", "niqe", "ssimulacra2", "haarpsi", "ms-ssim", "vif", "cvvdp", "mini-fr"),
    "psnr-y",
)
"""None shares a trunk or weights with a loss, but `mini-fr` with itself and with `mini-nr`."""
_SECONDS: Final = "seconds.json"
_GAN: Final = Path(__file__).with_name("gan.py")
_RECIPE: Final = Path(__file__).parents[1] / "recipes" / "sr.py"


@dataclass(frozen=True)
class Proof:
    """All trainings of a proof.

    Attributes:
        folder: Of all runs, `<loss>-<seed>` each.
        val: Folder of photographs that no run sees.
        train: Folder of photographs to train on; None: those of the recipe.
        steps: Of each training.
        seeds: Of patches and critics.
        losses: Names of `LOSSES`, or `GAN` after `joint`.
        judges: Critics that only judge.
        border: Pixels cut off before scoring.
    """

    folder: Path
    val: Path
    train: Path | None = None
    steps: int = 700
    seeds: Sequence[int] = (0, 1, 2)
    losses: Sequence[str] = (*(name for name in LOSSES if name != _AT_EQUAL_FIDELITY), GAN)
    judges: Sequence[str] = JUDGES
    border: int = 4

    def run(self, loss: str, seed: int) -> Path:
        """Train under one loss, unless it is done, and return the folder of the run.

        Raises:
            CalledProcessError: if the training fails.
        """
        home = self.home(loss, seed)
        if loss == GAN:
            self.run_gan(home, seed)
        elif not (home / "results.json").exists():
            command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", str(_RECIPE)]
            options = ["--output", str(home), "--baseline", "false", "--data.val", f"[{self.val}]"]
            options += ["--train.steps", str(self.steps), "--train.seed", str(seed), "--val.every", "0"]
            options += ["--val.judges", "[gmsd]", "--val.guests", "[]", "--val.best", "gmsd"]
            options += [] if self.train is None else ["--data.train", f"[{self.train}]"]
            _run([*command, *options, *LOSSES[loss]], home)
        return home

    def home(self, loss: str, seed: int) -> Path:
        """The folder of a training."""
        return self.folder / f"{loss.replace(', ', '-').replace(' ', '-')}-{seed}"

    def run_gan(self, home: Path, seed: int) -> None:
        """Let BasicSR train for as long as `joint` did, unless it is done; needs that of the same seed."""
        if not (home / "steps.json").exists():
            seconds = json.loads((self.home("joint", seed) / _SECONDS).read_text())
            command = [sys.executable, str(_GAN), str(home), "--val", str(self.val), "--seed", str(seed)]
            command += ["--seconds", str(seconds)] + ([] if self.train is None else ["--train", str(self.train)])
            _run(command, home)

    def gathered(self, homes: Mapping[tuple[str, int], Path]) -> dict[str, Path]:
        """Folders of links to the pictures of all seeds, by loss, and to the ground truth under `ground-truth`."""
        folders: dict[str, Path] = {}
        for (loss, seed), home in homes.items():
            trained = "l1" if loss == "l1" else "critics"
            for name, made in ((loss, trained), ("ground-truth", "ground-truth")):
                folder = folders.setdefault(name, self.folder / "pictures" / name.replace(", ", "-").replace(" ", "-"))
                folder.mkdir(parents=True, exist_ok=True)
                for file in sorted((home / "images" / made).rglob("*.png")):
                    link = folder / f"{file.stem}@{seed}.png"
                    link.unlink(missing_ok=True)
                    os.symlink(file.resolve(), link)
        return folders

    def results(self) -> Results:
        """Train what is not trained, and compare everything with L1 alone.

        Raises:
            PerceptlossError: before the first training, if a judge cannot be asked.
        """
        settings = Settings(crop_border=self.border)
        build(parse_critics(self.judges), settings)
        homes = {(loss, seed): self.run(loss, seed) for seed in self.seeds for loss in self.losses}
        folders = self.gathered(homes)
        reference = folders.pop("ground-truth")
        cache = self.folder / "scores"  # an interrupted proof asks no judge twice
        results = compare(folders, reference, self.judges, baseline=self.losses[0], settings=settings, cache=cache)
        groups = {image.key: image.key.partition("@")[0] for image in results.images}
        return replace(results, analysis=Analysis(groups=groups))


def _run(command: Sequence[str], home: Path) -> None:
    """Run a training, and keep beside it how long it took: processor time, or with a GPU by the clock."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (home / _SECONDS).write_text(json.dumps(clock if torch.cuda.is_available() else spent))
