"""Enhancement of pictures under water or at night, trained with critics: on yours, or on made ones of scikit-image.

    accelerate launch recipes/enhance.py                     # under water; minutes on a CPU, offline
    accelerate launch recipes/enhance.py --domain night
    accelerate launch recipes/enhance.py --config recipes/configs/enhance_night.yaml --data.train LOL --data.val LOL
    accelerate launch recipes/enhance.py --help              # every option

Trains a network at the size of its input with L1 and weighted critics and validates it with judges that were not
trained on, beside the same network trained with L1 alone: same seed, same patches in the same order, same steps.
A folder is the root of a data set as it is published (UIEB, EUVP, LSUI, SUIM, LOL), or holds references, to which raw
pictures are given by `data.train_lq` or made: water or darkness over them. Killed at any moment, a run goes on
from its last checkpoint when started again with the same command; on a CPU in fp32 to the same bits.

Below `output`: what `recipes/sr.py` leaves there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from _lib.checks import option_problems
from _lib.damage import Domain
from _lib.gate import Bank
from _lib.gt_mean import GTMean
from _lib.guide import SEMANTIC, Guidance, Guide, Judging, gate_problems, guidance_problems, planes
from _lib.honesty import Watched
from _lib.networks import ENHANCER, build_network, restore
from _lib.scenes import Pictures, ScenePatches, found_scenes, strip_of_scene, whole_scene
from _lib.task import Images, RestorerOptions, Task
from _lib.training import run
from _lib.validation import Enlarge, published
from accelerate import Accelerator
from torch import Tensor, nn

from perceptloss import Critic, create_critic
from perceptloss.errors import ConfigError
from perceptloss.networks.restorers import NU2Net
from perceptloss.runs import config as options
from perceptloss.runs.config import option
from perceptloss.runs.launch import alone_in_folder, run_as_script
from perceptloss.runs.options import Log, Model, Train
from perceptloss.runs.scenes import Scene

TRAIN_PHOTOS = ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png", "grass.png", "gravel.png", "brick.png")
CALM_PHOTOS = ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png", "coins.png", "ihc.png")
VAL_PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg")
COLOURS = ("look", "about", "to_maps", "maps")  # half a dozen photographs teach nothing about colours
LEARNING = {"lr": 7e-4, "penalty": 5e-5, "replay": 0.2}
CRITICS = {
    "lpips-squeeze": {"share": 0.55},  # looks
    "patch": {"share": 0.2, "weights": None, "start": 80, "ramp": 80, "joint": LEARNING},  # learns what is not real
    "mini-underwater": {"share": 0.05, "shape": "hinge", "start": 200, "ramp": 100},  # no better than the reference
}
JUDGES = ("haarpsi", "ms-gmsd", "uiqm", "uciqe")
GUESTS = ("lpips-alex", "niqe")
NIGHT: dict[str, Any] = {
    "output": "runs/night",
    "data.patch": 128,  # how dark it is shows in large parts only; critics of detail need less
    "data.batch": 2,
    "train.steps": 900,
    "train.lr": 6e-4,
    "loss.critics": {
        "lpips-squeeze": {"share": 0.75},
        "patch": {**CRITICS["patch"], "share": 0.12, "start": 200, "ramp": 200, "crop": 64},
    },
    "loss.gate": "mini-nr",
    "val.judges": ("mini-fr", "haarpsi", "ms-gmsd", "mini-nr"),
}


@dataclass(frozen=True)
class Config(RestorerOptions):
    """Every option; the defaults are the demonstration under water."""

    output: str = option("runs/underwater", "folder of the run; at night: runs/night")
    domain: Domain = option(  # noqa: RUF009
        "underwater", "what the pictures suffer from; it chooses start, critics and judges"
    )
    data: Pictures = field(default_factory=lambda: Pictures(patch=64, batch=4))
    model: Model = field(
        default_factory=lambda: Model(arch="AffineUNet", options=dict(ENHANCER), scale=1, weights="auto")
    )
    loss: Guidance = field(
        default_factory=lambda: Guidance(critics=CRITICS, shift=8, budget={"psnr": -0.5}, budget_room=3.0)
    )
    train: Train = field(default_factory=lambda: Train(steps=600, lr=1e-3, warmup=20, ema=0.99))
    val: Judging = field(
        default_factory=lambda: Judging(every=300, judges=JUDGES, guests=GUESTS, best="haarpsi", border=0)
    )
    log: Log = field(default_factory=lambda: Log(every=25))


# --- pictures -----------------------------------------------------------------------------------


def find(config: Config, least: int, accelerator: Accelerator) -> Images:
    """Pictures to train on and to validate on: those of the folders, or of scikit-image."""
    photos = CALM_PHOTOS if config.domain == "night" else TRAIN_PHOTOS  # texture there teaches to keep the noise
    images = found_scenes(config.data, (photos, VAL_PHOTOS), least, accelerator)
    if any(scene.reference is None for scene in images[0]) and (wrong := gate_problems(config.loss, config.val)):
        raise ConfigError([*wrong, "it chooses labels, as some pictures to train on have no reference"], "options")
    if config.loss.regions and all(scene.mask is None for scene in images[0]):
        raise ConfigError(["loss.regions needs masks of pictures to train on: give data.train_masks"], "options")
    return images


def patches(config: Config, scenes: Sequence[Scene]) -> ScenePatches:
    """Aligned patches, of all but the strips if there is a budget: also for the baseline, which sees the same."""
    data = config.data
    return ScenePatches(
        scenes,
        data.patch,
        config.domain,
        seed=config.train.seed,
        flips=data.flips,
        cache_mb=data.cache_mb,
        spares_strips=bool(config.loss.budget),
    )


def whole(config: Config, scene: Scene) -> tuple[Tensor, Tensor]:
    """A picture as raw and reference."""
    return whole_scene(scene, config.domain)


def strip(config: Config, scene: Scene) -> tuple[Tensor, Tensor]:
    """The part of a picture that patches spare."""
    return strip_of_scene(scene, config.domain, config.data.patch)


# --- networks -----------------------------------------------------------------------------------


def network(config: Config) -> nn.Module:
    """The network as the training starts with it."""
    return build_network(config.model, config.data.patch)


def restored(config: Config, trained: nn.Module, raw: Tensor) -> Tensor:
    """A whole picture, enhanced; by SGUIE-Net with its semantic map, if it has one."""
    if config.model.arch == SEMANTIC and len(raw) > 3:
        return trained(raw[None, :3], planes(raw[None, 3:]))[0].float()
    return restore(trained, raw[:3], scale=1, multiple=config.model.multiple_of)


def plain(config: Config) -> dict[str, Enlarge]:
    """The floor of the table: the raw picture itself."""
    return {"input": lambda raw: raw[:3]}


# --- judges and guides --------------------------------------------------------------------------


def judge(config: Config, name: str) -> Critic:
    """A critic as published, or of the output with the brightness of the reference."""
    critic = published(name)
    return GTMean(critic) if config.val.gt_mean and critic.card.needs_reference else critic


def aid(config: Config, t: Watched, scenes: Sequence[Scene]) -> Guide:
    """Semantic maps, critics of regions, and labels for pictures without reference."""
    numbers = [number for number, scene in enumerate(scenes) if scene.reference is None]
    critic = create_critic(config.loss.gate).to(t.accelerator.device) if numbers else None

    def picture(number: int) -> Tensor:
        return whole(config, scenes[number])[0]

    bank = Bank(numbers, picture, partial(restored, config), config.loss.gate_every, critic)
    regions = config.loss.regions if config.loss.critics else {}  # plain L1 is without
    return Guide(t, bank, regions, is_semantic=config.model.arch == SEMANTIC)


# --- the run ------------------------------------------------------------------------------------


def problems(config: Config) -> list[str]:
    """Contradictions between options."""
    found = option_problems(config.data, config.model, config.loss, config.train, config.val, fidelity="psnr")
    if config.model.scale != 1:
        found.append("model.scale: enhancement keeps the size, so it is 1")
    return found + guidance_problems(config.loss, config.data.patch)


TASK = Task(
    recipe="enhance",
    problems=problems,
    find=find,
    patches=patches,
    whole=whole,
    strip=strip,
    network=network,
    restored=restored,
    plain=plain,
    has_reference=lambda scene: scene.reference is not None,
    judge=judge,
    fidelity=lambda config: judge(config, "psnr"),
    aid=aid,
    crop=(192, 2),
)


def configured(argv: Sequence[str]) -> Config:
    """The options, with the defaults of their domain, and the start that fits its network."""
    config = options.load(Config, argv)
    if config.domain == "night":
        config = options.load(Config, argv, NIGHT)
    fits = (config.model.arch, config.model.options) == ("AffineUNet", ENHANCER)
    if fits and config.model.weights and not config.data.train:
        config = replace(config, model=replace(config.model, frozen=config.model.frozen or COLOURS))
    if config.model.arch == "NU2Net" and config.model.multiple_of == 1:
        config = replace(config, model=replace(config.model, multiple_of=NU2Net.MULTIPLE))
    if config.model.weights == "auto":
        start = f"{config.domain}-start" if fits else None
        config = replace(config, model=replace(config.model, weights=start))
    return replace(config, loss=replace(config.loss, domain=config.domain))


@alone_in_folder
def main(argv: Sequence[str]) -> None:
    """The whole run."""
    run(configured(argv), TASK)


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
