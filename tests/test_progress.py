"""Progress bars: for people at a terminal, and for the first process of a job."""

from __future__ import annotations

import io
import sys

import pytest

from perceptloss.output.progress import bar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(monkeypatch, stream: io.StringIO, **options) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with bar("file", 2_000_000, unit="B", **options) as moving:
        moving.update(500_000)
        moving.update(1_500_000)
    return stream.getvalue()


def test_a_terminal_gets_one_line_that_is_redrawn_and_goes_away(monkeypatch):
    text = shown(monkeypatch, Terminal())
    assert "\n" not in text
    assert "file:   0%" in text and "2.00M" in text
    assert not text.split("\r")[-2].strip()


def test_a_bar_that_was_asked_for_stays(monkeypatch):
    text = shown(monkeypatch, io.StringIO(), show=True)
    assert "2.00M/2.00M" in text and text.endswith("\n")


@pytest.mark.parametrize("options", [{"show": False}, {"show": None}])
def test_no_terminal_or_not_wanted_means_silence(monkeypatch, options):
    stream = Terminal() if options["show"] is False else io.StringIO()
    assert shown(monkeypatch, stream, **options) == ""


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK"])
def test_other_processes_of_a_job_are_silent(monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    assert shown(monkeypatch, Terminal(), show=True) == ""


def test_it_begins_where_the_work_does(monkeypatch):
    assert "25%" in shown(monkeypatch, Terminal(), done=500_000).split("\r")[1]
