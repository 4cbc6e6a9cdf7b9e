"""What people thought of one picture."""

from __future__ import annotations

from dataclasses import dataclass
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
        mos: Mean opinion, in the scale and direction of the set.
        content: Name of what the picture shows: the same for all versions of a scene, and never split.
        reference: File of its undistorted original (the left view), None where there is none.
        std: Standard deviation of the opinions in the same scale, None where it is not published.
        distortion: Name or number of the degradation, as published.
        level: Strength of the degradation as published, growing with the damage; in a ranking, the rank.
        image_right: File of the right view; the same file as `image` where it holds both side by side.
        reference_right: Likewise of the reference.
    """

    image: Path
    mos: float
    content: str
    reference: Path | None = None
    std: float | None = None
    distortion: str | None = None
    level: int | None = None
    image_right: Path | None = None
    reference_right: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that make up this sample, each once, the judged ones first."""
        paths = (self.image, self.image_right, self.reference, self.reference_right)
        return tuple(dict.fromkeys(path for path in paths if path is not None))
