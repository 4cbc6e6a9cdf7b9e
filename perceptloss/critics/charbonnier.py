"""charbonnier: mean absolute error with a round bottom, the usual pixel loss of restorers.

Charbonnier, Blanc-Feraud, Aubert, Barlaud: "Two Deterministic Half-Quadratic Regularization Algorithms for Computed
Imaging", ICIP 1994; in super-resolution since Lai et al., "Deep Laplacian Pyramid Networks", CVPR 2017. Numbers follow
BasicSR (https://github.com/XPixelGroup/BasicSR, Apache-2.0), which adds `eps` under the root.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.criteria import CHARBONNIER, Criterion, apart, known_criterion, least_of

__all__ = ["ENTRIES", "Charbonnier"]


class Charbonnier(Critic):
    r"""Mean of \sqrt{(x - y)^2 + \epsilon} over pixels and channels; lower is better.

    Args:
        card: What it is.
        eps: Added under the root, in squared units of the images: 1e-12 of BasicSR, 1e-6 of Lai et al.
        criterion: `charbonnier`, its limits `l1` (no eps) and `l2` (the squared error), `huber` or `clipped`.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("charbonnier")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 16, 16)).sum().backward()
    """

    def __init__(self, card: Card, *, eps: float = CHARBONNIER, criterion: Criterion = "charbonnier") -> None:
        if not (isinstance(eps, (int, float)) and eps > 0):
            raise ConfigError([f"options.eps must be a number above 0, got {eps!r}"], card.name)
        self.eps, self.criterion = eps, known_criterion(criterion, card.name)
        least = least_of(self.criterion, eps)
        super().__init__(replace(card, bounds=(least, card.bounds[1]), identity=least))

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.quality_map(x, y).mean((1, 2, 3))

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Error of every pixel, a mean over its channels, lower is better: (N, 1, H, W)."""
        return apart(x, given(y), self.criterion, self.eps).mean(1, keepdim=True)


_CARD = distance_card(
    name="charbonnier",
    summary="Mean absolute error with a round bottom; the pixel loss of many restorers.",
    bounds=(CHARBONNIER**0.5, float("inf")),
    identity=CHARBONNIER**0.5,
    tiling="exact",
    fidelity="paper",
    licence_code="Apache-2.0 (BasicSR)",
    paper="Charbonnier et al., Two Deterministic Half-Quadratic Regularization Algorithms, ICIP 1994; "
    "Lai et al., Deep Laplacian Pyramid Networks, CVPR 2017",
    source="https://github.com/XPixelGroup/BasicSR 1.4.2",
    notes=(
        "equal images score the root of eps, 1e-6 unless it is given",
        "options: {criterion: l1} is the mean absolute error, l2 the mean squared error",
    ),
)

ENTRIES = {"charbonnier": Entry(_CARD, Charbonnier)}
