"""Losses of clips: every frame is judged by the critics, and how frames change is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.inputs import described
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.terms import Terms

__all__ = ["ClipLoss", "flicker", "frames"]


def frames(images: Tensor) -> Tensor:
    """Clips (N, T, C, H, W) as images (N T, C, H, W); what is none as it is."""
    return images.flatten(0, 1) if isinstance(images, Tensor) and images.ndim == 5 else images


def flicker(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of what changes from frame to frame: flicker costs, and motion that is there does not.

    Nothing is warped, so that it needs no flow and judges what is there at each pixel: a still background that
    trembles, a texture that swims.

    Args:
        x: Restored clips, (N, T, C, H, W).
        y: References, same shape.

    Returns:
        A 0-d tensor, in fp32 or better; 0 for clips of one frame.
    """
    apart = (x - y).to(torch.promote_types(x.dtype, torch.float32)).diff(dim=1)
    return apart.abs().mean() if apart.numel() else apart.sum()


class ClipLoss(CriticLoss):
    """Weighted critics of the frames of clips, averaged over them, and a weight of flicker.

    The frames of a batch are one batch of images: micro-batches, shared trunks and crops (one place for all frames)
    are as in `CriticLoss`, and with `grad="fused"` a long clip needs no more memory than its own gradient.

    Args:
        critics: As for `CriticLoss`.
        temporal: Weight of `flicker`, in units of [0, 1] whatever `input_range` is; 0 leaves it out.
        options: As for `CriticLoss`.

    Raises:
        ConfigError: with everything that is wrong.

    Example:
        >>> loss_fn = ClipLoss({"gmsd": 1.0}, temporal=0.5)
        >>> x = torch.rand(2, 3, 3, 64, 64, requires_grad=True)
        >>> loss_fn(x, torch.rand(2, 3, 3, 64, 64)).backward()
    """

    def __init__(self, critics: Terms, *, temporal: float = 0.0, **options: Any) -> None:
        super().__init__(critics, **options)
        is_number = isinstance(temporal, (int, float)) and not isinstance(temporal, bool)
        if not (is_number and 0 <= temporal < math.inf):
            raise ConfigError([f"temporal must be a number of at least 0, got {temporal!r}"], "ClipLoss")
        self.temporal = float(temporal)

    def forward(self, x: Tensor, y: Tensor | None = None, *, step: int | None = None) -> Tensor:
        """The weighted loss, 0-d.

        Args:
            x: Restored clips, (N, T, 3, H, W), in `input_range`; may carry a gradient.
            y: References, same shape; may be left out if no term and no weight of flicker needs them.
            step: As for `CriticLoss`.

        Raises:
            InputError: if these are no clips, or a critic does not accept their frames.
        """
        self._check_clips(x, y)
        loss = super().forward(frames(x), None if y is None else frames(y), step=step)
        return loss + self._flicker(x, y.detach()) if self.temporal and y is not None else loss

    def value_and_gradient(
        self, x: Tensor, y: Tensor | None = None, *, step: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weighted loss and d loss / d x, shaped like x, without a graph; see `CriticLoss`."""
        self._check_clips(x, y)
        value, gradient = super().value_and_gradient(frames(x), None if y is None else frames(y), step=step)
        gradient = gradient.reshape(x.shape)
        if not self.temporal or y is None:
            return value, gradient
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            extra = self._flicker(leaf, y.detach().clone())
            (slope,) = torch.autograd.grad(extra, leaf)
        return value + extra.detach(), gradient + slope

    def learn(
        self,
        x: Tensor,
        y: Tensor,
        *,
        step: int | None = None,
        anchors: Mapping[str, tuple[Tensor, Tensor | None, Tensor]] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Let joint critics learn from the frames; see `CriticLoss.learn`."""
        return super().learn(frames(x), frames(y), step=step, anchors=anchors)

    def _flicker(self, x: Tensor, y: Tensor) -> Tensor:
        """Weighted; nothing where a pixel is not finite, as critics pass over such batches."""
        low, high = self.input_range
        is_finite = x.isfinite().all() & y.isfinite().all()
        x, y = torch.where(is_finite, x, 0), torch.where(is_finite, y, 0)
        return self.temporal / (high - low) * flicker(x, y)

    def _check_clips(self, x: Tensor, y: Tensor | None) -> None:
        for name, clip in (("x", x), ("y", y)):
            if clip is not None and (not isinstance(clip, Tensor) or clip.ndim != 5):
                raise InputError(f"ClipLoss needs {name} of shape (N, T, 3, H, W), got {described(clip)}.")
        if y is None and self.temporal:
            raise InputError("flicker is compared with that of the reference: give y, or temporal=0.")
        if y is not None and x.shape != y.shape:
            raise InputError(f"ClipLoss needs x and y of one shape, got {tuple(x.shape)} and {tuple(y.shape)}.")
