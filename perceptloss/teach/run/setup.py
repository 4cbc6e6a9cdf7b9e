"""Everything a run learns from and is examined on, opened and checked before the first step."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from perceptloss import Critic
from perceptloss.errors import ConfigError
from perceptloss.runs.launch import on_main
from perceptloss.teach.leaks.hashing import Fingerprints, refuse_leak
from perceptloss.teach.leaks.thumbnails import SIDE
from perceptloss.teach.run.sources import Exam, Setting, Source, SourceOptions, open_sources
from perceptloss.teach.run.stream import Stream, batch_problems, cut_problems

__all__ = ["Material", "open_material"]


@dataclass(frozen=True)
class Material:
    """Sources to learn from, and exams."""

    sources: list[Source]
    exams: list[Exam]
    teachers: list[str]
    photographs: Mapping[str, Fingerprints]

    def inventory(self) -> dict[str, dict[str, str]]:
        """What every photograph, taught or examined, looks like."""
        return {
            part: {
                name: f"{zlib.crc32(look.numpy().tobytes()):08x}"
                for name, look in zip(f.names, f.thumbnails, strict=True)
            }
            for part, f in self.photographs.items()
        }

    def streams(self, seed: int, rank: int, world: int) -> list[Stream]:
        """The batches of this process.

        Raises:
            ConfigError: listing sources that have too little for one.
        """
        if problems := [problem for source in self.sources for problem in batch_problems(source, world)]:
            raise ConfigError(problems, "--data")
        return [Stream(source, seed, rank, world) for source in self.sources]

    def summary(self) -> str:
        """A line for each source and exam."""
        lines = [f"{s.options.label}: {len(s)} items of {len(set(s.content_ids))} photographs" for s in self.sources]
        return "\n".join([*lines, *(f"exam {exam.name}: {exam.about}" for exam in self.exams)])


def open_material(
    critic: Critic,
    data: Sequence[SourceOptions],
    sets: Sequence[SourceOptions],
    seed: int,
    allow: Sequence[Any],
    accelerator: Accelerator,
    *,
    with_reference: bool = False,
) -> Material:
    """Open all sources; call on all processes.

    Args:
        critic: That learns.
        data: Entries to learn from.
        sets: More exams.
        seed: Of what is held out.
        allow: Pairs of photographs that only look alike.
        accelerator: Of the run.
        with_reference: Whether an objective needs references, whatever the critic needs.

    Raises:
        ConfigError: listing what is wrong with them.
        LeakError: listing photographs that are taught and examined, resized, cut, mirrored or degraded too.
    """
    problems = [p for entry in data for p in cut_problems(critic, entry.crops, f"{entry.label}.crops")]
    problems += [
        f"val.look_alikes: expected pairs of photographs, [a, b], got {pair!r}"
        for pair in allow
        if not isinstance(pair, (list, tuple)) or len(pair) != 2
    ]
    if problems:
        raise ConfigError(problems, "data")

    def setting(*, is_exam: bool) -> Setting:
        brings = critic.card.needs_reference or (with_reference and not is_exam)
        return Setting(critic.card, seed, is_exam, brings, lambda act: on_main(accelerator, act))

    opened = open_sources(data, setting(is_exam=False))
    examined = open_sources(sets, setting(is_exam=True))
    photographs = {
        "taught": _joined([o.taught_on for o in opened]),
        "exam": _joined([o.held_out for o in (*opened, *examined)]),
    }
    on_main(accelerator, lambda: refuse_leak(photographs, allow=[(str(a), str(b)) for a, b in allow]))
    exams = [exam for o in (*opened, *examined) for exam in o.exams]
    if not exams:
        raise ConfigError(["there is no exam: give an entry of data a `hold_out`, or val.sets entries"], "val")
    teachers = sorted({teacher for o in opened for teacher in o.teachers})
    return Material([o.source for o in opened if o.source is not None], exams, teachers, photographs)


def _joined(parts: Sequence[Fingerprints | None]) -> Fingerprints:
    """All of them; a photograph that two sources share counts once."""
    rows = {name: part.thumbnails[i] for part in parts if part is not None for i, name in enumerate(part.names)}
    return Fingerprints(tuple(rows), torch.stack(list(rows.values())) if rows else torch.empty(0, SIDE, SIDE))
