"""VIF in the pixel domain: the share of the reference's information that the image still carries.

Sheikh, Bovik: "Image Information and Visual Quality", IEEE TIP 2006. Original:
https://live.ece.utexas.edu/research/Quality/VIF.htm (vifp_mscale); numbers follow
https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: window variances are centred,
because E[x^2] - E[x]^2 in float32 invents information in flat areas, and the gradient fades where
the reference is almost flat, by whose information the score is divided.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.card import FLAT, PIQ, similarity_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import YIQ, blur, gaussian, mix_channels, soften
from perceptloss.networks.windows import window_moments

__all__ = ["ENTRIES", "VIF", "vif"]

_NOISE = 2.0  # variance of the visual noise, 0-255 scale
_EPS = 1e-8  # variance below which a window is flat, and stabiliser of the ratio
_QUIET = 1e-3  # information of the reference per pixel, below which the gradient fades
_TAPS = (17, 9, 5, 3)


def _information(xx: Tensor, yy: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Information (log10) about the scene in the judged image and in the reference, each (N,)."""
    xx, yy = xx.relu(), yy.relu()
    gain = xy / (yy + _EPS)
    rest = xx - gain * xy
    seen, shown = yy >= _EPS, xx >= _EPS
    gain = torch.where(seen & shown, gain, 0)
    rest = torch.where(shown, torch.where(seen, rest, xx), 0)
    yy = torch.where(seen, yy, 0)
    rest = torch.where(gain >= 0, rest, xx)
    rest = torch.where(rest > _EPS, rest, _EPS)
    kept = torch.log10(1 + gain.relu().square() * yy / (rest + _NOISE))
    return kept.sum((1, 2, 3)), torch.log10(1 + yy / _NOISE).sum((1, 2, 3))


def vif(x: Tensor, y: Tensor) -> Tensor:
    r"""Pixel-domain VIF, 0 or more; 1 for equal images, above 1 where contrast is enhanced.

    .. math:: \frac{\sum \log(1 + g^2 \sigma_y^2 / (\sigma_v^2 + \sigma_n^2))}{\sum \log(1 + \sigma_y^2 / \sigma_n^2)}

    with the gain g and rest variance of x regressed on y in each window, over four scales.

    Args:
        x: Judged images, (N, 3, H, W), RGB in [0, 1], sides of at least 41.
        y: Reference images, same shape.

    Returns:
        One score per image, (N,).
    """
    x, y = (mix_channels(255 * image, YIQ[:1]) for image in (x, y))
    kept, given = torch.zeros_like(x[:, 0, 0, 0]), torch.zeros_like(x[:, 0, 0, 0])
    area = x[0].numel()
    for scale, taps in enumerate(_TAPS):
        window = gaussian(taps, taps / 5)
        if scale:
            x, y = (blur(image, window)[..., ::2, ::2] for image in (x, y))
        k, g = _information(*window_moments(x, y, window))
        kept, given = kept + k, given + g
    return soften((kept + _EPS) / (given + _EPS), given, _QUIET * area)


class VIF(Critic):
    """Visual information fidelity, 0 or more; higher is better, 1 for equal images.

    Example:
        >>> critic = create_critic("vif")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return vif(x, given(y))


_CARD = similarity_card(
    name="vif",
    summary="Share of the reference's visual information kept, in the pixel domain over four scales.",
    bounds=(0.0, float("inf")),
    shape="hinge",
    min_size=41,
    paper="Sheikh and Bovik, Image Information and Visual Quality, IEEE TIP 2006",
    source=f"{PIQ}; https://live.ece.utexas.edu/research/Quality/VIF.htm",
    notes=(
        "rewards contrast beyond the reference (a gain of 1.3 scores above 1): keep the hinge, which stops at 1",
        "not symmetric: the judged image comes first",
        "judges luminance only; a flat reference carries no information: score 1, no gradient",
        FLAT,
        "the gradient between equal images is not 0, because more contrast would score more",
    ),
)

ENTRIES = {"vif": Entry(_CARD, VIF)}
