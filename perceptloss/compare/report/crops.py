"""Pictures in a report: lossless crops where systems differ most, of the very bytes that were scored."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.images import ImageFile, read_hashed
from perceptloss.compare.pixels import as_bytes, as_tensor, resize
from perceptloss.compare.report.choice import Choice
from perceptloss.compare.results import ImageRecord, Results
from perceptloss.compare.settings import Settings
from perceptloss.compare.sizes import cut
from perceptloss.errors import InputError

__all__ = ["Embed", "Pane", "Shot", "png", "shots", "window"]

Embed = Literal["crops", "whole", "none"]
Bytes = NDArray[np.uint8]
REFERENCE: Final = "reference"
_SIDE: Final = 256
_LEAST: Final = 64
_STEP: Final = 16
_BUDGET: Final = 9_000_000  # characters that all crops may take
_THUMBNAIL: Final = 128


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
            pictures = _pictures(results, results.images[choice.image])
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
    return replace(shot, box=box, thumbnail=_thumbnail(pictures[-1])), crops


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
    thumbnail = shot.thumbnail or _thumbnail(pictures[-1])
    tall, wide = min(side, height), min(side, width)
    box = (left + (width - wide) // 2, top + (height - tall) // 2, wide, tall)
    return replace(shot, box=box, thumbnail=thumbnail)


def _centre(picture: Bytes, side: int) -> Bytes:
    height, width = picture.shape[:2]
    tall, wide = min(side, height), min(side, width)
    top, left = (height - tall) // 2, (width - wide) // 2
    return picture[top : top + tall, left : left + wide]


def window(pictures: Sequence[Bytes], side: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the square in which pictures of one size differ most; in the middle if nowhere."""
    stack = np.stack(pictures)
    spread = (stack.max(axis=0) - stack.min(axis=0)).sum(axis=2, dtype=np.float64)
    height, width = spread.shape
    tall, wide = min(side, height), min(side, width)
    sums = np.pad(spread.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    if not inside.any():
        return (width - wide) // 2, (height - tall) // 2, wide, tall
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(left), int(top), wide, tall


def png(picture: Bytes) -> str:
    """Address that holds a picture, (H, W, 3), without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _thumbnail(picture: Bytes) -> str:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return png(np.asarray(image))


def _pictures(results: Results, record: ImageRecord) -> list[Bytes]:
    """Outputs and reference as critics saw them but for the border, 8 bits; of stereo pairs the left view.

    Raises:
        InputError: if they were in memory only, a file is gone or not what was scored, or sizes differ.
    """
    files = [*record.outputs, *([record.reference] if record.reference else [])]
    if any(file is None for file in files):
        raise InputError("scored from memory: there are no files to show")
    kept = {field.name: results.settings[field.name] for field in fields(Settings) if field.name in results.settings}
    settings = Settings(**kept)
    policy = replace(settings.policy, depth="round")
    pictures = []
    for file in files:
        assert file is not None
        path = next(iter(_places(results, file)), None)
        if path is None:
            raise InputError(f"{file.path} is not there any more; run this where the images are")
        pixels, digest = read_hashed(path, policy)
        if digest != file.sha256:
            raise InputError(f"{path} is not the file that was scored; score again")
        pictures.append(pixels.astype(np.uint8, copy=False))
    return _alike(pictures, settings, has_reference=record.reference is not None)


def _places(results: Results, file: ImageFile) -> Iterator[Path]:
    """Where a file may be: as it was given, and below what the run knew as the absolute path of its folder."""
    paths = [Path(file.path)]
    sources = results.settings.get("sources", {})
    for name, facts in results.provenance.get("inputs", {}).items():
        source = str(sources.get(name, ""))
        if source and file.path.startswith(source):
            paths.append(Path(facts["path"] + file.path[len(source) :]))
    return (path for path in paths if path.is_file())


def _alike(pictures: list[Bytes], settings: Settings, *, has_reference: bool) -> list[Bytes]:
    sizes = [picture.shape[:2] for picture in pictures]
    if len(set(sizes)) == 1:
        return pictures
    if settings.resize == "to-ref" and has_reference:
        return [p if p.shape == pictures[-1].shape else as_bytes(resize(as_tensor(p), *sizes[-1])) for p in pictures]
    if settings.crop != "never":
        least = min(h for h, _ in sizes), min(w for _, w in sizes)
        return [as_bytes(cut(as_tensor(p), least, settings)) for p in pictures]
    raise InputError("pictures of different sizes are not shown side by side")
