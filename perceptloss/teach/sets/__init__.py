"""Scored sets: photographs, degraded versions of them and what other critics say of these, on disk.

A `Plan` says what to make, `build` makes it (resumable, over processes), `ScoredSet` reads it back, and its
`consensus` turns the teachers' scores into one label in [0, 1] per image.
"""

from __future__ import annotations

from perceptloss.teach.sets.build import build
from perceptloss.teach.sets.plan import Plan, ScoredSetError, TeacherSpec
from perceptloss.teach.sets.store import ScoredSet

__all__ = ["Plan", "ScoredSet", "ScoredSetError", "TeacherSpec", "build"]
