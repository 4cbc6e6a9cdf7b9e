"""Pictures in a report: lossless crops where systems differ most, of the very bytes that were scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

import numpy as np

from perceptloss.compare.pages import pictures_of, png, thumbnail, window
from perceptloss.compare.pages.pictures import Bytes
from perceptloss.compare.report.choice import Choice
from perceptloss.compare.report.quality import QualityMaps
from perceptloss.compare.results import Results
from perceptloss.compare.settings import Settings
from perceptloss.errors import InputError

__all__ = ["Embed", "Pane", "Shot", "shots"]

Embed = Literal["crops", "whole", "none"]
REFERENCE: Final = "reference"
_SIDE: Final = 256
_LEAST: Final = 64
_STEP: Final = 16
_BUDGET: Final = 9_000_000  # characters that all crops may take
_UNJUDGED: Final = 128


@dataclass(frozen=True)
class Pane:
    """A picture: whose it is, its address, and that of its quality map if there is one."""

    name: str
    url: str
    width: int
    height: int
    quality: str = ""


@dataclass(frozen=True)
class Shot:
    """An image of the report.

    Attributes:
        key: Of the image.
        number: Its place in the report.
        image: Its index in the results.
        reasons: Why it is shown.
        panes: The outputs in the order of the systems, and the reference; empty where they cannot be shown.
        size: Width and height of the whole image.
        box: Left, top, width and height of the crop in it; None for whole images.
        thumbnail: Address of the whole image, reduced.
        problem: Why there are no pictures.
    """

    key: str
    number: int
    image: int
    reasons: tuple[str, ...]
    panes: tuple[Pane, ...] = ()
    size: tuple[int, int] = (0, 0)
    box: tuple[int, int, int, int] | None = None
    thumbnail: str = ""
    problem: str = ""


_Row = tuple[Shot, list[Bytes], list[Bytes]]  # with its pictures, and maps of them


def shots(
    results: Results, choices: Sequence[Choice], embed: Embed = "crops", maps: QualityMaps | None = None
) -> list[Shot]:
    """The chosen images with their pictures; one whose files are gone or no longer what was scored says so."""
    found: list[_Row] = []
    for number, choice in enumerate(choices):
        shot = Shot(results.images[choice.image].key, number, choice.image, choice.reasons)
        if embed == "none":
            found.append((replace(shot, problem="pictures were left out (--embed none)"), [], []))
            continue
        settings = settings_of(results)
        try:
            pictures = pictures_of(results.images[choice.image], settings, homes_of(results))
        except (InputError, OSError) as error:
            found.append((replace(shot, problem=str(error)), [], []))
            continue
        drawn = [] if maps is None else _maps_of(maps, choice.image, pictures[: len(results.systems)], settings)
        found.append(_framed(shot, pictures, drawn, len(results.systems), whole=embed == "whole"))
    return _encoded(found, results, whole=embed == "whole")


def _maps_of(maps: QualityMaps, image: int, outputs: list[Bytes], settings: Settings) -> list[Bytes]:
    """As large as the pictures, grey where nothing was judged; none if one is missing."""
    border = settings.crop_border
    drawn = []
    for system, picture in enumerate(outputs):
        found = maps.pictures.get((image, system))
        inner = picture[border : picture.shape[0] - border, border : picture.shape[1] - border]
        if found is None or found.shape != inner.shape:
            return []
        whole = np.full_like(picture, _UNJUDGED)
        whole[border : picture.shape[0] - border, border : picture.shape[1] - border] = found
        drawn.append(whole)
    return drawn


def _framed(shot: Shot, pictures: list[Bytes], drawn: list[Bytes], systems: int, *, whole: bool) -> _Row:
    height, width = pictures[0].shape[:2]
    shot = replace(shot, size=(width, height))
    if whole or max(height, width) <= _SIDE:
        return shot, pictures, drawn
    left, top, wide, tall = box = window(pictures[:systems] if systems > 1 else pictures, _SIDE)
    crops, others = ([p[top : top + tall, left : left + wide].copy() for p in row] for row in (pictures, drawn))
    return replace(shot, box=box, thumbnail=thumbnail(pictures[-1])), crops, others


def _encoded(found: list[_Row], results: Results, *, whole: bool) -> list[Shot]:
    """Shots with addresses; crops become smaller if all together would take too much."""
    shown = [_embedded(*row, results.systems) for row in found]
    size = sum(len(pane.url) + len(pane.quality) for shot in shown for pane in shot.panes)
    if size <= _BUDGET or whole:
        return shown
    side = max(_LEAST, int(_SIDE * (_BUDGET / size) ** 0.5) // _STEP * _STEP)
    return [_embedded(*_shrunk(*row, side), results.systems) for row in found]


def _embedded(shot: Shot, pictures: list[Bytes], drawn: list[Bytes], systems: Sequence[str]) -> Shot:
    names = [*systems, REFERENCE][: len(pictures)]
    qualities = [*map(png, drawn), *[""] * (len(pictures) - len(drawn))]
    panes = (
        Pane(name, png(picture), picture.shape[1], picture.shape[0], quality)
        for name, picture, quality in zip(names, pictures, qualities, strict=True)
    )
    return replace(shot, panes=tuple(panes))


def _shrunk(shot: Shot, pictures: list[Bytes], drawn: list[Bytes], side: int) -> _Row:
    if not pictures:
        return shot, pictures, drawn
    height, width = pictures[0].shape[:2]
    left, top = (0, 0) if shot.box is None else shot.box[:2]
    whole = shot.thumbnail or thumbnail(pictures[-1])
    tall, wide = min(side, height), min(side, width)
    box = (left + (width - wide) // 2, top + (height - tall) // 2, wide, tall)
    crops, others = ([_centre(picture, tall, wide) for picture in row] for row in (pictures, drawn))
    return replace(shot, box=box, thumbnail=whole), crops, others


def _centre(picture: Bytes, tall: int, wide: int) -> Bytes:
    top, left = (picture.shape[0] - tall) // 2, (picture.shape[1] - wide) // 2
    return picture[top : top + tall, left : left + wide]


def settings_of(results: Results) -> Settings:
    """How the images of results were read."""
    return Settings(**{f.name: results.settings[f.name] for f in fields(Settings) if f.name in results.settings})


def homes_of(results: Results) -> dict[str, str]:
    """By the source of each set as it was given, the path that the run knew it by."""
    sources = results.settings.get("sources", {})
    known = results.provenance.get("inputs", {})
    return {str(sources[name]): str(facts["path"]) for name, facts in known.items() if sources.get(name)}
