"""pMOS-style critic: an opinion score for every pixel, and how much every pixel matters.

After Kim et al.: "Pixel-by-pixel Mean Opinion Score (pMOS) for No-Reference Image Quality Assessment",
arXiv 2206.06541, 2022, of which neither code nor weights are public. From the paper: a map of local
opinion scores, a map of regions of interest, semantic features that are embedded into the local path,
and the image's score as the weighted sum of the map. Trunk, decoder, widths and resolutions are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry, given
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import Features, TrunkCritic, TrunkName, resnet_rules, staged

__all__ = ["ENTRIES", "PMOS", "PMOSMap", "opinion"]

_LOWEST, _HIGHEST = 1.0, 5.0
_MIDDLE = (_LOWEST + _HIGHEST) / 2


def opinion(linear: Tensor) -> Tensor:
    """Opinion from 1 to 5 of a linear read-out; both are 3 there and have the same slope, 1."""
    return _LOWEST + (_HIGHEST - _LOWEST) * torch.sigmoid(linear - _MIDDLE)


class Decoder(nn.Module):
    """Stages of a trunk, from the coarsest to the finest, told what the whole image shows.

    Args:
        channels: Of the stages, finest first; each half the size of the one before.
        width: Of the decoder's maps.
        context: Units of the description of the whole image.
    """

    def __init__(self, channels: Sequence[int], width: int, context: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.context = nn.Conv2d(channels[-1], context, 1)
        self.film = nn.ModuleList(nn.Linear(context, 2 * width) for _ in channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the stages, finest first, to (N, width, h, w) each."""
        context = F.gelu(self.context(stages[-1])).mean((2, 3))
        levels: list[Tensor] = []
        for number in reversed(range(len(stages))):
            h = self.lateral[number](stages[number])
            if levels:  # never a transposed convolution, whose checkerboard would be learned by a restorer
                h = h + F.interpolate(levels[0], scale_factor=2, mode="bilinear", align_corners=False)
            gain, shift = self.film[number](context)[..., None, None].chunk(2, 1)
            levels.insert(0, F.gelu(self.smooth[number](h)) * (1 + gain) + shift)
        return levels


class PMOS(TrunkCritic):
    r"""After pMOS; architecture partly ours: opinion score in (1, 5), higher is better.

    .. math:: s = \sum_q w(q) p(q), \quad w = \operatorname{softmax}(a), \quad p = 1 + 4 \sigma(z - 3)

    z and a are read from a decoder over ResNet-50 at H/4 x W/4 and H/16 x W/16, and brought to every
    pixel q bilinearly. Losses that compare images read :math:`\sum_q w(q) z(q)`, which has a slope
    where p has none. The weights w are constants of the gradient (`hold_weights`). `maps` gives p,
    `roi` gives w.

    Args:
        card: What it is.
        trunk: `resnet` or `lite0-smooth`.
        widths: Of the four stages of the trunk (a quarter of the channels that leave them).
        width: Of the decoder's maps.
        context: Units of the description of the whole image.
        hidden: Channels between the decoder and z or a.

    Example:
        >>> critic = create_critic("pmos", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    rules = resnet_rules()

    def __init__(
        self,
        card: Card,
        *,
        trunk: TrunkName = "resnet",
        widths: Sequence[int] = (64, 128, 256, 512),
        width: int = 128,
        context: int = 256,
        hidden: int = 64,
    ) -> None:
        super().__init__(card)
        self.trunk, self.taps, channels = staged(trunk, 50, widths)
        self.decoder = Decoder(channels, width, context)
        self.value = nn.Sequential(nn.Conv2d(width, hidden, 3, padding=1), nn.GELU(), nn.Conv2d(hidden, 1, 1))
        # a softmax does not see a constant, so the last layer of the weights has none
        self.weight = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, 1, 1, bias=False))
        self._initialise()

    def _initialise(self) -> None:
        """Random weights whose maps lie around the middle of the scale and follow the image."""
        draw(self.decoder, self.value, self.weight)
        for layer in self.decoder.film:
            nn.init.normal_(layer.get_parameter("weight"), std=0.02)
        for head in (self.value, self.weight):
            last: nn.Conv2d = head[-1]  # type: ignore[assignment]
            nn.init.normal_(last.weight, std=0.3 * last.in_channels**-0.5)
        nn.init.constant_(self.value[-1].get_parameter("bias"), _MIDDLE)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.read_taps(x, y, fx, fy)[1]

    def read_taps(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        value, logits = self.judge(fx)
        return pooled(opinion(value), logits), pooled(value, logits)

    def judge(self, fx: Features) -> tuple[Tensor, Tensor]:
        """Linear opinion of every pixel and logit of its weight, (N, 1, H, W) each, from the taps."""
        finest, _, middle, _ = self.decoder([fx[tap] for tap in self.taps])
        size = [4 * side for side in finest.shape[-2:]]
        maps = self.value(finest), self.held(self.weight(middle))
        value, logits = (F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps)
        return value, logits

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Opinion of every pixel in (1, 5), higher is better: (N, 1, H, W)."""
        return opinion(self.judge(self.look(x))[0])

    def roi(self, x: Tensor) -> Tensor:
        """Weight of every pixel in the score, which sum to 1: (N, 1, H, W)."""
        x, _ = self.admit(x, x if self.card.needs_reference else None)
        with torch.autocast(x.device.type, enabled=False):
            return shares(self.judge(self.look(x))[1])


