"""What commands write: results to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from perceptloss.output.names import json_text, visible

__all__ = ["STDOUT", "flush", "message", "paint", "result", "result_json", "write"]

STDOUT: Final = "standard output"
_COLOURS: Final = {"red": "31", "yellow": "33", "dim": "2"}
_LATER_LINE: Final = re.compile(r"(?<=\n)(?=[^ \n])")  # which a name could have begun
_PLAIN: Final = str.maketrans({"↑": "^", "↓": "v", "−": "-", "—": "-", "·": "-"})


def paint(text: str, colour: str, stream: TextIO | None) -> str:
    """Text in colour if the stream is a terminal that shows colours and `NO_COLOR` is not set."""
    if stream is None or not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def write(stream: TextIO | None, text: str, head: str = "") -> None:
    """Write text, in which names cannot steer a terminal, with plain signs where the encoding has no arrows.

    Args:
        stream: Where to; None, as Python has it, if it is closed.
        text: Signs that cannot be seen are escaped, all but the ends of lines.
        head: Stands before it as it is, such as a word in colour.

    Raises:
        OSError: if it cannot be written.
    """
    if stream is None:
        raise OSError(errno.EBADF, "it is closed")
    shown = head + visible(text, keep="\n")
    try:
        stream.write(shown)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(shown.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding))


def message(word: str, colour: str, text: str) -> None:
    """Write a message to stderr, its later lines set in; where that is closed or full, there is nobody to tell."""
    with suppress(OSError):
        write(sys.stderr, f": {_LATER_LINE.sub('  ', text)}\n", paint(word, colour, sys.stderr))


def result(text: str) -> None:
    """Write a result to stdout.

    Raises:
        OSError: naming `STDOUT`, if it is full or closed.
    """
    with _named(STDOUT):
        write(sys.stdout, text)


def flush() -> None:
    """Have everything written, or raise as `result` does."""
    if sys.stdout is not None:
        with _named(STDOUT):
            sys.stdout.flush()


@contextmanager
def _named(stream: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = stream
        raise


def result_json(content: object) -> None:
    """Write a result as JSON to stdout."""
    result(json_text(content))
