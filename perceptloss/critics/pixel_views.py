"""luma, chroma, box-shrunk and bicubic-shrunk: pixel losses of images whose colour or detail is taken away.

The terms `lumaloss`, `colorloss`, `averageloss` and `bicubicloss` of traiNNer-redux
(https://github.com/the-database/traiNNer-redux, Apache-2.0), written from their facts. Ours: lightness follows the
line of the CIE in the dark, where theirs is squared; nothing is clamped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.colour import cie_curve, light
from perceptloss.networks.criteria import Criterion, apart, known_criterion, least_of
from perceptloss.networks.functional import gaussian, mix_channels, slide

__all__ = ["ENTRIES", "PixelView"]

View = Literal["luma", "chroma", "box-shrunk", "bicubic-shrunk"]
_Y = (0.2126, 0.7152, 0.0722)
_CBCR = (
    (-37.797 / 255, -74.203 / 255, 112.0 / 255),
    (112.0 / 255, -93.786 / 255, -18.214 / 255),
)
_SOFT = gaussian(5, 0.5)


def _luma(image: Tensor, scale: int) -> Tensor:
    return 1.16 * cie_curve(mix_channels(light(image), (_Y,))) - 0.16


def _chroma(image: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(mix_channels(image, _CBCR), scale)


def _average(image: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(image, scale)


def _bicubic(image: Tensor, scale: int) -> Tensor:
    size = [side // scale for side in image.shape[-2:]]
    small = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
    return slide(slide(F.pad(small, (2, 2, 2, 2), mode="reflect"), _SOFT, -1), _SOFT, -2)


_VIEWS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "luma": _luma,
    "chroma": _chroma,
    "box-shrunk": _average,
    "bicubic-shrunk": _bicubic,
}


class PixelView(Critic):
    """Mean distance of a view of two images; lower is better, 0 for equal images.

    Args:
        card: What it is.
        view: `luma` (CIE L* in [0, 1]), `chroma` (Cb and Cr, averaged), `box-shrunk` or `bicubic-shrunk`.
        scale: By which the view is smaller; `luma` keeps the size.
        criterion: Of the distance: `l1`, `l2`, `huber`, `charbonnier` or `clipped`.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("luma")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    def __init__(self, card: Card, *, view: View, scale: int = 4, criterion: Criterion = "l1") -> None:
        if not isinstance(scale, int) or scale < 1:
            raise ConfigError([f"options.scale must be a whole number of at least 1, got {scale!r}"], card.name)
        self.criterion, self.view, self.scale = known_criterion(criterion, card.name), view, scale
        least = least_of(self.criterion)
        side = {"luma": 1, "bicubic-shrunk": 3 * scale}.get(view, scale)
        super().__init__(replace(card, min_size=side, identity=least, bounds=(least, card.bounds[1])))

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = (_VIEWS[self.view](image, self.scale) for image in (x, given(y)))
        return apart(x, y, self.criterion).mean((1, 2, 3))


def _entry(view: View, summary: str, size: int, note: str) -> Entry:
    card = distance_card(
        name=view,
        summary=summary,
        min_size=size,
        tiling="exact" if view == "luma" else "approximate",
        fidelity="paper",
        licence_code="Apache-2.0 (traiNNer-redux)",
        paper="of old; as a restorer's loss in traiNNer-redux, 2024",
        source="https://github.com/the-database/traiNNer-redux losses/basic_loss.py (facts only)",
        notes=(note, "made to stand beside others"),
    )
    return Entry(card, partial(PixelView, view=view))


ENTRIES = {
    "bicubic-shrunk": _entry(
        "bicubic-shrunk", "Distance of images shrunk bicubically and softened.", 12, "shrunk by 4, antialiased"
    ),
    "box-shrunk": _entry(
        "box-shrunk", "Distance of images averaged in squares; blind to detail.", 4, "squares of 4 pixels"
    ),
    "chroma": _entry(
        "chroma", "Distance of smoothed Cb and Cr; blind to light and detail.", 4, "lab-chroma is perceptually even"
    ),
    "luma": _entry("luma", "Distance of CIE lightness, in [0, 1]; blind to colour.", 1, "nothing is smoothed"),
}