def shares(logits: Tensor) -> Tensor:
    """Softmax over the places of each image, (N, 1, H, W)."""
    return logits.flatten(1).softmax(1).view_as(logits)


def pooled(values: Tensor, logits: Tensor) -> Tensor:
    """Sum of values (N, 1, H, W) by the shares of the logits, (N,)."""
    return (values * shares(logits)).sum((1, 2, 3))


class PMOSMap(PMOS):
    r"""`PMOS` as a distance: how far pixels fall short of the reference's own, in opinion units, 0 at best.

    .. math:: d = \sum_q w_y(q) \max(0, z_y(q) - z_x(q))

    z is the linear opinion of every pixel of `PMOS`, w the weights, of which the reference's count: no
    image can turn attention away from its errors. A pixel that is judged better than the
    reference's earns nothing. Pixels within `border` of the edge, which see the trunk's
    padding, do not count. Arguments and state dict are those of `PMOS`.

    Example:
        >>> critic = create_critic("pmos-map", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    border: int = 16

    def read_taps(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        distance = self.compare(x, y, fx, fy)
        return distance, distance

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        of_x, _ = self.judge(fx)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):  # as for the taps of y
            of_y, logits = self.judge(fy)
        height, width = logits.shape[-2:]
        inside = (..., slice(self.border, height - self.border), slice(self.border, width - self.border))
        return pooled(F.relu(of_y - of_x)[inside], logits[inside])

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """How far every pixel falls short of the reference's, lower is better, 0 at best: (N, 1, H, W)."""
        return F.relu(self.judge(self.look(given(y)))[0] - self.judge(self.look(x))[0])


_NOTES = (
    "not a reproduction: trunk, decoder, resolution, weights' softmax and scale are our choice",
    "pmos and pmos-map are one network: the same checkpoint loads in both",
    "only scores of whole images exist to train on: watch that the weights collapse neither on one pixel nor on all "
    "alike (1 / sum of squares of roi(x) is the number of pixels that count)",
)

_CARD = after_paper_card(
    name="pmos",
    summary="Opinion score of every pixel, and of the image as their weighted sum; has a quality map at full size.",
    kind="nr",
    bounds=(_LOWEST, _HIGHEST),
    min_size=32,
    multiple_of=32,
    weights=("resnet50", "pmos"),
    paper="Kim et al., Pixel-by-pixel Mean Opinion Score (pMOS) for No-Reference Image Quality Assessment, "
    "arXiv 2206.06541, 2022",
    source="no code published",
    notes=(
        *_NOTES,
        "pixels within 16 of the edge see the trunk's padding: pmos-map leaves them out",
        "losses that compare images read the opinions before their sigmoid, which is flat for bad images",
    ),
)
_MAP_CARD = replace(
    _CARD,
    name="pmos-map",
    summary="How far the opinion of each pixel falls short of the reference's; one network with pmos.",
    kind="fr",
    better="lower",
    bounds=(0.0, float("inf")),
    identity=0.0,
    shape="distance",
    min_size=64,
    notes=(
        *_NOTES,
        "0 wherever a pixel is judged as good as the reference's or better, so 0 does not mean that images agree: "
        "always combine with a pixel loss",
        "the 16 outermost pixels do not count: crop at random places in training",
    ),
)

ENTRIES = {"pmos": Entry(_CARD, PMOS), "pmos-map": Entry(_MAP_CARD, PMOSMap)}
