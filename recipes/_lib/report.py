"""A picture of a comparison: crops of what the systems made, side by side, with their scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from perceptloss import Critic
from perceptloss.compare import Results
from perceptloss.compare.images import ImageFile, Policy, read
from perceptloss.compare.pixels import as_bytes, as_tensor
from perceptloss.compare.results import ImageRecord
from perceptloss.output.files import replacing
from perceptloss.output.names import visible

__all__ = ["detail", "picture", "where_they_differ"]

_INK, _PAPER, _FAINT = (20, 20, 20), (255, 255, 255), (110, 110, 110)
_TITLES = {"l1": "L1 alone", "views": "L1 + critics of views", "critics": "L1 + critics"}
_ROWS = 4
_SHOWN = 2  # critics whose scores stand below a crop


def detail(gt: Tensor, side: int, step: int = 8) -> tuple[int, int]:
    """Top left corner of the square of the ground truth with the strongest edges; decided without any result."""
    grey = gt.mean(0)
    edges = (grey[1:, 1:] - grey[:-1, 1:]).abs() + (grey[1:, 1:] - grey[1:, :-1]).abs()
    energy = F.avg_pool2d(edges[None, None], side - 1, stride=step)[0, 0]
    row, column = divmod(int(energy.argmax()), energy.shape[1])
    return row * step, column * step


def where_they_differ(eye: Critic, first: Tensor, second: Tensor, gt: Tensor, side: int) -> tuple[int, int]:
    """Top left corner of the square where a judge's maps of two restored images differ most, all (3, H, W)."""
    with torch.no_grad():
        maps = [eye.maps(image[None], gt[None]) for image in (first, second)]
    apart = F.interpolate((maps[0] - maps[1]).abs(), size=gt.shape[1:], mode="bilinear")
    means = F.avg_pool2d(apart, side, stride=8)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return row * 8, column * 8


def picture(results: Results, path: Path, eye: Critic | None = None, *, side: int = 96, zoom: int = 3) -> None:
    """Draw the first images of a comparison of files, with their references if there are any.

    Args:
        results: Scored by at least one critic.
        path: Of the PNG.
        eye: A judge with maps, which chooses the crops: where baseline and last system differ most in its eyes.
            Without it, or of one system, they are where the ground truth has the strongest edges.
        side: Of the crops, pixels; that of the smallest image if this is less.
        zoom: Each pixel becomes a square of this side.
    """
    records = results.images[:_ROWS]
    compared = sorted({results.systems.index(results.baseline or results.systems[0]), len(results.systems) - 1})
    side = min(side, *(length for record in records for file in record.outputs if file for length in file.size))
    head, foot, gap, left = 34, 28, 8, 8
    tile = side * zoom
    columns = len(results.systems) + any(record.reference is not None for record in records)
    width = left * 2 + columns * (tile + gap) - gap
    canvas = Image.new("RGB", (width, head + len(records) * (tile + foot)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    big, small = ImageFont.load_default(18), ImageFont.load_default(13)
    for r, record in enumerate(records):
        top = head + r * (tile + foot)
        outputs = [_pixels(record.outputs[n]) for n in compared]
        gt = None if record.reference is None else _pixels(record.reference)
        if eye is None or gt is None or len(outputs) < 2:
            y, x = detail(outputs[-1] if gt is None else gt, side)
        else:
            y, x = where_they_differ(eye.cpu(), outputs[0], outputs[1], gt, side)
        for c, (title, file, caption) in enumerate(_columns(results, record, r)):
            corner = (left + c * (tile + gap), top)
            crop = Image.fromarray(as_bytes(_pixels(file)[:, y : y + side, x : x + side]))
            canvas.paste(crop.resize((tile, tile), Image.Resampling.NEAREST), corner)
            draw.text((corner[0], top + tile + 4), caption, _FAINT, small)
            if r == 0:
                draw.text((corner[0], 7), title, _INK, big)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        canvas.save(draft)


def _columns(results: Results, record: ImageRecord, index: int) -> Iterator[tuple[str, ImageFile | None, str]]:
    """Title, file and caption of each tile of a row; the reference comes last."""
    for name, file, scores in zip(results.systems, record.outputs, results.values, strict=True):
        shown = zip(results.critics[:_SHOWN], scores, strict=False)
        caption = "   ".join(f"{column.label} {row[index]:.4g}" for column, row in shown if row[index] is not None)
        yield visible(_TITLES.get(name, name)), file, caption
    if record.reference is not None:
        yield "ground truth", record.reference, visible(record.key)


def _pixels(file: ImageFile | None) -> Tensor:
    if file is None:
        raise ValueError("images from memory cannot be drawn")
    return as_tensor(read(Path(file.path), Policy()))
