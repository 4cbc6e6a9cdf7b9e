"""Tables that are printed row by row, while what comes next is still being measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

__all__ = ["lines"]


def lines(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """The head, a rule, and each row as soon as it comes.

    Args:
        head: Names of the columns.
        rows: As many cells each.
        widths: Of the first columns, which are aligned to the left; others are as wide as their names, 8 at least.
    """
    wide = [*widths, *(max(8, len(name)) for name in head[len(widths) :])]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            c.ljust(w) if i < len(widths) else c.rjust(w) for i, (c, w) in enumerate(zip(cells, wide, strict=True))
        )
        return "  ".join(aligned).rstrip()

    yield line(head)
    yield "  ".join("-" * width for width in wide)
    yield from map(line, rows)
