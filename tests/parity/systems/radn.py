"""RADN: from the maps of the patches of the first distorted image, and the offsets that its reference gives."""

from __future__ import annotations

from torch import Tensor

from perceptloss.networks.patch_ladder import SIDE, patch_grid
from perceptloss.networks.patches import cut

from ..case import Row
from ..run import Run, System


def _maps(run: Run, row: Row) -> list[Tensor]:
    """Of the judged image and of its reference, before any deformation."""
    images = run.pair(row.input)
    grid = patch_grid(*images[0].shape[-2:])
    return [run.critic.ladder[:-1](cut(image[:1], *grid, SIDE)) for image in images]


def _vectors(run: Run, row: Row) -> Tensor:
    hx, hy = _maps(run, row)
    return run.critic.vectors_of(hx, run.critic.offset(hy), run.critic.deform_x)


SYSTEM = System(
    "radn",
    readers={
        r"features of the distorted patches before deformation \(first image\)": lambda run, row: _maps(run, row)[0],
        r"features of the reference patches before deformation \(first image\)": lambda run, row: _maps(run, row)[1],
        r"offsets \(from the reference, first image\)": lambda run, row: run.critic.offset(_maps(run, row)[1]),
        r"patch vectors after deformation, distorted \(first image\)": _vectors,
    },
    parts={
        r"after the patch-level non-local block \(1, channels, patches, 1\)": (
            "across_x",
            lambda v: v[:1].transpose(1, 2)[..., None],
        )
    },
)
