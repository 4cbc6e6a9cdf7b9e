"""How much of the text in a picture can still be read: character errors of programs that read (OCR).

A measure of use, not of looks, and not differentiable: it judges restored screenshots beside critics. The programs
are not ours: `tesseract` (Apache-2.0, a system package) and `rapidocr-onnxruntime` (Apache-2.0, with its models, from
the package index; extra `ocr`). Whichever is here is used; they are never loaded for anything else.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from torch import Tensor

from perceptloss.compare.pixels import as_bytes
from perceptloss.errors import InputError, PerceptlossError
from perceptloss.inputs import described

__all__ = ["Line", "RapidOCR", "Reader", "Tesseract", "error_rate", "misread", "readers"]

_TALL = 40  # pixels of a line, which readers like best
_MARGIN = 3
_SURE = 60.0  # percent of confidence, below which a word found by tesseract is not one


@dataclass(frozen=True)
class Line:
    """A line of text and where it stands: top, left, bottom, right, in pixels."""

    text: str
    box: tuple[int, int, int, int]

    def cut(self, image: Tensor) -> Tensor:
        """The part of an image (3, H, W) around it.

        Raises:
            InputError: if it does not lie in the image.
        """
        top, left, bottom, right = self.box
        if not (0 <= top < bottom <= image.shape[-2] and 0 <= left < right <= image.shape[-1]):
            size = "x".join(map(str, image.shape[-2:]))
            raise InputError(
                f"the line {self.text!r} at {self.box} (top, left, bottom, right) is not in {size} pixels."
            )
        return image[:, max(0, top - _MARGIN) : bottom + _MARGIN, max(0, left - _MARGIN) : right + _MARGIN]


class Reader(Protocol):
    """A program that reads."""

    name: str

    def line(self, image: Tensor) -> str:
        """What a picture of one line says, (3, h, w) in [0, 1]."""

    def lines(self, image: Tensor) -> list[Line]:
        """Lines found in a page, (3, H, W) in [0, 1]."""


def readers() -> list[Reader]:
    """The programs that are here, perhaps none."""
    found: list[Reader] = [Tesseract()] if shutil.which("tesseract") else []
    return [*found, *([RapidOCR()] if find_spec("rapidocr_onnxruntime") else [])]


def error_rate(read: str, truth: str) -> float:
    """Characters to insert, delete or replace so that what was read becomes the truth, per character of the truth.

    White space counts as one blank between words.

    Raises:
        InputError: if the truth has no character.

    Example:
        >>> error_rate("sarne", "same")
        0.5
    """
    a, b = (" ".join(text.split()) for text in (read, truth))
    if not b:
        raise InputError("the truth has no character; give what the picture says.")
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1] / len(b)


def misread(reader: Reader, image: Tensor, lines: Sequence[Line]) -> float:
    """Share of the characters of known lines that a reader gets wrong, at most 1 for each line.

    Args:
        reader: Who reads.
        image: RGB in [0, 1], (3, H, W).
        lines: What stands there.

    Raises:
        InputError: if there is no line.
    """
    known = [line for line in lines if line.text.split()]
    if not known:
        raise InputError("no line of text is known of this picture, so nothing can be misread.")
    wrong = [min(1.0, error_rate(reader.line(line.cut(image)), line.text)) * len(line.text) for line in known]
    return sum(wrong) / sum(len(line.text) for line in known)


def _picture(image: Tensor) -> Any:
    """A picture for Pillow."""
    from PIL import Image

    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise InputError(f"readers need one RGB image, (3, H, W) in [0, 1], got {described(image)}.")
    return Image.fromarray(as_bytes(image))


def _enlarged(image: Tensor) -> Any:
    """A picture for Pillow, by a whole factor as tall as readers like lines."""
    from PIL import Image

    picture = _picture(image)
    factor = max(1, round(_TALL / picture.height))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


class Tesseract:
    """The command `tesseract`, English unless told otherwise."""

    name = "tesseract"

    def __init__(self, language: str = "eng") -> None:
        self.language = language

    def line(self, image: Tensor) -> str:
        """See `Reader`."""
        return self._run(_enlarged(image), "--psm", "7").strip()

    def lines(self, image: Tensor) -> list[Line]:
        """See `Reader`."""
        rows = csv.DictReader(io.StringIO(self._run(_picture(image), "tsv")), delimiter="\t", quoting=3)
        words: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            if row["text"] and row["text"].strip() and float(row["conf"]) >= _SURE:
                words[row["block_num"], row["par_num"], row["line_num"]].append(row)
        return [_joined(line) for line in words.values()]

    def _run(self, picture: Any, *options: str) -> str:
        data = io.BytesIO()
        picture.save(data, "PNG")
        command = ["tesseract", "stdin", "stdout", "-l", self.language, *options]
        done = subprocess.run(command, input=data.getvalue(), capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise PerceptlossError(f"tesseract ended with {done.returncode}: {said}")
        return done.stdout.decode("utf-8", errors="replace")


def _joined(words: Sequence[dict[str, str]]) -> Line:
    left, top = (min(int(word[key]) for word in words) for key in ("left", "top"))
    right, bottom = (
        max(int(w[start]) + int(w[size]) for w in words) for start, size in (("left", "width"), ("top", "height"))
    )
    return Line(" ".join(word["text"] for word in words), (top, left, bottom, right))


class RapidOCR:
    """The package `rapidocr-onnxruntime`, loaded when it first reads."""

    name = "rapidocr"

    def __init__(self) -> None:
        self._engine: Any = None

    def line(self, image: Tensor) -> str:
        """See `Reader`."""
        found, _ = self._read(_enlarged(image), use_det=False, use_cls=False)
        return " ".join(str(row[0]) for row in found or ())

    def lines(self, image: Tensor) -> list[Line]:
        """See `Reader`."""
        found, _ = self._read(_picture(image), use_cls=False)
        lines = []
        for corners, text, _ in found or ():
            across, down = zip(*corners, strict=True)
            lines.append(Line(str(text), (int(min(down)), int(min(across)), int(max(down)) + 1, int(max(across)) + 1)))
        return lines

    def _read(self, picture: Any, **options: bool) -> Any:
        import numpy as np

        if self._engine is None:
            from rapidocr_onnxruntime import RapidOCR as Engine

            self._engine = Engine()
        return self._engine(np.asarray(picture)[..., ::-1], **options)
