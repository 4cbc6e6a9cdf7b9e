"""Codes by which a blind page calls what it shows: they name no system, and fit no other page and no other file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from perceptloss.compare.images import ImageFile

__all__ = ["CATCH", "check_of", "code_of", "short_hash"]

CATCH: Final = ("catch-good", "catch-bad")
_DIGITS: Final = 12
_FNV: Final = (0x811C9DC5, 0x01000193)


def short_hash(letter: str, *parts: str) -> str:
    """A letter, so that no spreadsheet takes it for a number, and twelve hexadecimal digits."""
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return letter + hashlib.sha256(text).hexdigest()[:_DIGITS]


def code_of(page: str, kind: str, key: str, file: ImageFile) -> str:
    """Code of an output on a page.

    Args:
        page: Code of the page.
        kind: `system:NAME`, or one of `CATCH`.
        key: Of the image.
        file: What is shown, or what it was made of.
    """
    return short_hash("v", page, kind, key, file.digest)


def check_of(row: Mapping[str, str]) -> str:
    """32-bit FNV-1a of a row of votes: finds what was changed by hand or by a spreadsheet, not what was forged."""
    text = ",".join(row[name] for name in ("page", "voter", "trial", "left", "right", "answer"))
    value, prime = _FNV
    for byte in text.encode("utf-8", "surrogateescape"):
        value = (value ^ byte) * prime % 2**32
    return f"c{value:08x}"
