"""Pictures of screens made of real fonts: windows with menus, prose, code, tables, buttons and charts.

A page knows what its lines say and where they stand, so that a reader's errors can be counted. Without folders of
fonts, the one that Pillow carries in it is used (Aileron, CC0); text is set with the antialiasing of FreeType.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from perceptloss.compare.legibility import Line
from perceptloss.errors import ConfigError
from perceptloss.output.files import replacing, write_atomically

__all__ = ["Page", "font_files", "lines_of", "make_page", "paint"]

_SIZE = (480, 360)  # of a painted page

_Colour = tuple[int, int, int]
_WORDS: Final = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they
which one you were all her she there would their we him been has when who will no more if out so up said
what its about than into them can only other time new some could these two may first then do any like my now
over such our man me even most made after also did many off before must well back through years where much
your way down should because long each just state those people too mister how little good world make very
year still see own work men day get here window folder select network image server update storage version
battery account password settings download upload
""".split()  # noqa: SIM905 - a list of them would fill the file
_SIZES = (9, 10, 11, 12, 13, 14, 16, 20)


@dataclass
class Page:
    """A picture, and the lines of text on it."""

    picture: Image.Image
    lines: list[Line] = field(default_factory=list)


def font_files(folders: Sequence[str]) -> list[str]:
    """Fonts below folders, sorted; none if there are no folders.

    Raises:
        ConfigError: if a folder holds none, or one cannot be opened.
    """
    found, problems = [], []
    for folder in folders:
        files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".ttf", ".otf"))
        problems += [] if files else [f"data.fonts: {folder} holds no .ttf or .otf"]
        found += files
    for file in found:
        try:
            ImageFont.truetype(str(file), 12)
        except OSError as error:
            problems.append(f"data.fonts: {file} cannot be opened as a font: {error}")
    if problems:
        raise ConfigError(problems, "fonts")
    return [str(file) for file in found]


def make_page(width: int, height: int, seed: int, fonts: Sequence[str] = ()) -> Page:
    """A page; the same size, seed and fonts give the same pixels with the same Pillow."""
    return _Painter(width, height, random.Random(seed), fonts).page


def paint(folder: Path, count: int, seed: int, fonts: Sequence[str]) -> None:
    """Leave pages as PNGs, and beside each what it says (`lines_of` reads that); those that are there stay."""
    for number in range(count):
        file = folder / f"{number:04d}.png"
        if file.exists() and _beside(file).exists():
            continue
        page = make_page(*_SIZE, seed + number, fonts)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            page.picture.save(draft, format="PNG")
        write_atomically(_beside(file), json.dumps([{"text": line.text, "box": line.box} for line in page.lines]))


def lines_of(file: Path) -> list[Line]:
    """What a painted page says; nothing of any other picture."""
    if not _beside(file).exists():
        return []
    rows = json.loads(_beside(file).read_text(encoding="utf-8"))
    return [Line(row["text"], (*row["box"],)) for row in rows]


def _beside(file: Path) -> Path:
    return file.with_suffix(".lines.json")


