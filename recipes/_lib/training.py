"""The training of a restorer, from its options to its table: what every recipe of one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from _lib.artefacts import artefact_loss, restored_by_average
from _lib.critics import (
    Strips,
    build_critics,
    deliver_critics,
    keeps_budget,
    let_learn,
    open_anchors,
    settle_budget,
    watch_budget,
)
from _lib.data import SampleOrder, patch_loader
from _lib.honesty import Watched, look, verdict
from _lib.networks import export, has_parts_that_rest, load_weights
from _lib.switch import switched
from _lib.task import Aid, Batch, C, Images, RestorerOptions, Task
from _lib.validation import Jury
from perceptloss import CriticLoss
from perceptloss.errors import ConfigError
from perceptloss.honesty.watch import Watch
from perceptloss.runs import loop
from perceptloss.runs.inventory import Item, of_items, remember
from perceptloss.runs.launch import (
    claim,
    make_accelerator,
    on_main,
    resume_point,
    sharding_problems,
    use_threads,
)
from perceptloss.runs.meters import Meter
from perceptloss.runs.optimizers import make_optimizer
from perceptloss.runs.state import Ema, StopSignal, read_progress

__all__ = ["Trainee", "run"]


@dataclass(kw_only=True)
class Trainee(Watched):
    """One network on its way: everything that a step touches."""

    KEPT = (*Watched.KEPT, "samples")

    config: RestorerOptions
    task: Task[Any]
    label: str
    batches: Iterator[Batch]
    aid: Aid = field(default_factory=Aid)
    samples: int = 0


def build_trainee(
    config: C,
    task: Task[C],
    folder: Path,
    resume: str,
    items: Sequence[Item],
    critics: CriticLoss | None,
    watch: Watch | None,
    label: str,
) -> Trainee:
    """A network at the start of its training, or where a checkpoint left it; `label` is that of its bar."""
    train, data = config.train, config.data
    rests = has_parts_that_rest(config.model)
    accelerator = make_accelerator(config, folder, train.accumulate, config.log.trackers, rests=rests)
    set_seed(train.seed)
    network = task.network(config)
    optimizer = make_optimizer(network.parameters(), train)
    set_seed(train.seed, device_specific=True)
    point = resume_point(folder, resume)
    progress = read_progress(point) if point else {}
    start = progress.get("samples", 0)
    coming = (train.steps - progress.get("step", 0)) * config.samples_per_step(accelerator)
    order = SampleOrder(len(items), start, start + coming, train.seed)
    loader = patch_loader(task.patches(config, items), order, data.batch, data.workers, train.seed)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    budget = config.loss.budget if critics else {}
    trainee = Trainee(
        config=config,
        task=task,
        label=label,
        folder=folder,
        accelerator=accelerator,
        network=network,
        optimizer=optimizer,
        batches=iter(loader),
        loss=critics,
        watch=watch,
        strips=Strips.cut(
            [*filter(task.has_reference, items)], budget, partial(task.strip, config), partial(task.restored, config)
        ),
        ema=Ema(network.parameters(), train.ema) if train.ema else None,
        **progress,
    )
    trainee.aid = task.aid(config, trainee, items)
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
        batch = next(t.batches)
        with accelerator.accumulate(t.network):
            steady = restored_by_average(t, batch[0])  # first, for it changes the weights meanwhile
            output = t.aid.output(t, batch).float()  # autocast ends here: losses are computed in fp32
            target = t.aid.target(t, batch, output)
            pixel = F.l1_loss(output, target)
            loss = config.loss.pixel_weight * pixel + artefact_loss(config.loss, output, target, steady)
            if t.loss is not None:
                loss = loss + t.loss(output, target, step=t.step)
            if (more := t.aid.loss(t, batch, output, target)) is not None:
                loss = loss + more
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                patience = 1 if config.loss.on_nonfinite == "raise" else loop.BAD_STEPS
                meter.grad_norm = loop.update(t, t.network.parameters(), patience)
            t.optimizer.zero_grad()
        meter.add(loss, pixel, t.loss)
    meter.learned = let_learn(t, output, target)
    t.samples += config.samples_per_step(accelerator)
    t.aid.after(t)


def train(t: Trainee, images: Images, jury: Jury, stop: StopSignal) -> None:
    """Train one network to its end; leaves log.jsonl, checkpoints/ and models/ in its folder.

    Raises:
        SystemExit: after a checkpoint, if a process was told to stop.
    """
    config, meter = t.config, Meter(t.accelerator)
    watch_budget(t, begins=True)
    if t.watch is not None and not t.step:
        validate(t, images[1], jury)
    for step in loop.steps(t, t.label):
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
    settle_budget(t, partial(t.task.network, config))
    deliver_critics(t)
    deliver(t, "net_g")
    if config.val.every or t.watch is not None:  # of what is delivered
        loop.write(t, "val", validate(t, images[1], jury))
    loop.close(t)


# --- validation and report ----------------------------------------------------------------------


def validate(t: Trainee, items: Sequence[Item], jury: Jury) -> dict[str, Any]:
    """Score the averaged weights on whole images; keep them as models/best if they are, and within the budget."""
    config, task = t.config, t.task
    t.network.eval()
    with loop.averaged(t):
        enlarge, whole = partial(task.restored, config, t.network), partial(task.whole, config)
        means, sights = jury.means(enlarge, items, whole, t.watch, (t.folder, t.step))
    t.network.train()
    alarms = look(t, sights, means)
    if jury.is_better(config.val.best, means[config.val.best], t.best) and keeps_budget(t):
        t.best = means[config.val.best]
        deliver(t, "best")
    return {"scores": means, "best": t.best, "alarms": alarms}


def deliver(t: Trainee, name: str) -> None:
    """The weights as files of models/, with their origin in the metadata; on all processes."""
    loss, seed = t.config.loss, t.config.train.seed
    facts = {"step": t.step, "pixel_weight": loss.pixel_weight, "critics": loss.critics, "seed": seed}
    export(t.accelerator, t.network, t.ema, t.config.model, t.folder / "models" / name, facts)


def conclude(config: C, task: Task[C], jury: Jury, folder: Path, items: Sequence[Item], trainee: Trainee) -> str:
    """Restore every validation image with every network and compare them; write images, tables and the picture."""
    end, fresh = "_ema" if config.train.ema else "", replace(config, model=replace(config.model, weights=None, lora=0))
    homes = {name: folder / name for name in task.rivals(config)}
    systems: dict[str, Callable[[Tensor], Tensor]] = dict(task.plain(config))
    floor = next(iter(systems))
    for name, home in {**homes, config.name: folder}.items():
        network = task.network(fresh).eval()
        load_weights(network, home / "models" / f"net_g{end}.safetensors")
        systems[name] = partial(task.restored, config, network.to(jury.accelerator.device))
    facts = {"recipe": task.recipe, "steps": config.train.steps, "parameters": _size(network)}
    start, whole = task.network(config).to(jury.accelerator.device), partial(task.whole, config)
    known = items if jury.has_references else ()
    remarks = [*verdict(trainee, start, network, known, whole), *jury.remarks]
    remarks += task.remarks(config, folder, [*systems])
    remarks += task.told(config, folder, systems, items)
    return jury.conclude(folder, systems, items, whole, [*homes, floor][0], facts, remarks, task.crop)


def _size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# --- the run ------------------------------------------------------------------------------------


def run(config: C, task: Task[C]) -> None:
    """The whole run of a recipe; for inside `alone_in_folder`."""
    config = replace(config, loss=switched(config.loss, config.critic.joint))
    folder = Path(config.output)
    accelerator = make_accelerator(config, folder, 1, ())
    use_threads(config.threads, accelerator)
    problems = task.problems(config)
    problems += sharding_problems(accelerator, config.train, has_baseline=config.has_baseline)
    if problems:
        raise ConfigError(problems, "options")
    if on_main(accelerator, partial(claim, config, folder)):
        accelerator.print(f"{folder} is finished; --overwrite runs it again.\n\n{(folder / 'results.md').read_text()}")
        return
    critics, jury = _summoned(config, task, accelerator)
    images = task.find(config, jury.smallest_side, accelerator)
    if not all(map(task.has_reference, images[1])):
        jury = jury.without_references(config.val.best, config.val.reaction)
    anchors = open_anchors(config.loss, critics, config.train.seed, accelerator)
    on_main(accelerator, lambda: remember(folder, of_items({"data.train": images[0], "data.val": images[1]})))
    with StopSignal() as stop:
        for name, rival in task.rivals(config).items():
            of_rival = _critics(rival, task, accelerator)
            rivals = build_trainee(rival, task, folder / name, "auto", images[0], of_rival, None, name)
            train(rivals, images, jury, stop)
        watch = jury.watch(config.val.reaction) if jury.trained and jury.has_references else None
        trainee = build_trainee(config, task, folder, config.resume, images[0], critics, watch, config.name)
        trainee.anchors = anchors
        train(trainee, images, jury, stop)
    accelerator.print(f"\n{conclude(config, task, jury, folder, images[1], trainee)}\nEverything is in {folder}.")
    accelerator.end_training()


def _critics(config: C, task: Task[C], accelerator: Accelerator) -> CriticLoss | None:
    side, every, seed = config.data.patch, config.log.every, config.train.seed
    return build_critics(config.loss, accelerator.device, side=side, share_every=every, seed=seed, stereo=task.stereo)


def _summoned(config: C, task: Task[C], accelerator: Accelerator) -> tuple[CriticLoss | None, Jury]:
    """The critics that are trained on, and the jury of them and of the judges."""
    critics = _critics(config, task, accelerator)
    trained = [term.critic for term in (critics.terms if critics else ()) if not term.spec.monitor]
    judge = partial(task.judge, config)
    fidelity = task.fidelity(config)
    jury = Jury.summon(accelerator, config.val, trained, config.border, judge, fidelity, stereo=task.stereo)
    return critics, jury
