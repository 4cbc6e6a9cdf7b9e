"""The work on one photograph: crops, their versions, and what the teachers say of these."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceptloss.networks.restorers import load_sr
from perceptloss.teach.degradations import apply_steps, register_degradation
from perceptloss.teach.degradations.enlarge import enlargement
from perceptloss.teach.degradations.networks import network_degradation
from perceptloss.teach.sets.crops import crops_of
from perceptloss.teach.sets.judging import Panel
from perceptloss.teach.sets.plan import Plan, ScoredSetError, content_name
from perceptloss.teach.sets.schedule import Version, versions
from perceptloss.teach.sets.shards import Shard

__all__ = ["Worker"]


class Worker:
    """Holds the teachers of a plan and makes the shard of any of its photographs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        for name, path in plan.networks.items():
            network = load_sr(path)
            register_degradation(network_degradation(name, network, source=path.name), replace=True)
            register_degradation(enlargement(f"{name}-enlarged", network, "network", path.name), replace=True)
        self.panel = Panel(plan.teachers, plan.crop)

    def shard(self, index: int) -> Shard:
        """Everything of photograph `index`.

        Raises:
            ScoredSetError: if a score is not finite.
        """
        plan = self.plan
        crops = crops_of(plan, index)
        first = index * plan.crops_per_photo
        made = [(crop, version) for crop in range(len(crops)) for version in versions(plan, first + crop)]
        images = np.stack([_image(crops[crop], version) for crop, version in made])
        scores = [self._scores(crops[crop], images[[c == crop for c, _ in made]]) for crop in range(len(crops))]
        shard = Shard(
            references=np.stack(crops),
            images=images,
            scores=np.concatenate(scores),
            reference=np.array([crop for crop, _ in made], dtype=np.int64),
            level=np.array([version.level for _, version in made], dtype=np.float64),
            group=np.array([version.group for _, version in made], dtype=np.int64),
            name=[version.name for _, version in made],
            family=[version.family for _, version in made],
            recipe=[version.recipe for _, version in made],
            is_higher_better=self.panel.is_higher_better,
        )
        _check_finite(shard, list(plan.teachers), content_name(plan.photos[index]))
        return shard

    def _scores(self, crop: NDArray[np.uint8], images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What all teachers say of versions of one crop, (M, T)."""
        return np.asarray(self.panel.scores(_floats(images), _floats(crop[None])).numpy(), dtype=np.float32)


def _image(crop: NDArray[np.uint8], version: Version) -> NDArray[np.uint8]:
    """A version of a crop, rounded to 8 bits, (3, S, S)."""
    if not version.steps:
        return crop
    degraded = apply_steps(_floats(crop[None]), version.steps)[0]
    return np.asarray((degraded * 255).round().to(torch.uint8).numpy())


def _floats(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).float() / 255


def _check_finite(shard: Shard, teachers: list[str], photo: str) -> None:
    bad = np.argwhere(~np.isfinite(shard.scores))
    if len(bad):
        row, column = bad[0].tolist()
        made = shard.recipe[row] or shard.name[row]
        raise ScoredSetError(
            f"{teachers[column]} gave {shard.scores[row, column]} for {photo}, crop {shard.reference[row]}, {made} "
            f"({len(bad)} such scores in this photograph); leave out the teacher, the photograph or the degradation."
        )
