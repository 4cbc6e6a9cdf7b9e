"""The card beside a weight file that we made: what it is, from what, how, and how well it agrees with people.

A card is made before the file, because its facts go into the file's metadata, and completed with the file's hash and
figures after it. Figures keep their intervals, and failures are not optional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from perceptloss import __version__
from perceptloss.card import Direction, Fidelity, Kind
from perceptloss.compare.statistics.bootstrap import Interval

__all__ = ["Attacked", "DataSource", "Figure", "ModelCard", "Origin", "metadata"]


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Something the weights were learned from.

    Attributes:
        name: What it is, with its version.
        licence: Licence, SPDX where there is one.
        attribution: Authors and address, as the licence asks for them.
        use: What it served for, such as `photographs` or `labels`.
    """

    name: str
    licence: str
    attribution: str
    use: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured figure.

    Attributes:
        exam: Set it was measured on.
        part: Which part of it, in words; `all`: the whole.
        measure: What was measured, with its fit, and on what crop or whole image if that matters.
        value: This critic's figure.
        count: Number of images, or of pairs where pairs are asked for.
        peers: Figures of others on the same images.
        is_detail: Whether it belongs into the table that is folded away, such as that of a single family.
    """

    exam: str
    part: str = "all"
    measure: str
    value: Interval
    count: int
    peers: Mapping[str, Interval] = field(default_factory=dict)
    is_detail: bool = False


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """SRCC on an exam whose pictures were attacked.

    Attributes:
        exam: Set it was measured on.
        count: Number of images.
        weights: Which weights, such as `mini-fr` or `starting weights`.
        attack: Its name.
        srcc: Largest change of a pixel, in 1/255 (0: before), to SRCC; None where it is not defined.
    """

    exam: str
    count: int
    weights: str
    attack: str
    srcc: Mapping[int, float | None]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a weight file came about.

    Attributes:
        command: Command line that makes the file again.
        configuration: sha256 of the configuration the command read.
        seed: Seed of the run.
        steps: Optimiser steps.
        seconds: Wall time of the run.
        hardware: What it ran on.
        versions: Version of each package that matters.
    """

    command: str
    configuration: str
    seed: int
    steps: int
    seconds: float
    hardware: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ModelCard(Origin):
    """Facts about a weight file, its origin included.

    Attributes:
        name: Name of the critic in the registry.
        summary: One or two sentences: what it measures and what for.
        kind: As on the critic's card.
        better: Direction of its scores.
        fidelity: As on the critic's card.
        licence: Licence of the weights.
        data: What it was learned from, teachers included.
        parameters: Number of parameters.
        gflops: 1e9 floating-point operations (2 per multiply-add) for one score of a 256x256 image.
        file: Name of the weight file.
        sha256: Its hash.
        figures: What was measured, the poor results too.
        attacks: The same under attack.
        held_out_families: Degradations that no image it learned from had.
        held_out_sources: Photographs or sets of which no image it learned from came.
        failures: What it is known to get wrong, and how that was looked for.
        notes: Anything else.
    """

    name: str
    summary: str
    kind: Kind
    better: Direction
    fidelity: Fidelity
    licence: str
    data: Sequence[DataSource]
    parameters: int
    gflops: float
    file: str
    held_out_families: Sequence[str]
    held_out_sources: Sequence[str]
    sha256: str = ""
    figures: Sequence[Figure] = ()
    attacks: Sequence[Attacked] = ()
    failures: Sequence[str] = ()
    notes: Sequence[str] = ()


def metadata(card: ModelCard) -> dict[str, Any]:
    """Facts of the card that belong into the file's own."""
    return {
        "critic": card.name,
        "version": __version__,
        "kind": card.kind,
        "better": card.better,
        "fidelity": card.fidelity,
        "licence": card.licence,
        "data": [asdict(source) for source in card.data],
        "command": card.command,
        "configuration": card.configuration,
        "seed": card.seed,
        "steps": card.steps,
    }
