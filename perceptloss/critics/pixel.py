"""PSNR and total variation: the plainest reference and the plainest prior.

Rudin, Osher, Fatemi: "Nonlinear Total Variation Based Noise Removal Algorithms", Physica D 1992.
Numbers follow https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0). Ours: the gradient of
the root in `tv` is 0 on a flat image, where the original gives NaN.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from perceptloss.card import PIQ, Card, distance_card, similarity_card
from perceptloss.critic import Area, Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import STUDIO_LUMA, mix_channels, root

__all__ = ["ENTRIES", "PSNR", "TotalVariation", "psnr", "total_variation"]

Norm = Literal["l1", "l2", "l2_squared"]
_EPS = 1e-8  # added to the mean squared error


def psnr(x: Tensor, y: Tensor) -> Tensor:
    r"""Peak signal-to-noise ratio in dB, -10 \log_{10}(\operatorname{MSE} + 10^{-8}), at most 80; 80 is best.

    Args:
        x: Judged images, (N, C, H, W), in [0, 1].
        y: Reference images, same shape.

    Returns:
        One score per image, (N,); the error is a mean over pixels and channels.
    """
    return -10 * torch.log10((x - y).square().mean((1, 2, 3)) + _EPS)


def total_variation(x: Tensor, norm: Norm = "l2") -> Tensor:
    r"""Differences d of neighbours, summed over image and channels, 0 or more; 0 is a flat image.

    Args:
        x: Images, (N, C, H, W).
        norm: `l2` for \sqrt{\sum d^2}, `l2_squared` for \sum d^2, `l1` for \sum |d|.

    Returns:
        One value per image, (N,).
    """
    total: Tensor = _Steps.apply(x, norm == "l1")
    return root(total) if norm == "l2" else total


class _Steps(torch.autograd.Function):
    """Sum of the squares or sizes of both neighbours' differences, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, is_absolute: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.is_absolute = is_absolute
        total = x.new_zeros(len(x))
        for dim in (-2, -1):
            d = x.diff(dim=dim)
            total += (d.abs_() if is_absolute else d.square_()).sum((1, 2, 3))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        factor = grads[0][:, None, None, None] * (1 if ctx.is_absolute else 2)
        out = torch.zeros_like(x)
        for dim in (-2, -1):
            d = x.diff(dim=dim)
            d = (d.sign() if ctx.is_absolute else d) * factor
            out.narrow(dim, 1, d.shape[dim]).add_(d)
            out.narrow(dim, 0, d.shape[dim]).sub_(d)
        return out, None


class PSNR(Critic):
    """Peak signal-to-noise ratio in dB; higher is better, 80 for equal images.

    Args:
        card: What it is.
        colour: `rgb`, or `y`, the luma of BT.601 in studio range.

    Raises:
        ConfigError: if the colour is neither.

    Example:
        >>> critic = create_critic("psnr")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> (80 - critic(x, torch.rand(2, 3, 16, 16))).sum().backward()
    """

    def __init__(self, card: Card, *, colour: Literal["rgb", "y"] = "rgb") -> None:
        if colour not in ("rgb", "y"):
            raise ConfigError([f"options.colour must be 'rgb' or 'y', got {colour!r}"], card.name)
        super().__init__(card)
        self.colour = colour

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return psnr(self._seen(x), self._seen(given(y)))

    def tally(self, x: Tensor, y: Tensor | None, area: Area) -> Tensor:
        squares = (area.of(self._seen(x)) - area.of(self._seen(given(y)))).square()
        return torch.stack([squares.sum((1, 2, 3)), squares.new_full((len(x),), squares[0].numel())], 1)

    def settle(self, sums: Tensor) -> Tensor:
        return -10 * torch.log10(sums[:, 0] / sums[:, 1] + _EPS)

    def _seen(self, image: Tensor) -> Tensor:
        return image if self.colour == "rgb" else mix_channels(image, (STUDIO_LUMA,))


class TotalVariation(Critic):
    """Total variation, 0 or more; lower is smoother. Judges without a reference.

    Example:
        >>> critic = create_critic("tv")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    def __init__(self, card: Card, *, norm: Norm = "l2") -> None:
        super().__init__(card)
        self.norm = norm

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return total_variation(x, self.norm)


_PSNR = similarity_card(
    name="psnr",
    summary="Peak signal-to-noise ratio of the RGB values in dB.",
    bounds=(0.0, 80.0),  # black against white is at -4e-8
    identity=80.0,
    tiling="exact",
    paper="of old; see Huynh-Thu and Ghanbari, Scope of Validity of PSNR in Image/Video Quality Assessment, "
    "Electronics Letters 2008",
    source=PIQ,
    notes=(
        "1e-8 is added to the squared error, so equal images score 80 dB instead of infinity",
        "as a loss, (80 - dB) / 80: its slope is that of the logarithm of the error, so small errors weigh as much "
        "as large ones, up to an error of 1e-4",
        "all three channels at the size given; no border is cut and no luminance taken, unlike most tables",
    ),
)
_tv = partial(
    distance_card,
    kind="nr",
    identity=None,
    domains=frozenset({"piecewise-constant"}),
    min_size=2,
    tiling="never",
    licence_code="Apache-2.0 (piq)",
    paper="Rudin et al., Nonlinear Total Variation Based Noise Removal Algorithms, Physica D 1992",
    source=PIQ,
)
_FLAT = "a prior, not a judge of quality: blur improves it and a flat image is its optimum; give it a small weight"
_TV = _tv(
    name="tv",
    summary="Root of the summed squared differences of neighbours; a smoothness prior.",
    notes=(_FLAT, "one root over the whole image: grows with the root of its pixels, and is not the isotropic TV"),
)
_TV_L1 = _tv(
    name="tv-l1",
    summary="Sum of the absolute differences of neighbours; a smoothness prior that spares edges.",
    notes=(_FLAT, "a sum, not a mean: it and its gradient grow with the image; choose the weight for the crop size"),
)
_TV_L2_SQUARED = _tv(
    name="tv-l2-squared",
    summary="Sum of the squared differences of neighbours; a smoothness prior.",
    notes=(_FLAT, "a sum, not a mean: it and its gradient grow with the image; choose the weight for the crop size"),
)

ENTRIES = {
    "psnr": Entry(_PSNR, PSNR),
    "tv": Entry(_TV, TotalVariation),
    "tv-l1": Entry(_TV_L1, partial(TotalVariation, norm="l1")),
    "tv-l2-squared": Entry(_TV_L2_SQUARED, partial(TotalVariation, norm="l2_squared")),
}
