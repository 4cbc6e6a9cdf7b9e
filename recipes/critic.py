"""Teach a critic: any registered one, from people's opinions, the consensus of other critics, or degradations.

    accelerate launch recipes/critic.py --table.path mine.csv    # columns image,mos: everything else follows
    accelerate launch recipes/critic.py --config recipes/configs/critic_opinions.yaml
    accelerate launch recipes/critic.py --config X.yaml --train.steps 20000 --output runs/mine
    accelerate launch recipes/critic.py --help                   # every option

Entries of `data` are sources, all of which come in every step: `teachers` (photographs, degraded, with
the consensus of full-reference critics), `ladders` (photographs, degraded on the fly, order alone), `mixtures` (raw
pictures blended with their references), `stereo` (pairs, real or made), `opinions` (datasets of scores); those of
`val.sets` may be exams alone too, `enlargers` and `restoration`. `objectives` are minimised, each by its weight. Batch
losses see the batches of all processes as one. Photographs of exams that are also trained on, be they resized, trimmed,
mirrored or degraded, stop the run before it begins. Killed at any moment, a run goes on from its last checkpoint when
started again with the same command; on a CPU in fp32 to the same bits.

Below `output`: config.yaml, log.jsonl, checkpoints/last, results.json, and in models/ CRITIC.safetensors (averaged
weights, best exam) with its model card CRITIC.md, and CRITIC_last.safetensors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed

from perceptloss import Critic
from perceptloss.errors import ConfigError
from perceptloss.runs import config as options
from perceptloss.runs import loop
from perceptloss.runs.config import option
from perceptloss.runs.inventory import remember
from perceptloss.runs.launch import (
    alone_in_folder,
    claim,
    make_accelerator,
    on_main,
    resume_point,
    run_as_script,
    unwritable_run,
    use_threads,
)
from perceptloss.runs.optimizers import make_optimizer
from perceptloss.runs.options import Log, RunOptions, Train
from perceptloss.runs.state import Ema, StopSignal, read_progress
from perceptloss.teach.exams.evaluate import default_best, exam_problems, examine, look_up
from perceptloss.teach.run.checks import attack_problems, option_problems
from perceptloss.teach.run.critic import Place, Reader, build_critic, parameter_groups, settle
from perceptloss.teach.run.export import STARTING, conclude, figures_table, origin_in, origin_of
from perceptloss.teach.run.kept import shapes_of
from perceptloss.teach.run.options import CardText, CriticOptions, Val
from perceptloss.teach.run.peers import build_peers, size_problems
from perceptloss.teach.run.rehearsal import rehearse
from perceptloss.teach.run.remember import remembered
from perceptloss.teach.run.saving import export
from perceptloss.teach.run.setup import Material, open_material
from perceptloss.teach.run.sources import parse_entries
from perceptloss.teach.run.stream import Batches
from perceptloss.teach.run.table import Plan, Table, plan, refuse_upside_down
from perceptloss.teach.run.tally import Tally
from perceptloss.teach.run.terms import Terms, ask_references, looks_of
from perceptloss.weights.download import sha256_of

FREE = ("card.", "val.peers", "val.rounds", "val.attacks", "build_only", "evaluate_only")


@dataclass(frozen=True)
class Config(RunOptions):
    """Every option."""

    output: str = option("runs/critic", "folder of the run")
    build_only: bool = option(False, "make scored sets, check everything, and stop before training")
    evaluate_only: str | None = option(None, "weights to examine again, with figures and card, instead of teaching")
    table: Table = field(default_factory=Table)
    critic: CriticOptions = field(default_factory=CriticOptions)
    data: list[Any] = option([], "sources to learn from, all in every step: [{kind, name, weight, ...}]")  # noqa: RUF009
    objectives: dict[str, Any] = option(  # noqa: RUF009
        {"pearson": 1.0, "order": 0.5}, "{name: weight} or {label: {objective, weight, option: value}}"
    )
    balance: Literal["fixed", "uncertainty"] = option("fixed", "uncertainty: weigh by learned variances as well")
    train: Train = field(default_factory=lambda: Train(steps=20_000, lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.999)))
    val: Val = field(default_factory=Val)
    card: CardText = field(default_factory=CardText)
    log: Log = field(default_factory=Log)


@dataclass(kw_only=True)
class Trainee(loop.Run):
    """A critic on its way: everything that a step touches."""

    KEPT = (*loop.Run.KEPT, "draws", "seconds")

    config: Config
    place: Place
    critic: Critic
    reader: torch.nn.Module
    loss: Terms
    batches: Batches
    draws: int = 0
    seconds: float = 0.0


def build_trainee(config: Config, folder: Path, critic: Critic, material: Material) -> Trainee:
    """A critic at the start of its training, or where a checkpoint left it."""
    train = config.train
    accelerator = make_accelerator(config, folder, train.accumulate, config.log.trackers)
    place = Place(accelerator.device, config.critic.channels_last)
    material = remembered(material, critic, config.critic, place.device)
    streams = material.streams(train.seed, accelerator.process_index, accelerator.num_processes)
    critic.to(place.device).to(memory_format=place.memory_format)
    looks = looks_of(config.objectives, [s.options for s in material.sources])
    reader = Reader(critic, config.critic.read, config.critic.tap, looks, shapes_of(material.sources))
    width, idle = settle(reader, [place.pair(stream[0]) for stream in streams])
    if idle:
        accelerator.print(f"no score depends on {len(idle)} parameters, which stay fixed: {', '.join(idle[:5])}")
    set_seed(train.seed)  # the objectives' own parameters are the same on all processes
    terms = Terms(config.objectives, material.sources, critic.card, config.balance, width).to(accelerator.device)
    optimizer = make_optimizer(parameter_groups(critic, terms, train.weight_decay), train)
    ema = Ema(critic.parameters(), train.ema) if train.ema else None
    reader, optimizer = accelerator.prepare(reader, optimizer)
    set_seed(train.seed, device_specific=True)
    point = resume_point(folder, config.resume)
    progress = read_progress(point) if point else {}
    trainee = Trainee(
        config=config,
        folder=folder,
        accelerator=accelerator,
        place=place,
        critic=critic,
        reader=reader,
        loss=terms,
        optimizer=optimizer,
        batches=Batches(streams, progress.get("draws", 0)),
        ema=ema,
        **progress,
    )
    loop.restore(trainee, point)
    return trainee


def take_step(t: Trainee, tally: Tally) -> None:
    """One optimizer step: as many forwards and backwards as are accumulated, then clip, update, average."""
    loop.set_rate(t)
    learning = [p for group in t.optimizer.param_groups for p in group["params"]]
    for _ in range(t.config.train.accumulate):
        batches = t.batches.take()
        with t.accelerator.accumulate(t.reader):
            outputs = t.reader([t.place.pair(batch) for batch in batches])
            loss, parts = t.loss(outputs, batches)
            t.accelerator.backward(loss)
            if t.accelerator.sync_gradients:
                tally.grad_norm = loop.update(t, learning)
            t.optimizer.zero_grad()
        t.draws += 1
        tally.add(loss, parts, sum(len(batch.x) for batch in batches))
    tally.steps += 1


def teach(t: Trainee, material: Material, stop: StopSignal) -> None:
    """Teach to the end; leaves log.jsonl, checkpoints/ and models/.

    Raises:
        SystemExit: after a checkpoint, if a process was told to stop.
    """
    config, tally, since = t.config, Tally(), time.perf_counter() - t.seconds
    for step in loop.steps(t, config.critic.name):
        take_step(t, tally)
        if loop.is_due(t, config.log.every):
            place = {"draws": t.draws, "skipped_steps": t.skipped, "lr": loop.learning_rate(config.train, step)}
            loop.write(t, "train", place | tally.summary())
        with tally.paused():
            if loop.is_due(t, config.val.every or config.train.steps):
                loop.write(t, "val", validate(t, material))
            t.seconds = time.perf_counter() - since
            loop.keep_or_stop(t, stop)
    t.batches.close()
    deliver(t, "_last")
    loop.close(t)


def validate(t: Trainee, material: Material) -> dict[str, Any]:
    """Examine the averaged weights; keep them if they are the best so far."""
    val = t.config.val
    t.critic.eval()
    with loop.averaged(t):
        found = examine(t.accelerator, t.critic, material.exams, limit=val.limit, seed=t.config.train.seed, rounds=0)
    t.critic.train()
    value = look_up(found, val.best or default_best(material.exams))
    if t.best is None or (value is not None and value > t.best):
        t.best = value
        deliver(t, "")
    return {"exams": found, "best": t.best}


def deliver(t: Trainee, suffix: str) -> None:
    """The (averaged) weights as a file of models/; call on all processes."""
    if t.accelerator.is_main_process:
        name = t.config.critic.name
        with loop.averaged(t):
            facts = {"step": t.step, "seed": t.config.train.seed, "options": t.config.critic.options}
            export(t.critic, t.folder / "models" / f"{name}{suffix}.safetensors", facts)
    t.accelerator.wait_for_everyone()


def start_figures(
    accelerator: Accelerator, config: Config, critic: Critic, material: Material, followed: Plan | None
) -> dict[str, Any] | None:
    """All exams of the weights that it starts from, also printed; None of random ones.

    Raises:
        ConfigError: if the scores of a table contradict these weights.
    """
    if config.critic.weights is None:
        return None
    critic.to(accelerator.device).eval()
    if followed is not None and not followed.is_sure:
        on_main(accelerator, partial(refuse_upside_down, critic, material.sources[0], accelerator.device))
    found = examine(accelerator, critic, material.exams, limit=0, seed=0, rounds=config.val.rounds)
    critic.train()
    accelerator.print(f"Before training:\n\n{figures_table({STARTING: found})}")
    return found


def read_options(argv: Sequence[str]) -> tuple[Config, Plan | None]:
    """The configuration; of a table of one's own, what is not given follows from it, and why.

    Raises:
        ConfigError: listing what is wrong with the options, or with the table and its pictures.
    """
    config = options.load(Config, argv)
    if not config.table.path:
        return config, None
    if config.data or config.val.sets:
        raise ConfigError(
            ["--table.path: what to learn from and the exam follow from it; drop data and val.sets"], "options"
        )
    asked = options.load(Config, argv, {"critic.name": "", "train.steps": 0})
    made = plan(config.table, asked.critic.name, asked.train.steps)
    config = options.load(Config, argv, made.defaults)
    return replace(config, table=Table()), made


@alone_in_folder
def main(argv: Sequence[str]) -> None:
    """The whole run."""
    config, followed = read_options(argv)
    c = config
    problems = option_problems(c.critic.name, c.data, c.val.sets, c.objectives, c.train, c.card)
    if c.evaluate_only is None:
        problems += attack_problems(c.critic, c.objectives, c.data, attacks=not c.build_only)
    if problems:
        raise ConfigError(problems, "options")
    folder = Path(config.output)
    if c.evaluate_only is not None and (locked := unwritable_run(folder)):
        raise ConfigError(locked, "output")
    accelerator = make_accelerator(config, folder, 1, ())
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ConfigError([f"critics are small: use data-parallel training, not {accelerator.distributed_type}"], "run")
    use_threads(config.threads, accelerator)
    if config.evaluate_only is None and on_main(accelerator, partial(claim, config, folder, FREE)):
        accelerator.print(f"{folder} is finished; --overwrite runs it again.")
        return
    critic = build_critic(config.critic, config.train.seed)
    peers = build_peers(config.val.peers, critic.card, accelerator.device)
    data, sets = parse_entries(config.data, "data"), parse_entries(config.val.sets, "val.sets")
    seed, asked = config.train.seed, ask_references(config.objectives, data)
    material = open_material(critic, data, sets, seed, config.val.look_alikes, accelerator, with_reference=asked)
    problems = exam_problems(config.val.best, material.exams, has_card=config.card.write, attacks=config.val.attacks)
    if problems := problems + size_problems({config.critic.name: critic, **peers}, material.exams):
        raise ConfigError(problems, "exams")
    if followed is not None:
        accelerator.print(followed.told(options.flatten(config)))
    if config.build_only:
        rehearse(material, critic, config.critic, config.objectives, accelerator)
        accelerator.print(material.summary())
        return
    before = start_figures(accelerator, config, critic, material, followed)
    file = folder / "models" / f"{config.critic.name}.safetensors"
    if config.evaluate_only is not None:
        on_main(accelerator, lambda: folder.mkdir(parents=True, exist_ok=True))
        file, origin = Path(config.evaluate_only), origin_in(folder)
    else:
        on_main(accelerator, partial(remember, folder, material.inventory()))
        with StopSignal() as stop:
            trainee = build_trainee(config, folder, critic, material)
            teach(trainee, material, stop)
        origin = origin_of(argv, sha256_of(folder / "config.yaml"), config.train.seed, trainee.progress, accelerator)
    text = conclude(accelerator, folder, file, config.critic, config.card, config.val, before, peers, material, origin)
    accelerator.print(f"\n{text}\nEverything is in {folder}.")
    accelerator.end_training()


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
