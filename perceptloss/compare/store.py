"""Scores kept on disk as they come, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TextIO

__all__ = ["Key", "Noted", "Store"]

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_ROUNDING: Final = 1e-3  # by which a score may pass a bound, in units of it
_log = logging.getLogger("perceptloss.compare")
Key = tuple[str, str | None]


class Store:
    """One file of scores for one signature on one kind of device.

    Every line holds the hashes of the judged image and its reference, and their score. What
    else could change a score (signature, device, torch) is in the name of the file and in its first line.
    Lines that cannot be such a score are named and computed again; a file with another first line is replaced.

    Args:
        folder: Created if it is not there.
        signature: Of the scorer.
        device: Kind of device, such as `cpu`.
        torch_version: Of the library that computes.
        bounds: Lowest and highest score of the critic.
        rank: Of several processes, each of which writes a file of its own and knows what is in all.
    """

    def __init__(
        self,
        folder: Path,
        signature: str,
        device: str,
        torch_version: str,
        bounds: tuple[float, float],
        rank: int = 0,
    ) -> None:
        self._head = json.dumps({"signature": signature, "device": device, "torch": torch_version})
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(self._head.encode()).hexdigest()[:16]
        self.path = folder / (f"{name}.{rank}.jsonl" if rank else f"{name}.jsonl")
        low, high = bounds
        self._low, self._high = low - _ROUNDING * max(1, abs(low)), high + _ROUNDING * max(1, abs(high))
        self._mode: Literal["a", "w"] = "a"
        self._is_full = False
        others = sorted(path for path in folder.glob(f"{name}*.jsonl") if path != self.path)
        self._known = {key: score for path in [*others, self.path] for key, score in self._read(path).items()}
        self._file: TextIO | None = None

    def _read(self, path: Path) -> dict[Key, float]:
        if not path.exists():
            return {}
        # bytes that are no text spoil their line alone
        head, *lines = path.read_bytes().decode("utf-8", "replace").split("\n")
        if head != self._head:
            if path == self.path:
                self._mode = "w"
            if head:
                what = "it is made anew" if path == self.path else "it is not used"
                _log.warning("%s: its first line is not that of these scores; %s", path, what)
            return {}
        entries = [self._entry(line) for line in lines if line.strip() not in ("", self._head)]
        if damaged := entries.count(None):
            _log.warning("%s: %d damaged lines, as an interrupted run leaves them; scored again", path, damaged)
        return dict(entry for entry in entries if entry is not None)

    def _entry(self, line: str) -> tuple[Key, float] | None:
        """What a line says, or None if it cannot have been written here."""
        try:
            x, y, score = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            return None
        is_key = _is_hash(x) and (y is None or _is_hash(y))
        is_score = isinstance(score, float) and math.isfinite(score) and self._low <= score <= self._high
        return ((x, y), score) if is_key and is_score else None

    def get(self, key: Key) -> float | None:
        """The score of a pair of file hashes, if it is known."""
        return self._known.get(key)

    def put(self, key: Key, score: float) -> None:
        """Keep a score, on disk at once; if the disk takes no more, the run goes on without."""
        self._known[key] = score
        if self._is_full:
            return
        try:
            if self._file is None:
                self._file = self.path.open(self._mode, encoding="utf-8")
                # a new line first: the last one may be cut off
                self._file.write(self._head + "\n" if self._file.tell() == 0 else "\n")
            self._file.write(json.dumps([*key, float(score)]) + "\n")
            self._file.flush()
        except OSError as error:
            self._is_full = True
            self.close()
            _log.warning("%s: %s; scores are not kept any more", self.path, error.strerror)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what it could not write was said
                file.close()


class Noted:
    """Scores that a process was told, and the new ones that it is to tell."""

    def __init__(self, known: dict[Key, float]) -> None:
        self.known = known
        self.new: dict[Key, float] = {}

    def get(self, key: Key) -> float | None:
        """The score of a pair of file hashes, if it is known."""
        return self.known.get(key)

    def put(self, key: Key, score: float) -> None:
        """Note a score."""
        self.new[key] = score


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None
