"""Losses of a Retinex decomposition: what gives an image its reflectance and its illumination.

After Wei, Wang, Yang, Liu: "Deep Retinex Decomposition for Low-Light Enhancement", BMVC 2018
(github.com/weichen582/RetinexNet, MIT), written from the formulas: pairs of one scene in two lights share the
reflectance, and illumination is smooth but where the reflectance has edges.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Layers", "retinex_loss", "smoothness"]

Layers = tuple[Tensor, Tensor]
"""Reflectance (N, 3, H, W) and illumination (N, 1, H, W), in [0, 1]."""


def smoothness(reflectance: Tensor, illumination: Tensor, edge: float = 10.0) -> Tensor:
    r"""Total variation of the illumination, less where the grey reflectance varies; (N,), at least 0.

    .. math:: \sum_{d \in \{\to, \downarrow\}} \operatorname{mean} |\nabla_d L| e^{-\lambda |\nabla_d \bar R|}

    Args:
        reflectance: (N, 3, H, W).
        illumination: (N, 1, H, W).
        edge: Lambda.
    """
    grey = reflectance.mean(1, keepdim=True)
    varied = [
        (illumination.diff(dim=d).abs() * torch.exp(-edge * grey.diff(dim=d).abs())).mean((1, 2, 3)) for d in (2, 3)
    ]
    return varied[0] + varied[1]


def retinex_loss(
    x: Tensor,
    y: Tensor,
    of_x: Layers,
    of_y: Layers,
    *,
    cross: float = 0.001,
    reflectance: float = 0.01,
    smooth: float = 0.1,
) -> Tensor:
    r"""How badly layers explain two images of one scene, (N,), at least 0.

    Mean absolute errors of R_x L_x against x and of R_y L_y against y, plus `cross` times those with the reflectances
    exchanged, plus `reflectance` times |R_x - R_y|, plus `smooth` times `smoothness` of both.

    Args:
        x: Images, (N, 3, H, W).
        y: The same scenes in other light, same shape.
        of_x: Layers of `x`.
        of_y: Layers of `y`.
        cross: Weight.
        reflectance: Weight.
        smooth: Weight.

    Example:
        >>> layers = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(2, 1, 8, 8)
        >>> retinex_loss(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), layers, layers).sum().backward()
    """

    def error(r: Tensor, light: Tensor, image: Tensor) -> Tensor:
        return (r * light - image).abs().mean((1, 2, 3))

    (rx, lx), (ry, ly) = of_x, of_y
    loss = error(rx, lx, x) + error(ry, ly, y) + cross * (error(ry, lx, x) + error(rx, ly, y))
    loss = loss + reflectance * (rx - ry).abs().mean((1, 2, 3))
    return loss + smooth * (smoothness(rx, lx) + smoothness(ry, ly))
