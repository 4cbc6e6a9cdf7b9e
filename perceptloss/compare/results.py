"""Scores of systems on images by critics, with what is needed to repeat and to re-render them.

Per-image values are kept apart from everything computed of them (`summary.py`), so that means,
tests and reports never score again.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from perceptloss.compare.analysis import Analysis
from perceptloss.compare.arrays import Scores
from perceptloss.compare.columns import Column
from perceptloss.compare.images import ImageFile
from perceptloss.compare.inference import Inference, infer
from perceptloss.compare.noise import rounding
from perceptloss.compare.sets import SetScore, unfit_sets
from perceptloss.compare.standings import Row, header_of, html_table, rows_of
from perceptloss.compare.summary import Summary, summarise
from perceptloss.errors import ConfigError, some
from perceptloss.output.files import write_atomically
from perceptloss.output.names import csv_cell, json_text

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Column", "Flag", "ImageRecord", "Results", "load_results"]

FORMAT: Final = "perceptloss-results"
VERSION: Final = 1


@dataclass(frozen=True)
class ImageRecord:
    """One image that was compared.

    Attributes:
        key: What pairs it: its stem, with folders where those were searched.
        outputs: The judged file of each system, in their order; None for images from memory.
        reference: The reference file, if there is one.
    """

    key: str
    outputs: tuple[ImageFile | None, ...]
    reference: ImageFile | None = None


@dataclass(frozen=True)
class Flag:
    """Something a reader of the scores must know about.

    Attributes:
        kind: `identical` (to the reference), `same-system`, `swapped` (folders, by their names), `resized`, `cut`,
            `not-finite`, or `changed` (the file, between check and score).
        text: A sentence.
        system: The system it is about, if one.
        image: Key of the image it is about, if one.
        critic: Label of the critic it is about, if one.
    """

    kind: Literal["identical", "same-system", "swapped", "resized", "cut", "not-finite", "changed"]
    text: str
    system: str | None = None
    image: str | None = None
    critic: str | None = None


@dataclass(frozen=True)
class Results:
    """Scores, system x critic x image.

    Attributes:
        systems: Names, in the order given.
        critics: The columns.
        images: Sorted by key.
        values: `values[system][critic][image]`; None where the score was not finite.
        baseline: The system that others are compared with; None for a single system.
        left_out: Keys that were not compared, and the sets that lack them.
        flags: What a reader must know.
        settings: Choices that change scores, and those of pairing.
        provenance: Command, time, versions, device, inputs: differs between equal runs.
        analysis: How differences are judged, and what else is asked of the scores.
        sets: What judges of whole sets said of the systems.
    """

    systems: tuple[str, ...]
    critics: tuple[Column, ...]
    images: tuple[ImageRecord, ...]
    values: tuple[tuple[tuple[float | None, ...], ...], ...]
    baseline: str | None = None
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    analysis: Analysis = Analysis()  # noqa: RUF009  (frozen)
    sets: tuple[SetScore, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.systems), len(self.critics), len(self.images))
        rows = [row for system in self.values for row in system]
        if (len(self.values), *{len(s) for s in self.values}) != shape[:2] or {len(r) for r in rows} != {shape[2]}:
            raise ConfigError(
                [f"values must have shape {shape}: systems, critics, images; none may be empty"], "results"
            )
        if strange := [value for row in rows for value in row if not _is_score(value)]:
            got = some(map(_short, strange))
            raise ConfigError([f"values must be finite numbers, or null where there is none; got {got}"], "results")
        if self.baseline is not None and self.baseline not in self.systems:
            raise ConfigError([f"baseline {self.baseline!r} is not one of {', '.join(self.systems)}"], "results")
        labels, keys = [column.label for column in self.critics], [image.key for image in self.images]
        if wrong := [*self.analysis.unfit(self.systems, labels, keys), *unfit_sets(self.sets, self.systems)]:
            raise ConfigError(wrong, "results")

    @property
    def has_gaps(self) -> bool:
        """Whether a score was not finite."""
        return any(value is None for system in self.values for row in system for value in row)

    def scores(self, system: str, critic: str) -> tuple[float | None, ...]:
        """Scores of a system by a critic, one per image."""
        labels = [column.label for column in self.critics]
        return self.values[self.systems.index(system)][labels.index(critic)]

    def array(self) -> np.ndarray:
        """All scores, float64 (systems, critics, images), NaN where there is none."""
        import numpy as np

        return np.array(self.values, dtype=np.float64)

    def summary(self) -> Summary:
        """What is computed from the scores: means, differences to the baseline, ranks and wins."""
        base = None if self.baseline is None else self.systems.index(self.baseline)
        directions = [column.is_higher_better for column in self.critics]
        return summarise(self.values, directions, base, [column.is_evidence for column in self.critics])

    @cached_property
    def inference(self) -> Inference:
        """What the scores show beyond their means: intervals, tests, ranks, strengths, agreement with people."""
        return infer(self.arrays(), self.analysis)

    def arrays(self) -> Scores:
        """The scores as arrays, with what is known of their critics."""
        return Scores(
            values=self.array(),
            systems=self.systems,
            labels=tuple(column.label for column in self.critics),
            higher_better=tuple(column.is_higher_better for column in self.critics),
            counted=tuple(column.is_evidence for column in self.critics),
            noise=tuple(map(self._noise, range(len(self.critics)))),
            keys=tuple(image.key for image in self.images),
            base=None if self.baseline is None else self.systems.index(self.baseline),
        )

    def _noise(self, critic: int) -> float:
        column = self.critics[critic]
        scores = [score for rows in self.values for score in rows[critic] if score is not None]
        stated = self.analysis.of(self.analysis.noise, column.label)
        return rounding(column.signature, scores) if stated is None else stated

    def _repr_html_(self) -> str:
        """The table of systems, as notebooks show it."""
        header = header_of(
            self.critics, [preset.header for preset in self.analysis.presets], is_single=len(self.systems) == 1
        )
        return html_table(header, self.rows())

    def rows(self) -> list[Row]:
        """The table of systems as cells."""
        return rows_of(self.systems, self.critics, self.summary(), self.inference, len(self.images))

    def with_roles(self, trained: Collection[str]) -> Results:
        """The same, with `train` for the critics of these labels and `judge` for the others."""
        columns = (replace(c, role="train" if c.label in trained else "judge") for c in self.critics)
        return replace(self, critics=tuple(columns))

    def in_groups(self) -> Results:
        """The same with the columns of a group side by side, in the order of `GROUPS`; first those without a role."""
        order = sorted(range(len(self.critics)), key=lambda n: self.critics[n].place)
        values = tuple(tuple(system[n] for n in order) for system in self.values)
        return replace(self, critics=tuple(self.critics[n] for n in order), values=values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is computed from the values stands under `summary` and `inference`."""
        facts = asdict(self)
        computed = {"summary": asdict(self.summary()), "inference": asdict(self.inference)}
        provenance = facts.pop("provenance")
        return {"format": FORMAT, "version": VERSION, **facts, **computed, "provenance": provenance}

    def to_json(self) -> str:
        """JSON text; equal for equal inputs but for `provenance`."""
        return json_text(self.to_dict())

    def to_csv(self) -> str:
        """One row per system and image, one column per critic; empty where a score is missing.

        Names are as `perceptloss.output.names.csv_cell` writes them, so that none is a formula.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["system", "image", *(csv_cell(column.label) for column in self.critics), "signatures"])
        signatures = csv_cell(" ".join(column.signature for column in self.critics))
        for system, rows in zip(self.systems, self.values, strict=True):
            for index, image in enumerate(self.images):
                scores = ["" if row[index] is None else repr(row[index]) for row in rows]
                writer.writerow([csv_cell(system), csv_cell(image.key), *scores, signatures])
        return text.getvalue()

    def save(self, path: str | PathLike[str]) -> None:
        """Write `.json` (everything) or `.csv` (scores and signatures).

        Raises:
            ConfigError: for another ending.
        """
        ending = Path(path).suffix.lower()
        if ending not in (".json", ".csv"):
            raise ConfigError([f"expected a file ending in .json or .csv, got {str(path)!r}"], "output")
        text = self.to_json() if ending == ".json" else self.to_csv()
        write_atomically(Path(path), text)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Results:
        """Results from what `to_dict` gave; what is computed is computed anew when needed.

        Raises:
            ConfigError: if that is not what it is.
        """
        if facts.get("format") != FORMAT or facts.get("version") != VERSION:
            got = f"{facts.get('format')!r} version {facts.get('version')!r}"
            raise ConfigError([f"expected {FORMAT!r} version {VERSION}, got {got}; score again"], "results")
        try:
            return cls(
                systems=tuple(facts["systems"]),
                critics=tuple(Column(**column) for column in facts["critics"]),
                images=tuple(_record(image) for image in facts["images"]),
                values=tuple(tuple(tuple(row) for row in system) for system in facts["values"]),
                baseline=facts["baseline"],
                left_out={key: tuple(names) for key, names in facts["left_out"].items()},
                flags=tuple(Flag(**flag) for flag in facts["flags"]),
                settings=facts["settings"],
                provenance=facts["provenance"],
                analysis=Analysis.from_dict(facts.get("analysis", {})),
                sets=tuple(SetScore(**score) for score in facts.get("sets", ())),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError([f"damaged or of another version: {type(error).__name__}: {error}"], "results") from error


def load_results(path: str | PathLike[str]) -> Results:
    """Read a file that `Results.save` wrote as `.json`.

    Raises:
        ConfigError: if it is not one.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ConfigError(["expected a file, got a folder, pipe or device"], str(path))
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"not JSON: {error}"], str(path)) from error
    if not isinstance(facts, dict):
        raise ConfigError([f"expected an object, got {type(facts).__name__}"], str(path))
    return Results.from_dict(facts)


def _is_score(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value is None
    return abs(value) < math.inf


def _short(value: object) -> str:
    return f"{value!r:.40}"


def _record(facts: Mapping[str, Any]) -> ImageRecord:
    def file(entry: Mapping[str, Any] | None) -> ImageFile | None:
        return None if entry is None else ImageFile(**{**entry, "right": file(entry.get("right"))})

    return ImageRecord(facts["key"], tuple(map(file, facts["outputs"])), file(facts["reference"]))
