"""Scores kept on disk as they come, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TextIO

__all__ = ["Store"]

_log = logging.getLogger("perceptloss.compare")
Key = tuple[str, str | None]


class Store:
    """One file of scores for one signature on one kind of device.

    Every line holds the hashes of the judged image and its reference, and their score. What
    else could change a score (signature, device, torch) is in the name of the file and in its first line.

    Args:
        folder: Created if it is not there.
        signature: Of the scorer.
        device: Kind of device, such as `cpu`.
        torch_version: Of the library that computes.
    """

    def __init__(self, folder: Path, signature: str, device: str, torch_version: str) -> None:
        head = json.dumps({"signature": signature, "device": device, "torch": torch_version})
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{hashlib.sha256(head.encode()).hexdigest()[:16]}.jsonl"
        self._known = self._read()
        self._file: TextIO | None = None
        self._head = head

    def _read(self) -> dict[Key, float]:
        if not self.path.exists():
            return {}
        known: dict[Key, float] = {}
        damaged = 0
        for line in self.path.read_text(encoding="utf-8").splitlines()[1:]:
            try:
                x, y, score = json.loads(line)
                known[x, y] = float(score)
            except (ValueError, TypeError):
                damaged += bool(line.strip())
        if damaged:
            _log.warning("%s: %d damaged lines, as an interrupted run leaves them; scored again", self.path, damaged)
        return known

    def get(self, key: Key) -> float | None:
        """The score of a pair of file hashes, if it is known."""
        return self._known.get(key)

    def put(self, key: Key, score: float) -> None:
        """Keep a score, on disk at once."""
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
            # a new line first: the last one may be cut off
            self._file.write(self._head + "\n" if self._file.tell() == 0 else "\n")
        self._known[key] = score
        self._file.write(json.dumps([*key, score]) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
