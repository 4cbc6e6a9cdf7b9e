"""The end of a run: tables as JSON and Markdown, and a picture to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from _lib.scores import Metric, Scores, mean_scores, wins
from perceptloss.output.files import write_atomically
from perceptloss.runs.state import finite

__all__ = ["Row", "detail", "markdown", "picture", "write_results"]

_INK, _PAPER, _FAINT = (20, 20, 20), (255, 255, 255), (110, 110, 110)


def markdown(metrics: Sequence[Metric], systems: Mapping[str, Scores]) -> str:
    """Mean scores, one row per system, the best of each column in bold; critics trained on are marked."""
    means = {name: mean_scores(scores) for name, scores in systems.items()}
    heads = [f"{m.name} {'↑' if m.better == 'higher' else '↓'}{'*' if m.role == 'critic' else ''}" for m in metrics]
    rows = [["", *heads]]
    for name, mean in means.items():
        cells = []
        for metric in metrics:
            is_best = not any(metric.is_better(other[metric.name], mean[metric.name]) for other in means.values())
            text = f"{mean[metric.name]:.3f}" if metric.name == "psnr-y" else f"{mean[metric.name]:.4f}"
            cells.append(f"**{text}**" if is_best else text)
        rows.append([name, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    note = "\n\\* trained on by `critics`, so no evidence; the others only watched.\n"
    return "\n".join(lines) + "\n" + (note if any(m.role == "critic" for m in metrics) else "")


def verdict(metrics: Sequence[Metric], systems: Mapping[str, Scores]) -> str:
    """One plain sentence about critics against L1, or nothing if there is no such pair."""
    if not {"l1", "critics"} <= systems.keys():
        return ""
    ours, base = mean_scores(systems["critics"]), mean_scores(systems["l1"])
    judges = [m.name for m in metrics if m.role == "judge"]
    change = f"PSNR-Y changes by {ours['psnr-y'] - base['psnr-y']:+.3f} dB.\n"
    if not judges:
        return change
    won = wins(metrics, ours, base)
    lost = [name for name in judges if name not in won]
    return (
        f"Against L1 alone, {len(won)} of {len(judges)} judges prefer the critics ({', '.join(won) or 'none'})"
        f"{'; not ' + ', '.join(lost) if lost else ''}. {change}"
    )


def write_results(
    folder: Path, metrics: Sequence[Metric], systems: Mapping[str, Scores], facts: Mapping[str, Any]
) -> str:
    """Write results.md and, last because it marks the run as finished, results.json; return the Markdown."""
    text = markdown(metrics, systems) + "\n" + verdict(metrics, systems)
    content = {
        **facts,
        "metrics": [{"name": m.name, "better": m.better, "role": m.role, "signature": m.signature} for m in metrics],
        "systems": {name: {"mean": mean_scores(scores), "images": scores} for name, scores in systems.items()},
    }
    write_atomically(folder / "results.md", text)
    write_atomically(folder / "results.json", json.dumps(finite(content), indent=1, allow_nan=False))
    return text


def detail(gt: Tensor, side: int, step: int = 8) -> tuple[int, int]:
    """Top left corner of the square of the ground truth with the strongest edges; decided without any result."""
    grey = gt.mean(0)
    edges = (grey[1:, 1:] - grey[:-1, 1:]).abs() + (grey[1:, 1:] - grey[1:, :-1]).abs()
    energy = F.avg_pool2d(edges[None, None], side - 1, stride=step)[0, 0]
    row, column = divmod(int(energy.argmax()), energy.shape[1])
    return row * step, column * step


@dataclass(frozen=True)
class Row:
    """A row of the picture: per column a title, an image and a caption; the last is the ground truth."""

    columns: Sequence[tuple[str, Tensor, str]]


def picture(rows: Sequence[Row], path: Path, *, side: int = 64, zoom: int = 4) -> None:
    """Crops of `side` pixels (or of the smallest image) side by side; each pixel becomes a square of `zoom` pixels."""
    side = min(side, *(n for row in rows for n in row.columns[-1][1].shape[-2:]))
    head, foot, gap, left = 34, 28, 8, 8
    tile = side * zoom
    width = left * 2 + len(rows[0].columns) * (tile + gap) - gap
    canvas = Image.new("RGB", (width, head + len(rows) * (tile + foot)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    big, small = ImageFont.load_default(18), ImageFont.load_default(13)
    for r, row in enumerate(rows):
        top = head + r * (tile + foot)
        y, x = detail(row.columns[-1][1], side)
        for c, (title, image, caption) in enumerate(row.columns):
            corner = (left + c * (tile + gap), top)
            crop = image[:, y : y + side, x : x + side].clamp(0, 1).mul(255).round().to(torch.uint8)
            canvas.paste(
                Image.fromarray(crop.permute(1, 2, 0).numpy()).resize((tile, tile), Image.Resampling.NEAREST), corner
            )
            draw.text((corner[0], top + tile + 4), caption, _FAINT, small)
            if r == 0:
                draw.text((corner[0], 7), title, _INK, big)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
