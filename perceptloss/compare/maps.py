"""Maps of a plan's images: computed, brought to one scale for all images, and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import Tensor

from perceptloss.compare.jobs import file_jobs
from perceptloss.compare.panel import Scorer, pick_device
from perceptloss.compare.pixels import in_colour
from perceptloss.compare.plan import Plan
from perceptloss.compare.scoring import Job, true_fp32, within_memory
from perceptloss.critic import Critic
from perceptloss.maps.colours import Scale, draw
from perceptloss.maps.drawn import Kind, WrittenMap, facts_of, kind_of, map_of, save_picture, save_values, scale_for
from perceptloss.maps.tiles import tiled
from perceptloss.networks.tiles import side_for

__all__ = ["Form", "MapSet", "write_maps"]

Form = Literal["png", "npy"]


@dataclass(frozen=True)
class MapSet:
    """The maps of one critic.

    Attributes:
        scale: Their colours, the same for all images; None if they were written as numbers.
        maps: Those written, in order.
        not_finite: Keys of images whose map holds NaN or infinity and was not written.
    """

    scorer: Scorer
    kind: Kind
    scale: Scale | None
    maps: tuple[WrittenMap, ...]
    not_finite: tuple[str, ...]


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
                found[job.image] = facts_of(plan.images[job.image].key, targets[job.image], values, difference)
                save_values(_spooled(folder, job) if form == "png" else targets[job.image], values)
            progress()
        critic.to("cpu")
        scale = None
        if form == "png":
            scale = scale_for(kind, critic, tuple(found.values()), value_range)
            found = _drawn(found, jobs, scale, folder, scorer.signature, overlay=overlay)
    lost = tuple(plan.images[job.image].key for job in jobs if job.image not in found)
    return MapSet(scorer, kind, scale, tuple(found.values()), lost)


def _computed(scorer: Scorer, job: Job, plan: Plan, device: torch.device, kind: Kind) -> tuple[Tensor, float | None]:
    """A map, (h, w), and the difference of scores that it should add up to."""
    loaded = job.load()
    pair = (loaded.x, loaded.y)
    x, y = (None if image is None else in_colour(scorer.colour, image[None].to(device)) for image in pair)
    assert x is not None
    critic, side = scorer.critic, side_for(scorer.critic.card, plan.settings.tile_side)
    with within_memory(scorer, [job], "--tile auto"), true_fp32(device):
        values = map_of(critic, x, y, side)[0, 0].float().cpu()
        difference = _difference(critic, x, y, side) if kind == "attribution" and y is not None else None
    return values, difference


@torch.no_grad()
def _difference(critic: Critic, x: Tensor, y: Tensor, side: int | None) -> float:
    reference = y if critic.card.needs_reference else None
    ours, best = (tiled(critic, image, reference, side, critic.card.multiple_of) for image in (x, y))
    return (ours - best).item()


def _drawn(
    found: Mapping[int, WrittenMap], jobs: Sequence[Job], scale: Scale, folder: str, signature: str, *, overlay: bool
) -> dict[int, WrittenMap]:
    """Write the pictures."""
    import numpy as np

    about = {"critic": signature, "scale": f"{scale.first:.9g} to {scale.last:.9g}"}
    drawn = {}
    for job in (job for job in jobs if job.image in found):
        values = torch.from_numpy(np.load(_spooled(folder, job)))
        picture = draw(values, scale, job.size, job.load().x[:3] if overlay else None)
        save_picture(found[job.image].path, picture, about)
        drawn[job.image] = replace(found[job.image], beyond=scale.beyond(values))
    return drawn


def _spooled(folder: str, job: Job) -> Path:
    return Path(folder) / f"{job.image}.npy"
