"""White-box attacks on critics: small changes of a picture that push its score where the picture does not belong.

All are bounded in the largest change of a pixel, `eps`, and keep pictures in [0, 1]; nothing is rounded to 8 bits, so
that they are a little stronger than files can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

__all__ = ["ATTACKS", "STRENGTHS", "Attack", "Quality", "fgsm", "gradient", "mi_fgsm", "pgd"]

Quality = Callable[[Tensor, Tensor | None], Tensor]
"""Images and references in [0, 1], (N, C, H, W), to qualities (N,), higher is better."""

STRENGTHS: Final = (1, 2, 4, 8)
"""Largest changes of a pixel, in 1/255."""


def fgsm(quality: Quality, x: Tensor, y: Tensor | None, direction: Tensor, eps: float) -> Tensor:
    """One step of `eps` along the sign of the gradient.

    Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.

    Args:
        quality: Images and references to qualities.
        x: Images, (N, C, H, W), in [0, 1].
        y: References, same shape, or None.
        direction: 1 where the quality is to rise, -1 where it is to fall, (N,).
        eps: Largest change of a pixel.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1].
    """
    return (x + eps * gradient(quality, x, y, direction).sign()).clamp(0, 1)


def pgd(
    quality: Quality,
    x: Tensor,
    y: Tensor | None,
    direction: Tensor,
    eps: float | Tensor,
    steps: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Steps of `2.5 eps / steps` along the sign of the gradient, each brought back to within `eps`.

    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks", ICLR 2018.

    Args:
        quality: As in `fgsm`.
        x: As in `fgsm`.
        y: As in `fgsm`.
        direction: As in `fgsm`.
        eps: As in `fgsm`, or of each image, (N, 1, 1, 1).
        steps: Gradients.
        generator: Draws the start within `eps`, as the paper does; without it the start is the image.
    """
    attacked = x
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator).to(x) * 2 - 1
        attacked = (x + eps * noise).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + 2.5 * eps / steps * gradient(quality, attacked, y, direction).sign()
        attacked = _within(attacked, x, eps)
    return attacked


def mi_fgsm(
    quality: Quality,
    x: Tensor,
    y: Tensor | None,
    direction: Tensor,
    eps: float,
    steps: int = 10,
    decay: float = 1.0,
) -> Tensor:
    """Steps of `eps / steps` along the sign of a running sum of gradients, each of them of mean magnitude 1.

    Dong, Liao, Pang, Su, Zhu, Hu, Li, "Boosting adversarial attacks with momentum", CVPR 2018.

    Args:
        quality: As in `fgsm`.
        x: As in `fgsm`.
        y: As in `fgsm`.
        direction: As in `fgsm`.
        eps: As in `fgsm`.
        steps: Gradients.
        decay: Of the sum.
    """
    attacked, momentum = x, torch.zeros_like(x)
    for _ in range(steps):
        push = gradient(quality, attacked, y, direction)
        size = push.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        momentum = decay * momentum + push / size
        attacked = _within(attacked + eps / steps * momentum.sign(), x, eps)
    return attacked


def gradient(quality: Quality, x: Tensor, y: Tensor | None, direction: Tensor | float = 1.0) -> Tensor:
    """Gradient of `direction * quality` in the images, (N, C, H, W); zeros where the critic sends none."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        total = (direction * quality(x, y)).sum()
        if not total.requires_grad:
            return torch.zeros_like(x)
        return torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)[0]


def _within(attacked: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    return torch.minimum(torch.maximum(attacked, x - eps), x + eps).clamp(0, 1)


Attack = Callable[..., Tensor]
ATTACKS: Final[dict[str, Attack]] = {"FGSM": fgsm, "PGD-10": pgd, "MI-FGSM": mi_fgsm}
