r"""milo: absolute error under a mask that a small network learned: what the content hides counts less.

Cogalan, Bemana, Myszkowski, Seidel, Groth: "MILO: A Lightweight Perceptual Quality Metric for Image and Latent-Space
Optimization", ACM TOG 2025 (arXiv 2509.01411). From its description: five convolutions that run over three scales
predict from both images a mask of visibility, which multiplies |x - y|; a small monotone perceptron brings the mean to
a score; a consensus of critics stands for opinions. Nothing of the authors' code or weights, for which their repository
states no licence, is in it. Ours, where the description is silent: that the mask of a scale is enlarged and told to the
finer one, that the network sees the reference and the difference, squares of 2x2 pixels at once, all widths, the form
of the perceptron, the teachers and the weights, taught by `recipes/critic.py` with `recipes/configs/milo.yaml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.monotone import MonotoneHead

__all__ = ["ENTRIES", "MILO", "VisibilityMask"]

_FAINT = 0.01  # masked error below which the perceptron sees it linearly, above by its logarithm
_CONTRAST = 4.0  # of the difference that the network sees, to be of the size of the reference


class VisibilityMask(nn.Module):
    """How well an error would be seen at every pixel, in (0, 1), by the same five convolutions at every scale.

    They run over squares of 2x2 pixels, which is a quarter of the work, and their mask is enlarged between the
    squares. From coarse to fine: a scale sees its images and the mask of the coarser one, the coarsest 0.5 instead.
    Images and masks are continued by what is at their ends.

    Args:
        width: Channels between the convolutions.
        scales: How many, each half the size of the one before; the first is that of the images.
    """

    def __init__(self, width: int = 36, scales: int = 3) -> None:
        super().__init__()
        self.scales = scales
        self.layers = nn.Sequential()
        for channels in (25, width, width, width):
            self.layers += nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1, padding_mode="replicate"), nn.ReLU(inplace=True)
            )
        self.layers.append(nn.Conv2d(width, 1, 3, padding=1, padding_mode="replicate"))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mask of images (N, 3, H, W): (N, 1, H, W)."""
        height, width = x.shape[-2:]
        down, right = (-side % 2**self.scales for side in (height, width))
        seen = [F.pad(torch.cat([y - 0.5, _CONTRAST * (x - y)], 1), (0, right, 0, down), mode="replicate")]
        for _ in range(self.scales - 1):
            seen.append(F.avg_pool2d(seen[-1], 2))
        mask = None
        for scale in reversed(seen):
            squares = F.pixel_unshuffle(scale, 2)
            told = torch.full_like(squares[:, :1], 0.5) if mask is None else mask
            mask = self.layers(torch.cat([squares, told], 1)).sigmoid()
            mask = F.interpolate(mask, scale_factor=2, mode="bilinear", align_corners=False)
        assert mask is not None
        return mask[..., :height, :width]


class MILO(Critic):
    r"""How visibly two images differ, in [0, 1): lower is better, exactly 0 for equal images.

    .. math:: s = 1 - \exp\bigl(f(0) - f(\log(1 + \operatorname{mean}(M |x - y|) / 0.01))\bigr)

    with the mask M of `VisibilityMask` and f, a `MonotoneHead`, which rises everywhere. Losses read `linear`,
    -log(1 - s), which does not go flat where images differ a lot. M is a constant of the gradient, which so is that of
    a weighted L1 distance: a restorer cannot win by hiding its errors. `hold_weights = False` gives the exact one.

    Args:
        card: What it is.
        width: Channels of the mask's network.
        scales: Of the mask's network.
        steps: Hidden units of the perceptron.

    Raises:
        ConfigError: if an option is no number of at least 1.

    Example:
        >>> critic = create_critic("milo")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    unused = (r"scaler\.offset",)  # f(0) takes it away

    def __init__(self, card: Card, *, width: int = 36, scales: int = 3, steps: int = 8) -> None:
        wrong = {name: n for name, n in (("width", width), ("scales", scales), ("steps", steps)) if n < 1}
        if wrong:
            raise ConfigError([f"options.{name} must be at least 1, got {n!r}" for name, n in wrong.items()], card.name)
        super().__init__(card)
        self.mask = VisibilityMask(width, scales)
        self.scaler = MonotoneHead(steps)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.squash(self.linear(x, y))

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self._risen(self.quality_map(x, y).mean((1, 2, 3)))

    def squash(self, linear: Tensor) -> Tensor:
        return -torch.expm1(-linear)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Masked absolute error of every pixel, a mean over channels, lower is better: (N, 1, H, W)."""
        y = given(y)
        return self.mask(self.held(x), y) * (x - y).abs().mean(1, keepdim=True)

    def _risen(self, error: Tensor) -> Tensor:
        seen = torch.log1p(error / _FAINT)
        return self.scaler(seen) - self.scaler(torch.zeros_like(seen))


_CARD = distance_card(
    name="milo",
    summary="Absolute error under a learned mask of what content hides: small, with the gradient of L1.",
    bounds=(0.0, 1.0),
    shape="hinge",
    min_size=8,
    fidelity="after-paper",
    licence_code="Apache-2.0 (ours; nothing of the authors' code is in it)",
    licence_weights="Apache-2.0 (ours: weights/milo.md lists the photographs)",
    weights=("milo",),
    paper="Cogalan et al., MILO: A Lightweight Perceptual Quality Metric for Image and Latent-Space Optimization, "
    "ACM TOG 2025",
    source="https://arxiv.org/abs/2509.01411 (its description; recipes/configs/milo.yaml)",
    notes=(
        "the authors' weights do not fit: network, perceptron and weights are ours, and scores are not the paper's",
        "taught by other critics, never by people: it shares the teachers' errors",
        "a loss is -log(1 - score), so that much damage is not out of its sight",
        "the mask is a constant of the gradient; hold_weights = False gives the exact derivative",
    ),
)

ENTRIES = {"milo": Entry(_CARD, MILO)}
