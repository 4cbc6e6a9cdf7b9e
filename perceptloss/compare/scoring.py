"""The one loop that scores: batches of equal size, image by image, by every critic that still has to."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from perceptloss.compare.panel import Colour, Scorer
from perceptloss.compare.pixels import in_colour
from perceptloss.compare.settings import Settings
from perceptloss.compare.store import Key, Noted, Store
from perceptloss.errors import PerceptlossError
from perceptloss.inputs import all_finite
from perceptloss.maps.tiles import score_in_tiles
from perceptloss.networks.trunks.critic import references_kept
from perceptloss.output.tables import counted

__all__ = ["Job", "Loaded", "Progress", "Slot", "score_jobs", "true_fp32", "within_memory"]

Slot = tuple[int, int, int]  # system, critic, image
Progress = Callable[[int], None]
_log = logging.getLogger("perceptloss.compare")
_GPU_BATCH_PIXELS = 2**22
_GPU_BATCH_IMAGES = 16


class Loaded(NamedTuple):
    """A judged image and its reference, (C, H, W) in [0, 1], RGB, and the hashes of the bytes that were decoded."""

    x: Tensor
    y: Tensor | None
    hashes: Key | None = None


@dataclass(frozen=True)
class Job:
    """A judged image and its reference, read only when their turn comes.

    Attributes:
        system: Index.
        image: Index.
        size: Height and width of the tensors.
        load: Gives the images.
        text: What messages call it.
        has_reference: Whether `load` gives a reference.
        hashes: Of both files as they were planned, to look up scores; None for images from memory.
    """

    system: int
    image: int
    size: tuple[int, int]
    load: Callable[[], Loaded]
    text: str
    has_reference: bool
    hashes: Key | None = None


def score_jobs(
    jobs: Iterable[Job],
    scorers: Sequence[Scorer],
    settings: Settings,
    device: torch.device,
    stores: Sequence[Store | Noted] = (),
    progress: Progress | None = None,
    *,
    is_apart: bool = False,
) -> dict[Slot, float]:
    """Scores of all jobs by all critics, some of them perhaps not finite.

    Args:
        jobs: In any order.
        scorers: The critics.
        settings: Batch, tiles, precision.
        device: Where to score.
        stores: One per critic, or none: known scores are taken from there, new ones kept.
        progress: Called with the number of scores that were just done.
        is_apart: Whether no batch holds two images, so that bits do not depend on which images are there.
    """
    found: dict[Slot, float] = {}
    report = progress or (lambda count: None)
    groups = _groups(list(enumerate(scorers)), device)
    if len(groups) > 1:
        jobs = list(jobs)
    is_shared = isinstance(jobs, Sequence) and len({job.system for job in jobs}) > 1
    for group in groups:
        guests = [scorer.critic for _, scorer in group if scorer.bytes_away(device)]
        for _, scorer in group:
            scorer.critic.to(device)
        with torch.no_grad(), true_fp32(device), references_kept([s.critic for _, s in group if is_shared]):
            open_jobs = _open_jobs(jobs, group, stores, found, report)
            for batch, todo in _batches(open_jobs, group, settings, device, is_apart=is_apart):
                _score_batch(batch, [(c, s) for c, s in group if c in todo], settings, device, stores, found)
                report(len(batch) * len(todo))
        if len(groups) > 1:
            for critic in guests:
                critic.to("cpu")
    return found


def _groups(scorers: list[tuple[int, Scorer]], device: torch.device) -> list[list[tuple[int, Scorer]]]:
    """All critics together (every image is read once), or one by one where a GPU is too small."""
    if device.type == "cuda" and len(scorers) > 1:
        free, _ = torch.cuda.mem_get_info(device)
        if sum(scorer.bytes_away(device) for _, scorer in scorers) > free / 2:
            _log.info("critics one by one: together they need more than half of the free GPU memory")
            return [[scorer] for scorer in scorers]
    return [scorers]


@contextmanager
def true_fp32(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding fp32 convolutions to TF32 meanwhile, which moves a score's fourth digit."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _open_jobs(
    jobs: Iterable[Job],
    group: Sequence[tuple[int, Scorer]],
    stores: Sequence[Store | Noted],
    found: dict[Slot, float],
    report: Progress,
) -> Iterator[tuple[Job, tuple[int, ...]]]:
    """Jobs with the critics that still have to score them; what the stores know is taken over."""
    for job in jobs:
        todo = []
        for critic, _ in group:
            known = stores[critic].get(job.hashes) if stores and job.hashes else None
            if known is None:
                todo.append(critic)
            else:
                found[job.system, critic, job.image] = known
                report(1)
        if todo:
            yield job, tuple(todo)


def _batches(
    jobs: Iterable[tuple[Job, tuple[int, ...]]],
    group: Sequence[tuple[int, Scorer]],
    settings: Settings,
    device: torch.device,
    *,
    is_apart: bool,
) -> Iterator[tuple[list[Job], tuple[int, ...]]]:
    """Jobs of one size for one set of critics together, in order of arrival."""
    waiting: dict[tuple[tuple[int, int], bool, tuple[int, ...], int | None], list[Job]] = defaultdict(list)
    couples = {critic for critic, scorer in group if scorer.critic.card.couples_batch}
    for job, todo in jobs:
        key = (job.size, job.has_reference, todo, job.image if is_apart else None)
        waiting[key].append(job)
        limit = 1 if couples & set(todo) else _batch_size(job.size, settings, device)
        if len(waiting[key]) >= limit:
            yield waiting.pop(key), todo
    for (_, _, todo, _), rest in waiting.items():
        yield rest, todo


def _batch_size(size: tuple[int, int], settings: Settings, device: torch.device) -> int:
    if settings.batch != "auto":
        return int(settings.batch)
    if device.type == "cpu":
        return 1
    return max(1, min(_GPU_BATCH_IMAGES, _GPU_BATCH_PIXELS // math.prod(size)))


def _score_batch(
    batch: Sequence[Job],
    todo: Sequence[tuple[int, Scorer]],
    settings: Settings,
    device: torch.device,
    stores: Sequence[Store | Noted],
    found: dict[Slot, float],
) -> None:
    pairs = {job: job.load() for job in batch}
    for job in [job for job, pair in pairs.items() if not all_finite(pair.x, pair.y)]:
        del pairs[job]
        found.update({(job.system, critic, job.image): math.nan for critic, _ in todo})
    if not pairs:
        return
    batch, loaded = list(pairs), list(pairs.values())
    x = _together([pair.x for pair in loaded]).to(device)
    references = [pair.y for pair in loaded if pair.y is not None]
    y = _together(references).to(device) if references else None
    kinds = {(s.colour, s.each_view) for _, s in todo}
    seen = {kind: (_views(x, *kind), [] if y is None else _views(y, *kind)) for kind in kinds}
    for critic, scorer in todo:
        card, (images, references) = scorer.critic.card, seen[scorer.colour, scorer.each_view]
        given: Sequence[Tensor | None] = references if card.needs_reference and references else [None] * len(images)
        with within_memory(scorer, batch, "--batch 1, --tile auto"):
            views = [
                score_in_tiles(scorer.critic, image, reference, settings.tile_side)
                for image, reference in zip(images, given, strict=True)
            ]
        scores = views[0] if len(views) == 1 else torch.stack(views).mean(0)
        for job, pair, score in zip(batch, loaded, scores.tolist(), strict=True):
            found[job.system, critic, job.image] = score
            if stores and pair.hashes is not None and math.isfinite(score):
                stores[critic].put(pair.hashes, score)


def _views(images: Tensor, colour: Colour, each_view: bool) -> list[Tensor]:
    """What a critic is given of images, one after the other: the views of pairs, or all at once."""
    return [in_colour(colour, view) for view in (images.split(3, 1) if each_view else [images])]


def _together(images: Sequence[Tensor]) -> Tensor:
    """A batch of images; of one, without a copy."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))


@contextmanager
def within_memory(scorer: Scorer, batch: Sequence[Job], advice: str) -> Iterator[None]:
    """Say what to do where the device runs out of memory.

    Raises:
        PerceptlossError: instead of torch's own error.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        images = "{} of {}x{}".format(counted(len(batch), "image"), *batch[0].size)
        raise PerceptlossError(
            f"{scorer.label} ran out of memory on {images} ({batch[0].text}). "
            f"Try {advice}, --precision bf16 or --device cpu."
        ) from error
