"""ms-ssim-luma: multi-scale structural similarity of the luma, on images of any size, as restorers are trained with it.

Wang, Simoncelli, Bovik: "Multi-scale Structural Similarity for Image Quality Assessment", Asilomar 2003. This form is
that of traiNNer-redux's `mssimloss` and, with other options, neosr's `mssim_loss` (both Apache-2.0; written from their
facts): no luminance term unless it is asked for, odd sides gain a line of zeros before they are halved, and scales that
are smaller than the window are surrounded by zeros. `ms-ssim` is the published form.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, similarity_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import LUMA, STUDIO_LUMA, bounded_power, mix_channels
from perceptloss.networks.windows import SCALE_WEIGHTS, TAPS, ssim_maps

__all__ = ["ENTRIES", "LumaMSSSIM"]

Space = Literal["yiq", "ycbcr", "rgb"]
_FLOOR = 1e-4  # of a scale's similarity: below, the slope of its power is held


class LumaMSSSIM(Critic):
    """Multi-scale structural similarity in [0, 1]; higher is better, 1 for equal images.

    Args:
        card: What it is.
        color_space: Whose luma is judged, `yiq` or `ycbcr` (studio range); `rgb` judges the three channels.
        luminance: Whether the luminance term counts at the last scale, as published.
        is_prod: Whether scales are multiplied, as powers of their weights; else they are averaged with them.
        multiscale: Whether there are five scales; else the image as it is alone, with luminance if asked for.
        padded: Whether every scale is surrounded by zeros before the window slides, as neosr does.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("ms-ssim-luma")
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> (1 - critic(x, x.detach() ** 2)).sum().backward()
    """

    def __init__(
        self,
        card: Card,
        *,
        color_space: Space = "yiq",
        luminance: bool = False,
        is_prod: bool = True,
        multiscale: bool = True,
        padded: bool = False,
    ) -> None:
        if color_space not in get_args(Space):
            problem = f"options.color_space must be one of {', '.join(get_args(Space))}, got {color_space!r}"
            raise ConfigError([problem], card.name)
        super().__init__(card)
        self.color_space, self.luminance, self.is_prod, self.padded = color_space, luminance, is_prod, padded
        self.weights = SCALE_WEIGHTS if multiscale else (1.0,)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = (self._luma(image) for image in (x, given(y)))
        scales = []
        for scale in range(len(self.weights)):
            x, y = (self._half(x), self._half(y)) if scale else (x, y)
            light, structure = ssim_maps(self._surrounded(x), self._surrounded(y))
            structure = structure if self.padded else structure.relu()
            is_last = scale == len(self.weights) - 1
            scales.append((structure * light if self.luminance and is_last else structure).mean((1, 2, 3)))
        return self._pooled(torch.stack(scales))

    def _pooled(self, scales: Tensor) -> Tensor:
        weights = scales.new_tensor(self.weights)[:, None]
        if not self.is_prod:
            return (scales * weights / weights.sum()).sum(0)
        powers = [bounded_power(s.relu(), w, _FLOOR) for s, w in zip(scales, self.weights, strict=True)]
        return torch.stack(powers).prod(0)

    def _luma(self, image: Tensor) -> Tensor:
        if self.color_space == "rgb":
            return image
        rows = {"yiq": LUMA, "ycbcr": STUDIO_LUMA}
        return mix_channels(image, (rows[self.color_space],)) + (16 / 255 if self.color_space == "ycbcr" else 0)

    def _surrounded(self, image: Tensor) -> Tensor:
        reach = TAPS // 2 if self.padded or image.shape[-1] < TAPS or image.shape[-2] < TAPS else 0
        return F.pad(image, (reach,) * 4) if reach else image

    @staticmethod
    def _half(image: Tensor) -> Tensor:
        odd = [side % 2 for side in image.shape[-2:]]
        return F.avg_pool2d(image, 2, padding=(odd[0], odd[1]))


_CARD = similarity_card(
    name="ms-ssim-luma",
    summary="Structural similarity of the luma at five scales, on images of any size, without the luminance term.",
    min_size=16,
    tiling="never",
    fidelity="paper",
    licence_code="Apache-2.0 (traiNNer-redux)",
    paper="Wang et al., Multi-scale Structural Similarity for Image Quality Assessment, Asilomar 2003",
    source="https://github.com/the-database/traiNNer-redux losses/mssim_loss.py (facts only)",
    notes=(
        "blind to colour and, without luminance, to a shift of the level: combine with a loss of colours",
        "below 176 pixels its coarse scales see zeros around the image",
        "ms-ssim is the published form",
    ),
)

ENTRIES = {"ms-ssim-luma": Entry(_CARD, LumaMSSSIM)}
