"""Maps of critics as they are shown: which kind, put together from tiles, measured, coloured and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.maps.attribution import attribution, sensitivity
from perceptloss.maps.colours import DIVERGING, Scale
from perceptloss.networks.tiles import parts
from perceptloss.output.files import replacing

__all__ = ["Kind", "WrittenMap", "facts_of", "kind_of", "map_of", "save_picture", "save_values", "scale_for"]

Kind = Literal["native", "attribution", "sensitivity"]
_TYPICAL: Final = 0.995  # share of an image's cells inside the range of colours, where there is no natural one


@dataclass(frozen=True)
class WrittenMap:
    """A map that was written.

    Attributes:
        key: Of the image.
        path: Of the file.
        shape: Rows and columns of cells.
        low: Smallest value of a cell; `high` the largest, `mean` and `total` over all.
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
    for area, place in parts(height, width, side, critic.card.multiple_of):
        share = 1.0 if critic.has_maps else area / (height * width)
        tile = _whole(critic, x[place], None if y is None else y[place])
        found[place] = share * F.interpolate(tile, x[place].shape[-2:], mode="nearest-exact")
    return found


def _whole(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    kind = kind_of(critic, has_reference=y is not None)
    if kind == "sensitivity":
        return sensitivity(critic, x)
    if kind == "attribution":
        return attribution(critic, x, y)
    with torch.no_grad():
        return critic.maps(x, y if critic.card.needs_reference else None)


def facts_of(key: str, path: Path, values: Tensor, difference: float | None = None) -> WrittenMap:
    """What is said of a map, (h, w), that goes to a file."""
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


def scale_for(
    kind: Kind, critic: Critic, maps: Sequence[WrittenMap], value_range: tuple[float, float] | None = None
) -> Scale:
    """Colours for maps that are to be compared: the same for all of them.

    Args:
        kind: What the maps are.
        critic: Made them; says which end is good.
        maps: Those to draw.
        value_range: Values of the ends; None for those of the maps.
    """
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


def save_picture(path: Path, picture: Tensor, about: Mapping[str, str]) -> None:
    """Write (H, W, 3), uint8, as PNG with some lines of text inside."""
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    lines = PngInfo()
    for name, text in about.items():
        lines.add_text(name, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        Pillow.fromarray(picture.numpy()).save(draft, format="PNG", pnginfo=lines)


def save_values(path: Path, values: Tensor) -> None:
    """Write the values of a map as `.npy`."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("wb") as file:  # np.save would add an ending to a name without one
        np.save(file, values.numpy())