class _Painter:
    def __init__(self, width: int, height: int, rng: random.Random, fonts: Sequence[str]) -> None:
        self.rng, self.fonts = rng, fonts
        paper, ink = (rng.randint(236, 255), rng.randint(0, 60))[:: rng.choice((1, 1, -1))]
        self.paper: _Colour = (paper, paper, min(255, paper + rng.randint(0, 8)))
        self.ink: _Colour = (ink, ink, min(255, ink + rng.randint(0, 12)))
        self.accent: _Colour = (rng.randint(0, 220), rng.randint(0, 180), rng.randint(60, 255))
        self.page = Page(Image.new("RGB", (width, height), self.paper))
        self.draw = ImageDraw.Draw(self.page.picture)
        bar = rng.randint(22, 32)
        self.draw.rectangle((0, 0, width, bar), fill=self.accent)
        light = sum(self.accent) > 380
        self.row(
            "title",
            (8, bar // 2),
            width - 60,
            (10, 10, 10) if light else (250, 250, 250),
            rng.choice((12, 13, 14)),
            "lm",
        )
        for place in range(3):
            centre = width - 14 - 18 * place
            self.draw.ellipse((centre - 5, bar // 2 - 5, centre + 5, bar // 2 + 5), fill=self.tone(0.4 + 0.2 * place))
        side = rng.choice((0, width // 4, width // 3))
        if side:
            self.draw.rectangle((0, bar + 1, side, height), fill=self.tone(0.12))
            self.column(8, bar + 10, side - 8, height - 6, ("menu", "menu", "icons"))
        self.column(
            side + 12, bar + 12, width - 12, height - 6, ("prose", "prose", "code", "table", "buttons", "chart", "note")
        )

    def tone(self, share: float) -> _Colour:
        """The accent mixed with the paper."""
        r, g, b = (round(share * a + (1 - share) * p) for a, p in zip(self.accent, self.paper, strict=True))
        return r, g, b

    def font(self, size: int) -> Any:
        if not self.fonts:
            return ImageFont.load_default(size)
        return ImageFont.truetype(self.rng.choice(self.fonts), size)

    def words(self, count: int) -> str:
        chosen = [self.rng.choice(_WORDS) for _ in range(count)]
        for place in range(count):
            if self.rng.random() < 0.08:
                chosen[place] = str(self.rng.randint(2, 9999))
        return " ".join(chosen).capitalize()

    def row(
        self,
        kind: str,
        at: tuple[int, int],
        room: int,
        colour: _Colour,
        size: int,
        anchor: str = "la",
        font: Any = None,
    ) -> int:
        """One line that fits; its height."""
        font = font or self.font(size)
        text = self.words(self.rng.randint(1, 3) if kind in ("title", "menu", "button") else 24)
        if kind == "code":
            text = text.lower().replace(" ", "_", 2).replace(" ", "(", 1) + ")"
        while text and self.draw.textlength(text, font=font) > room:
            text = text[:-1] if " " not in text else text.rsplit(" ", 1)[0]
        if text:
            left, top, right, bottom = self.draw.textbbox(at, text, font=font, anchor=anchor)
            self.draw.text(at, text, fill=colour, font=font, anchor=anchor)
            self.page.lines.append(Line(text, (int(top), int(left), int(bottom) + 1, int(right) + 1)))
        return int(1.45 * size) + 1

    def column(self, left: int, top: int, right: int, bottom: int, kinds: Sequence[str]) -> None:
        """Blocks below each other until the space is used up."""
        while bottom - top > 24 and right - left > 40:
            end = min(bottom, top + self.rng.randint(36, 120))
            getattr(self, f"_{self.rng.choice(kinds)}")(left, top, right, end)
            top = end + self.rng.randint(8, 16)

    def _prose(
        self, left: int, top: int, right: int, bottom: int, colour: _Colour | None = None, kind: str = "prose"
    ) -> None:
        size = self.rng.choice(_SIZES)
        font = self.font(size)
        while top + size + 3 < bottom:
            top += self.row(kind, (left, top), right - left, colour or self.ink, size, font=font)

    def _code(self, left: int, top: int, right: int, bottom: int) -> None:
        self.draw.rectangle((left, top, right, bottom), fill=self.tone(0.06))
        self._prose(left + 8, top + 6, right - 6, bottom - 2, self.rng.choice((self.ink, self.tone(0.9))), "code")

    def _note(self, left: int, top: int, right: int, bottom: int) -> None:
        self.draw.rounded_rectangle((left, top, right, bottom), 6, fill=self.tone(0.2), outline=self.tone(0.7))
        self._prose(left + 10, top + 8, right - 8, bottom - 4)

    def _menu(self, left: int, top: int, right: int, bottom: int) -> None:
        size = self.rng.choice((10, 11, 12, 13))
        while top + size + 6 < bottom:
            if self.rng.random() < 0.2:
                self.draw.rectangle((left - 4, top - 3, right + 4, top + size + 4), fill=self.tone(0.35))
            self.draw.rectangle((left, top + 1, left + size - 2, top + size - 1), outline=self.ink)
            top += self.row("menu", (left + size + 6, top), right - left - size - 6, self.ink, size) + 4

    def _table(self, left: int, top: int, right: int, bottom: int) -> None:
        size, columns = self.rng.choice((9, 10, 11, 12)), self.rng.choice((2, 3, 4))
        wide, tall = (right - left) // columns, size + 8
        while top + tall < bottom:
            for column in range(columns):
                place = left + column * wide
                self.draw.rectangle((place, top, place + wide, top + tall), outline=self.tone(0.4))
                self.row("menu", (place + 4, top + tall // 2), wide - 8, self.ink, size, "lm")
            top += tall

    def _buttons(self, left: int, top: int, right: int, bottom: int) -> None:
        size = self.rng.choice((10, 11, 12, 13))
        wide = 6 * size + 20
        for place in range(left, right - wide, wide + 10):
            is_main = self.rng.random() < 0.5
            box = (place, top, place + wide, min(bottom, top + size + 14))
            self.draw.rounded_rectangle(box, 5, fill=self.accent if is_main else self.paper, outline=self.tone(0.8))
            colour = self.ink if not is_main else ((10, 10, 10) if sum(self.accent) > 380 else (250, 250, 250))
            self.row("button", ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2), wide - 8, colour, size, "mm")

    def _icons(self, left: int, top: int, right: int, bottom: int) -> None:
        for place in range(left, right - 20, 26):
            box = (place, top, place + 20, top + 20)
            shape = self.rng.choice((self.draw.ellipse, self.draw.rectangle))
            shape(box, fill=self.tone(self.rng.uniform(0.2, 0.9)), outline=self.ink)
            self.draw.line((place + 4, top + 15, place + 10, top + 5, place + 16, top + 15), fill=self.paper, width=2)

    def _chart(self, left: int, top: int, right: int, bottom: int) -> None:
        for row in range(top, bottom, 12):
            self.draw.line((left, row, right, row), fill=self.tone(0.15))
        for place in range(left + 4, right - 10, 14):
            tall = self.rng.randint(2, bottom - top)
            self.draw.rectangle((place, bottom - tall, place + 9, bottom), fill=self.tone(self.rng.uniform(0.4, 1.0)))
        steps = range(left, right, 9)
        self.draw.line([(x, self.rng.randint(top, bottom)) for x in steps], fill=self.ink, width=1)
