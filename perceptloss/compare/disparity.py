"""Whether restored stereo pairs still have the depth of their ground truth: disparity errors and warp errors.

A fixed matcher reads the disparity of a restored pair and of its ground truth, and the two are compared as maps of
disparity are: end-point error, and the shares of outliers of KITTI (Menze, Geiger, "Object Scene Flow for Autonomous
Vehicles", CVPR 2015). A point at column u of the left view with disparity d is at column u - d of the right one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import InputError, PerceptlossError

__all__ = ["DisparityErrors", "disparity_errors", "match_blocks", "visible", "warp_error", "warped"]

LARGEST = 192.0  # pixels; what is farther apart is not counted, as in the literature of stereo restoration
_OUTLIER, _SHARE = 3.0, 0.05  # of KITTI: more than 3 pixels, and more than 5 % of the true disparity
_BLOCK = 5  # of the matcher


@dataclass(frozen=True)
class DisparityErrors:
    """How a map of disparity differs from the true one.

    Attributes:
        epe: Mean absolute error, pixels (end-point error).
        d1: Share of errors of more than 3 pixels and more than 5 % of the true disparity.
        over1: Share of errors of more than 1 pixel.
        over2: Of more than 2 pixels.
        over3: Of more than 3 pixels.
        coverage: Share of the places with a true disparity at which one was found; the others are not counted.
    """

    epe: float
    d1: float
    over1: float
    over2: float
    over3: float
    coverage: float


def disparity_errors(
    found: Tensor, true: Tensor, *, mask: Tensor | None = None, largest: float = LARGEST
) -> DisparityErrors:
    """Compare maps of disparity.

    Args:
        found: Disparity, pixels, any shape; NaN where none was found.
        true: Of the same shape; what is not finite, not above 0, or not below `largest` is unknown.
        mask: Where to look besides, of the same shape; everywhere if left out.
        largest: See `true`.

    Raises:
        InputError: if the shapes differ, or no place has both.
    """
    if found.shape != true.shape or (mask is not None and mask.shape != true.shape):
        raise InputError(f"maps of disparity need one shape, got {tuple(found.shape)} and {tuple(true.shape)}.")
    known = torch.isfinite(true) & (true > 0) & (true < largest)
    known = known if mask is None else known & mask
    both = known & torch.isfinite(found)
    if not bool(both.any()):
        raise InputError("no place has both a true disparity and a found one: nothing can be compared.")
    apart, of = (found[both] - true[both]).abs().double(), true[both].double()
    over1, over2, over3 = (float((apart > limit).double().mean()) for limit in (1, 2, 3))
    d1 = float(((apart > _OUTLIER) & (apart > _SHARE * of)).double().mean())
    return DisparityErrors(float(apart.mean()), d1, over1, over2, over3, float(both.sum() / known.sum()))


def warped(right: Tensor, disparity: Tensor) -> Tensor:
    """The right view as the left camera would see it, by linear interpolation along the rows; differentiable.

    Args:
        right: (N, C, H, W).
        disparity: Of the left view, pixels, (N, H, W).

    Returns:
        (N, C, H, W); what lies outside is the border's.
    """
    width = right.shape[3]
    columns = (torch.arange(width, device=right.device) - disparity).clamp(0, width - 1)
    start = columns.floor().clamp(max=max(width - 2, 0))
    share = (columns - start)[:, None].to(right.dtype)
    index = start.long()[:, None].expand(-1, right.shape[1], -1, -1)
    first, second = right.gather(3, index), right.gather(3, (index + 1).clamp(max=width - 1))
    return first.lerp(second, share)


def visible(disparity: Tensor, slack: float = 1.0) -> Tensor:
    """Where the right view shows what the left one does: inside it, and not behind something nearer.

    Args:
        disparity: Of the left view, pixels, (N, H, W); places that are not finite are not visible.
        slack: Difference of disparity, in pixels, that is one surface.
    """
    n, height, width = disparity.shape
    known = torch.isfinite(disparity) & (disparity > 0)
    near = torch.where(known, disparity, 0)
    place = torch.arange(width, device=disparity.device) - near
    inside = known & (place >= 0) & (place <= width - 1)
    column = place.round().long().clamp(0, width - 1)
    front = torch.zeros_like(near).scatter_reduce(2, column, torch.where(inside, near, 0), "amax")
    nearest = F.max_pool1d(front.view(n * height, 1, width), 3, 1, 1).view_as(front)  # rounding leaves gaps
    return inside & (near >= nearest.gather(2, column) - slack)


def warp_error(left: Tensor, right: Tensor, disparity: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean |left - right warped to it| where both views show the same, (N,), differentiable in both views.

    Args:
        left: (N, C, H, W).
        right: Same shape.
        disparity: True one of the left view, pixels, (N, H, W).
        mask: Where to look, (N, H, W); `visible(disparity)` if left out.
    """
    mask = visible(disparity) if mask is None else mask
    apart = (left - warped(right, torch.where(mask, disparity, 0))).abs().mean(1)
    return (apart * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)


def match_blocks(pair: Tensor, largest: int = 64) -> Tensor:
    """Disparity of the left view of a pair by a fixed matcher: OpenCV's semi-global matching of blocks of 5x5 pixels.

    Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information", TPAMI 2008.

    Args:
        pair: Left RGB and right RGB in [0, 1], (6, H, W); compared as 8-bit images.
        largest: Disparities that are tried, a multiple of 16.

    Returns:
        Pixels, (H, W), in sixteenths; NaN where the matcher finds none or is not sure.

    Raises:
        InputError: if the pair is none, or `largest` no multiple of 16.
        PerceptlossError: if OpenCV is not installed.
    """
    if pair.ndim != 3 or pair.shape[0] != 6 or largest < 16 or largest % 16:
        raise InputError(
            f"match_blocks needs a pair (6, H, W) and a multiple of 16, got {tuple(pair.shape)} and largest={largest}."
        )
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise PerceptlossError("the matcher is OpenCV's: pip install opencv-python-headless") from error
    left, right = (
        (255 * view.detach().clamp(0, 1)).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
        for view in pair.split(3)
    )
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=largest,
        blockSize=_BLOCK,
        P1=8 * 3 * _BLOCK**2,
        P2=32 * 3 * _BLOCK**2,
        disp12MaxDiff=1,
        uniquenessRatio=5,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    found = torch.from_numpy(matcher.compute(left, right)).float() / 16
    return torch.where(found > 0, found, torch.nan)
