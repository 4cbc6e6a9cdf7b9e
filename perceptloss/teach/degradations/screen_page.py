"""A synthetic page of screen content: bars, boxes, lines of text-like glyphs, icons, gradients. Needs no fonts."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from perceptloss.errors import InputError

__all__ = ["screen_picture"]

_SMALLEST = 32
_Colour = tuple[float, float, float]
# strokes of a letter in a cell of 4 x 6 thirds: (row, column) to (row, column); letters combine two to four
_STROKES = (
    ((0, 0), (5, 0)),
    ((0, 3), (5, 3)),
    ((0, 0), (0, 3)),
    ((2, 0), (2, 3)),
    ((5, 0), (5, 3)),
    ((0, 0), (5, 3)),
    ((5, 0), (0, 3)),
    ((2, 1), (5, 1)),
    ((0, 2), (5, 2)),
    ((2, 0), (5, 3)),
)
_ALPHABET = 26


def screen_picture(height: int, width: int, seed: int) -> Tensor:
    """Render a page; the same size and seed give the same pixels.

    Args:
        height: In pixels, 32 or more.
        width: In pixels, 32 or more.
        seed: Of the layout, the alphabet and the colours; even the theme (light or dark) depends on it.

    Returns:
        (1, 3, height, width), RGB in [0, 1].

    Raises:
        InputError: if it is too small.
    """
    if min(height, width) < _SMALLEST:
        raise InputError(f"a screen picture needs at least {_SMALLEST} x {_SMALLEST} pixels, got {height} x {width}.")
    page = _Page(height, width, random.Random(seed))
    bar = max(8, height // 12)
    page.gradient(0, 0, bar, width, page.accent, page.tone(0.5))
    page.text(1, 3, bar - 1, width - 3, page.paper, size=1)
    page.fill_column(bar + 2, 2, height - 2, width - 2)
    return page.canvas[None].clamp(0, 1)


class _Page:
    """A canvas (3, H, W) and the colours and letters that its drawings share."""

    def __init__(self, height: int, width: int, rng: random.Random) -> None:
        self.rng = rng
        paper, ink = (rng.uniform(0.9, 1.0), rng.uniform(0.0, 0.2))[:: rng.choice((1, 1, -1))]
        self.paper: _Colour = (paper, paper, min(1.0, paper + rng.uniform(0, 0.03)))
        self.ink: _Colour = (ink, ink, ink)
        self.accent: _Colour = (rng.random(), rng.random(), rng.random())
        self.letters = [self._letter() for _ in range(_ALPHABET)]
        self.canvas = torch.empty(3, height, width)
        self.box(0, 0, height, width, self.paper)

    def tone(self, share: float) -> _Colour:
        """The accent mixed with the paper."""
        r, g, b = (share * a + (1 - share) * p for a, p in zip(self.accent, self.paper, strict=True))
        return r, g, b

    def fill_column(self, top: int, left: int, bottom: int, right: int) -> None:
        """Stack paragraphs, boxes, icon rows and gradients until the space is used up."""
        kinds = ("text", "text", "text", "panel", "icons", "gradient", "chart")
        number = 0
        while bottom - top >= 8:
            kind = "text" if number == 0 else self.rng.choice(kinds)
            end = min(bottom, top + self.rng.randint(10, 44))
            if kind == "text":
                self.text(
                    top,
                    left,
                    end,
                    right,
                    self.rng.choice((self.ink, self.ink, self.accent)),
                    self.rng.choice((1, 1, 2)),
                )
            elif kind == "panel":
                self.box(top, left, end, right, self.tone(0.12))
                self.frame(top, left, end, right, self.tone(0.6))
                self.text(top + 3, left + 4, end - 2, right - 4, self.ink, 1)
            elif kind == "icons":
                self.icons(top, left, end, right)
            elif kind == "gradient":
                other = (self.rng.random(), self.rng.random(), self.rng.random())
                self.gradient(top, left, end, right, self.tone(0.9), other)
            else:
                self.chart(top, left, end, right)
            top, number = end + 3, number + 1

    def box(self, top: int, left: int, bottom: int, right: int, colour: _Colour) -> None:
        self.canvas[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = torch.tensor(colour)[:, None, None]

    def frame(self, top: int, left: int, bottom: int, right: int, colour: _Colour) -> None:
        self.box(top, left, top + 1, right, colour)
        self.box(bottom - 1, left, bottom, right, colour)
        self.box(top, left, bottom, left + 1, colour)
        self.box(top, right - 1, bottom, right, colour)

    def gradient(self, top: int, left: int, bottom: int, right: int, first: _Colour, last: _Colour) -> None:
        ramp = torch.linspace(0, 1, right - left)
        start, end = torch.tensor(first)[:, None, None], torch.tensor(last)[:, None, None]
        self.canvas[:, top:bottom, left:right] = start + (end - start) * ramp

    def text(self, top: int, left: int, bottom: int, right: int, colour: _Colour, size: int) -> None:
        """Lines of words of the page's letters, `size` pixels for a stroke."""
        wide, high = 4 * size, 6 * size
        ink = torch.tensor(colour)[:, None, None]
        while top + high <= bottom:
            place, word = left, self.rng.randint(2, 8)
            end = right - self.rng.choice((0, 0, 0, (right - left) // 3))
            while place + wide <= end:
                if word == 0:
                    word = self.rng.randint(2, 8)
                else:
                    word -= 1
                    cover = self.rng.choice(self.letters).repeat_interleave(size, 0).repeat_interleave(size, 1)
                    self.canvas[:, top : top + high, place : place + wide].lerp_(ink, cover)
                place += wide + size
            top += high + 3 * size

    def icons(self, top: int, left: int, bottom: int, right: int) -> None:
        """Discs, rings and triangles with smooth rims on coloured squares."""
        side = min(bottom - top, 24)
        line = (torch.arange(side) + 0.5) / side * 2 - 1
        radius = torch.hypot(line, line[:, None])
        for place in range(left, right - side + 1, side + 4):
            self.box(top, place, top + side, place + side, self.tone(self.rng.uniform(0.1, 0.9)))
            shape = self.rng.choice(("disc", "ring", "triangle"))
            size = self.rng.uniform(0.4, 0.8)
            distance = {
                "disc": size - radius,
                "ring": 0.15 - (radius - size).abs(),
                "triangle": torch.minimum(size - line[:, None], (line[:, None] + size) / 2 - line.abs()),
            }[shape]
            cover = (distance * side / 2 + 0.5).clamp(0, 1)
            colour = torch.tensor([self.rng.random() for _ in range(3)])[:, None, None]
            self.canvas[:, top : top + side, place : place + side].lerp_(colour.expand(3, side, side), cover)

    def chart(self, top: int, left: int, bottom: int, right: int) -> None:
        """Bars over an axis, with hairlines behind."""
        for row in range(top, bottom, 6):
            self.box(row, left, row + 1, right, self.tone(0.15))
        for place in range(left + 2, right - 4, 8):
            tall = self.rng.randint(1, bottom - top)
            self.box(bottom - tall, place, bottom, place + 5, self.tone(self.rng.uniform(0.4, 1.0)))
        self.box(bottom - 1, left, bottom, right, self.ink)

    def _letter(self) -> Tensor:
        """Cover of a letter's pixels, (6, 4), strokes antialiased."""
        cell = torch.zeros(6, 4)
        for (row, column), (last_row, last_column) in self.rng.sample(_STROKES, self.rng.randint(2, 4)):
            for step in range(11):
                share = step / 10
                self._dab(cell, row + share * (last_row - row), column + share * (last_column - column))
        return cell

    @staticmethod
    def _dab(cell: Tensor, row: float, column: float) -> None:
        for r in (int(row), min(int(row) + 1, 5)):
            for c in (int(column), min(int(column) + 1, 3)):
                cover = max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
                cell[r, c] = max(float(cell[r, c]), cover)
