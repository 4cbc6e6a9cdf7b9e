"""Maps of a plan's images: computed, brought to one scale for all images, and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.panel import Scorer, pick_device
from perceptloss.compare.plan import Plan
from perceptloss.compare.run import file_jobs
from perceptloss.compare.scoring import Job, true_fp32
from perceptloss.critic import Critic
from perceptloss.errors import PerceptlossError
from perceptloss.maps.attribution import attribution, sensitivity
from perceptloss.maps.colours import DIVERGING, Scale, draw
from perceptloss.maps.tiles import edges, tiled

__all__ = ["Form", "Kind", "MapSet", "WrittenMap", "kind_of", "map_of", "write_maps"]

Kind = Literal["native", "attribution", "sensitivity"]
Form = Literal["png", "npy"]
_TYPICAL: Final = 0.995  # share of an image's cells inside the range of colours, where there is no natural one


@dataclass(frozen=True)
class WrittenMap:
    """A map that was written.

    Attributes:
        key: Of the image.
        path: Of the file.
        shape: Rows and columns of cells.
        low: Smallest value.
        high: Largest value.
        mean: Over cells.
        total: Sum over cells.
        typical: Size that all but a few of the cells stay below.
        difference: Of the scores of image and reference, which an attribution adds up to.
        beyond: Cells drawn in the colour of an end because they are beyond it.
    """

    key: str
    path: Path
    shape: tuple[int, int]
    low: float
    high: float
    mean: float
    total: float
    typical: float
    difference: float | None = None
    beyond: int = 0


@dataclass(frozen=True)
class MapSet:
    """The maps of one critic.

    Attributes:
        scorer: The critic.
        kind: What the maps are.
        scale: Their colours, the same for all images; None if they were written as numbers.
        maps: Those written, in order.
        not_finite: Keys of images whose map holds NaN or infinity and was not written.
    """

    scorer: Scorer
    kind: Kind
    scale: Scale | None
    maps: tuple[WrittenMap, ...]
    not_finite: tuple[str, ...]


def kind_of(critic: Critic, *, has_reference: bool) -> Kind:
    """The critic's own map, or else what explains its score."""
    if critic.has_maps:
        return "native"
    return "attribution" if has_reference else "sensitivity"


def map_of(critic: Critic, x: Tensor, y: Tensor | None, side: int | None = None) -> Tensor:
    """A critic's map of images, of the kind that `kind_of` says.

    Args:
        critic: Makes it.
        x: Judged images, (N, 3, H, W) in [0, 1].
        y: References, or None. A no-reference critic without a map is explained from there.
        side: Longest side of a tile in pixels; None never cuts. Maps of tiles are enlarged to the pixels
            they stand for and put together; shares of a score are those of the mean over tiles.

    Returns:
        The map, (N, 1, h, w), detached; h x w is the image if it was cut.
    """
    height, width = x.shape[-2:]
    if side is None or max(height, width) <= side:
        return _whole(critic, x, y)
    found = x.new_zeros(len(x), 1, height, width)
    rows, columns = (edges(length, side, critic.card.multiple_of) for length in (height, width))
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            part = (..., slice(top, bottom), slice(left, right))
            size = (bottom - top, right - left)
            share = 1.0 if critic.has_maps else size[0] * size[1] / (height * width)
            tile = _whole(critic, x[part], None if y is None else y[part])
            found[part] = share * F.interpolate(tile, size, mode="nearest-exact")
    return found


