"""The quality map of a critic as constant pixel weights of another loss, so that no gradient of the critic is used."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.errors import InputError
from perceptloss.inputs import check_channels, check_roles

__all__ = ["pixel_weights"]


def pixel_weights(critic: Critic, x: Tensor, y: Tensor | None = None, *, floor: float = 0.0) -> Tensor:
    """How bad the critic finds every pixel, as constant weights with mean 1 per image.

    A restorer that is pulled harder where a critic sees errors can still only win by coming nearer to
    its target: the critic's own gradient, which it could exploit, is never used.

    A pixel's weight is proportional to how far the critic's map is there from its best value: the best
    score that the card allows, or the best value of this very image where there is no such bound or the
    map does not go the way of the score (`Critic.map_better`). An image that is equally good everywhere
    gets 1 everywhere. Maps that are smaller than the image are stretched bilinearly, so that weights may
    sit half a cell or window beside what they judge.

    Args:
        critic: Any critic with `maps`.
        x: Judged images, RGB in [0, 1], (N, 3, H, W); a gradient that they carry is not followed.
        y: References, same shape, for full-reference critics.
        floor: Share of the weight that all pixels have alike, in [0, 1]: with 0, pixels that the
            critic finds perfect count nothing.

    Returns:
        Weights >= 0, (N, 1, H, W), in the type of `x`, without a gradient.

    Raises:
        InputError: if the critic refuses the images, its map is not finite, or `floor` is outside [0, 1].
        PerceptlossError: if the critic has no map.

    Example:
        >>> x, y = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> weights = pixel_weights(create_critic("ssim"), x, y, floor=0.25)
        >>> loss = (weights * (x - y).abs()).mean()
        >>> loss.backward()
    """
    if not 0 <= floor <= 1:
        raise InputError(f"floor is a share of the weight and must lie in [0, 1], got {floor}.")
    check_channels(critic.card, "x", x)
    check_roles(x, y, "pixel_weights")
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        badness = _badness(critic, critic.maps(x, y))
    if not torch.isfinite(badness).all():
        raise InputError(f"critic {critic.card.name!r} gives a map that is not finite; no weights can be made of it.")
    badness = F.interpolate(badness, x.shape[-2:], mode="bilinear", align_corners=False)
    mean = badness.mean((1, 2, 3), keepdim=True)
    relative = torch.where(mean > 0, badness / torch.where(mean > 0, mean, 1), 1)
    return (floor + (1 - floor) * relative).to(x.dtype)


def _badness(critic: Critic, quality: Tensor) -> Tensor:
    """Distance of a map (N, 1, h, w) from its best value, >= 0."""
    card = critic.card
    sign, best = (-1, -card.bounds[1]) if critic.map_better == "higher" else (1, card.bounds[0])
    deficit = sign * quality
    is_bound = critic.map_better == card.better and math.isfinite(best)
    lowest: Tensor | float = best if is_bound else deficit.amin((1, 2, 3), keepdim=True)
    return F.relu(deficit - lowest)
