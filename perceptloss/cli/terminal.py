"""What commands write: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

from perceptloss.output.names import json_text, visible

__all__ = ["paint", "result", "result_json", "write"]

_COLOURS: Final = {"red": "31", "yellow": "33", "dim": "2"}
_PLAIN: Final = str.maketrans({"↑": "^", "↓": "v", "−": "-", "—": "-", "·": "-"})


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Text in colour if the stream is a terminal that shows colours and `NO_COLOR` is not set."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def write(stream: TextIO, text: str, head: str = "") -> None:
    """Write text, in which names cannot steer a terminal, with plain signs where the encoding has no arrows.

    Args:
        stream: Where to.
        text: Signs that cannot be seen are escaped, all but the ends of lines.
        head: Stands before it as it is, such as a word in colour.
    """
    shown = head + visible(text, keep="\n")
    try:
        stream.write(shown)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(shown.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding))


def result(text: str) -> None:
    """Write a result to stdout."""
    write(sys.stdout, text)


def result_json(content: object) -> None:
    """Write a result as JSON to stdout."""
    result(json_text(content))
