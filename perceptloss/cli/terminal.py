"""What commands write: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
import time
from typing import Final, TextIO

__all__ = ["Progress", "paint", "result", "write"]

_COLOURS: Final = {"red": "31", "yellow": "33", "dim": "2"}
_PLAIN: Final = str.maketrans({"↑": "^", "↓": "v", "−": "-", "—": "-", "·": "-"})
_EVERY: Final = 0.1  # seconds between two drawings


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Text in colour if the stream is a terminal that shows colours and `NO_COLOR` is not set."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def write(stream: TextIO, text: str) -> None:
    """Write text, with plain signs where the stream's encoding has no arrows."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding))


def result(text: str) -> None:
    """Write a result to stdout."""
    write(sys.stdout, text)


class Progress:
    """A line on a terminal's stderr that says how much is done; silent elsewhere.

    Args:
        quiet: Show nothing.
        what: Is counted.
    """

    def __init__(self, *, quiet: bool, what: str = "scores") -> None:
        self._what = what
        self._stream = sys.stderr
        self._show = not quiet and self._stream.isatty()
        self._begun = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are there."""
        now = time.monotonic()
        if not self._show or (now - self._drawn < _EVERY and done < total):
            return
        self._drawn = now
        left = (now - self._begun) * (total - done) / done
        self._stream.write(f"\r{done}/{total} {self._what}, {left:.0f} s left\x1b[K")
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._show and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
