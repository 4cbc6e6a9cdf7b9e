"""What commands write: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import Final, TextIO

__all__ = ["paint", "result", "result_json", "write"]

_COLOURS: Final = {"red": "31", "yellow": "33", "dim": "2"}
_PLAIN: Final = str.maketrans({"↑": "^", "↓": "v", "−": "-", "—": "-", "·": "-"})


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


def result_json(content: object) -> None:
    """Write a result as JSON to stdout."""
    result(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
