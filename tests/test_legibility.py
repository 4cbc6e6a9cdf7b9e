"""Character errors against numbers worked out by hand, and readers on a line that anybody can read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceptloss.compare.legibility import Line, RapidOCR, Tesseract, error_rate, misread, readers
from perceptloss.errors import InputError, PerceptlossError


@pytest.mark.parametrize(
    ("read", "truth", "rate"),
    [
        ("same", "same", 0),
        ("sarne", "same", 0.5),  # one replaced, one inserted
        ("", "four", 1),
        ("much too long", "a", 13),
        ("two  words\n", "two words", 0),
        ("kitten", "sitting", 3 / 7),
    ],
)
def test_error_rate(read, truth, rate):
    assert error_rate(read, truth) == pytest.approx(rate)


def test_a_truth_of_nothing_is_refused():
    with pytest.raises(InputError, match="the truth has no character"):
        error_rate("something", "  ")


class Blind:
    """A reader that reads what it was told, and keeps what it is shown."""

    name = "blind"

    def __init__(self, *said: str) -> None:
        self.said, self.shown = list(said), []

    def line(self, image: Tensor) -> str:
        self.shown.append(tuple(image.shape))
        return self.said.pop(0)

    def lines(self, image: Tensor) -> list[Line]:
        return []


def test_misread_counts_characters_and_shows_each_line():
    reader = Blind("abcd", "x" * 100)
    lines = [Line("abcd", (10, 10, 20, 40)), Line("efghij", (0, 0, 8, 60)), Line(" ", (0, 0, 8, 8))]
    assert misread(reader, torch.rand(3, 50, 70), lines) == pytest.approx(6 / 10)  # the second line is lost, not more
    assert reader.shown == [(3, 16, 36), (3, 11, 63)]


def test_a_picture_without_text_is_refused():
    with pytest.raises(InputError, match="no line of text"):
        misread(Blind(), torch.rand(3, 9, 9), [])


@pytest.mark.parametrize("box", [(0, 0, 10, 71), (44, 0, 51, 20), (-2, 0, 8, 20), (8, 8, 8, 20)])
def test_a_line_that_is_not_in_the_picture_is_refused(box):
    with pytest.raises(InputError, match="is not in 50x70 pixels"):
        misread(Blind("a"), torch.rand(3, 50, 70), [Line("a", box)])


@pytest.mark.parametrize("kind", [Tesseract, RapidOCR])
@pytest.mark.parametrize("shape", [(1, 40, 90), (1, 3, 40, 90), (3, 0, 90)])
def test_what_is_no_picture_is_refused(kind, shape):
    for read in (kind().line, kind().lines):
        with pytest.raises(InputError, match=r"readers need one RGB image, \(3, H, W\)"):
            read(torch.ones(shape))


@pytest.mark.parametrize("kind", [Tesseract, RapidOCR])
def test_nothing_is_found_on_a_blank_page(kind):
    if kind.name not in [reader.name for reader in readers()]:
        pytest.skip(f"{kind.name} is not here")
    assert kind().lines(torch.ones(3, 90, 120)) == []


@pytest.mark.parametrize("kind", [Tesseract, RapidOCR])
def test_reads_what_is_there(kind):
    pillow = pytest.importorskip("PIL.Image")
    if kind.name not in [reader.name for reader in readers()]:
        pytest.skip(f"{kind.name} is not here")
    from PIL import ImageDraw, ImageFont

    page = pillow.new("RGB", (320, 90), "white")
    ImageDraw.Draw(page).text((20, 30), "Settings and password", "black", ImageFont.load_default(20))
    image = torch.tensor(list(page.get_flattened_data() if hasattr(page, "get_flattened_data") else page.getdata()))
    image = image.view(90, 320, 3).permute(2, 0, 1) / 255
    reader = kind()
    (line,) = reader.lines(image)
    assert line.text == "Settings and password"
    assert misread(reader, image, [line]) == 0
    assert misread(reader, torch.ones_like(image), [line]) > 0.9


def test_what_tesseract_says_of_its_failure_is_passed_on(monkeypatch, tmp_path):
    script = tmp_path / "tesseract"
    script.write_text("#!/bin/sh\ncat > /dev/null\necho no such language >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(PerceptlossError, match="tesseract ended with 3: no such language"):
        Tesseract("xx").line(torch.rand(3, 9, 30))
