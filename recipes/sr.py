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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _lib.artefacts import artefact_loss, restored_by_average
from _lib.checks import find_images, option_problems
from _lib.critics import Strips, build_critics, deliver_critics, settle_budget, watch_budget
from _lib.data import PatchPairs, SampleOrder, patch_loader
from _lib.honesty import Watched, look, verdict
from _lib.networks import NETWORK, bicubic, build_network, export, load_weights, restore
from _lib.validation import Jury
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError
from perceptloss.honesty.watch import Watch
from perceptloss.runs import config as options
from perceptloss.runs import loop
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair
from perceptloss.runs.inventory import of_pairs, remember
from perceptloss.runs.launch import (
    alone_in_folder,
    claim,
    make_accelerator,
    on_main,
    resume_point,
    run_as_script,
    sharding_problems,
    use_threads,
)
from perceptloss.runs.meters import Meter
from perceptloss.runs.options import Data, Log, Loss, Model, RunOptions, Train, Val
from perceptloss.runs.state import Ema, StopSignal, read_progress

Images = tuple[Sequence[Pair], Sequence[Pair]]  # to train on, to validate on

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
LEARNING = {"lr": 7e-4, "penalty": 5e-5, "replay": 0.2}
CRITICS = {
    "lpips-squeeze": {"share": 0.5},  # looks
    "grid": {"share": 0.1},  # prints no pattern
    "patch": {"share": 0.18, "weights": None, "start": 100, "ramp": 100, "joint": LEARNING},  # learns what is not real
}
JUDGES = ("mini-fr", "haarpsi", "ms-gmsd", "mini-nr")
GUESTS = ("lpips-alex", "niqe")


@dataclass(frozen=True)
class Config(RunOptions):
    """Every option; the defaults are the demonstration."""

    output: str = option("runs/sr", "folder of the run")
    baseline: bool = option(True, "also train with L1 alone, and compare (if there are critics)")
    data: Data = field(default_factory=lambda: Data(patch=64))
    model: Model = field(default_factory=lambda: Model(options=dict(NETWORK), weights="auto"))
    loss: Loss = field(default_factory=lambda: Loss(critics=CRITICS, shift=8, budget={"psnr": -0.25}, budget_room=3.0))
    train: Train = field(default_factory=lambda: Train(steps=700, lr=8e-4, warmup=20, ema=0.995))
    val: Val = field(default_factory=lambda: Val(every=400, judges=JUDGES, guests=GUESTS, best="mini-fr"))
    log: Log = field(default_factory=lambda: Log(every=25))

    @property
    def name(self) -> str:
        """What the trained network is called in tables."""
        return "critics" if self.loss.critics else "l1"

    @property
    def has_baseline(self) -> bool:
        """Whether a second network is trained."""
        return self.baseline and bool(self.loss.critics)

    @property
    def border(self) -> int:
        """Pixels cut off each side before scoring."""
        return self.model.scale if self.val.border is None else self.val.border

    def samples_per_step(self, accelerator: Accelerator) -> int:
        """Patches that all processes together see in one optimizer step."""
        return self.data.batch * self.train.accumulate * accelerator.num_processes


# --- network and critics ------------------------------------------------------------------------


@dataclass(kw_only=True)
class Trainee(Watched):
    """One network on its way: everything that a step touches."""

    KEPT = (*Watched.KEPT, "samples")

    config: Config
    batches: Iterator[tuple[Tensor, Tensor]]
    samples: int = 0


