"""ASNA: a siamese encoder whose feature differences are decoded, U-Net fashion, into one opinion score.

Ayyoubzadeh, Royat: "(ASNA) An Attention-based Siamese-Difference Neural Network with Surrogate
Ranking Loss function for Perceptual Image Quality Assessment", CVPR Workshops 2021. Original:
https://github.com/smehdia/NTIRE2021-IQA-MACS (commit 7294735, Apache-2.0, TensorFlow), the variant
called attention. Ours: images larger than 288x288 are judged by crops, and a read-out before the tanh.

The published weights are a Keras HDF5 file, which is not read here. Save its tensors under the keys
of `state_dict()`: Keras numbers the layers of a type in the order in which they are made, and
that is the order of their keys here (convolutions, normalisations and dense layers each on their
own). Kernels are (height, width, in, out) there and (out, in, height, width) here, dense ones
(in, out) there and (out, in) here; gamma, beta, moving_mean and moving_variance become weight, bias,
running_mean and running_var.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry, given
from perceptloss.networks.batchnorm import BatchStats
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import CropCritic, crops_note
from perceptloss.weights.rules import Rule

__all__ = ["ASNA", "ENTRIES"]

_SLOPE = 0.5  # of the leaky ReLUs
_EPS = 1e-3  # Keras' own, in every normalisation
_KERNELS = (5, 5, 3, 3)


class Block(nn.Module):
    """Convolution, leaky ReLU, normalisation; padded as TensorFlow pads 'same' on sides that the stride divides."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride)
        self.bn = BatchStats(width, _EPS)
        total = max(0, 3 - stride)
        self.pad = (total // 2, total - total // 2) * 2

    def forward(self, h: Tensor) -> Tensor:
        return self.bn(F.leaky_relu(self.conv(F.pad(h, self.pad)), _SLOPE))


class Encoder(nn.ModuleDict):
    """Four maps, at full, half, quarter and eighth size, of images in [-1, 1]."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__({"conv_0": nn.Conv2d(3, 3, _KERNELS[0], padding="same")})
        channels = 3
        for i, (width, kernel) in enumerate(zip(widths, _KERNELS, strict=True), 1):
            self[f"conv_{i}"] = nn.Conv2d(channels, width, kernel, padding="same")
            self[f"bn_{i}"] = BatchStats(width, _EPS)
            channels = width

    def forward(self, h: Tensor) -> list[Tensor]:
        h = self["conv_0"](h)
        maps: list[Tensor] = []
        for i in range(1, len(_KERNELS) + 1):
            h = F.max_pool2d(h, 2) if maps else h
            h = self[f"bn_{i}"](F.leaky_relu(self[f"conv_{i}"](h), _SLOPE))
            maps.append(h)
        return maps


class Attention(nn.Module):
    """The input beside its features, gated per channel, and gated per pixel and channel; mixed to `width` channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(channels, width, 3, padding=1)
        self.bn = BatchStats(width, _EPS)
        self.conv_b = nn.Conv2d(width, width, 3, padding=1)
        self.channel_1, self.channel_2, self.spatial_1, self.spatial_2 = (nn.Conv2d(width, width, 1) for _ in range(4))
        self.out = nn.Conv2d(channels + 2 * width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        t = self.conv_b(self.bn(F.relu(self.conv_a(h))))
        channel = torch.sigmoid(self.channel_2(F.relu(self.channel_1(t.mean((2, 3), keepdim=True)))))
        spatial = torch.sigmoid(self.spatial_2(F.relu(self.spatial_1(t))))
        return self.out(torch.cat([h, t * channel, t * spatial], 1))


class Residual(nn.Module):
    """Two convolutions beside a shortcut; no ReLU after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv_2(F.relu(self.conv_1(h)))


class ASNA(CropCritic):
    """ASNA opinion score in standard deviations of PIPAL; higher is better, without a fixed score at identity.

    Elo score = 121.35 * score + 1449.05, by the authors' constants. The score lies within
    |w| of b, weight and bias of the last layer; `linear` reads before the tanh that bounds it.

    Args:
        card: What it is; `side` becomes its `min_size`.
        encoder: Channels of the four encoder maps.
        decoder: Channels of the decoder, from the smallest map up.
        reduced: Channels after the decoder's map is reduced to an eighth.
        attended: Channels of the attention block and behind it.
        hidden: Units of the first dense layer.
        side: Side of the images that the first dense layer fits, a multiple of 16.

    Example:
        >>> critic = create_critic("asna", weights=None)
        >>> x = torch.rand(1, 3, 288, 288, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 288, 288)).sum().backward()
    """

    rules = (Rule(r"sorter\..+", None, "the sorter, which only the training loss reads"),)

    def __init__(
        self,
        card: Card,
        *,
        encoder: Sequence[int] = (8, 16, 32, 64),
        decoder: Sequence[int] = (64, 64, 32, 16),
        reduced: int = 32,
        attended: int = 8,
        hidden: int = 32,
        side: int = 288,
    ) -> None:
        super().__init__(card, side)
        self.shared = Encoder(encoder)
        self.d0 = Block(encoder[3], decoder[0])
        self.d1 = Block(decoder[0] + encoder[3], decoder[1])
        self.d2 = Block(decoder[1] + encoder[2], decoder[2])
        self.d3 = Block(decoder[2] + encoder[1], decoder[3])
        self.d4 = Block(decoder[3] + encoder[0], reduced, stride=4)
        self.d5 = Block(reduced, reduced, stride=2)
        self.att = Attention(reduced, attended)
        self.res0, self.res1, self.res2 = (Residual(attended) for _ in range(3))
        self.dense_1 = nn.Linear((side // 8) ** 2 * attended, hidden)
        self.dense_2 = nn.Linear(hidden, 1)
        self.dense_3 = nn.Linear(1, 1)
        draw(self, slope=_SLOPE)
        nn.init.ones_(self.dense_3.weight)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.squash(self.linear(x, y))

    def prepare(self, image: Tensor) -> Tensor:
        """Crops in BGR, in [-1, 1]."""
        return 2 * super().prepare(image.flip(1)) - 1

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        fx, fy = (self.shared(self.prepare(image)) for image in (x, given(y)))
        sign = torch.where(self.dense_3.weight.detach() < 0, -1, 1)
        return self.averaged((sign * self._decode(fx, fy)).squeeze(1), x)

    def squash(self, linear: Tensor) -> Tensor:
        return self.dense_3.weight.abs().squeeze() * torch.tanh(linear) + self.dense_3.bias

    def _decode(self, fx: list[Tensor], fy: list[Tensor]) -> Tensor:
        """Maps of the judged images and of the references, to what the tanh is taken of, (N, 1)."""
        h = self.d0(F.max_pool2d(fx[3], 2))
        for block, a, b in zip((self.d1, self.d2, self.d3, self.d4), fx[::-1], fy[::-1], strict=True):
            h = block(torch.cat([F.interpolate(h, scale_factor=2), (a - b).abs()], 1))
        h = self.res2(self.res1(self.res0(self.att(self.d5(h)))))
        return self.dense_2(F.relu(self.dense_1(rearrange(h, "n c h w -> n (h w c)"))))


_CARD = opinion_card(
    name="asna",
    summary="Opinion score of GAN-like artefacts, learned on PIPAL; half a million weights, so cheap to train with.",
    kind="fr",
    min_size=288,
    licence_code="Apache-2.0",
    licence_weights="none stated (in an Apache-2.0 repository)",
    weights=("asna",),
    paper="Ayyoubzadeh and Royat, ASNA: An Attention-based Siamese-Difference Neural Network with Surrogate Ranking "
    "Loss, CVPR Workshops 2021",
    source="https://github.com/smehdia/NTIRE2021-IQA-MACS commit 7294735",
    notes=(
        crops_note(288, "read-outs before the tanh"),
        "one network, one pass: the challenge entry averaged several, each over 22 rotations, flips and lightnesses",
        "a branch sees the judged image alone, so the score of an image against itself depends on the image",
        "Elo score = 121.35 * score + 1449.05; bounds are b +- |w| of the last layer, whatever the image",
        "the stride-4 layer never reads every fourth row and column of the full-size features: check trained weights "
        "for a checkerboard in the gradient",
        "the published weights are a Keras file; perceptloss/critics/asna.py says how its tensors are named here",
    ),
)

ENTRIES = {"asna": Entry(_CARD, ASNA)}
