r"""SSIMULACRA 2: structure, ringing and blur of perceptual colours at six scales, weighted as opinions ask.

Sneyers: "SSIMULACRA 2", Cloudinary 2022. Original: https://github.com/cloudinary/ssimulacra2 (BSD-3-Clause);
numbers follow the package ssimulacra2 0.3.0 (BSD-3-Clause). Ours: gradients, which stay finite and
bounded where an error vanishes.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import FLAT, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.functional import blur, bounded_power, gaussian, mix_channels, root
from perceptloss.networks.pointwise import power_above

__all__ = ["ENTRIES", "SSIMULACRA2", "WEIGHTS", "errors", "ssimulacra2", "xyb"]

_ABSORBANCE = (
    (0.3, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 1 - 0.24342268924547819 - 0.20476744424496821),
)
_BIAS = 0.0037930732552754493
_ROOT: Final = float(_BIAS ** (1 / 3))
_OPPONENT = ((7.0, -7.0, 0.0), (0.5, 0.5, 0.0), (-0.5, -0.5, 1.0))
_OFFSET = (0.42, 0.01 - _ROOT, 0.55)
_SCALES, _LEAST = 6, 8  # pixels of the smallest scale that is looked at
_WINDOW = gaussian(11, 1.5)
_C = 0.0009
_BEND = 1e-3  # weighted error below which the last power is a line, for the slope only

# of mean and 4-norm of (structure, ringing, blur), six scales of X, then of Y and of B - Y
WEIGHTS: Final = (
    *(0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0),
    *(0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752),
    *(0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0),
    *(0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0),
    *(0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884, 0.9981766977854967),
    *(0.00031949755934435053, 0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0),
    *(0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262),
    *(0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264),
    *(225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985),
    *(176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408),
    *(0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    *(0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0),
    *(0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0),
    *(0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0),
    *(0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0),
    *(95.1080498811086, 0.9863978034400682, 0.9834382792465353, 0.0012286405048278493, 171.2667255897307),
    *(0.9807858872435379, 0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537),
)


def xyb(light: Tensor) -> Tensor:
    """Perceptual colours X, Y, B - Y, moved above 0, of linear RGB, both (N, 3, H, W)."""
    seen = (mix_channels(light, _ABSORBANCE) + _BIAS).relu()
    mixed = mix_channels(bounded_power(seen, 1 / 3, _BIAS), _OPPONENT)
    return mixed + mixed.new_tensor(_OFFSET).view(3, 1, 1)


def _blurred(image: Tensor) -> Tensor:
    """Gaussian means; outside the image lie zeros left and right, and mirrored rows above and below."""
    r = len(_WINDOW) // 2
    rows = torch.cat([image[..., :r, :].flip(-2), image, image[..., -r:, :].flip(-2)], -2)
    return blur(F.pad(rows, (r, r)), _WINDOW)


def _pooled(error: Tensor) -> list[Tensor]:
    """Mean and 4-norm of an error map >= 0, (N, 3, h, w) to two of (N, 3)."""
    most = error.detach().amax((2, 3), keepdim=True).clamp_min(torch.finfo(error.dtype).tiny)
    fourth = (error / most).square().square().mean((2, 3))
    return [error.mean((2, 3)), most[..., 0, 0] * root(root(fourth))]


def errors(x: Tensor, y: Tensor) -> Tensor:
    """Mean and 4-norm of the loss of structure, of ringing and of blur, one scale: (N, 3, h, w) to (N, 3, 6)."""
    mx, my = _blurred(x), _blurred(y)
    lost, both = (mx - my).square(), _blurred(x * y) - mx * my
    apart = _blurred((x - y).square()) - lost  # both variances less twice the covariance
    # 1 - (1 - lost) (2 both + C) / (variances + C), without the difference of numbers that are nearly equal
    structure = (apart + lost * (2 * both + _C)) / (apart + 2 * both + _C)
    ahead, behind = (x - mx).abs(), (y - my).abs()
    edges = (ahead - behind) / (1 + behind)
    found = [_pooled(error.relu()) for error in (structure, edges, -edges)]
    return torch.stack([norms[n] for n in range(2) for norms in found], -1)


def ssimulacra2(x: Tensor, y: Tensor) -> Tensor:
    """SSIMULACRA 2, 100 for equal images; higher is better, below 0 happens.

    Args:
        x: Judged images, (N, 3, H, W), sRGB in [0, 1], sides of at least 8.
        y: Reference images, same shape.

    Returns:
        One score per image, (N,).
    """
    x, y = (power_above(i, 0.04045, 2.4, (1 / 1.055, 0.055 / 1.055), (1 / 12.92, 0.0)) for i in (x, y))
    found: list[Tensor] = []
    while len(found) < _SCALES and min(x.shape[2:]) >= _LEAST:
        found.append(errors(xyb(x), xyb(y)))
        x, y = (F.avg_pool2d(light, 2, ceil_mode=True) for light in (x, y))
    terms = torch.stack(found, 2).flatten(1)
    # with fewer scales than six the weights are read on without a gap, as the original does
    error = 0.9562382616834844 * (terms * terms.new_tensor(WEIGHTS[: terms.shape[1]])).sum(1)
    bent = ((6.248496625763138e-05 * error - 0.020884521182843837) * error + 2.326765642916932) * error
    return 100 - 10 * bounded_power(bent, 0.6276336467831387, _BEND)


class SSIMULACRA2(Critic):
    """SSIMULACRA 2; higher is better, 100 for equal images, 90 is visually lossless, 50 medium, 10 very low.

    Example:
        >>> critic = create_critic("ssimulacra2")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> (100 - critic(x, torch.rand(2, 3, 64, 64))).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return ssimulacra2(x, given(y))


_CARD = distance_card(
    name="ssimulacra2",
    summary="Structure, ringing and blur at six scales of perceptual colours; made for judging compression.",
    better="higher",
    bounds=(-math.inf, 100.0),
    identity=100.0,
    shape="hinge",
    min_size=_LEAST,
    tiling="never",
    fidelity="paper",
    licence_code="BSD-3-Clause",
    paper="Sneyers, SSIMULACRA 2, Cloudinary 2022",
    source="https://github.com/cloudinary/ssimulacra2; the package ssimulacra2 0.3.0 (BSD-3-Clause)",
    notes=(
        "as the Python package of this name, which mirrors rows and sets zeros beside columns; other ports "
        "treat the edges of the image otherwise",
        "scales below 8 pixels are left out, so six need sides of 225 pixels, and scores of small crops do not compare "
        "with those of whole images",
        "fitted to opinions of compressed photographs near the reference; far from it the scale is stretched",
        FLAT,
    ),
)

ENTRIES = {"ssimulacra2": Entry(_CARD, SSIMULACRA2)}
