"""Labelled images beside the training of a restorer, so that a critic which learns there stays a judge of quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.run.sources import Opened, Setting, Source, SourceOptions, open_sources, parse_entries
from perceptloss.teach.run.stream import Stream, batch_problems, cut_problems, dice

__all__ = ["AnchorImages", "AnchorSets"]

AnchorImages = dict[str, tuple[Tensor, Tensor | None, Tensor]]
"""Name of a set to images, (N, C, H, W), references or None, and labels (N,), higher is better."""

_LABELLED = ("opinions", "teachers", "enhanced", "stereo")  # the last if it has a teacher
_IGNORED = ("weight", "objectives")
_DEFAULTS = {"contents": 4, "versions": 1, "hold_out": 0.2}
_HELD = 48  # images that the agreement of critics is measured on, of each set
_LEAST = 3


class AnchorSets:
    """Sets of labelled images, each with a batch for every step and images that nothing learns from.

    Args:
        entries: Sources as in `data` of `recipes/critic.py`: people's opinions (`opinions`), or photographs with the
            consensus of other critics (`teachers`). Unless they say so, four photographs come in a step, one item of
            each, and a fifth of the photographs is held out.
        critics: That learn from them.
        seed: Of the run.
        device: Of the critics.
        rank: Of this process.
        world: Number of processes; their batches are disjoint.
        on_main: Runs something on the main process; its result on all.
        input_range: Of the batches, as in `CriticLoss`.

    Attributes:
        held: Images in [0, 1] that nothing learns from, cut to what all have in common around their middle; see
            `Watch.agreement`.

    Raises:
        ConfigError: listing what is wrong with the entries.
    """

    def __init__(
        self,
        entries: Sequence[Any],
        critics: Sequence[Critic],
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        on_main: Callable[[Callable[[], Any]], Any] = lambda act: act(),
        input_range: Sequence[float] = (0, 1),
    ) -> None:
        if not critics:
            raise ConfigError(["anchors teach critics that learn, and no term of this loss is `joint`"], "anchors")
        wanted = [{**_DEFAULTS, **entry} if isinstance(entry, Mapping) else entry for entry in entries]
        options = parse_entries(wanted, "anchors")
        problems = [p for o, entry in zip(options, wanted, strict=True) for p in _entry_problems(o, entry)]
        problems += [p for o in options for c in critics for p in cut_problems(c, o.crops, f"{o.label}.crops")]
        if problems:
            raise ConfigError(problems, "anchors")
        card = _card_of_all(critics)
        opened = open_sources(options, Setting(card, seed, False, card.needs_reference, on_main))
        problems = [p for o, found in zip(options, opened, strict=True) for p in _problems(o, found, card, world)]
        if problems:
            raise ConfigError(problems, "anchors")
        self.device, self.input_range = device, input_range
        self.streams = [Stream(o.source, seed, rank, world) for o in opened if o.source is not None]
        names = [stream.source.options.label for stream in self.streams]
        exams = {name: exam for name, found in zip(names, opened, strict=True) for exam in found.exams}
        self.held = {name: self._shown(*_middles(exam, card.multiple_of)) for name, exam in exams.items()}

    def at(self, step: int) -> AnchorImages:
        """The batches of a step, in `input_range`; what has no label is left out, which may leave none of a set."""
        found: AnchorImages = {}
        for stream in self.streams:
            batch = stream[step]
            assert batch.target is not None  # as `_problems` made sure
            known = ~batch.target.isnan()
            y = None if batch.y is None else batch.y[known]
            x, y, labels = self._shown(batch.x[known], y, batch.target[known])
            found[batch.dataset] = self._ranged(x), None if y is None else self._ranged(y), labels
        return found

    def _ranged(self, image: Tensor) -> Tensor:
        low, high = self.input_range
        return image * (high - low) + low

    def _shown(self, x: Tensor, y: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Bytes on the device, in [0, 1]."""

        def shown(image: Tensor) -> Tensor:
            return image.to(self.device).float().div_(255)

        return shown(x), None if y is None else shown(y), labels.to(self.device)


def _card_of_all(critics: Sequence[Critic]) -> Card:
    """That of a critic that needs most, with sides that all accept."""
    cards = sorted((critic.card for critic in critics), key=lambda card: not card.needs_reference)
    return replace(
        cards[0],
        min_size=max(card.min_size for card in cards),
        multiple_of=math.lcm(*(card.multiple_of for card in cards)),
    )


def _entry_problems(options: SourceOptions, entry: Mapping[str, Any]) -> list[str]:
    found = [
        f"{options.label}: {key}: such anchors are weighed by `joint: {{anchor: ...}}` of a term; leave it out"
        for key in _IGNORED
        if key in entry
    ]
    if options.kind not in _LABELLED:
        found.append(_without_labels(options.label))
    if options.kind == "opinions" and entry.get("clean"):
        found.append(f"{options.label}: clean: a reference has no label to learn from; leave it out")
    return found


def _without_labels(label: str) -> str:
    return f"{label}: such a source has no labels; kinds that have: {', '.join(_LABELLED[:-1])}"


def _problems(options: SourceOptions, opened: Opened, card: Card, world: int) -> list[str]:
    label = options.label
    if opened.source is None or "target" not in opened.source.gives:
        return [_without_labels(label)]
    found = batch_problems(opened.source, world) + _size_problems(options, opened.source, card)
    for exam in opened.exams:
        known = exam.target[~np.isnan(exam.target)]
        if len(np.unique(known)) < _LEAST:
            held = f"{len(known)} images are held out, of {len(np.unique(known))} different labels"
            found.append(f"{label}: hold_out: {held}, and {_LEAST} are needed: raise it, or say 0")
    return found


def _size_problems(options: SourceOptions, source: Source, card: Card) -> list[str]:
    """Cuts beyond the images, or whole images that a critic does not accept; before cuts all have one size."""
    height, width = source.batch([0], dice(0)).x.shape[-2:]
    if options.crops:
        return [
            f"{options.label}.crops: {side} does not fit into its images, {height}x{width}"
            for side in options.crops
            if side > min(height, width)
        ]
    if min(height, width) >= card.min_size and not (height % card.multiple_of or width % card.multiple_of):
        return []
    return [
        f"{options.label}: crops: its critics need sides of at least {card.min_size} and a multiple of "
        f"{card.multiple_of}, and its images are {height}x{width}: give the side of the squares to learn from"
    ]


def _middles(exam: Exam, multiple_of: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Some labelled images of an exam, their references and labels."""
    rows = np.flatnonzero(~np.isnan(exam.target))
    rows = rows[:: -(-len(rows) // _HELD)]
    pairs = [exam.images(rows[i : i + 1]) for i in range(len(rows))]
    sides = [min(x.shape[dim] for x, _ in pairs) // multiple_of * multiple_of for dim in (-2, -1)]
    x = torch.cat([_middle(x, sides) for x, _ in pairs])
    references = [_middle(y, sides) for _, y in pairs if y is not None]
    return x, torch.cat(references) if references else None, torch.from_numpy(exam.target[rows]).float()


def _middle(images: Tensor, sides: Sequence[int]) -> Tensor:
    for dim, side in zip((-2, -1), sides, strict=True):
        images = images.narrow(dim, (images.shape[dim] - side) // 2, side)
    return images
