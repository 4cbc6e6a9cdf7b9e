"""Super-resolution trained with critics, on your photographs or on those that come with scikit-image.

    accelerate launch recipes/sr.py                          # minutes on a CPU, offline
    accelerate launch recipes/sr.py --config recipes/configs/sr_serious.yaml --data.train DIR --data.val DIR
    accelerate launch recipes/sr.py --help                   # every option

Trains a network of ours or of BasicSR with L1 and weighted critics and validates it with judges that were not
trained on. With `baseline`, the same network is first trained with L1 alone: same seed, same
patches in the same order, same steps. Killed at any moment, a run goes on from its last checkpoint
when started again with the same command; on a CPU in fp32 to the same bits.

Below `output`: config.yaml, log.jsonl, checkpoints/last, models/ (safetensors, net_g.pth for BasicSR),
images/, results.json, results.md, report.html, picture.png, scores/STEP.json for `perceptloss report`; checkpoints,
models, log and scores of the baseline in l1/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from _lib.checks import find_images
from _lib.enlarging import ENLARGING
from _lib.networks import NETWORK
from _lib.task import Images, RestorerOptions, Task
from _lib.training import run
from accelerate import Accelerator

from perceptloss.runs import config as options
from perceptloss.runs.config import option
from perceptloss.runs.launch import alone_in_folder, run_as_script
from perceptloss.runs.options import Data, Log, Loss, Model, Train, Val

TRAIN_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
)
VAL_PHOTOS = ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg")
LEARNING = {"lr": 7e-4, "penalty": 5e-5, "replay": 0.2, "mix": False, "damage": []}  # two rungs: half the time
CRITICS = {
    "lpips-squeeze": {"share": 0.5},  # looks
    "grid": {"share": 0.1},  # prints no pattern
    "patch": {"share": 0.18, "weights": None, "start": 100, "ramp": 100, "joint": LEARNING},  # learns what is not real
}
JUDGES = ("mini-fr", "haarpsi", "ms-gmsd", "mini-nr")
GUESTS = ("lpips-alex", "niqe")


@dataclass(frozen=True)
class Config(RestorerOptions):
    """Every option; the defaults are the demonstration."""

    output: str = option("runs/sr", "folder of the run")
    data: Data = field(default_factory=lambda: Data(patch=64))
    model: Model = field(default_factory=lambda: Model(options=dict(NETWORK), weights="auto"))
    loss: Loss = field(default_factory=lambda: Loss(critics=CRITICS, shift=8, budget={"psnr": -0.25}, budget_room=3.0))
    train: Train = field(default_factory=lambda: Train(steps=700, optimizer="muon", lr=8e-4, warmup=20, ema=0.995))
    val: Val = field(default_factory=lambda: Val(every=400, judges=JUDGES, guests=GUESTS, best="mini-fr"))
    log: Log = field(default_factory=lambda: Log(every=25))


# --- images -------------------------------------------------------------------------------------


def find(config: Config, least: int, accelerator: Accelerator) -> Images:
    """Photographs to train on and to validate on: those of the folders, or of scikit-image."""
    return find_images(config.data, config.model.scale, (TRAIN_PHOTOS, VAL_PHOTOS), least, accelerator)


# --- the run ------------------------------------------------------------------------------------


TASK = Task(
    recipe="sr",
    find=find,
    **ENLARGING,
)


@alone_in_folder
def main(argv: Sequence[str]) -> None:
    """The whole run."""
    run(options.load(Config, argv), TASK)


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
