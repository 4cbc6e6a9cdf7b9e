"""The progress bar and sizes for people."""

from __future__ import annotations

import pytest

from perceptloss.weights.progress import Bar, human


def test_a_terminal_gets_one_line_that_is_redrawn(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Bar("file", 100) as bar:
        bar.at(40)
        bar.at(100)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    assert shown.count("\r") == 2
    assert " 40% of 100 B" in shown


@pytest.mark.parametrize(
    ("size", "text"), [(7, "7 B"), (6009, "6.0 kB"), (999_960, "1.0 MB"), (553433881, "553.4 MB"), (2e9, "2.0 GB")]
)
def test_sizes_for_people(size, text):
    assert human(size) == text
