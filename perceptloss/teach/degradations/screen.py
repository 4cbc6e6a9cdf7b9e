"""Damage that shows on screen content: soft text, colour fringes, too few colours, mosquitoes round letters."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.fields import local_energy
from perceptloss.teach.degradations.operations import gaussian_blur, luma, shift_rows, sign
from perceptloss.teach.degradations.screen_page import screen_picture

__all__ = ["palette", "screen_picture"]

_SUBPIXELS = (1 / 3, 1 / 3, 1 / 3)


_SIQAD = "SIQAD, TIP 2015"


def _text(x: Tensor, sigma: float) -> Tensor:
    """From 0 where nothing happens to nearly 1 where strokes or edges stand close, (N, 1, H, W)."""
    grey = luma(x)
    contrast = local_energy(grey - gaussian_blur(grey, sigma), sigma)
    return contrast.square() / (contrast.square() + 0.05**2)


@degradation("text-blur", "screen", (0.5, 0.8, 1.2, 1.9, 3.2), _SIQAD, identity=0.3)
def _text_blur(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Standard deviation in pixels where strokes stand close."""
    return x.lerp(gaussian_blur(x, sigma), gaussian_blur(_text(x, 2.0), 1.0))


@degradation(
    "subpixel-colour-fringe",
    "screen",
    (0.33, 0.6, 1.0, 1.7, 3.0),
    "subpixel rendering shown on another layout of stripes",
)
def _colour_fringe(x: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Distance in pixels of red and blue from green, as the renderer took the stripes to lie; side drawn."""
    columns = pixels * sign(x, generator)
    red, green, blue = x.mT.split(1, 1)
    return torch.cat([shift_rows(red, columns), green, shift_rows(blue, -columns)], 1).mT


def palette(x: Tensor, colours: int, *, rounds: int = 4, samples: int = 2048) -> Tensor:
    """Each image in its own few colours by Lloyd's k-means, started along the luma, without dither.

    Args:
        x: Images, (N, 3, H, W).
        colours: How many are left.
        rounds: Of Lloyd's iteration.
        samples: Pixels, spread evenly, that the colours are fitted to.
    """
    pixels = x.flatten(2).mT
    fitted = pixels[:, :: max(1, pixels.shape[1] // samples)]
    order = luma(fitted.mT[..., None])[:, 0, :, 0].argsort(1)
    start = ((torch.arange(colours, device=x.device) + 0.5) / colours * fitted.shape[1]).long()
    centres = fitted.gather(1, order[:, start, None].expand(-1, -1, 3))
    for _ in range(rounds):
        member = torch.nn.functional.one_hot(_nearest(fitted, centres), colours).to(x.dtype)
        count = member.sum(1)[..., None]
        centres = torch.where(count > 0, member.mT @ fitted / count.clamp_min(1), centres)
    chosen = _nearest(pixels, centres)[..., None].expand(-1, -1, 3)
    return centres.gather(1, chosen).mT.reshape(x.shape)


def _nearest(pixels: Tensor, centres: Tensor) -> Tensor:
    return (centres.square().sum(2)[:, None] - 2 * pixels @ centres.mT).argmin(2)


@degradation("palette", "screen", (64.0, 32.0, 16.0, 8.0, 4.0), "SCID (colour quantisation), TIP 2017", identity=256.0)
def _palette(x: Tensor, colours: float, generator: torch.Generator) -> Tensor:
    """Number of colours, fitted, without dither."""
    return palette(x, max(2, round(colours)))


@degradation("text-jpeg-mosquito", "screen", (55.0, 32.0, 18.0, 10.0, 4.0), _SIQAD, identity=100.0)
def _mosquito(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """JPEG quality, 1 to 100, where strokes and edges stand."""
    near = gaussian_blur(_text(x, 1.5), 2.5)
    return x.lerp(jpeg(x, quality), (3 * near).clamp_max(1))
