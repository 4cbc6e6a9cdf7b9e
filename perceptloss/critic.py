"""The base of all critics: the input contract, frozen behaviour, and scoring."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from perceptloss.card import Card, Direction
from perceptloss.errors import InputError, PerceptlossError
from perceptloss.inputs import check_image, check_pixels, check_roles, usable
from perceptloss.weights.rules import Rule

__all__ = ["Area", "Critic", "Entry", "Overshoot", "Precision", "given", "options_text"]

Overshoot = Literal["pass", "clamp", "raise"]
Precision = Literal["fp32", "bf16", "fp16"]

C = TypeVar("C", bound="Critic")


@dataclass(frozen=True)
class Area:
    """The pixels of a tile that are its own: rows and columns, without the halo, which belongs to its neighbours.

    Attributes:
        rows: First and one after the last, which is None where the tile ends with the image.
        columns: As `rows`.
    """

    rows: tuple[int, int | None]
    columns: tuple[int, int | None]

    def of(self, cells: Tensor, stride: int = 1) -> Tensor:
        """The cells of a map, (..., h, w), that are the tile's own: cell i stands for the pixels from i * stride on."""
        (top, bottom), (left, right) = (
            (math.ceil(first / stride), None if last is None else math.ceil(last / stride))
            for first, last in (self.rows, self.columns)
        )
        return cells[..., top:bottom, left:right]


