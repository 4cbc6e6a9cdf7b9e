"""Teaching sets: photographs, degraded versions of them and what other critics say of these, on disk.

A `Plan` says what to make, `build` makes it (resumable, over processes), `TeachingSet` reads it back, and its
`consensus` turns the teachers' scores into one label in [0, 1] per image.
"""

from __future__ import annotations

from perceptloss.training.teaching.build import build
from perceptloss.training.teaching.plan import Plan, TeacherSpec, TeachingError
from perceptloss.training.teaching.store import TeachingSet

__all__ = ["Plan", "TeacherSpec", "TeachingError", "TeachingSet", "build"]
