"""Tables as text, Markdown and LaTeX, and sizes for people."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perceptloss.output.tables import counted, human, latex, markdown, text

ROWS = [["lpips ↓", "0.1", "a|b"], ["x", "−12.5", "50 % of_it"]]


def test_text_has_columns_of_equal_width_and_no_blanks_at_the_end():
    assert text(ROWS) == "lpips ↓  0.1    a|b\nx        −12.5  50 % of_it\n"
    assert text(ROWS, "lr") == "lpips ↓    0.1         a|b\nx        −12.5  50 % of_it\n"
    assert text([["a", "b"], ["ccc", ""]]) == "a    b\nccc\n"
    assert text([]) == ""


def test_a_rule_stands_below_the_first_row():
    assert text([["a", "bb"], ["x", "1.0"]], "lr", rule=True) == "a   bb\n-  ---\nx  1.0\n"


def test_the_last_letter_goes_on():
    assert markdown(["a", "b", "c"], [], "lr").splitlines()[1] == "|---|---:|---:|"
    assert markdown(["a", "b", "c"], [], "rl").splitlines()[1] == "|---:|---|---|"
    assert markdown(["a"], [], "lr").splitlines()[1] == "|---|"


def test_markdown_keeps_cells_apart_and_on_one_line():
    assert markdown(["a", "b"], [["x|y", "two\n lines"]]) == "| a | b |\n|---|---:|\n| x\\|y | two lines |\n"


def test_latex_escapes_what_it_would_obey():
    assert latex(["a_1", "b"], [["50 %", "↓ −1"]]) == (
        "\\begin{tabular}{lr}\n  \\hline\n  a\\_1 & b \\\\\n  \\hline\n"
        "  50 \\% & $\\downarrow$ $-$1 \\\\\n  \\hline\n\\end{tabular}\n"
    )


def test_rows_of_different_lengths_are_no_table():
    with pytest.raises(ValueError, match="shorter"):
        text([["a", "b"], ["c"]])


@pytest.mark.parametrize(
    ("size", "expected"), [(7, "7 B"), (6009, "6.0 kB"), (999_960, "1.0 MB"), (553433881, "553.4 MB"), (2e9, "2.0 GB")]
)
def test_sizes_for_people(size, expected):
    assert human(size) == expected


def test_counts():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_nothing_heavy_is_imported():
    code = (
        "import sys, perceptloss.output.tables, perceptloss.output.files, perceptloss.output.progress\n"
        "heavy = {'torch', 'numpy', 'tqdm'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
