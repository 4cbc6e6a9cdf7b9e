"""Critics on parts of images, so that a small subject counts as much as what surrounds it.

After the region losses of SGUIE-Net (Qi et al., IEEE TIP 31, 2022), whose boxes these are: around each class of a
semantic map, but for boxes under 32 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.hidden import Hidden
from perceptloss.loss.terms import Terms

__all__ = ["SMALLEST", "Box", "RegionLoss", "boxes_of"]

SMALLEST = 32
"""Pixels; boxes that are narrower or lower are left out."""

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


def boxes_of(classes: Tensor, smallest: int = SMALLEST) -> list[list[Box]]:
    """Bounding boxes of the classes in each image, in the order of their numbers.

    Args:
        classes: Number of the class at each pixel, (N, 1, H, W); negative where there is none.
        smallest: Least width and height.
    """
    return [_boxes(image[0], smallest) for image in classes]


def _boxes(classes: Tensor, smallest: int) -> list[Box]:
    found = []
    for number in classes.unique().tolist():
        if number < 0:
            continue
        mask = classes == number
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
        if min(height, width) >= smallest:
            found.append((top, left, height, width))
    return found


class RegionLoss(Hidden):
    """A critic loss on each box: the mean over the boxes of an image, then over the images that have any.

    Args:
        critics: As for `CriticLoss`; with weights, not shares, and none that learns.
        options: More of `CriticLoss`, such as `on_nonfinite`.

    Raises:
        ConfigError: with everything that is wrong.

    Example:
        >>> from perceptloss.loss.regions import RegionLoss
        >>> loss_fn = RegionLoss({"gmsd": 1.0})
        >>> x = torch.rand(1, 3, 96, 96, requires_grad=True)
        >>> loss_fn(x, torch.rand(1, 3, 96, 96), [[(0, 0, 40, 48), (50, 40, 46, 46)]]).backward()
    """

    def __init__(self, critics: Terms, **options: Any) -> None:
        super().__init__()
        self.critics = CriticLoss(critics, share_every=0, **options)
        if learning := [f"{label}: a critic of regions does not learn" for label in self.critics.learners]:
            raise ConfigError(learning, "regions")
        cards = [term.critic.card for term in self.critics.terms]
        self.smallest = max(SMALLEST, *(card.min_size for card in cards))
        self.multiple = math.lcm(*(card.multiple_of for card in cards))

    def forward(self, x: Tensor, y: Tensor, boxes: Sequence[Iterable[Box]], *, step: int | None = None) -> Tensor:
        """The weighted loss; 0 if there is no box that every critic accepts.

        Args:
            x: Judged images, (N, 3, H, W); may carry a gradient, which is zero outside the boxes.
            y: References, same shape.
            boxes: Of each image; cut at the right and at the bottom to the multiple that critics need, and left out if
                they are under 32 pixels, or under what a critic needs.
            step: Training step, as for `CriticLoss`.

        Raises:
            InputError: if there are not as many lists of boxes as images.
        """
        if len(boxes) != len(x):
            raise InputError(f"regions: {len(x)} images, but {len(boxes)} lists of boxes.")
        means = []
        for image, truth, places in zip(x.split(1), y.split(1), boxes, strict=True):
            parts = [
                self.critics(image[..., rows, columns], truth[..., rows, columns], step=step)
                for rows, columns in map(self._cut, places)
                if min(rows.stop - rows.start, columns.stop - columns.start) >= self.smallest
            ]
            if parts:
                means.append(torch.stack(parts).mean())
        return torch.stack(means).mean() if means else x.new_zeros(())

    def _cut(self, box: Box) -> tuple[slice, slice]:
        top, left, height, width = box
        return (
            slice(top, top + height // self.multiple * self.multiple),
            slice(left, left + width // self.multiple * self.multiple),
        )

    def state(self) -> dict[str, Any]:
        """Of the critic loss."""
        return self.critics.state()

    def load_state(self, state: Any) -> None:
        """Go on from what `state` gave."""
        self.critics.load_state(state)
