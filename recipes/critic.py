"""Teach a critic: any registered one, from people's opinions, the consensus of other critics, or degradations.

    accelerate launch recipes/critic.py --config recipes/configs/critic_opinions.yaml --data '[{...}]'
    accelerate launch recipes/critic.py --config X.yaml --train.steps 20000 --output runs/mine
    accelerate launch recipes/critic.py --help                   # every option

Entries of `data` are sources of lessons, all of which come in every step: `teaching` (photographs, degraded, with
the consensus of full-reference critics), `ladders` (photographs, degraded on the fly, order alone), `mixtures` (raw
pictures blended with their references), `stereo` (pairs, real or made), `opinions` (datasets of scores). `objectives`
are what is minimised, each by its weight. Batch losses see the batches of all processes as one. Photographs of exams
that are also trained on, be they resized, trimmed, mirrored or degraded, stop the run before it begins. Killed at any
moment, a run goes on from its last checkpoint when started again with the same command; on a CPU in fp32 to the same
bits.

Below `output`: config.yaml, log.jsonl, checkpoints/last, results.json, and in models/ CRITIC.safetensors (averaged
weights, best exam) with its model card CRITIC.md, and CRITIC_last.safetensors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from tqdm import tqdm

from perceptloss import Critic
from perceptloss.errors import ConfigError, NonFiniteLoss
from perceptloss.runs import config as options
from perceptloss.runs.config import option
from perceptloss.runs.launch import claim, make_accelerator, on_main, resume_point, run_as_script, use_threads
from perceptloss.runs.meters import flat_numbers
from perceptloss.runs.options import Log, Train
from perceptloss.runs.schedule import learning_rate
from perceptloss.runs.state import Ema, RunLog, StopSignal, load_checkpoint, read_progress, save_checkpoint
from perceptloss.teach.run.checks import option_problems
from perceptloss.teach.run.critic import Place, Reader, build_pupil, export, parameter_groups, quality_of, settle
from perceptloss.teach.run.evaluate import default_best, exam_problems, examine, look_up
from perceptloss.teach.run.export import Training, conclude
from perceptloss.teach.run.options import CardText, Pupil, Val
from perceptloss.teach.run.peers import build_peers, size_problems
from perceptloss.teach.run.setup import Lecture, prepare_lecture
from perceptloss.teach.run.sources import parse_entries
from perceptloss.teach.run.stream import Lessons
from perceptloss.teach.run.tally import Tally
from perceptloss.teach.run.terms import Terms
from perceptloss.weights.download import sha256_of

BAD_STEPS = 50  # in a row, before giving up
ASK_EVERY = 10  # steps between two agreements of several processes on stopping
FREE = ("card.", "val.peers", "val.rounds", "build_only", "evaluate_only")


@dataclass(frozen=True)
class Config:
    """Every option."""

    output: str = option("runs/critic", "folder of the run")
    resume: str = option(
        "auto", "auto: go on where this folder stopped; none: refuse to; PATH: start from that checkpoint"
    )
    overwrite: bool = option(False, "delete an earlier run in the folder")
    build_only: bool = option(False, "make teaching sets, check everything, and stop before training")
    evaluate_only: str | None = option(None, "weights to examine again, with figures and card, instead of training")
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option(None, "of training; nothing: as accelerate says")
    threads: int = option(1, "CPU threads per process; 0: all cores, shared out", at_least=0)
    critic: Pupil = field(default_factory=Pupil)
    data: list[Any] = option([], "sources of lessons, all in every step: [{kind, name, weight, ...}]")  # noqa: RUF009
    objectives: dict[str, Any] = option(  # noqa: RUF009
        {"pearson": 1.0, "order": 0.5}, "{name: weight} or {label: {objective, weight, option: value}}"
    )
    balance: Literal["fixed", "uncertainty"] = option("fixed", "uncertainty: weigh by learned variances as well")
    train: Train = field(default_factory=lambda: Train(steps=20_000, lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.999)))
    val: Val = field(default_factory=Val)
    card: CardText = field(default_factory=CardText)
    log: Log = field(default_factory=Log)


@dataclass
class Trainee:
    """A critic on its way: everything that a step touches."""

    config: Config
    folder: Path
    accelerator: Accelerator
    place: Place
    critic: Critic
    reader: torch.nn.Module
    terms: Terms
    optimizer: torch.optim.Optimizer
    lessons: Lessons
    ema: Ema | None
    step: int = 0
    draws: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    seconds: float = 0.0

    @property
    def progress(self) -> dict[str, Any]:
        """The plain values that a checkpoint keeps."""
        keys = ("step", "draws", "skipped", "skipped_in_a_row", "best", "seconds")
        return {key: getattr(self, key) for key in keys}


def build_trainee(config: Config, folder: Path, critic: Critic, lecture: Lecture) -> Trainee:
    """A critic at the start of its training, or where a checkpoint left it."""
    train = config.train
    accelerator = make_accelerator(config, folder, train.accumulate, config.log.trackers)
    streams = lecture.streams(train.seed, accelerator.process_index, accelerator.num_processes)
    place = Place(accelerator.device, config.critic.channels_last)
    critic.to(place.device).to(memory_format=place.memory_format)
    reader = Reader(critic, config.critic.read, config.critic.tap)
    width, idle = settle(reader, [place.pair(stream[0]) for stream in streams])
    if idle:
        accelerator.print(f"no score depends on {len(idle)} parameters, which stay fixed: {', '.join(idle[:5])}")
    set_seed(train.seed)  # the objectives' own parameters are the same on all processes
    terms = Terms(config.objectives, lecture.sources, critic.card, config.balance, width).to(accelerator.device)
    optimizer = torch.optim.AdamW(parameter_groups(critic, terms, train.weight_decay), train.lr, train.betas)
    ema = Ema(critic.parameters(), train.ema) if train.ema else None
    reader, optimizer = accelerator.prepare(reader, optimizer)
    set_seed(train.seed, device_specific=True)
    point = resume_point(folder, config.resume)
    progress = read_progress(point) if point else {}
    if point:
        load_checkpoint(accelerator, point, ema, terms)
        accelerator.print(f"going on from {point}: step {progress['step']} of {train.steps}")
    lessons = Lessons(streams, progress.get("draws", 0))
    return Trainee(config, folder, accelerator, place, critic, reader, terms, optimizer, lessons, ema, **progress)


# --- the loop -----------------------------------------------------------------------------------


def take_step(t: Trainee, tally: Tally) -> None:
    """One optimizer step: as many forwards and backwards as are accumulated, then clip, update, average."""
    rate = learning_rate(t.config.train, t.step)
    for group in t.optimizer.param_groups:
        group["lr"] = rate * group["pace"]
    for _ in range(t.config.train.accumulate):
        batches = t.lessons.take()
        with t.accelerator.accumulate(t.reader):
            outputs = t.reader([t.place.pair(batch) for batch in batches])
            loss, parts = t.terms(outputs, batches)
            t.accelerator.backward(loss)
            if t.accelerator.sync_gradients:
                tally.grad_norm = update(t)
            t.optimizer.zero_grad()
        t.draws += 1
        tally.add(loss, parts, sum(len(batch.x) for batch in batches))
    tally.step()


def update(t: Trainee) -> float:
    """Clip and step, unless the gradient is not finite; returns its norm."""
    learning = [p for group in t.optimizer.param_groups for p in group["params"]]
    norm = float(t.accelerator.clip_grad_norm_(learning, t.config.train.clip or math.inf))
    has_scaler = t.accelerator.scaler is not None  # fp16: the scaler skips such steps itself and lowers its scale
    if math.isfinite(norm) or has_scaler:
        t.optimizer.step()
    is_skipped = not math.isfinite(norm) or t.accelerator.optimizer_step_was_skipped
    t.skipped += is_skipped
    t.skipped_in_a_row = t.skipped_in_a_row + 1 if is_skipped else 0
    if t.skipped_in_a_row >= BAD_STEPS:
        raise NonFiniteLoss(f"step {t.step}: {BAD_STEPS} gradients in a row were not finite. Lower train.lr.")
    if t.ema is not None and not is_skipped:
        t.ema.update(t.step)
    return norm


def teach(t: Trainee, lecture: Lecture, stop: StopSignal) -> None:
    """Train to the end; leaves log.jsonl, checkpoints/ and models/.

    Raises:
        SystemExit: after a checkpoint, if a process was told to stop.
    """
    config, accelerator, last = t.config, t.accelerator, t.config.train.steps
    log = RunLog(t.folder / "log.jsonl", through=t.step) if accelerator.is_main_process else None
    tally, is_alone, since = Tally(), accelerator.num_processes == 1, time.perf_counter() - t.seconds
    steps = range(t.step + 1, last + 1)
    bar = tqdm(steps, config.critic.name, last, initial=t.step, disable=not accelerator.is_local_main_process)
    for t.step in bar:
        take_step(t, tally)
        if t.step % config.log.every == 0 or t.step == last:
            record = {"draws": t.draws, "skipped_steps": t.skipped, "lr": learning_rate(config.train, t.step)}
            record |= tally.summary()
            bar.set_postfix(loss=record["loss"], refresh=False)
            write(t, log, "train", record)
        with tally.paused():
            if t.step == last or (config.val.every and t.step % config.val.every == 0):
                write(t, log, "val", validate(t, lecture))
            t.seconds = time.perf_counter() - since
            told = stop.agreed(accelerator) if is_alone or t.step % ASK_EVERY == 0 else 0
            if told or t.step % config.log.checkpoint_every == 0 or t.step == last:
                save_checkpoint(accelerator, t.folder / "checkpoints", t.progress, t.ema, t.terms, config.log.keep)
        if told:
            raise SystemExit(128 + told)
    t.lessons.close()
    deliver(t, "_last")
    for tracker in accelerator.trackers:
        tracker.finish()


def write(t: Trainee, log: RunLog | None, kind: str, record: dict[str, Any]) -> None:
    """One record to log.jsonl and, flattened, to the trackers."""
    if log is not None:
        log.write({"kind": kind, "step": t.step, **record})
    t.accelerator.log(flat_numbers(record, f"{kind}/"), step=t.step)


def validate(t: Trainee, lecture: Lecture) -> dict[str, Any]:
    """Examine the averaged weights; keep them if they are the best so far."""
    val = t.config.val
    t.critic.eval()
    with t.ema.swapped_in() if t.ema is not None else nullcontext():
        judge = partial(quality_of, t.critic)
        found = examine(t.accelerator, judge, lecture.exams, limit=val.limit, seed=t.config.train.seed, rounds=0)
    t.critic.train()
    value = look_up(found, val.best or default_best(lecture.exams))
    if t.best is None or (value is not None and value > t.best):
        t.best = value
        deliver(t, "")
    return {"exams": found, "best": t.best}


def deliver(t: Trainee, suffix: str) -> None:
    """The (averaged) weights as a file of models/; call on all processes."""
    if t.accelerator.is_main_process:
        name = t.config.critic.name
        with t.ema.swapped_in() if t.ema is not None else nullcontext():
            facts = {"step": t.step, "seed": t.config.train.seed, "options": t.config.critic.options}
            export(t.critic, t.folder / "models" / f"{name}{suffix}.safetensors", facts)
    t.accelerator.wait_for_everyone()


# --- the whole run ------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> None:
    """The whole run."""
    config = options.load(Config, argv)
    c = config
    if problems := option_problems(c.critic.name, c.data, c.val.sets, c.objectives, c.train, c.card):
        raise ConfigError(problems, "options")
    folder = Path(config.output)
    accelerator = make_accelerator(config, folder, 1, ())
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ConfigError([f"critics are small: use data-parallel training, not {accelerator.distributed_type}"], "run")
    use_threads(config.threads, accelerator)
    if config.evaluate_only is None and on_main(accelerator, partial(claim, config, folder, FREE)):
        accelerator.print(f"{folder} is finished; --overwrite runs it again.")
        return
    critic = build_pupil(config.critic, config.train.seed)
    peers = build_peers(config.val.peers, critic.card, accelerator.device)
    data, sets = parse_entries(config.data, "data"), parse_entries(config.val.sets, "val.sets")
    lecture = prepare_lecture(critic, data, sets, config.train.seed, config.val.look_alikes, accelerator)
    problems = exam_problems(config.val.best, lecture.exams, has_card=config.card.write)
    if problems := problems + size_problems({config.critic.name: critic, **peers}, lecture.exams):
        raise ConfigError(problems, "exams")
    if config.build_only:
        accelerator.print(lecture.summary())
        return
    file = folder / "models" / f"{config.critic.name}.safetensors"
    if config.evaluate_only is not None:
        file, training = Path(config.evaluate_only), Training.again(folder)
    else:
        with StopSignal() as stop:
            trainee = build_trainee(config, folder, critic, lecture)
            teach(trainee, lecture, stop)
        digest = sha256_of(folder / "config.yaml")
        training = Training.of(argv, digest, config.train.seed, trainee.progress, accelerator)
    text = conclude(accelerator, folder, file, config, peers, lecture, training)
    accelerator.print(f"\n{text}\nEverything is in {folder}.")
    accelerator.end_training()


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
