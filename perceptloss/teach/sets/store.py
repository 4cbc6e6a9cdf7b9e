"""A finished scored set: reading it, and packing it from its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.output.files import replacing, write_atomically
from perceptloss.teach.sets.consensus import consensus as consensus_of
from perceptloss.teach.sets.plan import ScoredSetError
from perceptloss.teach.sets.shards import Shard, read_shard

__all__ = ["ScoredSet", "pack"]

FACTS: Final = "set.json"  # written last: a folder that has it is finished
TABLE: Final = "table.npz"
_REFERENCES, _IMAGES = "references.npy", "images.npy"

Ints = NDArray[np.int64]
Texts = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """Degraded images with what their teachers say; M images of R clean crops, T teachers.

    Attributes:
        references: Clean crops, (R, 3, S, S) uint8, on disk.
        images: Versions of them, the clean ones included, (M, 3, S, S) uint8, on disk.
        reference: Row of `references`, (M,).
        content: Number of the photograph, index into `contents`, (M,).
        source: Number of the photograph's folder, index into `sources`, (M,).
        name: Degradation, `clean`, or `chain-` and the kind of a chain, (M,).
        family: Its family, `clean` or `chain`, (M,).
        level: In [0, 5], 0 for clean crops, NaN for chains, (M,).
        group: Same for the levels of one crop, degradation and seed; -1 for chains and clean crops, (M,).
        recipe: The steps as `name:level#seed`, joined by ` + `, (M,).
        scores: In the natural units of each teacher, (M, T) float32.
        clean_scores: What the teachers say of the clean crops, (R, T) float32.
        teachers: Names, in the order of the columns.
        weights: The plan's weight of each teacher.
        is_higher_better: Direction of each teacher.
        contents: `folder/file` of each photograph.
        sources: Names of the folders.
        plan: Facts of the plan; its hash under `hash`.
    """

    references: NDArray[np.uint8]
    images: NDArray[np.uint8]
    reference: Ints
    content: Ints
    source: Ints
    name: Texts
    family: Texts
    level: NDArray[np.float64]
    group: Ints
    recipe: Texts
    scores: NDArray[np.float32]
    clean_scores: NDArray[np.float32]
    teachers: tuple[str, ...]
    weights: Mapping[str, float]
    is_higher_better: Mapping[str, bool]
    contents: tuple[str, ...]
    sources: tuple[str, ...]
    plan: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | PathLike[str], weights: Mapping[str, float] | None = None) -> ScoredSet:
        """Read a finished set; pixels stay on disk.

        Args:
            folder: Where `build` put it.
            weights: Of the teachers, in place of those it was built with.

        Raises:
            ScoredSetError: if there is none, or it is not finished.
        """
        place = Path(folder)
        if not (place / FACTS).is_file():
            raise ScoredSetError(f"{place} holds no finished scored set (no {FACTS}); run build with its plan.")
        facts = json.loads((place / FACTS).read_text())
        with np.load(place / TABLE) as table:
            columns = dict(table)
        return cls(
            references=np.load(place / _REFERENCES, mmap_mode="r"),
            images=np.load(place / _IMAGES, mmap_mode="r"),
            **columns,
            teachers=tuple(facts["teachers"]),
            weights=dict(weights if weights is not None else facts["weights"]),
            is_higher_better=facts["is_higher_better"],
            contents=tuple(facts["contents"]),
            sources=tuple(facts["sources"]),
            plan=facts["plan"],
        )

    def __len__(self) -> int:
        return len(self.reference)

    def consensus(self, weights: Mapping[str, float] | None = None) -> NDArray[np.float64]:
        """Label of every image, uniform in (0, 1), 1 for clean ones, (M,); see `consensus.consensus`.

        Ranks are taken among the images of this set.

        Args:
            weights: Say of each teacher; None for the plan's. Teachers left out have none.
        """
        clean = self.clean_scores[self.reference]
        return consensus_of(
            {name: self.scores[:, i] for i, name in enumerate(self.teachers)},
            {name: clean[:, i] for i, name in enumerate(self.teachers)},
            self.is_higher_better,
            self.weights if weights is None else weights,
        )


def pack(folder: Path, shards: Sequence[Path], facts: Mapping[str, Any], weights: Mapping[str, float]) -> None:
    """Join shards, one per photograph of the plan, into arrays and a table; the shards stay.

    Nobody else may write in the folder meanwhile.
    """
    for leftover in folder.glob(".*.partial*"):
        leftover.unlink()
    contents = [name for name, _ in facts["photos"]]
    sources = sorted({name.rpartition("/")[0] for name in contents})
    first = read_shard(shards[0])  # all are as large
    with replacing(folder / _REFERENCES) as references, replacing(folder / _IMAGES) as images:
        files = {references: first.references, images: first.images}
        columns = _fill(files, shards, [sources.index(name.rpartition("/")[0]) for name in contents])
    with replacing(folder / TABLE) as draft:
        np.savez(draft, **columns)
    record = {
        "teachers": list(facts["teachers"]),
        "weights": dict(weights),
        "is_higher_better": first.is_higher_better,
        "contents": contents,
        "sources": sources,
        "plan": dict(facts),
    }
    write_json(record, folder / FACTS)


def _fill(files: Mapping[Path, NDArray[np.uint8]], shards: Sequence[Path], sources: Sequence[int]) -> dict[str, Any]:
    """Write the references and the images of all shards into files, block by block; the columns of the table."""
    parts: list[dict[str, Any]] = []
    arrays = [
        np.lib.format.open_memmap(path, "w+", block.dtype, (len(shards) * len(block), *block.shape[1:]))
        for path, block in files.items()
    ]
    for number, (path, source) in enumerate(zip(shards, sources, strict=True)):
        shard = read_shard(path)
        for array, block in zip(arrays, (shard.references, shard.images), strict=True):
            array[number * len(block) : (number + 1) * len(block)] = block
        parts.append(_columns(shard, number, source))
    for array in arrays:
        array.flush()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a file that is whole or not there."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _columns(shard: Shard, content: int, source: int) -> dict[str, Any]:
    count = len(shard.images)
    clean = np.flatnonzero(shard.level == 0)
    return {
        "reference": shard.reference + content * len(shard.references),
        "content": np.full(count, content),
        "source": np.full(count, source),
        "name": np.array(shard.name),
        "family": np.array(shard.family),
        "level": shard.level,
        "group": shard.group,
        "recipe": np.array(shard.recipe),
        "scores": shard.scores,
        "clean_scores": shard.scores[clean[np.argsort(shard.reference[clean])]],
    }
