"""`compare`, `score` and `score_pairs`: from images to `Results`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from perceptloss.compare.jobs import as_decoded, file_jobs, seen
from perceptloss.compare.pairing import Images
from perceptloss.compare.panel import Scorer, build, parse_critics, pick_device, unfit, with_choices
from perceptloss.compare.plan import Plan, make_plan
from perceptloss.compare.processes import Launched
from perceptloss.compare.provenance import describe_inputs, provenance
from perceptloss.compare.results import Flag, ImageRecord, Results
from perceptloss.compare.scoring import Job, Loaded, Slot, score_jobs
from perceptloss.compare.settings import Pairing, Settings
from perceptloss.compare.store import Store
from perceptloss.compare.workers import score_in_processes
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError
from perceptloss.inputs import described
from perceptloss.output.files import unwritable

__all__ = ["compare", "run_plan", "score", "score_pairs", "tabulate"]

Progress = Callable[[int, int], object]
Pair = tuple[str, Tensor, Tensor | None]


def compare(
    systems: Mapping[str, Images],
    reference: Images | None = None,
    critics: Sequence[str | Critic] = (),
    *,
    baseline: str | None = None,
    rules: Pairing = Pairing(),  # noqa: B008  (frozen)
    settings: Settings = Settings(),  # noqa: B008
    random_weights: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Results:
    """Score the outputs of several systems on the same images.

    Args:
        systems: Name to a folder, an image, several images, a `.txt` list or a `.csv` of `image,path`.
        reference: The references, likewise; None if no critic needs them.
        critics: Names, `name=weights`, or critics.
        baseline: The system that others are compared with; None for the first.
        rules: How files are paired.
        settings: How images are read and scored.
        random_weights: Seeded random weights where no files are given: for tests only.
        cache: Folder in which scores are kept and looked up; None for neither.
        progress: Called with the number of scores done and of all scores.

    Raises:
        ConfigError: listing what is wrong with names, critics and settings.
        PairingError: listing what is wrong with the images.
        WeightsError: if weights are missing or do not fit.
        InputError: if a file is gone, damaged or of another size when its turn comes.
    """
    plan = make_plan(systems, reference, critics, baseline=baseline, rules=rules, settings=settings)
    return run_plan(plan, random_weights=random_weights, cache=cache, progress=progress)


def score(
    images: Images,
    reference: Images | None = None,
    critics: Sequence[str | Critic] = (),
    *,
    name: str = "images",
    rules: Pairing = Pairing(),  # noqa: B008
    settings: Settings = Settings(),  # noqa: B008
    random_weights: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Results:
    """Score the images of one system, called `name` in the results; else as `compare`."""
    return compare(
        {name: images},
        reference,
        critics,
        rules=rules,
        settings=settings,
        random_weights=random_weights,
        cache=cache,
        progress=progress,
    )


def score_pairs(
    pairs: Iterable[Pair],
    critics: Sequence[str | Critic],
    *,
    name: str = "images",
    settings: Settings = Settings(),  # noqa: B008
    random_weights: bool = False,
    stereo: bool = False,
) -> Results:
    """Score images from memory, such as a restorer's validation outputs.

    Args:
        pairs: Key, judged image and reference (or None); RGB in [0, 1], (3, H, W) or (1, 3, H, W),
            six channels for stereo, one where the settings replicate grey. Read once, one after another.
        critics: Names, `name=weights`, or critics. Critics move to the device.
        name: Of the system; `join` makes a comparison of several results.
        settings: Device, batch, tiles, precision, colour and border; images are never resized.
        random_weights: Seeded random weights where no files are given: for tests only.
        stereo: Images are stereo pairs, of which a critic of single images scores each view.

    Raises:
        ConfigError: if critics or settings do not fit, or a key is there twice.
        InputError: if an image is not what a critic accepts.
    """
    asked = parse_critics(critics)
    wrong = [] if settings.resize == "never" else ["images from memory are never resized"]
    wrong += [] if settings.crop == "never" else ["images from memory are never cut but for crop_border"]
    wrong += unfit(asked, settings, has_pairs=True)
    if wrong:
        raise ConfigError(wrong, "the scores")
    scorers = build(asked, settings, random_weights=random_weights, has_pairs=stereo)
    device = pick_device(settings.device)
    keys: dict[str, None] = {}
    found = score_jobs(_memory_jobs(pairs, keys, settings), scorers, settings, device)
    if not keys:
        raise ConfigError(["no images given"], "the scores")
    records = tuple(ImageRecord(key, (None,)) for key in keys)
    values, flags = tabulate(found, (name,), [s.label for s in scorers], records)
    return Results(
        systems=(name,),
        critics=tuple(scorer.column for scorer in scorers),
        images=records,
        values=values,
        flags=tuple(flags),
        settings=settings.to_dict(),
        provenance=provenance(device, ()),
    )


def run_plan(
    plan: Plan,
    *,
    random_weights: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    workers: int = 0,
    launched: Launched | None = None,
) -> Results:
    """Score what `make_plan` planned, as `compare` does.

    Args:
        plan: What to score.
        random_weights: As of `compare`; so are `cache` and `progress`.
        cache: Folder of known scores.
        progress: Called as scores are done.
        command: The command line, for provenance.
        workers: Processes on the CPU, of one thread each; their number changes no bit. 0 for this process alone.
        launched: If a launcher started several processes that call this with the same plan: each scores its share of
            the images, and all get all results. Their number changes no bit.

    Raises:
        ConfigError: if there are workers for another device than the CPU, or in launched processes.
    """
    device = pick_device(plan.settings.device)
    if workers < 0:
        raise ConfigError([f"workers must be a whole number of at least 0, got {workers}"], "settings")
    if workers and device.type != "cpu":
        raise ConfigError([f"workers are processes on the CPU, but the device is {device.type}"], "settings")
    if workers and launched is not None:
        raise ConfigError(["launched processes share the work already: leave out workers"], "settings")
    scorers = build(plan.asked, plan.settings, random_weights=random_weights, has_pairs=plan.rules.stereo)
    stores = [] if cache is None else _stores(Path(cache), scorers, device, launched.rank if launched else 0)
    decoded: dict[str, str] = {}
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, plan.scores)

    try:
        if launched is not None:
            found = launched.score(plan, scorers, device, stores, decoded, count)
        elif workers:
            found = score_in_processes(plan, workers, stores, decoded, count, random_weights=random_weights)
        else:
            found = score_jobs(list(file_jobs(plan, decoded)), scorers, plan.settings, device, stores, count)
    finally:
        for store in stores:
            store.close()
    plan = as_decoded(plan, decoded)
    values, flags = tabulate(found, plan.systems, [s.label for s in scorers], plan.images)
    columns = tuple(scorer.column for scorer in scorers)
    if plan.left_out:
        share = f"images:{len(plan.images)}of{len(plan.images) + len(plan.left_out)}"
        columns = tuple(replace(c, signature=with_choices(c.signature, [share])) for c in columns)
    rules = {**asdict(plan.rules), "strip": list(plan.rules.strip)}
    return Results(
        systems=plan.systems,
        critics=columns,
        images=plan.images,
        values=values,
        baseline=plan.baseline,
        left_out=plan.left_out,
        flags=(*plan.flags, *flags),
        settings={**plan.settings.to_dict(), **rules, "sources": dict(plan.sources)},
        provenance=provenance(device, command, describe_inputs(plan)),
    )


def _stores(folder: Path, scorers: Sequence[Scorer], device: torch.device, rank: int) -> list[Store]:
    if why := unwritable(folder, is_folder=True):
        raise ConfigError([f"{folder} {why}"], "the cache")
    kind = device.type, torch.__version__
    stores = [Store(folder, s.signature, *kind, s.critic.card.bounds, rank) for s in scorers]
    if locked := [f"{store.path} {why}" for store in stores if (why := unwritable(store.path))]:
        raise ConfigError(locked, "the cache")
    return stores


def _memory_jobs(pairs: Iterable[Pair], keys: dict[str, None], settings: Settings) -> Iterator[Job]:
    for index, (key, x, y) in enumerate(pairs):
        if key in keys:
            raise ConfigError([f"{key!r} is there twice"], "the images")
        keys[key] = None
        image = partial(_single, key, is_grey_fine=settings.grey == "replicate")
        yield _memory_job(index, key, seen(image(x), settings), y if y is None else seen(image(y), settings))


def _memory_job(image: int, key: str, x: Tensor, y: Tensor | None) -> Job:
    return Job(0, image, (x.shape[-2], x.shape[-1]), lambda: Loaded(x, y), key, y is not None)


def _single(key: str, image: Tensor, *, is_grey_fine: bool) -> Tensor:
    if isinstance(image, Tensor) and image.ndim == 4 and len(image) == 1:
        image = image[0]
    if not isinstance(image, Tensor) or image.ndim != 3:
        raise InputError(f"{key}: expected an image of shape (3, H, W) or (1, 3, H, W), got {described(image)}.")
    return (image.expand(3, -1, -1) if is_grey_fine and len(image) == 1 else image).detach()


def tabulate(
    found: Mapping[Slot, float], systems: Sequence[str], critics: Sequence[str], images: Sequence[ImageRecord]
) -> tuple[tuple[tuple[tuple[float | None, ...], ...], ...], list[Flag]]:
    """Scores as nested tuples, with None and a flag where one is not finite."""
    kept = {slot: value if math.isfinite(value) else None for slot, value in found.items()}
    values = tuple(
        tuple(tuple(kept[s, c, i] for i in range(len(images))) for c in range(len(critics)))
        for s in range(len(systems))
    )
    flags = []
    for s, c, i in sorted(slot for slot, value in kept.items() if value is None):
        system, critic, key = systems[s], critics[c], images[i].key
        text = f"{system}: {critic} gives {found[s, c, i]} for {key!r}"
        flags.append(Flag("not-finite", text, system, key, critic))
    return values, flags
