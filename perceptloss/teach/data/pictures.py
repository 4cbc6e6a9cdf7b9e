"""How judged pictures are read."""

from __future__ import annotations

from typing import Final

from perceptloss.compare.images import Policy

__all__ = ["TAUGHT"]

# profiles of phones and cameras: no published score has heeded them; batches and scored sets are kept in 8 bits
TAUGHT: Final = Policy(exif="apply", grey="replicate", palette="expand", profile="ignore", depth="round")
