"""Synthetic images on which a host proves at start-up that every critic sends a gradient."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.loss.critic_loss import CriticLoss

__all__ = ["probe"]


def probe(loss: CriticLoss, device: torch.device, side: int | None = None) -> tuple[Tensor, Tensor]:
    """Restored images and references, the same on every call, in the input range of the loss.

    The batch holds a smooth image judged against a noisy copy, and the copy judged against
    the image, mirrored: a term that compares scores (shape `hinge`) pays for one of the two.

    Args:
        loss: The loss to be proven.
        device: Where to put the images.
        side: Their side in pixels; if left out, the smallest one of which every term sees 64 and accepts what it sees.

    Returns:
        x and y, (2, 3, side, side).
    """
    cards = [term.critic.card for term in loss.terms]
    if side is None:
        step = math.lcm(*(card.multiple_of for card in cards))
        least = max([64, *(card.min_size for card in cards), *(term.spec.crop or 0 for term in loss.terms)])
        side = math.ceil(least / step) * step + loss.shift
    channels = max((card.channels for card in cards), default=3)
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.rand(1, channels, 9, 9, generator=generator, device="cpu")
    clean = 0.1 + 0.8 * F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    noise = torch.randn(clean.shape, generator=generator, device="cpu")
    noisy = (0.9 * F.avg_pool2d(clean, 5, 1, 2, count_include_pad=False) + 0.05 + 0.05 * noise).clamp(0, 1)
    low, high = loss.input_range
    # mirrored, or both batches would have the same mean, which is all that some losses see
    pairs = ((clean, noisy.flip(-1)), (noisy, clean.flip(-1)))
    x, y = (torch.cat(pair) * (high - low) + low for pair in pairs)
    return x.to(device), y.to(device)
