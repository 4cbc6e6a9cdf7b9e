"""Names as they may be shown: file names and names that users give may hold any sign."""

from __future__ import annotations

import json
import re
from typing import Any, Final

__all__ = ["csv_cell", "in_markdown", "json_text", "visible"]

_FORMULA: Final = ("=", "+", "-", "@")  # by which spreadsheets know what they should compute
_MARKDOWN: Final = str.maketrans(
    {**{sign: f"\\{sign}" for sign in "\\`*[]~"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"},
)
_AT_AN_EDGE: Final = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # where an underscore would be emphasis


def visible(text: str, keep: str = "") -> str:
    r"""Text with escapes, such as `\x1b`, for what has no shape of its own: control signs, line ends, direction marks.

    Args:
        text: Any, halves of surrogates included, which stand for bytes of file names that are no UTF-8.
        keep: A sign that stays, such as the end of a line.
    """
    if (text.replace(keep, "") if keep else text).isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign == keep else sign.encode("unicode_escape").decode() for sign in text
    )


def csv_cell(name: str) -> str:
    """A name for a cell that a spreadsheet may open: visible, and with an apostrophe before what begins a formula."""
    return f"'{visible(name)}" if name.lstrip().startswith(_FORMULA) else visible(name)


def in_markdown(name: str) -> str:
    """A name for Markdown, where it is neither markup nor HTML."""
    return _AT_AN_EDGE.sub(r"\\_", visible(name).translate(_MARKDOWN))


def json_text(content: Any) -> str:
    """Indented JSON, ending in a new line, in which whatever cannot be seen is escaped.

    Raises:
        ValueError: if a number is not finite.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    if not text.replace("\n", "").isprintable():
        text = "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)
    return text + "\n"
