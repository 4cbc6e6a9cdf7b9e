"""Losses of latents: critics see what a decoder of yours makes of a random part of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perceptloss.errors import ConfigError, GradientError, InputError
from perceptloss.inputs import described
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.loss.terms import Terms

__all__ = ["LatentLoss"]

Decode = Callable[[Tensor], Tensor]


class LatentLoss(CriticLoss):
    """Weighted critics of decoded latents, differentiable in the latents.

    A decoder costs far more memory than critics: it is recomputed in the backward, and sees a random crop of the
    latents, so that between forward and backward only the crop and the gradient at its decoded pixels are held.

    Args:
        critics: As for `CriticLoss`.
        decode: From latents (N, C, h, w) to images (N, 3, scale h, scale w) in `input_range`, such as
            `lambda z: vae.decode(z / vae.config.scaling_factor).sample`. Its parameters are yours: freeze them.
        scale: Pixels along the side of a latent.
        crop: Side of the crop, in latents, at one place for the whole batch, anew in every step; None for all.
        margin: Latents around the crop that are decoded, too, and cut off, so that a decoder's edge is not judged.
        checkpointed: Whether the decoder is recomputed in the backward.
        input_range: Of the decoded images and of y.
        options: As for `CriticLoss`.

    Raises:
        ConfigError: with everything that is wrong.

    Example:
        >>> decode = torch.nn.ConvTranspose2d(4, 3, 8, stride=8).requires_grad_(False)
        >>> loss_fn = LatentLoss({"gmsd": 1.0}, decode, crop=8)
        >>> z = torch.randn(1, 4, 16, 16, requires_grad=True)
        >>> loss_fn(z, 2 * torch.rand(1, 3, 128, 128) - 1).backward()
    """

    def __init__(
        self,
        critics: Terms,
        decode: Decode,
        *,
        scale: int = 8,
        crop: int | None = None,
        margin: int = 0,
        checkpointed: bool = True,
        input_range: Sequence[float] = (-1, 1),
        **options: Any,
    ) -> None:
        super().__init__(critics, input_range=input_range, **options)
        least = {"scale": (scale, 1), "margin": (margin, 0)} | ({} if crop is None else {"crop": (crop, 1)})
        problems = [
            f"{name} must be a whole number of at least {low}, got {value!r}"
            for name, (value, low) in least.items()
            if not isinstance(value, int) or isinstance(value, bool) or value < low
        ]
        if not callable(decode):
            problems.append(f"decode must be a function of latents, got {decode!r}")
        if problems:
            raise ConfigError(problems, "LatentLoss")
        self._decoder = (decode,)  # hidden: it is no part of this module
        self.scale, self.crop, self.margin, self.checkpointed = scale, crop, margin, checkpointed

    def forward(self, x: Tensor, y: Tensor | None = None, *, step: int | None = None) -> Tensor:
        """The weighted loss, 0-d.

        Args:
            x: Latents, (N, C, h, w); may carry a gradient.
            y: Reference images, (N, 3, scale h, scale w), in `input_range`; may be left out if no term needs them.
            step: As for `CriticLoss`; decides the place of the crop, too.

        Raises:
            InputError: if latents, references or decoded images have other shapes.
            GradientError: if the decoder sends none to the latents.
        """
        return super().forward(*self._seen(x, y, step), step=step)

    def _seen(self, x: Tensor, y: Tensor | None, step: int | None) -> tuple[Tensor, Tensor | None]:
        """What the critics see of latents, decoded, and of the references."""
        self._check_latents(x, y)
        inner, whole = self._place(x, step)
        images = self._decoded(x[..., whole[0], whole[1]])
        start = [(i.start - w.start) * self.scale for i, w in zip(inner, whole, strict=True)]
        sides = [(i.stop - i.start) * self.scale for i in inner]
        images = images[..., start[0] : start[0] + sides[0], start[1] : start[1] + sides[1]]
        if y is not None:
            rows, columns = (slice(i.start * self.scale, i.stop * self.scale) for i in inner)
            y = y[..., rows, columns]
        return images, y

    def value_and_gradient(
        self, x: Tensor, y: Tensor | None = None, *, step: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The weighted loss and d loss / d latents, without a graph; see `CriticLoss`."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            value = self.forward(leaf, y, step=step)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    def learn(
        self,
        x: Tensor,
        y: Tensor,
        *,
        step: int | None = None,
        anchors: Mapping[str, tuple[Tensor, Tensor | None, Tensor]] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Let joint critics learn from a crop of the decoded latents; see `CriticLoss.learn`."""
        with torch.no_grad():
            images, references = self._seen(x.detach(), y, step)
        assert references is not None
        return super().learn(images, references, step=step, anchors=anchors)

    def _decoded(self, latents: Tensor) -> Tensor:
        (decode,) = self._decoder
        is_recomputed = self.checkpointed and latents.requires_grad and torch.is_grad_enabled()
        images = checkpoint(decode, latents, use_reentrant=False) if is_recomputed else decode(latents)
        wanted = (len(latents), 3, *(side * self.scale for side in latents.shape[-2:]))
        if not isinstance(images, Tensor) or images.shape != wanted:
            raise InputError(
                f"decode must turn latents {tuple(latents.shape)} into images {wanted} (scale {self.scale}), got "
                f"{described(images)}."
            )
        if latents.requires_grad and torch.is_grad_enabled() and not images.requires_grad:
            raise GradientError(
                "decode gave images without a gradient: call the decoder itself, not under torch.no_grad or "
                "inference_mode, and do not detach what it gives."
            )
        return images

    def _place(self, x: Tensor, step: int | None) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns of latents that are judged, and those that are decoded."""
        generator = torch.Generator().manual_seed((self.seed << 32) + (self._calls if step is None else int(step)))
        inner, whole = [], []
        for side in x.shape[-2:]:
            crop = side if self.crop is None else self.crop
            first = int(torch.randint(side - crop + 1, (), generator=generator, device="cpu"))
            inner.append(slice(first, first + crop))
            whole.append(slice(max(0, first - self.margin), min(side, first + crop + self.margin)))
        return (inner[0], inner[1]), (whole[0], whole[1])

    def _check_latents(self, x: Tensor, y: Tensor | None) -> None:
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
            raise InputError(f"LatentLoss needs latents of shape (N, C, h, w), got {described(x)}.")
        if self.crop is not None and self.crop > min(x.shape[-2:]):
            raise InputError(f"LatentLoss crops {self.crop}x{self.crop} latents, but there are {tuple(x.shape[-2:])}.")
        wanted = (len(x), *(side * self.scale for side in x.shape[-2:]))
        if y is not None and (not isinstance(y, Tensor) or y.ndim != 4 or (len(y), *y.shape[-2:]) != wanted):
            raise InputError(
                f"LatentLoss needs references of {wanted[1]}x{wanted[2]} pixels for latents {tuple(x.shape)}, got "
                f"{described(y)}."
            )
