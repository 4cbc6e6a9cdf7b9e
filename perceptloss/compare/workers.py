"""The scores of a plan from several processes, image by image, with one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch

from perceptloss.compare.jobs import file_jobs
from perceptloss.compare.panel import Asked, Scorer, build
from perceptloss.compare.plan import Plan
from perceptloss.compare.scoring import Slot, score_jobs
from perceptloss.compare.settings import Settings
from perceptloss.compare.store import Key, Noted, Store

__all__ = ["score_in_processes"]

_CPU = torch.device("cpu")
_scorers: list[Scorer] = []  # of a worker
Known = list[dict[Key, float]]  # a dictionary per critic


def score_in_processes(
    plan: Plan,
    workers: int,
    stores: Sequence[Store],
    decoded: dict[str, str],
    report: Callable[[int], None],
    *,
    random_weights: bool,
) -> dict[Slot, float]:
    """What `score_jobs` gives for the files of a plan, the same bits for any number of workers.

    Args:
        plan: To be scored on the CPU.
        workers: Processes, 1 or more. They are started anew, so a script needs `if __name__ == "__main__":`.
        stores: As of `score_jobs`; this process alone writes to them.
        decoded: Gets the sha256 of what was read, by the path of the file.
        report: Called with the number of scores that were just done.
        random_weights: Seeded random weights where no files are given.
    """
    found: dict[Slot, float] = {}
    settings = plan.asked, plan.settings, random_weights, plan.rules.stereo
    workers = min(workers, len(plan.images))
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, settings) as pool:
        parts = list(_single_images(plan))
        for image, (scores, new, seen) in enumerate(pool.map(_score, parts, [_known(p, stores) for p in parts])):
            found.update({(system, critic, image): score for (system, critic, _), score in scores.items()})
            for store, entries in zip(stores, new, strict=True):
                for key, score in entries.items():
                    store.put(key, score)
            decoded.update(seen)
            report(len(scores))
    return found


def _single_images(plan: Plan) -> Iterator[Plan]:
    for record, sizes in zip(plan.images, plan.sizes, strict=True):
        yield replace(plan, images=(record,), sizes=(sizes,))


def _known(plan: Plan, stores: Sequence[Store]) -> Known:
    keys = [job.hashes for job in file_jobs(plan) if job.hashes is not None]
    return [{key: score for key in keys if (score := store.get(key)) is not None} for store in stores]


def _start(asked: Sequence[Asked], settings: Settings, random_weights: bool, has_pairs: bool) -> None:
    torch.set_num_threads(1)  # sums of several threads would be rounded by their number
    _scorers.extend(build(asked, settings, random_weights=random_weights, has_pairs=has_pairs))


def _score(plan: Plan, known: Known) -> tuple[dict[Slot, float], Known, dict[str, str]]:
    stores, decoded = [Noted(scores) for scores in known], dict[str, str]()
    found = score_jobs(list(file_jobs(plan, decoded)), _scorers, plan.settings, _CPU, stores)
    return found, [store.new for store in stores], decoded
