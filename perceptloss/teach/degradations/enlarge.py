"""What enlargement leaves of a picture: one shrinking, many enlargers, the same factors for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import ConfigError, InputError, near
from perceptloss.networks.restorers import SuperResolver
from perceptloss.teach.degradations.core import Degradation, register_degradation
from perceptloss.teach.degradations.directed import by_covariance, by_gradient, doubled_until
from perceptloss.teach.degradations.fitted import back_projected, flattened, self_similar
from perceptloss.teach.degradations.operations import gaussian_blur
from perceptloss.teach.degradations.resize import resize

__all__ = ["ENLARGERS", "FACTORS", "enlarge", "enlarged", "enlargement", "shrunk"]

FACTORS = (1.5, 2.0, 3.0, 4.5, 8.0)
"""Factor at level 1 to 5."""

_DOWN = ("bicubic", "area")
_AMOUNT, _WIDTH = 2.2, 0.5  # of the unsharp mask; its width counts in pixels of the small picture

Enlarger = Callable[[Tensor, tuple[int, int]], Tensor]


def _sharpened(small: Tensor, size: tuple[int, int]) -> Tensor:
    large = resize(small, size, "bicubic")
    return large + _AMOUNT * (large - gaussian_blur(large, _WIDTH * size[0] / small.shape[-2]))


_TABLE: dict[str, Enlarger] = {
    "nearest": partial(resize, name="nearest"),
    "bilinear": partial(resize, name="bilinear"),
    "bicubic": partial(resize, name="bicubic"),
    "mitchell": partial(resize, name="mitchell"),
    "lanczos": partial(resize, name="lanczos"),
    "b-spline": partial(resize, name="b-spline"),
    "gradient-directed": partial(doubled_until, fill=by_gradient),
    "covariance-directed": partial(doubled_until, fill=by_covariance),
    "sharpened": _sharpened,
    "back-projection": back_projected,
    "total-variation": flattened,
    "self-similar": self_similar,
}

ENLARGERS = tuple(_TABLE)
"""Names that `enlarge` knows."""


def shrunk(x: Tensor, factor: float, down: str = "bicubic") -> Tensor:
    """The small picture: each side over the factor, rounded, at least 1 pixel; antialiased, in [0, 1]."""
    size = (max(1, round(x.shape[-2] / factor)), max(1, round(x.shape[-1] / factor)))
    return resize(x, size, down).clamp(0, 1)


def enlarged(small: Tensor, size: tuple[int, int], by: str | SuperResolver) -> Tensor:
    """A small picture at a larger size, in [0, 1].

    Args:
        small: (N, 3, h, w), in [0, 1].
        size: Height and width that are wanted.
        by: One of `ENLARGERS`, or a network, which is asked again while the picture is too small; what it gives is
            shrunk (bicubic) where its scales do not fit.

    Raises:
        ConfigError: for an unknown enlarger.
    """
    if isinstance(by, SuperResolver):
        return _by_network(small, size, by)
    if by not in _TABLE:
        raise ConfigError([f"name: unknown enlarger {by!r}{near(by, _TABLE)}"], "enlarge")
    return _TABLE[by](small, size).clamp(0, 1)


def _by_network(small: Tensor, size: tuple[int, int], network: SuperResolver) -> Tensor:
    large = small
    while large.shape[-2] < size[0] or large.shape[-1] < size[1]:
        height, width = large.shape[-2:]
        missing = max(size[0] / height, size[1] / width)
        scale = min((s for s in network.scales if s >= missing), default=max(network.scales))
        bottom, right = (max(0, network.minimum - side) for side in (height, width))
        padded = F.pad(large, (0, right, 0, bottom), mode="replicate")
        large = network(padded, scale)[..., : scale * height, : scale * width].clamp(0, 1)
    return resize(large, size, "bicubic").clamp(0, 1)


@torch.no_grad()
def enlarge(x: Tensor, factor: float, by: str | SuperResolver, *, down: str = "bicubic") -> Tensor:
    """Pictures shrunk by a factor and enlarged to their size again.

    Args:
        x: (N, 3, H, W), float, in [0, 1]. Sides need not be multiples of the factor.
        factor: From 1; need not be whole.
        by: One of `ENLARGERS`, or a network.
        down: The antialiased filter that shrinks: "bicubic", "area", or another that `resize` knows.

    Returns:
        x's shape, in [0, 1].

    Raises:
        ConfigError: for an unknown enlarger.
        InputError: for a factor below 1.
    """
    if not 1 <= factor < float("inf"):
        raise InputError(f"factor: expected a number from 1, got {factor!r}")
    return enlarged(shrunk(x, factor, down), (x.shape[-2], x.shape[-1]), by)


def _there_and_back(x: Tensor, factor: float, generator: torch.Generator, *, by: str | SuperResolver) -> Tensor:
    down = _DOWN[int(torch.randint(len(_DOWN), (), generator=generator))]
    return enlarge(x, factor, by, down=down)


_SOURCES = {
    "gradient-directed": "Zhou, Shen, Dong, IET Image Processing 2012",
    "covariance-directed": "Li, Orchard, New Edge-Directed Interpolation, TIP 2001",
    "back-projection": "Irani, Peleg, CVGIP 1991",
    "total-variation": "Marquina, Osher, J. Sci. Comput. 2008",
    "self-similar": "Freedman, Fattal, ACM TOG 2011",
}


def enlargement(name: str, by: str | SuperResolver, family: str, source: str) -> Degradation:
    """The degradation by an enlarger or a network; equal levels mean equal factors, whoever enlarges.

    Args:
        name: Of the degradation.
        by: One of `ENLARGERS`, or a network, used as it is: put it in eval mode.
        family: Of the degradation.
        source: Paper of the method, or where the weights come from.
    """
    what = f"factor of antialiased shrinking (bicubic or area, drawn) before {name}"
    return Degradation(name, family, what, FACTORS, partial(_there_and_back, by=by), identity=1.0, source=source)


for _name in ENLARGERS:
    _source = _SOURCES.get(_name, "Yeganeh, Rostami, Wang, ICIP 2012 (enlarged pictures)")
    register_degradation(enlargement(f"enlarge-{_name}", _name, "enlarge", _source))
