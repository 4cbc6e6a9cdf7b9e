"""Which places of two rectified views belong together, found by windows of pixels: nothing is learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.networks.functional import LUMA, mix_channels
from perceptloss.networks.parallax import row_scores

__all__ = ["WINDOW", "correspondence", "signs"]

WINDOW = 7
"""Side of the windows by which places are told apart, pixels."""
_LIKE = 0.5  # correlation from which two places are alike
_SLACK = 1.0  # pixels by which a place may miss itself when it comes back
_LITTLE = 1e-5  # variance of a window that shows nothing


def signs(image: Tensor) -> Tensor:
    """What tells places apart: windows of the luma with mean 0 and length at most 1, (N, 3, H, W) to (N, 49, H, W)."""
    luma = mix_channels(image, (LUMA,))
    half = WINDOW // 2
    windows = F.unfold(F.pad(luma, (half,) * 4, mode="replicate"), WINDOW).unflatten(2, image.shape[2:])
    windows = windows - windows.mean(1, keepdim=True)
    return windows / (windows.square().sum(1, keepdim=True) + _LITTLE * WINDOW**2).sqrt()


def _best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Column of the largest score of each row (..., W), to a fraction by the parabola through it, and that score."""
    width = scores.shape[-1]
    top, index = scores.max(-1)
    middle = index.clamp(1, width - 2)
    before, at, after = (scores.gather(-1, (middle + step)[..., None])[..., 0] for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp_max(-1e-6)
    fraction = (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    return torch.where(middle == index, index + fraction, index.to(fraction)), top


def correspondence(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the places of two rectified views lie in each other, and whether that is sure.

    Args:
        left: Signs of the left view, as of `signs`, (N, C, H, W).
        right: Of the right view, same shape.

    Returns:
        Column of each place of the left view in the right one, and the other way, (N, H, W) each; and for each view
        whether a place is found, is like what is found there, and comes back to where it was, (N, H, W) of zeros and
        ones.
    """
    scores = row_scores(left, right)
    in_right, like_left = _best(scores)
    in_left, like_right = _best(scores.mT)
    columns = torch.arange(left.shape[3], device=left.device)
    sure = [
        ((other.gather(2, here.round().long()) - columns).abs() <= _SLACK) & (like > _LIKE)
        for here, other, like in ((in_right, in_left, like_left), (in_left, in_right, like_right))
    ]
    return in_right, in_left, sure[0].to(left.dtype), sure[1].to(left.dtype)