class Critic(nn.Module):
    """Scores images: `critic(x, y) -> (N,)` in natural units, differentiable in `x`.

    A critic is born frozen: its parameters do not require gradients, `train()` leaves it in
    evaluation mode, also when a parent module is switched, and `y` never receives a gradient.
    Subclasses give `card`, implement `score`, and list `rules` if they load weights.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    unused: ClassVar[tuple[str, ...]] = ()
    """Patterns that match, whole, the names of parameters that a published checkpoint holds but that the published
    score does not depend on."""
    map_direction: ClassVar[Direction | None] = None
    """Which way the quality map goes, for classes whose map does not go the way of the score."""
    overshoot: Overshoot = "raise"
    is_turned: bool = False
    options: Mapping[str, object] = MappingProxyType({})
    """What `create_critic` was asked for beside the defaults of the class; part of the signature."""
    hold_weights: bool = True
    """Whether learned pooling weights are constants of the gradient, so that a restorer cannot win by moving
    attention away from its errors. False gives the exact derivative of the score."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.is_frozen = True
        self.weights_id = "none" if not card.weights else "random"

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """One score per image, no input checks.

        Args:
            x: Judged images, RGB in [0, 1], (N, 3, H, W); (N, 6, H, W) for stereo.
            y: Reference images, same shape, for full-reference critics.

        Returns:
            Scores in natural units, (N,); never reduced over the batch, clamped or detached.
        """
        raise NotImplementedError

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """What relative losses read: the score before a flat end of the published head, if there is one, (N,)."""
        return self.score(x, y)

    def squash(self, linear: Tensor) -> Tensor:
        """The published, increasing end of the head: linear read-out to natural score."""
        return linear

    def read(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`score` and `linear` together."""
        linear = self.linear(x, y)
        return self.squash(linear), linear

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        """What a tile adds to the sums that a score is made of; for critics whose card says `exact`.

        Args:
            x: Tile of the judged images with `card.halo` pixels around it, (N, C, h, w).
            y: Tile of the references, same shape, or None.
            area: The part that is its own, cut at multiples of `card.stride`.

        Returns:
            Sums over that part, (N, K); those of all tiles of an image are added in float64.
        """
        own, reference = area.of(x), None if y is None else area.of(y)
        pixels = own.shape[-2:].numel()
        return torch.stack([self.score(own, reference) * pixels, own.new_full((len(x),), pixels)], 1)

    def settle(self, sums: Tensor) -> Tensor:
        """Scores (N,) from the sums of all tiles, (N, K)."""
        return sums[:, 0] / sums[:, 1]

    def held(self, weights: Tensor) -> Tensor:
        """Learned pooling weights as `hold_weights` wants them; a critic that learns must learn them too."""
        return weights.detach() if self.hold_weights and self.is_frozen else weights

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Check the inputs, then `score` outside autocast in the critic's own precision.

        Raises:
            InputError: if shape, size, type, device or range is not what the card says, a pixel is not finite, or x and
                y changed places.
        """
        x, y = self.admit(x, y)
        if len(x) == 0:
            return x.flatten(1).sum(1)
        with torch.autocast(x.device.type, enabled=False):
            return self.score(x, y)

    def admit(self, x: Tensor, y: Tensor | None = None, *, check_range: bool = True) -> tuple[Tensor, Tensor | None]:
        """Check a pair against the card and bring it to the critic's precision.

        Values outside [0, 1] are refused when scoring (`overshoot="raise"`), but pass through
        while `x` carries a gradient, because an unfinished restorer overshoots.

        Args:
            x: Judged images, (N, C, H, W).
            y: References, same shape, or None.
            check_range: Whether to look at the pixels, which waits for the device.
        """
        card = self.card
        if card.needs_reference and y is None:
            raise InputError(f"critic {card.name!r} compares with a reference: call it as critic(x, y).")
        check_image(card, "x", x)
        if y is not None:
            check_image(card, "y", y)
            check_roles(x, y, f"critic {card.name!r}")
            if y.shape != x.shape or y.device != x.device:
                raise InputError(
                    f"critic {card.name!r} needs x and y of one shape on one device, got "
                    f"{tuple(x.shape)} on {x.device} and {tuple(y.shape)} on {y.device}. Crop or resize before."
                )
            y = usable(y.detach())
        x = usable(x)
        if check_range:
            if y is not None:
                check_pixels(card, "y", y)
            check_pixels(card, "x", x, may_overshoot=self.overshoot != "raise" or x.requires_grad)
        if self.overshoot == "clamp":
            x = x.clamp(0, 1)
        return self._as_own_dtype(x), None if y is None else self._as_own_dtype(y)

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of its weights and constants; None for a critic that has none."""
        tensors = (*self.parameters(), *self.buffers())
        return next((t.dtype for t in tensors if t.is_floating_point()), None)

    def _as_own_dtype(self, image: Tensor) -> Tensor:
        own = self.dtype or torch.promote_types(image.dtype, torch.float32)
        if torch.promote_types(image.dtype, own) != own:
            raise InputError(
                f"critic {self.card.name!r} is {own} and would round the {image.dtype} images: call critic.double()."
            )
        return image.to(own)

    @property
    def signature(self) -> str:
        """The choices that change a score, for tables and papers."""
        from perceptloss import __version__

        precision = str(self.dtype or torch.float32).replace("torch.float", "fp")
        turned = f"|better:{self.card.better}" if self.is_turned else ""
        chosen = f"|options:{options_text(self.options)}" if self.options else ""
        return f"{self.card.name}|weights:{self.weights_id}{chosen}{turned}|rgb|{precision}|perceptloss:{__version__}"

    def turn(self, better: Direction) -> None:
        """Say which way the scores of these weights go: one network learns opinions (MOS) or their loss (DMOS).

        Raises:
            ValueError: if the card's shape does not go with the direction.
        """
        if better != self.card.better:
            self.card, self.is_turned = replace(self.card, better=better), not self.is_turned

    def as_published(self: C) -> C:
        """For reports: the published number to the last digit, where a critic is smoother by default."""
        return self

    def freeze(self: C) -> C:
        """Stop learning: no parameter asks for a gradient, evaluation mode for good."""
        self.is_frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def unfreeze(self: C) -> C:
        """Let the parameters learn (joint training); `train()` works again."""
        self.is_frozen = False
        self.requires_grad_(True)
        return self

    def train(self: C, mode: bool = True) -> C:
        """As in torch, but a frozen critic stays in evaluation mode."""
        return super().train(mode and not self.is_frozen)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.refreeze()
        return super().__call__(x, y)

    def refreeze(self) -> None:
        """Freeze again what was created or set free since `freeze`; nothing if the critic learns."""
        for parameter in self.parameters() if self.is_frozen else ():
            if parameter.requires_grad:
                parameter.requires_grad_(False)

    def maps(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The critic's own quality map, (N, 1, h, w), in its natural units, differentiable; see `has_maps`.

        `quality_map` of the class says what a cell covers. `map_better` says its direction.

        Raises:
            InputError: as when scoring.
            PerceptlossError: if the critic has none.
        """
        x, y = self.admit(x, y)
        with torch.autocast(x.device.type, enabled=False):
            return self.quality_map(x, y)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What `maps` gives, from checked images; subclasses that have a map implement it."""
        raise PerceptlossError(
            f"critic {self.card.name!r} has no quality map of its own; "
            "perceptloss.maps.attribution.attribution(critic, x, y) shows where its score comes from."
        )

    @property
    def has_maps(self) -> bool:
        """Whether `maps` gives a quality map; `perceptloss.maps.attribution` explains the score of any critic."""
        return type(self).quality_map is not Critic.quality_map

    @property
    def map_better(self) -> Direction:
        """Whether higher or lower values of `maps` are better: as for the score, unless the class says otherwise."""
        return self.map_direction or self.card.better


def given(y: Tensor | None) -> Tensor:
    """The reference of a critic that needs one, which `admit` has seen to."""
    assert y is not None
    return y


def options_text(options: Mapping[str, object]) -> str:
    """Options of a critic's class, sorted, as a signature has them."""
    return ";".join(
        f"{name}={json.dumps(value, default=str)}".replace('"', "") for name, value in sorted(options.items())
    )


@dataclass(frozen=True)
class Entry:
    """A row of the registry: the card, and how to build the critic with seeded random weights."""

    card: Card
    build: Callable[[Card], Critic]
