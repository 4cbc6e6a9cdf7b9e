"""An exam: cuts of photographs, shrunk and enlarged again in many ways by several factors, in the order people see.

There are no opinions on these pictures, so nothing is asked but what is known without:

- At one scene and factor people prefer bilinear, bicubic and edge-directed enlargement to nearest neighbour. In a study
  of super-resolved photographs of 24 scenes, whose opinions nothing here learns from, they did so in 71 to 93 % of
  pairs. Asked of each of the three alone.
- Among cubic filters nine observers put the B-spline where blur dominates, and that of B = C = 1/3 among the
  satisfactory ones (Mitchell, Netravali, "Reconstruction filters in computer graphics", SIGGRAPH 1988).
- With one enlarger a larger factor keeps less of the picture; this is by construction, as with levels of any damage.

Other studies asked people about enlarged pictures as well (Yeganeh, Rostami, Wang, "Objective quality assessment of
interpolated natural images", IEEE TIP 2015; Ma, Yang, Yang, Yang, "Learning a no-reference quality metric for
single-image super-resolution", CVIU 2017), but no order of theirs is asked, because we have not seen their tables. What
people see differs from picture to picture, so that a critic that is right about everything here need not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.teach.degradations.enlarge import ENLARGERS, enlarged, shrunk
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.leaks.hashing import fingerprint_files
from perceptloss.teach.run.sources import Opened, Setting
from perceptloss.teach.run.versions import VersionOptions, Versions, find_photos, version_problems

__all__ = ["KNOWN", "Options", "open_source"]

_DIRECTED = ("gradient-directed", "covariance-directed")
_NEAREST = {
    "nearest below bilinear": [("bilinear", "nearest")],
    "nearest below bicubic": [("bicubic", "nearest")],
    "nearest below edge-directed": [(name, "nearest") for name in _DIRECTED],
}

KNOWN: dict[str, list[tuple[str, str]]] = {
    **_NEAREST,
    "people's order": [*(pair for pairs in _NEAREST.values() for pair in pairs), ("mitchell", "b-spline")],
}
"""Questions, and their pairs of enlargers, the better one first."""


@dataclass(frozen=True)
class Options(VersionOptions):
    """Photographs; every cut is enlarged in every way by every factor."""


def _exam(files: Sequence[Path], options: Options, setting: Setting) -> Exam:
    names = options.enlargers or ENLARGERS
    ways = [(factor, name) for factor in options.factors for name in names]
    size = (options.crop, options.crop)

    def make(clean: Tensor, generator: torch.Generator) -> Tensor:
        small = {factor: shrunk(clean, factor) for factor in options.factors}
        return torch.cat([enlarged(small[factor], size, name) for factor, name in ways])

    made = Versions(files, options, setting, len(ways), make)
    firsts = np.arange(made.cuts)[:, None, None] * made.count
    asked = {}
    for question, pairs in KNOWN.items():
        local = [
            [ways.index((factor, name)) for name in pair]
            for factor in options.factors
            for pair in pairs
            if set(pair) <= set(names)
        ]
        if local:
            asked[question] = (firsts + np.array(local)).reshape(-1, 2)
    factor = np.array([factor for factor, _ in ways])[made.version]
    way = np.array([names.index(name) for _, name in ways])[made.version]
    return Exam(
        name=options.label,
        target=np.full(len(made), np.nan),
        content=made.content,
        reference=made.reference,
        group=made.reference * len(names) + way,
        level=factor.astype(float),
        family=np.array([f"factor {f}" for f in factor]),
        unseen=frozenset(),
        images=made,
        batch=16,
        about=f"{made.cuts} cuts of {len(files)} photographs, enlarged in {len(names)} ways by "
        f"{', '.join(map(str, options.factors))}; no targets, only the order that people are known to see, and that "
        "of the factors.",
        asked=asked,
    )


def open_source(options: Options, setting: Setting) -> Opened:
    """Find and check the photographs of the exam.

    Raises:
        ConfigError: listing everything that is wrong with the entry, also that it is one of `data`.
    """
    problems = version_problems(options, setting)
    files = find_photos(options, problems)
    if problems:
        raise ConfigError(problems, options.label)
    return Opened(None, [_exam(files, options, setting)], None, fingerprint_files(files))