def build_trainee(
    config: Config, folder: Path, resume: str, pairs: Sequence[Pair], critics: CriticLoss | None, watch: Watch | None
) -> Trainee:
    """A network at the start of its training, or where a checkpoint left it."""
    train, data, scale = config.train, config.data, config.model.scale
    accelerator = make_accelerator(config, folder, train.accumulate, config.log.trackers)
    set_seed(train.seed)
    network = build_network(config.model, data.patch // scale)
    optimizer = torch.optim.AdamW(network.parameters(), train.lr, train.betas, weight_decay=train.weight_decay)
    set_seed(train.seed, device_specific=True)
    point = resume_point(folder, resume)
    progress = read_progress(point) if point else {}
    start = progress.get("samples", 0)
    coming = (train.steps - progress.get("step", 0)) * config.samples_per_step(accelerator)
    patches = PatchPairs(pairs, data.patch, scale, seed=train.seed, flips=data.flips, cache_mb=data.cache_mb)
    patches.spares_strips = bool(config.loss.budget)  # also without critics: the baseline sees the same patches
    order = SampleOrder(len(pairs), start, start + coming, train.seed)
    loader = patch_loader(patches, order, data.batch, data.workers)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    trainee = Trainee(
        config=config,
        folder=folder,
        accelerator=accelerator,
        network=network,
        optimizer=optimizer,
        batches=iter(loader),
        loss=critics,
        watch=watch,
        strips=Strips.cut(pairs, config.loss.budget if critics else {}, config.model, data.patch),
        ema=Ema(network.parameters(), train.ema) if train.ema else None,
        **progress,
    )
    loop.restore(trainee, point)
    if watch is not None and critics is not None and trainee.seen:
        watch.load_state(trainee.seen)
        critics.factor = watch.factor
    return trainee


# --- the loop -----------------------------------------------------------------------------------


def take_step(t: Trainee, meter: Meter) -> None:
    """One optimizer step: as many forwards and backwards as are accumulated, then clip, update, average."""
    config, accelerator = t.config, t.accelerator
    loop.set_rate(t)
    for _ in range(config.train.accumulate):
        lq, gt = next(t.batches)
        with accelerator.accumulate(t.network):
            steady = restored_by_average(t, lq)  # first, for it changes the weights meanwhile
            output = t.network(lq).float()  # autocast ends here: losses are computed in fp32
            pixel = F.l1_loss(output, gt)
            loss = config.loss.pixel_weight * pixel + artefact_loss(config.loss, output, gt, steady)
            if t.loss is not None:
                loss = loss + t.loss(output, gt, step=t.step)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                patience = 1 if config.loss.on_nonfinite == "raise" else loop.BAD_STEPS
                meter.grad_norm = loop.update(t, t.network.parameters(), patience)
            t.optimizer.zero_grad()
        meter.add(loss, pixel, t.loss)
    if t.loss is not None and t.loss.learners:
        t.loss.learn(output.detach(), gt, step=t.step)
    t.samples += config.samples_per_step(accelerator)


def train(t: Trainee, images: Images, jury: Jury, stop: StopSignal) -> None:
    """Train one network to its end; leaves log.jsonl, checkpoints/ and models/ in its folder.

    Raises:
        SystemExit: after a checkpoint, if a process was told to stop.
    """
    config, meter = t.config, Meter(t.accelerator)
    watch_budget(t, begins=True)
    if t.watch is not None and not t.step:
        validate(t, images[1], jury)
    for step in loop.steps(t, config.name):
        is_logged = loop.is_due(t, config.log.every)
        meter.start(is_logged=is_logged)
        take_step(t, meter)
        watch_budget(t)
        if is_logged:
            place = {"epoch": (t.samples - 1) // len(images[0]), "samples": t.samples, "skipped_steps": t.skipped}
            loop.write(t, "train", {**place, "lr": loop.learning_rate(config.train, step), **meter.summary()})
        with meter.paused():
            if config.val.every and step % config.val.every == 0 and step < config.train.steps:
                loop.write(t, "val", validate(t, images[1], jury))
            loop.keep_or_stop(t, stop)
    settle_budget(t, partial(build_network, config.model, config.data.patch // config.model.scale))
    deliver_critics(t)
    deliver(t, "net_g")
    if config.val.every or t.watch is not None:  # of what is delivered
        loop.write(t, "val", validate(t, images[1], jury))
    loop.close(t)


# --- validation and report ----------------------------------------------------------------------


def validate(t: Trainee, pairs: Sequence[Pair], jury: Jury) -> dict[str, Any]:
    """Score the averaged weights on whole images; keep them as models/best if they are."""
    config, model = t.config, t.config.model
    t.network.eval()
    enlarge = partial(restore, t.network, scale=model.scale, multiple=model.multiple_of)
    with loop.averaged(t):
        means, sights = jury.means(enlarge, pairs, model.scale, t.watch, (t.folder, t.step))
    t.network.train()
    alarms = look(t, sights, means)
    if jury.is_better(config.val.best, means[config.val.best], t.best):
        t.best = means[config.val.best]
        deliver(t, "best")
    return {"scores": means, "best": t.best, "alarms": alarms}


def deliver(t: Trainee, name: str) -> None:
    """The weights as files of models/, with their origin in the metadata; on all processes."""
    loss, seed = t.config.loss, t.config.train.seed
    facts = {"step": t.step, "pixel_weight": loss.pixel_weight, "critics": loss.critics, "seed": seed}
    export(t.accelerator, t.network, t.ema, t.config.model, t.folder / "models" / name, facts)


def conclude(config: Config, jury: Jury, folder: Path, pairs: Sequence[Pair], trainee: Trainee) -> str:
    """Restore every validation image with every network and compare them; write images, tables and the picture."""
    model, end = config.model, "_ema" if config.train.ema else ""
    homes = {"l1": folder / "l1"} if config.has_baseline else {}
    systems: dict[str, Callable[[Tensor], Tensor]] = {"bicubic": partial(bicubic, scale=model.scale)}
    for name, home in {**homes, config.name: folder}.items():
        network = build_network(replace(model, weights=None), config.data.patch // model.scale).eval()
        load_weights(network, home / "models" / f"net_g{end}.safetensors")
        network.to(jury.accelerator.device)
        systems[name] = partial(restore, network, scale=model.scale, multiple=model.multiple_of)
    parameters = sum(p.numel() for p in network.parameters())
    facts = {"recipe": "sr", "steps": config.train.steps, "parameters": parameters}
    start = build_network(model, config.data.patch // model.scale).to(jury.accelerator.device)
    remarks = [*verdict(trainee, start, network, pairs, model.scale), *jury.remarks]
    return jury.conclude(folder, systems, pairs, model.scale, [*homes, "bicubic"][0], facts, remarks)


@alone_in_folder
def main(argv: Sequence[str]) -> None:
    """The whole run."""
    config = options.load(Config, argv)
    folder = Path(config.output)
    accelerator = make_accelerator(config, folder, 1, ())
    use_threads(config.threads, accelerator)
    problems = option_problems(config.data, config.model, config.loss, config.train, config.val)
    problems += sharding_problems(accelerator, has_baseline=config.has_baseline, has_ema=config.train.ema > 0)
    if problems:
        raise ConfigError(problems, "options")
    if on_main(accelerator, partial(claim, config, folder)):
        accelerator.print(f"{folder} is finished; --overwrite runs it again.\n\n{(folder / 'results.md').read_text()}")
        return
    side, seed = config.data.patch, config.train.seed
    critics = build_critics(config.loss, accelerator.device, side=side, share_every=config.log.every, seed=seed)
    trained = [term.critic for term in (critics.terms if critics else ()) if not term.spec.monitor]
    jury = Jury.summon(accelerator, config.val, trained, config.border)
    photos = (TRAIN_PHOTOS, VAL_PHOTOS)
    images = find_images(config.data, config.model.scale, photos, jury.smallest_side, accelerator)
    on_main(accelerator, lambda: remember(folder, of_pairs({"data.train": images[0], "data.val": images[1]})))
    with StopSignal() as stop:
        if config.has_baseline:
            alone = replace(config, loss=replace(config.loss, critics={}))
            train(build_trainee(alone, folder / "l1", "auto", images[0], None, None), images, jury, stop)
        watch = jury.watch(config.val.reaction) if trained else None
        trainee = build_trainee(config, folder, config.resume, images[0], critics, watch)
        train(trainee, images, jury, stop)
    accelerator.print(f"\n{conclude(config, jury, folder, images[1], trainee)}\nEverything is in {folder}.")
    accelerator.end_training()


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
