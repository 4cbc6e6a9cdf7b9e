"""Restoring and scoring whole images, shared out over the processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from _lib.data import whole_pair
from _lib.report import Row, picture, write_results
from _lib.scores import Metric, Scores, score_image
from perceptloss.runs.images import Pair, read_image, to_tensor, write_png
from perceptloss.runs.meters import run_facts

__all__ = ["bicubic", "compare_systems", "evaluate"]

_TITLES = {"l1": "L1 alone", "critics": "L1 + critics"}
_PICTURE_ROWS = 4

Enlarge = Callable[[Tensor], Tensor]


@torch.no_grad()
def evaluate(
    accelerator: Accelerator,
    enlarge: Enlarge,
    pairs: Sequence[Pair],
    scale: int,
    metrics: Sequence[Metric],
    border: int,
    images: Path | None = None,
) -> Scores:
    """Scores of every image, the same on all processes.

    Args:
        accelerator: Of the run.
        enlarge: (3, h, w) to (3, h * scale, w * scale).
        pairs: Validation images.
        scale: Factor of `enlarge`.
        metrics: Columns.
        border: Pixels cut off before scoring.
        images: Where to write the restored images.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    mine: list[tuple[str, dict[str, float]]] = []
    for start in range(0, len(pairs), world):
        is_spare = start + rank >= len(pairs)
        pair = pairs[-1 if is_spare else start + rank]
        lq, gt = (image.to(accelerator.device) for image in whole_pair(pair, scale))
        restored = enlarge(lq)  # also on a spare turn: a sharded network runs on all processes or on none
        if is_spare:
            continue
        mine.append((pair.name, score_image(metrics, restored, gt, border)))
        if images is not None:
            write_png(restored, images / f"{pair.name}.png")
    return dict(sorted(gather_object(mine)))


def bicubic(lq: Tensor, scale: int) -> Tensor:
    """Plain bicubic enlargement, the floor of every table."""
    return F.interpolate(lq[None], scale_factor=scale, mode="bicubic", align_corners=False)[0].clamp(0, 1)


def compare_systems(
    accelerator: Accelerator,
    folder: Path,
    systems: Mapping[str, Enlarge],
    pairs: Sequence[Pair],
    scale: int,
    metrics: Sequence[Metric],
    border: int,
    facts: Mapping[str, Any],
) -> str:
    """Restore everything with every system; write images/, results.md, picture.png and results.json; return the table.

    The ground truth is written as it was scored, so that the folders can be compared again with other critics.
    """
    images = folder / "images"
    scores: dict[str, Scores] = {}
    for name, enlarge in systems.items():
        scores[name] = evaluate(accelerator, enlarge, pairs, scale, metrics, border, images / name)
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return ""
    for pair in pairs:
        write_png(whole_pair(pair, scale)[1], images / "ground-truth" / f"{pair.name}.png")
    judges = [metric.name for metric in metrics if metric.role == "judge"]
    rows = [_row(pair, scores, ["psnr-y", *judges[:1]], images) for pair in pairs[:_PICTURE_ROWS]]
    picture(rows, folder / "picture.png")
    return write_results(folder, metrics, scores, {**facts, **run_facts(accelerator)})


def _row(pair: Pair, systems: Mapping[str, Scores], shown: Sequence[str], images: Path) -> Row:
    columns: list[tuple[str, Tensor, str]] = []
    for name, scores in systems.items():
        caption = "   ".join(f"{m} {scores[pair.name][m]:.{2 if m == 'psnr-y' else 3}f}" for m in shown)
        columns.append((_TITLES.get(name, name), _stored(images / name, pair), caption))
    return Row([*columns, ("ground truth", _stored(images / "ground-truth", pair), pair.name)])


def _stored(folder: Path, pair: Pair) -> Tensor:
    return to_tensor(read_image(folder / f"{pair.name}.png"))
