"""Frozen super-resolution networks as degradations: shrink, damage the small picture, let the network enlarge it.

Networks fail in their own way: they sharpen noise into worms, and blocks into edges. Weights are the user's, so
none is registered; build one with `network_degradation` and register it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.restorers import SuperResolver
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.core import Degradation
from perceptloss.teach.degradations.operations import gaussian_blur, normal
from perceptloss.teach.degradations.resize import resize

__all__ = ["Damage", "network_degradation"]

Damage = Literal["blur", "noise", "jpeg"]
_T = TypeVar("_T")
Network = SuperResolver | Callable[[Tensor], Tensor]


def network_degradation(
    name: str, network: Network, scale: int | None = None, *, damage: Damage | Literal["any"] = "any", source: str = ""
) -> Degradation:
    """A degradation by a frozen network; register it to use it by name.

    At level 1 it is the network's enlargement of the clean picture shrunk by `scale`, below 1 a mix of that and
    the original, and above 1 the small picture is damaged first: level 5 stands for a blur of 1 pixel, noise
    of 0.06 or JPEG quality 23 before a network that was made for clean pictures.

    Args:
        name: Of the degradation.
        network: Takes (N, 3, h, w) in [0, 1] and gives (N, 3, scale h, scale w). It is used as it is: put it in
            eval mode and on the images' device.
        scale: Factor of shrinking. None draws one of a `SuperResolver`'s scales for each image.
        damage: What is done to the small picture; "any" draws one for each image.
        source: Where the weights come from.

    Raises:
        ConfigError: the scale is not one of the network's or unknown, or the damage is.
    """
    own = network.scales if isinstance(network, SuperResolver) else ()
    scales = own if scale is None else (scale,)
    kinds = get_args(Damage) if damage == "any" else (damage,)
    problems = []
    if not scales:
        problems.append("scale: expected a whole number, as this network does not say which it can do")
    problems += [f"scale: expected one of {own}, got {s}" for s in scales if own and s not in own]
    problems += [f"scale: expected a whole number of at least 2, got {s!r}" for s in scales if not _is_factor(s)]
    problems += [f"damage: expected any, {', '.join(get_args(Damage))}, got {k!r}" for k in kinds if k not in _APPLY]
    if problems:
        raise ConfigError(problems, f"network degradation {name!r}")
    what = f"network x{'/'.join(map(str, scales))}: 1 is its output, above it {damage} on the small picture before"
    return Degradation(
        name, "network", what, (1.0, 2.0, 3.0, 4.0, 5.0), _Enlarged(network, scales, kinds), 0.0, 3, source
    )


def _is_factor(scale: object) -> bool:
    return isinstance(scale, int) and not isinstance(scale, bool) and scale >= 2


def _blurred(small: Tensor, strength: float, noise: Tensor) -> Tensor:
    return gaussian_blur(small, 0.5 * strength**0.5)


def _noisy(small: Tensor, strength: float, noise: Tensor) -> Tensor:
    return small + 0.015 * strength * noise


def _coded(small: Tensor, strength: float, noise: Tensor) -> Tensor:
    return jpeg(small, 95 * 0.7**strength)


_APPLY: dict[str, Callable[[Tensor, float, Tensor], Tensor]] = {"blur": _blurred, "noise": _noisy, "jpeg": _coded}


@dataclass(frozen=True)
class _Enlarged:
    """The function of a network degradation; a class, so that it can be sent to other processes."""

    network: Network
    scales: tuple[int, ...]
    kinds: tuple[str, ...]

    def __call__(self, x: Tensor, value: float, generator: torch.Generator) -> Tensor:
        scales = _draw(self.scales, len(x), generator)
        choices = list(zip(scales, _draw(self.kinds, len(x), generator), strict=True))
        noise = normal(x, generator)
        out = torch.empty_like(x)
        for scale, kind in sorted(set(choices)):
            chosen = torch.tensor([choice == (scale, kind) for choice in choices], device=x.device)
            out[chosen] = self._through(x[chosen], scale, kind, max(value - 1, 0), noise[chosen])
        return x.lerp(out, min(value, 1))

    def _through(self, x: Tensor, scale: int, kind: str, strength: float, noise: Tensor) -> Tensor:
        height, width = x.shape[2:]
        least = getattr(self.network, "minimum", 1) * scale
        bottom, right = (max(least - side, 0) or -side % scale for side in (height, width))
        mode = "reflect" if bottom < height and right < width else "replicate"
        padded = F.pad(x, (0, right, 0, bottom), mode=mode)
        size = (padded.shape[2] // scale, padded.shape[3] // scale)
        small = resize(padded, size, "bicubic")
        if strength > 0:
            small = _APPLY[kind](small, strength, F.interpolate(noise, size, mode="nearest"))
        small = small.clamp(0, 1)
        large = self.network(small, scale) if isinstance(self.network, SuperResolver) else self.network(small)
        if large.shape != padded.shape:
            raise InputError(
                f"the network gave {tuple(large.shape)} for {tuple(small.shape)}; expected {tuple(padded.shape)}, "
                f"as its scale is said to be {scale}"
            )
        return large[..., :height, :width].clamp(0, 1)


def _draw(options: tuple[_T, ...], count: int, generator: torch.Generator) -> list[_T]:
    return [options[pick] for pick in torch.randint(len(options), (count,), generator=generator).tolist()]
