"""What large images cost a critic: peak memory and seconds, foreseen from small ones, measured in a new process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.errors import PerceptlossError
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.domains import domain_of
from perceptloss.maps.tiles import score_in_tiles
from perceptloss.networks.tiles import side_for
from perceptloss.registry import DEFAULT, create_critic, get_card

__all__ = ["Cost", "Footprint", "Question", "asked", "side_of_tiles"]

Size = tuple[int, int]  # height, width
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_SMALL = 512  # shortest side of a probe that is not cut


@dataclass(frozen=True)
class Question:
    """One critic on one size.

    Attributes:
        critic: Registered name.
        size: Height and width of the image.
        tile: Longest side that it sees at once; None for whole images.
        train: Whether the gradient is wanted, as in a training step of batch 1.
        device: A torch device.
        random: Whether seeded random weights will do, which cost the same.
    """

    critic: str
    size: Size
    tile: int | None
    train: bool
    device: str
    random: bool = False


@dataclass(frozen=True)
class Cost:
    """Peak bytes (resident memory with torch and the images; on a GPU what torch holds there), and seconds."""

    peak: int
    seconds: float


@dataclass(frozen=True)
class Footprint:
    """What was foreseen, and what was measured if it was, or why not."""

    foreseen: Cost
    measured: Cost | None
    reason: str = ""


def side_of_tiles(card: Card, tile: int | None, size: Size) -> int | None:
    """The tiles that a critic gets of what is asked for: none where it must see whole images, or they are small."""
    side = None if card.tiling == "never" else side_for(card, tile)
    return None if side is None or max(size) <= side else side


def asked(question: Question, is_wanted: Callable[[Cost], str]) -> Footprint:
    """Foresee the cost of a critic from two small images, and measure it.

    Both peaks are nearly linear in the pixels: what is loaded and one tile (or the whole image) on top.

    Args:
        question: What is asked.
        is_wanted: Told what is foreseen, says why it should not be measured; nothing if it should.

    Raises:
        PerceptlossError: if the critic cannot be built, or even the small images do not fit.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_answer, args=(there, question), daemon=True)
    child.start()
    there.close()
    try:
        first, second = (_heard(here, child, question) for _ in range(2))
        foreseen = _extended(first, second, question.size)
        reason = is_wanted(foreseen)
        here.send(not reason)
        if reason:
            return Footprint(foreseen, None, reason)
        try:
            return Footprint(foreseen, _heard(here, child, question)[1])
        except PerceptlossError as error:
            return Footprint(foreseen, None, str(error))
    finally:
        here.close()
        child.join()


def _heard(here: Connection, child: Any, question: Question) -> tuple[int, Cost]:
    try:
        told = here.recv()
    except EOFError:
        child.join()
        end = "it was killed, as the system does when memory runs out" if child.exitcode == -9 else "its process ended"
        raise PerceptlossError(f"{question.critic}: {end} (exit code {child.exitcode})") from None
    if isinstance(told, str):
        raise PerceptlossError(told)
    assert isinstance(told, tuple)
    return told


def _extended(first: tuple[int, Cost], second: tuple[int, Cost], size: Size) -> Cost:
    """The line through two measurements, at the pixels of a size; it never falls."""
    (few, small), (many, large) = first, second
    beyond = (size[0] * size[1] - many) / max(1, many - few)
    peak = large.peak + max(0.0, beyond * (large.peak - small.peak))
    return Cost(int(peak), large.seconds * size[0] * size[1] / many)


def _probes(question: Question, card: Card) -> Iterator[Size]:
    """Two sizes of the same kind: cut where the image in question is, and legal for the critic."""
    least = _legal(card, question.tile or _SMALL)
    for wide in (2, 4) if question.tile else (1, 2):
        size = least, least * wide
        yield size if size[0] * size[1] <= question.size[0] * question.size[1] else question.size


def _legal(card: Card, least: int) -> int:
    return -(-max(card.min_size, least) // card.multiple_of) * card.multiple_of


def _answer(there: Connection, question: Question) -> None:
    try:
        run = _prepared(question)
        height, width = question.size
        for size in _probes(question, get_card(question.critic)):
            there.send((size[0] * size[1], run(size)))
        if there.recv():
            there.send((height * width, run((height, width))))
    except (PerceptlossError, RuntimeError, MemoryError) as error:
        there.send(f"{question.critic}: {error}")
    except (EOFError, BrokenPipeError):
        return
    finally:
        there.close()


def _prepared(question: Question) -> Callable[[Size], Cost]:
    weights = None if question.random else DEFAULT
    device = torch.device(question.device)
    critic = create_critic(question.critic, weights).to(device)
    card, tile = critic.card, question.tile
    loss = None
    if question.train:
        loss = CriticLoss([{"critic": critic, "weight": 1.0}], tile=tile, domain=domain_of(card)).to(device)

    def run(size: Size) -> Cost:
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.rand(1, card.channels, *size, generator=generator) for _ in range(2))
        x, y = (x, y) if question.train is False and tile else (x.to(device), y.to(device))
        with _peak(device) as peak:
            begin = time.perf_counter()
            _once(x, y)
            seconds = time.perf_counter() - begin
        return Cost(peak[0], seconds)

    def _once(x: Tensor, y: Tensor) -> None:
        if loss is not None:
            loss.value_and_gradient(x, y)
        else:
            with torch.no_grad():
                score_in_tiles(critic, x, y if card.needs_reference else None, tile)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run((_legal(card, 64),) * 2)  # what is done once
    return run


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """The highest memory meanwhile, in bytes, as the only element of a list that is filled at the end."""
    found: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        _RESET.write_text("5")  # the kernel starts its high-water mark anew
    yield found
    found.append(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident())


def _resident() -> int:
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
