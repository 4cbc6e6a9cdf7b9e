"""Where a critic's score comes from, pixel by pixel, for critics that have no quality map of their own.

With a start, integrated gradients (Sundararajan, Taly, Yan: "Axiomatic Attribution for Deep
Networks", ICML 2017) along the straight line from there to the image; without one, the size of the
gradient. Neither is a quality map: it explains a number, it does not judge a place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.errors import InputError
from perceptloss.inputs import check_channels, check_roles
from perceptloss.networks.functional import blur, gaussian

__all__ = ["attribution", "sensitivity"]

_WINDOW = gaussian(11, 1.5)


def attribution(critic: Critic, x: Tensor, y: Tensor | None = None, *, steps: int = 8) -> Tensor:
    r"""Share of every pixel in the difference of the scores of `x` and `y`, in units of the score.

    .. math:: a = \sum_c (x - y) \int_0^1 \nabla s(y + t (x - y)) \, dt

    s is the score, against `y` for a full-reference critic, of the image alone for others. Gauss-Legendre
    nodes make the integral. Properties:

    - complete: the sum over pixels is score(x) - score(y), up to the error of the integral, which is
      small for smooth scores and grows where s has kinks or, as PSNR, a pole near equal images; compare
      the two where it matters. For a full-reference critic, score(y) is that of equal images.
    - exactly 0 at pixels where image and start are equal, however visible the damage around them is.
    - positive where the change raises the score; the critic's card says whether that is better.
    - of changed pixels it says how they work together: an edge moved by a pixel is charged to
      both places, and parts of one damage may have different signs.

    Without `y`, a no-reference critic has nothing to be different from: the answer is `sensitivity`.

    Args:
        critic: What scores. Learned pooling weights are differentiated too, else parts would be missing.
        x: Judged images, (N, 3, H, W) in [0, 1]; six channels for a stereo pair, whose views are added up.
        y: References; for a no-reference critic the images to start from, or None.
        steps: Nodes of the integral, each one forward and one backward pass.

    Returns:
        The map, (N, 1, H, W), detached; the same each time, and for each image the same in any batch.

    Raises:
        InputError: if the critic refuses the images, or `steps` is not positive.

    Example:
        >>> critic = create_critic("dists")
        >>> where = attribution(critic, x, y)
        >>> where.sum((1, 2, 3)), critic(x, y) - critic(y, y)
    """
    if steps < 1:
        raise InputError(f"attribution needs one step or more, got {steps}.")
    for name, image in (("x", x), *([] if y is None else [("y", y)])):
        check_channels(critic.card, name, image)
    check_roles(x, y, "attribution")
    x, start = critic.admit(x.detach(), None if y is None else y.detach())
    if start is None:
        return sensitivity(critic, x)
    reference = start if critic.card.needs_reference else None
    difference, total = x - start, torch.zeros_like(x)
    places, shares = leggauss(steps)  # on [-1, 1]
    with _exact(critic):
        for place, share in zip(((places + 1) / 2).tolist(), (shares / 2).tolist(), strict=True):
            total += share * _slope(critic, lambda point: critic(point, reference), start + place * difference)
    return (difference * total).sum(1, keepdim=True)


def sensitivity(critic: Critic, x: Tensor) -> Tensor:
    r"""Size of the gradient of a no-reference score around every pixel, 0 or more; says neither good nor bad.

    .. math:: a = G * \sqrt{\sum_c (\partial s / \partial x_c)^2}

    In units of the score per unit of intensity. G is a Gaussian of 11 pixels, sigma 1.5, that loses nothing at the
    borders: the sum over the map is that of the slopes. s is read before a saturating end of the head,
    whose slope may be 0.

    Args:
        critic: What scores without a reference.
        x: Judged images, (N, 3, H, W) in [0, 1].

    Returns:
        The map, (N, 1, H, W), detached.
    """
    check_channels(critic.card, "x", x)
    x, _ = critic.admit(x.detach())

    def score(point: Tensor) -> Tensor:
        with torch.autocast(point.device.type, enabled=False):
            return critic.linear(point)

    critic.refreeze()
    with _exact(critic):
        slope = torch.linalg.vector_norm(_slope(critic, score, x), dim=1, keepdim=True)
    return _spread(slope) if slope.any() else slope


def _slope(critic: Critic, score: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Gradient of each image's own score."""
    if critic.card.couples_batch and len(point) > 1:
        raise InputError(f"critic {critic.card.name!r} scores a batch together: give one image at a time.")
    with torch.inference_mode(False), torch.enable_grad():
        leaf = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    return gradient


@contextmanager
def _exact(critic: Critic) -> Iterator[None]:
    """Meanwhile the gradient is that of the score, pooling weights included."""
    held, critic.hold_weights = critic.hold_weights, False
    try:
        yield
    finally:
        critic.hold_weights = held


def _spread(values: Tensor) -> Tensor:
    """Gaussian blur that keeps the sum: what would fall off the border is shared out inside."""
    pad = (len(_WINDOW) // 2,) * 4
    kept = blur(F.pad(torch.ones_like(values), pad), _WINDOW)
    return blur(F.pad(values / kept, pad), _WINDOW)
