"""Where a critic sees what in the images of a report: maps of all outputs, in the same colours for the same values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from perceptloss.compare.maps import MapSet, write_maps
from perceptloss.compare.pages.pictures import Bytes
from perceptloss.compare.panel import build
from perceptloss.compare.plan import Plan
from perceptloss.compare.report.choice import choose
from perceptloss.compare.results import Results
from perceptloss.errors import ConfigError, near

__all__ = ["QualityMaps", "chosen_images", "map_problems", "quality_maps"]

_TITLES: Final = {
    "native": ("its own quality map", "best, dark", "worst, bright"),
    "attribution": ("attribution, its shares of the score less the reference's", "better, blue", "worse, orange"),
    "sensitivity": ("sensitivity, the size of its gradient, neither good nor bad", "dark", "bright"),
}


@dataclass(frozen=True)
class QualityMaps:
    """Maps of one critic.

    Attributes:
        caption: Whose they are, and what their colours say.
        pictures: By image and system, as large as the critic saw them.
    """

    caption: str
    pictures: Mapping[tuple[int, int], Bytes]


def chosen_images(results: Results) -> list[int]:
    """Indices of the images that a report shows."""
    found = choose(results.in_groups().arrays(), seed=results.analysis.seed)
    return [choice.image for choice in found]


def map_problems(plan: Plan, name: str) -> list[str]:
    """What speaks against maps of a critic: that it is none of the run's, or judges pairs."""
    names = [entry.name for entry in plan.asked]
    if name not in names:
        return [f"--map {name} is none of the critics of -c{near(name, names)}"]
    return ["--map of stereo pairs is drawn by `perceptloss map` only"] if plan.rules.stereo else []


def quality_maps(
    plan: Plan,
    results: Results,
    name: str,
    *,
    random_weights: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> QualityMaps:
    """Compute the maps of a critic for the images that a report of these results shows.

    Args:
        plan: That the results are of.
        results: Its scores.
        name: Of one of its critics.
        random_weights: As of `run_plan`.
        progress: Called after each map.

    Raises:
        ConfigError: if the critic is none of the plan's.
    """
    if wrong := map_problems(plan, name):
        raise ConfigError(wrong, "the report")
    entry = next(entry for entry in plan.asked if entry.name == name)
    (scorer,) = build([entry], plan.settings, random_weights=random_weights)
    places = [(image, system) for image in chosen_images(results) for system in range(len(plan.systems))]
    flat = _flat(plan, places)
    with TemporaryDirectory(prefix="perceptloss-") as folder:
        targets = [Path(folder) / f"{n}.png" for n in range(len(places))]
        found = write_maps(flat, scorer, targets, "png", progress=progress)
        pictures = {place: _read(path) for place, path in zip(places, targets, strict=True) if path.exists()}
    return QualityMaps(_caption(found), pictures)


def _flat(plan: Plan, places: list[tuple[int, int]]) -> Plan:
    """Each output as an image of its own, so that all get one scale."""
    images = []
    for image, system in places:
        record = plan.images[image]
        images.append(replace(record, key=f"{record.key}, {plan.systems[system]}", outputs=(record.outputs[system],)))
    sizes = tuple((plan.sizes[image][system],) for image, system in places)
    return replace(plan, systems=("outputs",), baseline=None, images=tuple(images), sizes=sizes)


def _read(path: Path) -> Bytes:
    from PIL import Image

    picture: Bytes = np.asarray(Image.open(path))
    return picture


def _caption(found: MapSet) -> str:
    title, first, last = _TITLES[found.kind]
    scale = found.scale
    ends = "" if scale is None else f": {scale.first:.4g} ({first}) to {scale.last:.4g} ({last}), the same for all"
    lost = f"; not finite, and left out: {', '.join(found.not_finite)}" if found.not_finite else ""
    return f"{found.scorer.label}, {title}{ends}{lost}"
