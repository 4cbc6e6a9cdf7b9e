"""What generative networks do: plausible but wrong texture, checkerboards, paint strokes, tile seams."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceptloss.networks.functional import slide
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.fields import Blocks, local_energy
from perceptloss.teach.degradations.operations import gaussian_blur, luma, normal, pad, uniform

__all__ = ["wrong_texture"]

_BAND = 1.5  # sigma in pixels that parts structure from texture
_WINDOW = 2.0
_PERIOD = 4
_SHARPNESS = 6.0


_PIPAL = "PIPAL, ECCV 2020 (outputs of GANs)"


def _mixed(x: Tensor, high: Tensor, fake: Tensor, share: float) -> Tensor:
    """The image with a share of its high band's power swapped; beyond 1 the fake grows."""
    return x - high + math.sqrt(max(1 - share, 0)) * high + math.sqrt(share) * fake


@degradation("wrong-texture", "generative", (0.06, 0.2, 0.5, 1.0, 3.5), _PIPAL)
def wrong_texture(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of the power above 1.5 pixels swapped for noise of equal local energy; edges blur into it too.

    Args:
        x: Images, (N, 3, H, W).
        share: Of the high band's power that is swapped; above 1 the noise is stronger than what it replaces.
        generator: Of the noise.
    """
    high = x - gaussian_blur(x, _BAND)
    noise = gaussian_blur(normal(x, generator, 1), 0.5)
    noise = noise - gaussian_blur(noise, _BAND)
    noise = noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()
    return _mixed(x, high, local_energy(high, _WINDOW) * noise, share)


@degradation("shuffled-texture", "generative", (0.06, 0.2, 0.5, 1.0, 3.5), _PIPAL)
def _shuffled_texture(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Share of the power above 1.5 pixels swapped for that of places nearby, at equal local energy."""
    high = x - gaussian_blur(x, _BAND)
    energy = local_energy(high, _WINDOW)
    reach = min(24, min(x.shape[2:]) // 2)
    blocks = Blocks.draw(x, generator, 12)
    across, down = ((2 * blocks.random(generator, 2) - 1) * reach).long().split(1, 1)
    moved, found = (blocks.moved(maps, across, down) for maps in (high, energy))
    fake = moved * (energy / (found + 0.002)).clamp_max(6)
    total, got = (band.square().mean((1, 2, 3), keepdim=True) for band in (high, fake))
    return _mixed(x, high, fake * (total / (got + 1e-12)).sqrt().clamp_max(2), share)


@degradation(
    "checkerboard",
    "generative",
    (0.2, 0.42, 0.75, 1.25, 2.1),
    "Odena, Dumoulin, Olah, Deconvolution and Checkerboard Artifacts, Distill 2016",
)
def _checkerboard(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Amplitude of a pattern of period 2 or 4 pixels over the local contrast."""
    pattern = torch.randn(x.shape[0], 1, _PERIOD, _PERIOD, generator=generator).to(x.device)
    half = pattern[..., : _PERIOD // 2, : _PERIOD // 2].repeat(1, 1, 2, 2)
    pattern = torch.where(uniform(x, generator) < 0.5, half, pattern)
    pattern = pattern - pattern.mean((2, 3), keepdim=True)
    pattern = pattern / pattern.square().mean((2, 3), keepdim=True).sqrt()
    height, width = x.shape[2:]
    tiled = pattern.repeat(1, 1, height // _PERIOD + 1, width // _PERIOD + 1)[..., :height, :width]
    return x + amount * (local_energy(x - gaussian_blur(x, _BAND), _BAND) + 0.008) * tiled


def _quadrants(maps: Tensor, radius: float) -> list[Tensor]:
    """Box means over the four quadrants round each pixel; a part of a pixel counts in part."""
    reach = math.ceil(radius)
    weights = [1.0] + [min(1.0, radius - tap) for tap in range(reach)]
    total = sum(weights)
    ahead = tuple(w / total for w in weights)
    height, width = maps.shape[2:]
    padded, found = pad(maps, reach), []
    for columns, taps in ((padded[..., reach:], ahead), (padded[..., : width + reach], ahead[::-1])):
        strip = slide(columns, taps, -1)
        found += [slide(strip[..., reach:, :], ahead, -2), slide(strip[..., : height + reach, :], ahead[::-1], -2)]
    return found


@degradation("painterly", "generative", (0.5, 1.1, 2.0, 3.5, 6.0), _PIPAL)
def _painterly(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Side of the quadrants of a Kuwahara filter less one, in pixels."""
    quadrants = torch.stack(_quadrants(torch.cat([x, luma(x).square()], 1), radius))
    means, squares = quadrants.split((3, 1), 2)
    variance = (squares - luma(means.flatten(0, 1)).unflatten(0, means.shape[:2]).square()).clamp_min(0)
    weights = torch.softmax(-_SHARPNESS * (variance + 1e-4).log(), 0)
    return (weights * means).sum(0)


@degradation("tile-seams", "generative", (0.008, 0.017, 0.033, 0.06, 0.11), "restoration in tiles")
def _seams(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Standard deviation of the brightness from tile to tile."""
    side = min(x.shape[2:])
    size = uniform(x, generator, side / 6, side / 3).flatten().long().cpu().clamp_min(8)
    blocks = Blocks.draw(x, generator, size)
    grey, colour = torch.randn(x.shape[0], 4, *blocks.shape, generator=generator).to(x.device).split((1, 3), 1)
    return x + std * blocks.spread(0.9 * grey + 0.45 * colour)
