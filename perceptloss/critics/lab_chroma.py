"""lab-chroma: how far colours are from those of the reference once detail is smoothed away.

CIE 1976 L*a*b* of sRGB (IEC 61966-2-1) with the white of D65. Where the cube root would be steep CIE's own line stands,
so that the gradient is bounded, on black too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.filters import mix_channels
from perceptloss.networks.functional import root_above

__all__ = ["ENTRIES", "LabChroma", "chroma"]

_WHITE = (0.95047, 1.0, 1.08883)
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_KNEE = 6 / 29
_AB = ((500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
_SIDE = 8  # of the mean, pixels
_FLOOR = 0.25  # of Lab units: differences below are of no interest


def chroma(image: Tensor) -> Tensor:
    """a* and b* of sRGB images (N, 3, H, W) in [0, 1], which may overshoot: (N, 2, H, W), about -100 to 100."""
    light = torch.where(image > 0.04045, ((image.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, image / 12.92)
    rows = [[weight / white for weight in row] for row, white in zip(_XYZ, _WHITE, strict=True)]
    xyz = mix_channels(light, rows)
    curved = xyz.clamp_min(_KNEE**3) ** (1 / 3)
    return mix_channels(torch.where(xyz > _KNEE**3, curved, xyz / (3 * _KNEE**2) + 4 / 29), _AB)


class LabChroma(Critic):
    """Mean distance of smoothed a* and b*, in Lab units; 0 or more, about 1 is what one sees side by side.

    Args:
        card: What it is.
        side: Of the means that smooth, pixels; a quarter of it lies between neighbours.

    Raises:
        ConfigError: if the side is none.

    Example:
        >>> critic = create_critic("lab-chroma")
        >>> x, y = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> critic(x, y).sum().backward()
    """

    def __init__(self, card: Card, *, side: int = _SIDE) -> None:
        if side < 1:
            raise ConfigError([f"options.side must be a whole number of at least 1, got {side!r}"], card.name)
        super().__init__(card)
        self.side = side

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        apart = chroma(x) - chroma(given(y))
        sides = [min(self.side, n) for n in apart.shape[2:]]
        means = F.avg_pool2d(apart, sides, [max(1, n // 4) for n in sides], ceil_mode=True, count_include_pad=False)
        return root_above(means.square().sum(1), _FLOOR).mean((1, 2))


_CARD = distance_card(
    name="lab-chroma",
    summary="Distance of smoothed colours in CIE Lab: keeps a restorer from drifting in hue and saturation.",
    min_size=1,
    fidelity="paper",
    licence_code="Apache-2.0 (ours)",
    paper="CIE 15: Colorimetry, 3rd edition, 2004 (L*a*b* of 1976)",
    source="perceptloss; kornia's rgb_to_lab gives the same a* and b*",
    notes=(
        "made to stand beside others: it sees neither luminance nor detail",
        "light is smoothed after the conversion, as Lab is not linear",
    ),
)

ENTRIES = {"lab-chroma": Entry(_CARD, LabChroma)}
