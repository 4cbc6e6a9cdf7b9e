"""What a stereo recipe says at its end beside its judges: fidelity of the views, and what became of the depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from _lib.stereo_data import Scene
from _lib.stereo_folders import read_disparity
from perceptloss import create_critic
from perceptloss.compare.disparity import DisparityErrors, disparity_errors, match_blocks, visible, warp_error
from perceptloss.compare.pixels import as_bytes, stored, write_png
from perceptloss.errors import InputError, PerceptlossError
from perceptloss.maps.colours import SEQUENTIAL
from perceptloss.output.files import replacing
from perceptloss.output.tables import markdown

__all__ = ["anaglyph", "coloured", "depth_report"]

_CUT = 64  # columns of the left view that no right view shows, as the literature cuts them
_SHOWN = 4  # pairs that are drawn
_LARGEST = 64  # disparities that the matcher tries
_PAPER, _INK = (255, 255, 255), (20, 20, 20)

Enlarge = Callable[[Tensor], Tensor]
Whole = Callable[[Scene], tuple[Tensor, Tensor]]


def anaglyph(pair: Tensor) -> Tensor:
    """A pair (6, H, W) for red-cyan glasses, (3, H, W): red of the left view, green and blue of the right one."""
    return torch.cat([pair[:1], pair[4:]])


def coloured(disparity: Tensor, largest: float) -> Tensor:
    """A map of disparity as a picture (3, H, W): dark is far, light is near, grey where nothing is known."""
    table = torch.tensor(SEQUENTIAL, dtype=torch.float32) / 255
    place = (disparity / largest).clamp(0, 1).nan_to_num(0) * (len(table) - 1)
    first = place.long().clamp(max=len(table) - 2)
    share = (place - first)[..., None]
    picture = torch.lerp(table[first], table[first + 1], share).permute(2, 0, 1)
    return torch.where(torch.isfinite(disparity), picture, 0.5)


@dataclass(frozen=True)
class _Depth:
    """Of one system and one pair."""

    psnr: tuple[float, float]
    ssim: tuple[float, float]
    against_gt: DisparityErrors | None
    against_true: DisparityErrors | None
    warp: float | None


def _fidelity(pair: Tensor, gt: Tensor, name: str) -> tuple[float, float]:
    """Of the left view without its first columns, and of both views in full, their mean."""
    critic = create_critic(name)
    views = [(x[None], y[None]) for x, y in zip(pair.split(3), gt.split(3), strict=True)]
    cut = _CUT if gt.shape[2] >= 2 * _CUT else 0
    left = critic(*(image[..., cut:] for image in views[0]))
    return float(left), float(torch.cat([critic(*view) for view in views]).mean())


def _depth(pair: Tensor, gt: Tensor, matched: Tensor | None, gt_matched: Tensor | None, true: Tensor | None) -> _Depth:
    against_gt = _compared(matched, gt_matched)
    known = true if true is not None else gt_matched
    warp = None
    if known is not None:
        left, right = pair[None].split(3, 1)
        warp = float(warp_error(left, right, known[None]))
    return _Depth(_fidelity(pair, gt, "psnr"), _fidelity(pair, gt, "ssim"), against_gt, _compared(matched, true), warp)


def _compared(found: Tensor | None, wanted: Tensor | None) -> DisparityErrors | None:
    if found is None or wanted is None:
        return None
    try:
        return disparity_errors(found, wanted, mask=visible(wanted[None])[0])
    except InputError:  # nothing was found
        return None


def _matched(pair: Tensor) -> Tensor | None:
    try:
        return match_blocks(pair, _LARGEST)
    except PerceptlossError:
        return None


@torch.no_grad()
def depth_report(
    folder: Path, systems: Mapping[str, Enlarge], scenes: Sequence[Scene], whole: Whole, device: torch.device
) -> list[str]:
    """Sentences and a table below that of the judges; pictures in `folder/stereo` and `folder/stereo.png`.

    Args:
        folder: Of the run.
        systems: Name to function.
        scenes: Pairs to validate on.
        whole: Such a pair as (lq, gt).
        device: Of the systems.
    """
    rows: dict[str, list[_Depth]] = {name: [] for name in ("ground truth", *systems)}
    has_true = False
    for number, scene in enumerate(scenes):
        lq, gt = whole(scene)
        gt = stored(gt)
        gt_matched = _matched(gt)
        true = None if scene.disparity is None else read_disparity(scene.disparity)[: gt.shape[1], : gt.shape[2]]
        has_true |= true is not None
        drawn: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name in rows:
            pair = gt if name == "ground truth" else stored(systems[name](lq.to(device)).cpu())
            matched = gt_matched if name == "ground truth" else _matched(pair)
            rows[name].append(_depth(pair, gt, matched, gt_matched, true))
            drawn[name] = pair, matched
        if number < _SHOWN:
            _draw(folder, scene.name, drawn, is_first=number == 0)
    return [_told(rows, has_true=has_true)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _of(errors: DisparityErrors | None, name: str) -> float | None:
    return None if errors is None else float(getattr(errors, name))


def _cell(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"


def _told(rows: Mapping[str, Sequence[_Depth]], *, has_true: bool) -> str:
    names = ("epe", "d1", "over1", "over2", "over3")
    head = ["system", "PSNR left / mean", "SSIM left / mean", "EPE", "D1 %", ">1 %", ">2 %", ">3 %"]
    head += ["EPE to true", "D1 to true %"] if has_true else []
    head += ["warp error"]
    table = []
    for system, found in rows.items():
        is_gt = system == "ground truth"
        psnr, ssim = (
            " / ".join(_cell(_mean([getattr(d, name)[k] for d in found]), digits) for k in (0, 1))
            for name, digits in (("psnr", 2), ("ssim", 4))
        )
        of_gt = [_mean([_of(d.against_gt, n) for d in found]) for n in names]
        cells = [_cell(v, 2 if n == "epe" else 1, 1 if n == "epe" else 100) for n, v in zip(names, of_gt, strict=True)]
        true = [_mean([_of(d.against_true, n) for d in found]) for n in ("epe", "d1")]
        truth = [_cell(true[0], 2), _cell(true[1], 1, 100)] if has_true else []
        warp = _cell(_mean([d.warp for d in found]), 2, 255)
        table.append([system, *(["", ""] if is_gt else [psnr, ssim]), *([""] * 5 if is_gt else cells), *truth, warp])
    said = (
        "Depth: disparity that a fixed matcher (semi-global matching) finds in a restored pair, against what it finds "
    )
    said += "in the ground truth's" + (" and against the true one" if has_true else "") + ", where both views show it; "
    said += "warp error: |left - right moved by the disparity| there, in levels of 255. "
    said += f"Left views are scored without their first {_CUT} columns where that leaves half of them. "
    said += "Pictures for red-cyan glasses, and of disparity, are in stereo/ and stereo.png.\n\n"
    if _mean([_of(d.against_gt, "epe") for found in rows.values() for d in found]) is None:
        said = "Depth: OpenCV is not installed, so no disparity was matched: pip install opencv-python-headless.\n\n"
    return said + markdown(head, table, "lr")


def _draw(folder: Path, name: str, drawn: Mapping[str, tuple[Tensor, Tensor | None]], *, is_first: bool) -> None:
    sheets = []
    for system, (pair, matched) in drawn.items():
        parts = [anaglyph(pair)] if matched is None else [anaglyph(pair), coloured(matched, _LARGEST)]
        for kind, part in zip(("anaglyph", "disparity"), parts, strict=False):
            write_png(part, folder / "stereo" / f"{name.replace('/', '_')}_{kind}_{system.replace(' ', '-')}.png")
        sheets.append((system, torch.cat(parts, 1)))
    if is_first:
        _sheet(sheets, folder / "stereo.png")


def _sheet(columns: Sequence[tuple[str, Tensor]], path: Path) -> None:
    """Systems side by side: above for red-cyan glasses, below their disparity."""
    height, width = (n // 2 for n in columns[0][1].shape[1:])
    head, gap = 28, 6
    canvas = Image.new("RGB", (len(columns) * (width + gap) + gap, height + head + gap), _PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for number, (name, picture) in enumerate(columns):
        left = gap + number * (width + gap)
        tile = Image.fromarray(as_bytes(picture)).resize((width, height), Image.Resampling.LANCZOS)
        canvas.paste(tile, (left, head))
        pen.text((left + 2, 6), name, _INK, font)
    with replacing(path) as draft:
        canvas.save(draft, format="PNG")
