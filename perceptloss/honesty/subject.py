"""What the doctor examines: a critic as a quality that should rise, photographs, and the unit of gains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.errors import InputError
from perceptloss.honesty.attacks import ATTACKS, STRENGTHS
from perceptloss.honesty.attacks import gradient as gradient_of
from perceptloss.honesty.ladders import LADDERS, degraded, enlarged

__all__ = ["EFFORTS", "Effort", "EffortName", "Subject", "side_for", "subject_of"]

EffortName = Literal["quick", "standard", "full"]
_SHIFT: Final = 4  # pixels between the views of a stereo pair
_FINEST: Final = 8  # largest factor of pixelation, of which sides are multiples


@dataclass(frozen=True)
class Effort:
    """How much is looked at: most photographs, least side in pixels, attacks, and their strengths in 1/255."""

    photos: int
    side: int
    attacks: tuple[str, ...] = tuple(ATTACKS)
    strengths: tuple[int, ...] = STRENGTHS


EFFORTS: Final[dict[EffortName, Effort]] = {
    "quick": Effort(2, 96, ("FGSM", "PGD-10"), (2, 8)),
    "standard": Effort(3, 128),
    "full": Effort(8, 192),
}


@dataclass(frozen=True)
class Subject:
    """A critic with the photographs that it is examined on.

    Attributes:
        critic: Frozen.
        y: Photographs, (N, C, H, W), in [0, 1].
        restored: The same, shrunk by 4 and enlarged again.
        unit: How far the qualities of the photographs lie above those of the degraded versions that it likes least (if
            it likes all of them better, how far below at most); 0 if all are alike.
    """

    critic: Critic
    y: Tensor
    restored: Tensor
    unit: float = 0.0

    def quality(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What a loss of the card's shape reads, turned so that higher is better, (N,)."""
        card = self.critic.card
        y = y if card.needs_reference else None
        if card.couples_batch and len(x) > 1:
            alone = [self.quality(x[i : i + 1], None if y is None else y[i : i + 1]) for i in range(len(x))]
            return torch.cat(alone)
        self.critic.refreeze()
        x, y = self.critic.admit(x, y)
        read = self.critic.score if card.shape in ("distance", "deficit") else self.critic.linear
        with torch.autocast(x.device.type, enabled=False):
            return read(x, y) if card.better == "higher" else -read(x, y)

    def of(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Qualities of images, against the photographs unless `y` is given, without a graph, (N,), float64."""
        with torch.no_grad():
            return self.quality(x, self.y if y is None else y).double()

    def gain(self, x: Tensor, start: Tensor) -> float:
        """Mean rise of the quality from `start` to `x`, in units; 0 without a unit."""
        return float((self.of(x) - self.of(start)).mean()) / self.unit if self.unit else 0.0

    def gradient(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Gradient of the quality in `x`, of its shape."""
        return gradient_of(self.quality, x, self.y if y is None else y)


def side_for(card: Card, least: int) -> int:
    """Side of squares, at least `least`, that a critic accepts and that pixelation divides."""
    step = math.lcm(card.multiple_of, _FINEST)
    return -(-max(least, card.min_size) // step) * step


def subject_of(critic: Critic, photos: Mapping[str, Tensor], effort: Effort, device: torch.device) -> Subject:
    """Cut the photographs to what the critic accepts, and find the unit of gains.

    Args:
        critic: Frozen, on the device.
        photos: Name to image, (1, 3, H, W), in [0, 1]; the first of them, as many as the effort says.
        effort: How much is looked at.
        device: Where it is done.

    Raises:
        InputError: listing photographs that are too small.
    """
    card = critic.card
    stereo = card.channels == 6
    side = side_for(card, effort.side)
    chosen = dict(list(photos.items())[: effort.photos])
    y = _squares(chosen, side, _SHIFT if stereo else 0, card.name).to(device)
    if stereo:
        y = torch.cat([y[..., _SHIFT:], y[..., :-_SHIFT]], 1)
    found = Subject(critic, y, enlarged(y, 4))
    best = found.of(y)
    spreads = [float((best - found.of(degraded(kind, y, levels[-1]))).mean()) for kind, levels in LADDERS.items()]
    unit = max(spreads) if max(spreads) > 0 else max(map(abs, spreads))
    is_seen = math.isfinite(unit) and unit > 1e-9 * max(1.0, float(best.abs().mean()))
    return Subject(critic, y, found.restored, unit if is_seen else 0.0)


def _squares(photos: Mapping[str, Tensor], side: int, more: int, who: str) -> Tensor:
    """Middles of photographs, shrunk by 2 before where that leaves enough, (N, 3, side, side + more)."""
    height, width = side, side + more
    problems, found = [], []
    for name, photo in photos.items():
        factor = min(2.0, photo.shape[-2] / height, photo.shape[-1] / width)
        if factor < 1:
            problems.append(f"{name} is {photo.shape[-2]}x{photo.shape[-1]}")
            continue
        size = [max(least, int(n / factor)) for n, least in zip(photo.shape[-2:], (height, width), strict=True)]
        small = photo if factor == 1 else F.interpolate(photo, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        found.append(small[..., top : top + height, left : left + width])
    if problems or not found:
        came = ", ".join(problems) or "none came"
        raise InputError(f"{who} is examined on photographs of at least {height}x{width} pixels, but {came}.")
    return torch.cat(found)