def _whole(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    kind = kind_of(critic, has_reference=y is not None)
    if kind == "sensitivity":
        return sensitivity(critic, x)
    if kind == "attribution":
        return attribution(critic, x, y)
    with torch.no_grad():
        return critic.maps(x, y if critic.card.needs_reference else None)


def write_maps(
    plan: Plan,
    scorer: Scorer,
    targets: Sequence[Path],
    form: Form,
    *,
    overlay: bool = False,
    value_range: tuple[float, float] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> MapSet:
    """Compute and write one critic's maps of the images of a plan with one system.

    All images get the same colours for the same values, so that pictures can be compared. Maps wait on
    disk until that range is known.

    Args:
        plan: What to judge, and how to read it.
        scorer: The critic.
        targets: A file per image of the plan; what is there is overwritten.
        form: `png`: 8-bit colours at the size of the image; `npy`: the values, float32, (h, w).
        overlay: Lay the colours over the image (`png` only).
        value_range: Values of the ends of the colours; None for those of the maps.
        progress: Called after each map.

    Raises:
        PerceptlossError: if the device runs out of memory.
    """
    device = pick_device(plan.settings.device)
    critic = scorer.critic.to(device)
    kind = kind_of(critic, has_reference=plan.images[0].reference is not None)
    jobs = list(file_jobs(plan))
    found: dict[int, WrittenMap] = {}
    with TemporaryDirectory(prefix="perceptloss-") as folder:
        for job in jobs:
            values, difference = _computed(scorer, job, plan, device, kind)
            if torch.isfinite(values).all():
                found[job.image] = _facts(plan.images[job.image].key, targets[job.image], values, difference)
                _save(_spooled(folder, job) if form == "png" else targets[job.image], values)
            progress()
        critic.to("cpu")
        scale = None
        if form == "png":
            scale = _scale(kind, critic, tuple(found.values()), value_range)
            found = _drawn(found, jobs, scale, folder, scorer.signature, overlay=overlay)
    lost = tuple(plan.images[job.image].key for job in jobs if job.image not in found)
    return MapSet(scorer, kind, scale, tuple(found.values()), lost)


def _computed(scorer: Scorer, job: Job, plan: Plan, device: torch.device, kind: Kind) -> tuple[Tensor, float | None]:
    """A map, (h, w), and the difference of scores that it should add up to."""
    loaded = job.load()
    x, y = (None if image is None else image[None].to(device) for image in loaded)
    assert x is not None
    critic, side = scorer.critic, plan.settings.tile_side
    try:
        with true_fp32(device):
            values = map_of(critic, x, y, side)[0, 0].float().cpu()
            difference = _difference(critic, x, y, side) if kind == "attribution" and y is not None else None
    except torch.cuda.OutOfMemoryError as error:
        raise PerceptlossError(
            f"{scorer.label} ran out of memory on an image of {x.shape[-2]}x{x.shape[-1]} ({job.text}). "
            "Try --tile auto, --precision bf16 or --device cpu."
        ) from error
    return values, difference


@torch.no_grad()
def _difference(critic: Critic, x: Tensor, y: Tensor, side: int | None) -> float:
    reference = y if critic.card.needs_reference else None
    ours, best = (tiled(critic, image, reference, side, critic.card.multiple_of) for image in (x, y))
    return (ours - best).item()


def _facts(key: str, path: Path, values: Tensor, difference: float | None) -> WrittenMap:
    rank = max(1, round(_TYPICAL * values.numel()))
    return WrittenMap(
        key=key,
        path=path,
        shape=(values.shape[0], values.shape[1]),
        low=values.min().item(),
        high=values.max().item(),
        mean=values.double().mean().item(),
        total=values.double().sum().item(),
        typical=values.abs().flatten().kthvalue(rank).values.item(),
        difference=difference,
    )


def _scale(kind: Kind, critic: Critic, maps: Sequence[WrittenMap], value_range: tuple[float, float] | None) -> Scale:
    if kind == "native":
        low, high = value_range or (min((m.low for m in maps), default=0.0), max((m.high for m in maps), default=0.0))
        return Scale(high, low) if critic.map_better == "higher" else Scale(low, high)
    # a map without a natural range is ruled by few cells; one that is 0 nearly everywhere has only those
    typical = max((m.typical for m in maps), default=0.0)
    end = typical or max((max(-m.low, m.high) for m in maps), default=0.0)
    if kind == "sensitivity":
        return Scale(*(value_range or (0.0, end)))
    end = value_range[1] if value_range else end
    return Scale(end, -end, DIVERGING) if critic.card.better == "higher" else Scale(-end, end, DIVERGING)


def _drawn(
    found: Mapping[int, WrittenMap], jobs: Sequence[Job], scale: Scale, folder: str, signature: str, *, overlay: bool
) -> dict[int, WrittenMap]:
    """Write the pictures."""
    import numpy as np
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    drawn = {}
    for job in (job for job in jobs if job.image in found):
        written = found[job.image]
        values = torch.from_numpy(np.load(_spooled(folder, job)))
        picture = draw(values, scale, job.size, job.load()[0] if overlay else None)
        about = PngInfo()
        about.add_text("critic", signature)
        about.add_text("scale", f"{scale.first:.9g} to {scale.last:.9g}")
        written.path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(picture.numpy()).save(written.path, format="PNG", pnginfo=about)
        drawn[job.image] = replace(written, beyond=scale.beyond(values))
    return drawn


def _spooled(folder: str, job: Job) -> Path:
    return Path(folder) / f"{job.image}.npy"


def _save(path: Path, values: Tensor) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # np.save would add an ending to a name without one
        np.save(file, values.numpy())
