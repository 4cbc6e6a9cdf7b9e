"""Making a scored set: photographs over processes, one file each, then one set of arrays."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

import torch

from perceptloss.errors import ConfigError
from perceptloss.output.files import exclusive, unwritable
from perceptloss.output.progress import bar
from perceptloss.teach.sets.plan import Plan, ScoredSetError, facts, identity, problems_in
from perceptloss.teach.sets.shards import is_whole, write_shard
from perceptloss.teach.sets.store import FACTS, ScoredSet, pack, write_json
from perceptloss.teach.sets.worker import Worker

__all__ = ["build"]

PLAN: Final = "plan.json"
SHARDS: Final = "shards"

logger = logging.getLogger(__name__)
_plan: Plan | None = None  # these two are of a process of the pool
_worker: Worker | None = None


def build(plan: Plan, folder: str | PathLike[str], *, processes: int = 2, progress: bool = True) -> ScoredSet:
    """Make the scored set of a plan, or go on with it, or open it if it is finished.

    Work is split by photographs; what is done survives an interruption, and the result does not depend on where it
    was interrupted or on the number of processes. The folder takes about `3 * crop ** 2` bytes per image, twice that
    while the arrays are joined. Scripts that use more than one process need the usual `if __name__ == "__main__"`;
    degradations and critics that a script registers itself are known to the other processes only if the script
    registers them on import.

    Args:
        plan: What to make.
        folder: Where to; new, empty, or of the same plan.
        processes: How many to work in, one thread each; 1 is this process.
        progress: Show a bar.

    Raises:
        ConfigError: listing everything wrong with the plan.
        ScoredSetError: if the folder holds something else, a teacher's score is not finite, or a process dies.
        WeightsError: if a teacher's weights do not load.
    """
    if problems := problems_in(plan):
        raise ConfigError(problems, "plan of the scored set")
    if processes < 1:
        raise ConfigError([f"processes: expected 1 or more, got {processes}"], "build")
    place, known = Path(folder), facts(plan)
    known["hash"] = identity(known)
    weights = {name: spec.weight for name, spec in plan.teachers.items()}
    _claim(place, known)
    with exclusive(place / ".lock"):
        if not (place / FACTS).is_file():
            shards = [place / SHARDS / f"{index:05d}.safetensors" for index in range(len(plan.photos))]
            _make(plan, shards, known["hash"], processes, progress)
            pack(place, shards, known, weights)
        rmtree(place / SHARDS, ignore_errors=True)
    return ScoredSet.open(place, weights)


def _claim(place: Path, known: Mapping[str, Any]) -> None:
    """Make the folder this plan's, or refuse it."""
    record = place / PLAN
    if record.is_file():
        other = json.loads(record.read_text())
        if other["hash"] == known["hash"]:
            return
        if (place / FACTS).is_file() or any((place / SHARDS).glob("*.safetensors")):
            differing = sorted(key for key in known if key != "hash" and other.get(key) != known[key])
            raise ScoredSetError(
                f"{place} holds the scored set of another plan, which differs in {', '.join(differing)}; choose "
                "another folder, or remove this one."
            )
    elif place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ScoredSetError(f"{place} is not empty and holds no scored set (no {PLAN}); choose another folder.")
    if why := unwritable(place / SHARDS, is_folder=True):
        raise ScoredSetError(f"{place / SHARDS} {why}; choose another folder.")
    (place / SHARDS).mkdir(parents=True, exist_ok=True)
    write_json(known, record)


def _make(plan: Plan, shards: list[Path], plan_hash: str, processes: int, progress: bool) -> None:
    missing = [index for index, path in enumerate(shards) if not is_whole(path, plan_hash)]
    if len(missing) < len(shards):
        logger.info("%d of %d photographs are done already", len(shards) - len(missing), len(shards))
    if not missing:
        return
    shards[0].parent.mkdir(exist_ok=True)
    jobs = [(index, shards[index], plan_hash) for index in missing]
    done = _here(plan, jobs) if processes == 1 or len(jobs) == 1 else _there(plan, jobs, min(processes, len(jobs)))
    with bar("scored set", len(shards), show=progress, done=len(shards) - len(missing)) as shown:
        for _ in done:
            shown.update()


Job = tuple[int, Path, str]


def _here(plan: Plan, jobs: list[Job]) -> Iterator[None]:
    with _one_thread():
        worker = Worker(plan)
        for index, path, plan_hash in jobs:
            write_shard(worker.shard(index), path, plan_hash)
            yield


def _there(plan: Plan, jobs: list[Job], processes: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (plan,)) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ScoredSetError(
                "a process ended while it worked on a photograph, most likely for want of memory; building again goes "
                "on from here, with fewer processes if need be."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(plan: Plan) -> None:
    global _plan
    torch.set_num_threads(1)
    _plan = plan


def _run(job: Job) -> None:
    global _worker
    if _worker is None:  # not in _start, whose errors do not reach the caller
        assert _plan is not None
        _worker = Worker(_plan)
    index, path, plan_hash = job
    write_shard(_worker.shard(index), path, plan_hash)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over pixels depend on the number of threads in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
