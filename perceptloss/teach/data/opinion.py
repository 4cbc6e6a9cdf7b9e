"""What people thought of one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from perceptloss.errors import ConfigError

__all__ = ["Opinion", "OpinionsError"]


class OpinionsError(ConfigError):
    """A data set of opinions cannot be read or used; lists every problem at once."""


@dataclass(frozen=True)
class Opinion:
    """What people thought of one picture, or of one stereo pair.

    Attributes:
        image: File of the judged picture; the left view of a stereo pair.
        reference: File of its undistorted original (the left view), None where there is none.
        mos: Mean opinion, in the scale and direction of the set.
        std: Standard deviation of the opinions in the same scale, None where it is not published.
        content: Name of what the picture shows: the same for all versions of a scene, and never split.
        distortion: Name or number of the degradation, as published.
        level: Strength of the degradation as published, growing with the damage; in a ranking, the rank.
        dataset: Name of the data set.
        image_right: File of the right view; the same file as `image` where it holds both side by side.
        reference_right: Likewise of the reference.
        mos_left: Mean opinion of the left view alone, where published.
        mos_right: Of the right view alone.
    """

    image: Path
    reference: Path | None
    mos: float
    std: float | None
    content: str
    distortion: str | None
    level: int | None
    dataset: str
    image_right: Path | None = None
    reference_right: Path | None = None
    mos_left: float | None = None
    mos_right: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that make up this sample, each once, the judged ones first."""
        paths = (self.image, self.image_right, self.reference, self.reference_right)
        return tuple(dict.fromkeys(path for path in paths if path is not None))

    def with_scores(self, change: Callable[[float], float]) -> Opinion:
        """A copy with every mean opinion changed, and the deviation left."""
        left, right = (None if mos is None else change(mos) for mos in (self.mos_left, self.mos_right))
        return replace(self, mos=change(self.mos), mos_left=left, mos_right=right)
