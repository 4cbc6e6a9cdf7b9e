"""Pictures in a report: lossless crops where systems differ most, of the very bytes that were scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from perceptloss.compare.pages import pictures_of, png, thumbnail, window
from perceptloss.compare.pages.pictures import Bytes
from perceptloss.compare.report.choice import Choice
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


@dataclass(frozen=True)
class Pane:
    """A picture: whose it is, and its address."""

    name: str
    url: str
    width: int
    height: int


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


def shots(results: Results, choices: Sequence[Choice], embed: Embed = "crops") -> list[Shot]:
    """The chosen images with their pictures; one whose files are gone or no longer what was scored says so."""
    found: list[tuple[Shot, list[Bytes]]] = []
    for number, choice in enumerate(choices):
        shot = Shot(results.images[choice.image].key, number, choice.image, choice.reasons)
        if embed == "none":
            found.append((replace(shot, problem="pictures were left out (--embed none)"), []))
            continue
        try:
            pictures = pictures_of(results.images[choice.image], settings_of(results), homes_of(results))
        except (InputError, OSError) as error:
            found.append((replace(shot, problem=str(error)), []))
            continue
        found.append(_framed(shot, pictures, len(results.systems), whole=embed == "whole"))
    return _encoded(found, results, whole=embed == "whole")


def _framed(shot: Shot, pictures: list[Bytes], systems: int, *, whole: bool) -> tuple[Shot, list[Bytes]]:
    height, width = pictures[0].shape[:2]
    shot = replace(shot, size=(width, height))
    if whole or max(height, width) <= _SIDE:
        return shot, pictures
    left, top, wide, tall = box = window(pictures[:systems] if systems > 1 else pictures, _SIDE)
    crops = [picture[top : top + tall, left : left + wide] for picture in pictures]
    return replace(shot, box=box, thumbnail=thumbnail(pictures[-1])), crops


def _encoded(found: list[tuple[Shot, list[Bytes]]], results: Results, *, whole: bool) -> list[Shot]:
    """Shots with addresses; crops become smaller if all together would take too much."""
    urls = [[png(picture) for picture in pictures] for _, pictures in found]
    size = sum(len(url) for row in urls for url in row)
    if size > _BUDGET and not whole:
        share = (_BUDGET / size) ** 0.5
        side = max(_LEAST, int(_SIDE * share) // _STEP * _STEP)
        found = [(_shrunk(shot, pictures, side), [_centre(p, side) for p in pictures]) for shot, pictures in found]
        urls = [[png(picture) for picture in pictures] for _, pictures in found]
    shown = []
    for (shot, pictures), row in zip(found, urls, strict=True):
        names = [*results.systems, REFERENCE][: len(pictures)]
        panes = (Pane(n, u, p.shape[1], p.shape[0]) for n, u, p in zip(names, row, pictures, strict=True))
        shown.append(replace(shot, panes=tuple(panes)))
    return shown


def _shrunk(shot: Shot, pictures: list[Bytes], side: int) -> Shot:
    if not pictures:
        return shot
    height, width = pictures[0].shape[:2]
    left, top = (0, 0) if shot.box is None else shot.box[:2]
    whole = shot.thumbnail or thumbnail(pictures[-1])
    tall, wide = min(side, height), min(side, width)
    box = (left + (width - wide) // 2, top + (height - tall) // 2, wide, tall)
    return replace(shot, box=box, thumbnail=whole)


def _centre(picture: Bytes, side: int) -> Bytes:
    height, width = picture.shape[:2]
    tall, wide = min(side, height), min(side, width)
    top, left = (height - tall) // 2, (width - wide) // 2
    return picture[top : top + tall, left : left + wide]


def settings_of(results: Results) -> Settings:
    """How the images of results were read."""
    return Settings(**{f.name: results.settings[f.name] for f in fields(Settings) if f.name in results.settings})


def homes_of(results: Results) -> dict[str, str]:
    """By the source of each set as it was given, the path that the run knew it by."""
    sources = results.settings.get("sources", {})
    known = results.provenance.get("inputs", {})
    return {str(sources[name]): str(facts["path"]) for name, facts in known.items() if sources.get(name)}
