"""Super-resolution of stereo pairs, trained with critics that see both views.

    accelerate launch recipes/stereo_sr.py                   # minutes on a CPU, offline
    accelerate launch recipes/stereo_sr.py --config recipes/configs/stereo_nafssr.yaml --data.train DIR --data.val DIR
    accelerate launch recipes/stereo_sr.py --help            # every option

The same network is trained three times from the same start, on the same patches, for the same steps: with L1 alone,
with L1 and critics that judge each view by itself, and with L1 and critics of pairs. Without folders it trains on
pairs that are made of photographs of scikit-image by giving them a depth, and validates on the real pair that comes
with scikit-image, of which no network sees a pixel in training. Folders hold pairs in the layouts of Flickr1024,
Middlebury, KITTI 2012 and 2015 (`_lib/stereo_folders.py`), or photographs with `--data.photos`.

Below `output`: what recipes/sr.py leaves, stereo.png, and stereo/ with pictures for red-cyan glasses and of
disparity; the other trainings in l1/ and views/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from _lib.checks import option_problems
from _lib.networks import STEREO_NETWORK, bicubic, build_network, restore
from _lib.stereo_data import PairPatches, Scene, strip_of_scene, whole_scene
from _lib.stereo_folders import check_scenes, find_photographs, find_scenes, installed
from _lib.stereo_report import depth_report
from _lib.task import Images, RestorerOptions, Task, plain_rivals
from _lib.training import run
from _lib.validation import Enlarge
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn

from perceptloss.errors import ConfigError
from perceptloss.loss.parsing import parse_terms
from perceptloss.runs import config as options
from perceptloss.runs.config import option
from perceptloss.runs.launch import alone_in_folder, run_as_script
from perceptloss.runs.options import Data, Log, Loss, Model, Train, Val

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "rocket.jpg",
)
LEARNING = {"lr": 7e-4, "penalty": 5e-5, "replay": 0.2, "every": 2}
JOINT = {"weights": None, "start": 60, "ramp": 60, "joint": LEARNING}
PATCH = {**JOINT, "options": {"width": 16}}
STEPS = {"critic": "grid", "share": 0.1, "options": {"of": "steps"}}
VIEWS = {"lpips-squeeze": {"share": 0.5}, "grid": {"share": 0.05}, "steps": STEPS, "patch": {"share": 0.15, **PATCH}}
CRITICS = {
    "lpips-squeeze": {"share": 0.2},  # how each view looks
    "grid": {"share": 0.05},  # prints no pattern
    "steps": STEPS,  # nor stairs
    "patch": {"share": 0.04, **PATCH},  # learns what is not real in a view
    "stereo-consistency": {"share": 0.12, "options": {"every": 2}},  # what is made up has a depth
    "stereo-matching": {"share": 0.25, "options": {"every": 3}},  # the views match as the ground truth's do
    "stereo-srqa": {"share": 0.02, **JOINT, "options": {"widths": [16, 24, 32], "matched": 16, "hidden": 32}},
}
JUDGES = ("mini-stereo", "mini-fr", "haarpsi", "ms-gmsd", "mini-nr")
GUESTS = ("lpips-alex", "niqe")


@dataclass(frozen=True)
class PairData(Data):
    """Stereo pairs, and photographs of which pairs are made."""

    train: tuple[str, ...] = option((), "folders of stereo pairs to train on")
    train_lq: tuple[str, ...] = option((), "not used here: low-quality pairs are made")
    val: tuple[str, ...] = option(
        (), "folders of stereo pairs to validate on; none, and no photographs: the pair of scikit-image"
    )
    val_lq: tuple[str, ...] = option((), "not used here: low-quality pairs are made")
    photos: tuple[str, ...] = option(
        (), "folders of photographs that are given a depth; none, and no pairs: those of scikit-image"
    )
    val_photos: tuple[str, ...] = option((), "folders of photographs that are given a depth, to validate on")
    patch: int = option(64, "rows of the ground-truth patches, pixels; a multiple of model.scale", at_least=8)
    columns: int = option(192, "columns of the patches, likewise; disparity needs width", at_least=8)
    disparity: float = option(48.0, "largest disparity of pairs that are made, pixels", at_least=0)
    flips: bool = option(True, "mirror (views change places), turn upside down, exchange colours, alike in both views")


@dataclass(frozen=True)
class Config(RestorerOptions):
    """Every option; the defaults are the demonstration."""

    output: str = option("runs/stereo_sr", "folder of the run")
    views: dict[str, Any] = option(VIEWS, "terms of a rival whose critics see single views; {}: none")  # noqa: RUF009
    data: PairData = field(default_factory=lambda: PairData(batch=2))
    model: Model = field(
        default_factory=lambda: Model(arch="StereoCompact", options=dict(STEREO_NETWORK), weights="auto")
    )
    loss: Loss = field(default_factory=lambda: Loss(critics=CRITICS, shift=8, budget={"psnr": -0.25}, budget_room=3.0))
    train: Train = field(default_factory=lambda: Train(steps=240, lr=8e-4, warmup=20, ema=0.99))
    val: Val = field(default_factory=lambda: Val(every=0, judges=JUDGES, guests=GUESTS, best="mini-fr"))
    log: Log = field(default_factory=lambda: Log(every=20))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.data.patch, self.data.columns


# --- images -------------------------------------------------------------------------------------


def find(config: Config, least: int, accelerator: Accelerator) -> Images:
    """Scenes to train on and to validate on, every file checked.

    Raises:
        ConfigError: on all processes, listing everything that is wrong with them.
    """
    data, own = config.data, "--data.train and --data.val"
    has_training, has_validation = data.train or data.photos, data.val or data.val_photos
    training, validation = ([], []) if has_training and has_validation else installed(PHOTOGRAPHS, own)
    if has_training:
        training = [*find_scenes(data.train, "data.train"), *find_photographs(data.photos, "data.photos")]
    if has_validation:
        validation = [*find_scenes(data.val, "data.val"), *find_photographs(data.val_photos, "data.val_photos")]
    seen = {path.resolve() for scene in training for path in scene.views}
    shared = [f"{s.left} is trained on and validated on" for s in validation if s.left.resolve() in seen]
    if shared:
        raise ConfigError(shared, "data")
    rows, columns = config.size
    sizes = {"data.train": (rows, columns), "data.val": (least, least)}
    share, found = slice(accelerator.process_index, None, accelerator.num_processes), []
    for name, scenes in (("data.train", training), ("data.val", validation)):
        found += [f"{name}: {p}" for p in check_scenes(scenes[share], sizes[name], decode=data.check)]
    room = int(data.disparity) + 1
    made = {"data.photos": (training, (rows, columns + room)), "data.val_photos": (validation, (least, least + room))}
    for name, (scenes, size) in made.items():
        alone = [scene for scene in scenes if scene.right is None]
        found += [f"{name}: {p}" for p in check_scenes(alone[share], size, decode=False)]
    found = sorted(set(gather_object(found)))
    if found:
        raise ConfigError(found, "images; remove or repair them")
    return training, validation


def patches(config: Config, scenes: Sequence[Scene]) -> PairPatches:
    """Aligned patches, of all but the strips if there is a budget: also for the rivals, which see the same."""
    data = config.data
    return PairPatches(
        scenes,
        config.size,
        config.model.scale,
        disparity=data.disparity,
        seed=config.train.seed,
        flips=data.flips,
        cache_mb=data.cache_mb,
        spares_strips=bool(config.loss.budget),
    )


def whole(config: Config, scene: Scene) -> tuple[Tensor, Tensor]:
    """A pair as (lq, gt)."""
    return whole_scene(scene, config.model.scale, config.data.disparity)


def strip(config: Config, scene: Scene) -> tuple[Tensor, Tensor]:
    """The part of a pair that patches spare."""
    return strip_of_scene(scene, config.model.scale, config.size, config.data.disparity)


# --- networks -----------------------------------------------------------------------------------


def network(config: Config) -> nn.Module:
    """The network as the training starts with it."""
    return build_network(config.model, config.data.patch // config.model.scale, channels=6)


def restored(config: Config, trained: nn.Module, lq: Tensor) -> Tensor:
    """A whole pair, enlarged."""
    return restore(trained, lq, scale=config.model.scale, multiple=config.model.multiple_of)


def plain(config: Config) -> dict[str, Enlarge]:
    """The floor of the table."""
    return {"bicubic": partial(bicubic, scale=config.model.scale)}


def rivals(config: Config) -> dict[str, Config]:
    """L1 alone, and L1 with critics of single views."""
    found = plain_rivals(config)
    if config.has_baseline and config.views:
        found["views"] = replace(config, loss=replace(config.loss, critics=config.views))
    return found


# --- the run ------------------------------------------------------------------------------------


def problems(config: Config) -> list[str]:
    """Contradictions between options."""
    found = option_problems(config.data, config.model, config.loss, config.train, config.val, channels=6)
    if config.data.columns % config.model.scale:
        found.append(f"data.columns: {config.data.columns} is not a multiple of model.scale {config.model.scale}")
    for name in ("train_lq", "val_lq"):
        if getattr(config.data, name):
            found.append(f"data.{name}: low-quality pairs are made here, by antialiased bicubic shrinking")
    try:
        terms = parse_terms(config.views, "views") if config.views else []
    except ConfigError as error:
        return [*found, *error.problems]
    return found + [f"views: {t.label!r} judges pairs: put it in loss.critics" for t in terms if t.card.channels == 6]


def told(config: Config, folder: Path, systems: Mapping[str, Enlarge], scenes: Sequence[Scene]) -> list[str]:
    """Fidelity of the views, and what became of the depth."""
    return depth_report(folder, systems, scenes, partial(whole, config), PartialState().device)


TASK = Task(
    recipe="stereo_sr",
    problems=problems,
    find=find,
    patches=patches,
    whole=whole,
    strip=strip,
    network=network,
    restored=restored,
    plain=plain,
    rivals=rivals,
    told=told,
    stereo=True,
)


@alone_in_folder
def main(argv: Sequence[str]) -> None:
    """The whole run."""
    run(options.load(Config, argv), TASK)


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
