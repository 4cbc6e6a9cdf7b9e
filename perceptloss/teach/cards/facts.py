"""The card beside a weight file that we made: what it is, from what, how, and how well it agrees with people.

A card is made before the file, because its facts go into the file's metadata, and completed after it:

    save_file(tensors, path, metadata=metadata(card))
    card = replace(card, sha256=sha256_of(path), figures=figures, failures=failures)
    write(card, path)  # of `markdown`: checks the file, writes the Markdown beside it

Figures keep their intervals, and failures are not optional.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Final

from perceptloss import __version__
from perceptloss.card import Direction, Fidelity, Kind
from perceptloss.compare.statistics.bootstrap import Interval
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.weights.checkpoints import read_facts
from perceptloss.weights.download import sha256_of

__all__ = ["DataSource", "Figure", "ModelCard", "check_file", "metadata"]

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ENTRY: Final = "perceptloss"
_SOURCE_KEYS: Final = ("name", "licence", "attribution", "use")


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
        data: Set it was measured on, and which part.
        measure: What was measured, with its fit, and on what crop or whole image if that matters.
        value: This critic's figure.
        count: Number of images.
        peers: Figures of others on the same images; without an interval only if published that way.
    """

    data: str
    measure: str
    value: Interval
    count: int
    peers: Mapping[str, Interval | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Facts about a weight file.

    Attributes:
        name: Name of the critic in the registry.
        summary: One or two sentences: what it measures and what for.
        kind: As on the critic's card.
        better: Direction of its scores.
        fidelity: As on the critic's card.
        licence: Licence of the weights.
        data: What it was learned from, teachers included.
        command: Command line that makes the file again.
        configuration: sha256 of the configuration the command read.
        seed: Seed of the run.
        steps: Optimiser steps.
        seconds: Wall time of the run.
        hardware: What it ran on.
        versions: Version of each package that matters.
        parameters: Number of parameters.
        gflops: 1e9 floating-point operations (2 per multiply-add) for one score of a 256x256 image.
        file: Name of the weight file.
        sha256: Its hash; empty as long as there is no file.
        figures: What was measured, the poor results too; empty as long as nothing was.
        held_out_families: Degradations that no image it learned from had.
        held_out_sources: Photographs or sets of which no image it learned from came.
        failures: What it is known to get wrong, and how that was looked for; empty as long as nobody looked.
        notes: Anything else.
    """

    name: str
    summary: str
    kind: Kind
    better: Direction
    fidelity: Fidelity
    licence: str
    data: Sequence[DataSource]
    command: str
    configuration: str
    seed: int
    steps: int
    seconds: float
    hardware: str
    versions: Mapping[str, str]
    parameters: int
    gflops: float
    file: str
    held_out_families: Sequence[str]
    held_out_sources: Sequence[str]
    sha256: str = ""
    figures: Sequence[Figure] = ()
    failures: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._refuse(_problems(self))

    def check_complete(self) -> None:
        """Refuse a card of a file that is not there yet or was not measured.

        Raises:
            ConfigError: listing what is open.
        """
        still = ("sha256", "figures", "failures")
        self._refuse([f"{key} is empty; a card without it cannot be judged" for key in still if not getattr(self, key)])

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise ConfigError(problems, f"the model card of {self.name!r}")


def _problems(card: ModelCard) -> list[str]:
    texts = ("name", "summary", "licence", "command", "hardware", "file")
    found = [f"{key} is empty" for key in texts if not getattr(card, key).strip()]
    hashes = {"configuration": card.configuration, **({"sha256": card.sha256} if card.sha256 else {})}
    found += [
        f"{key} must be 64 hex digits, got {value!r}" for key, value in hashes.items() if not _SHA256.fullmatch(value)
    ]
    for key in ("steps", "seconds", "parameters", "gflops"):
        if not (math.isfinite(getattr(card, key)) and getattr(card, key) > 0):
            found.append(f"{key} must be a positive number, got {getattr(card, key)}")
    if Path(card.file).name != card.file or not card.file.endswith(".safetensors"):
        found.append(f"file must be the plain name of a .safetensors file, got {card.file!r}")
    found += [f"{key} is empty" for key in ("data", "versions") if not getattr(card, key)]
    for source in card.data:
        missing = [key for key in _SOURCE_KEYS if not getattr(source, key).strip()]
        found += [f"data {source.name!r} lacks {key}" for key in missing]
    for figure in card.figures:
        found += _figure_problems(figure)
    return found


def _figure_problems(figure: Figure) -> list[str]:
    where = f"figure {figure.measure!r} on {figure.data!r}"
    found = [] if figure.count >= 1 else [f"{where}: count must be at least 1, got {figure.count}"]
    for name, value in {"its value": figure.value, **figure.peers}.items():
        numbers = (value.value, value.low, value.high) if isinstance(value, Interval) else (value,)
        if not all(map(math.isfinite, numbers)):
            found.append(f"{where}: {name} is not finite")
        elif isinstance(value, Interval) and value.low > value.high:
            found.append(f"{where}: {name} has its interval the wrong way round")
    return found


def metadata(card: ModelCard) -> dict[str, str]:
    """Metadata for the safetensors file: one entry of JSON, because safetensors writes several in random order."""
    facts = {
        "critic": card.name,
        "version": __version__,
        "kind": card.kind,
        "better": card.better,
        "fidelity": card.fidelity,
        "licence": card.licence,
        "data": [{key: getattr(source, key) for key in _SOURCE_KEYS} for source in card.data],
        "command": card.command,
        "configuration": card.configuration,
        "seed": card.seed,
        "steps": card.steps,
    }
    return {_ENTRY: json.dumps(facts, sort_keys=True, ensure_ascii=False)}


def check_file(card: ModelCard, weights: str | PathLike[str]) -> None:
    """Refuse a weight file that is not the one of the card.

    Raises:
        WeightsError: naming each fact in which they differ.
    """
    path = Path(weights).expanduser()
    try:
        digest, facts = sha256_of(path), read_facts(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    expected: dict[str, Any] = json.loads(metadata(card)[_ENTRY])
    expected.pop("version")  # of the package that wrote the file
    differing = {key: (value, facts.get(key)) for key, value in expected.items() if facts.get(key) != value}
    differing |= {"file": (card.file, path.name)} if card.file != path.name else {}
    differing |= {"sha256": (card.sha256, digest)} if card.sha256 != digest else {}
    if differing:
        lines = "\n".join(f"  - {key}: card {said!r}, file {is_!r}" for key, (said, is_) in differing.items())
        raise WeightsError(f"{path} is not the file of the model card of {card.name!r}:\n{lines}")
