"""Tables as text, Markdown and LaTeX, and the words that go into them.

Columns are aligned by letters, `l` and `r`; the last letter goes for all columns that follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from perceptloss.output.names import visible

__all__ = ["Row", "counted", "human", "latex", "markdown", "text"]

Row = Sequence[str]

_LATEX: Final = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "[": "{[}",  # which after the end of a row would begin its option
    "*": "{*}",
    "−": "$-$",
    "±": "$\\pm$",
    "†": "$\\dagger$",
    "—": "---",
}


def text(rows: Iterable[Row], align: str = "l", *, rule: bool = False) -> str:
    """Columns of equal width, two spaces apart, a line for each row; with `rule`, dashes below the first one."""
    table = [list(map(visible, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if rule:
        table.insert(1, ["-" * width for width in widths])
    columns = list(zip(_letters(align, len(widths)), widths, strict=True))
    lines = (
        "  ".join(
            cell.rjust(width) if letter == "r" else cell.ljust(width)
            for cell, (letter, width) in zip(row, columns, strict=True)
        )
        for row in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def markdown(head: Row, rows: Iterable[Row], align: str = "lr") -> str:
    """A Markdown table of Markdown; white space in cells is folded."""
    rule = "|".join("---:" if letter == "r" else "---" for letter in _letters(align, len(head)))
    lines = (" | ".join(visible(" ".join(cell.split())).replace("|", "\\|") for cell in row) for row in (head, *rows))
    first, *others = (f"| {line} |\n" for line in lines)
    return "".join([first, f"|{rule}|\n", *others])


def latex(head: Row, rows: Iterable[Row], align: str = "lr") -> str:
    """A `tabular`; nothing of it needs a package."""
    lines = [
        " & ".join("".join(_LATEX.get(sign, sign) for sign in visible(cell)) for cell in row) for row in (head, *rows)
    ]
    first, *others = (f"  {line} \\\\\n" for line in lines)
    rule = "  \\hline\n"
    begin, end = f"\\begin{{tabular}}{{{_letters(align, len(head))}}}\n", "\\end{tabular}\n"
    return "".join([begin, rule, first, rule, *others, rule, end])


def _letters(align: str, count: int) -> str:
    return align[:count].ljust(count, align[-1])


def counted(number: int, noun: str) -> str:
    """Such as `1 image` or `2 images`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def human(size: float) -> str:
    """A size in bytes with a decimal unit, such as `553.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
