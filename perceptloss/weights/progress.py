"""A progress bar of bytes on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final

__all__ = ["Bar", "human"]

_WIDTH: Final = 30
_EVERY: Final = 0.1  # seconds between two drawings on a terminal
_STEPS: Final = 10  # lines where there is no terminal


def human(size: float) -> str:
    """A size in bytes with a decimal unit, such as `553.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class Bar:
    """Shows how far a transfer has come.

    Args:
        label: What is transferred.
        total: Its size in bytes.
        show: True or False; None shows it on a terminal only. Without a terminal it is a line
            per tenth.
    """

    def __init__(self, label: str, total: int, show: bool | None = None) -> None:
        self._stream = sys.stderr
        self._live = self._stream.isatty()
        self._show = self._live if show is None else show
        self._label, self._total = label, total
        self._first: tuple[float, int] | None = None
        self._drawn, self._step = 0.0, -1

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._show and self._live and self._first is not None:
            self._stream.write("\n")
            self._stream.flush()

    def at(self, position: int) -> None:
        """Report that `position` bytes are there."""
        if not self._show:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, position
        if self._live:
            if now - self._drawn >= _EVERY or position >= self._total:
                self._drawn = now
                self._write(f"\r{self._text(now, position)}\x1b[K")
        elif (step := _STEPS * position // self._total) > self._step:
            self._step = step
            self._write(f"{self._text(now, position)}\n")

    def _text(self, now: float, position: int) -> str:
        share = position / self._total
        done = int(share * _WIDTH)
        begun, start = self._first or (now, position)
        speed = (position - start) / (now - begun) if now > begun else 0.0
        bar = "#" * done + "-" * (_WIDTH - done)
        rate = f" {human(speed)}/s" if speed else ""
        return f"{self._label} [{bar}] {share:4.0%} of {human(self._total)}{rate}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
