r"""Reblur: how much of an image's edges a further blur takes away. After Crete et al.; architecture partly ours.

The principle is that of Crete, Dolmiere, Ladret, Nicolas: "The Blur Effect: Perception and
Estimation with a New No-Reference Perceptual Blur Metric", SPIE 2007: blurring again changes a
sharp image much and a blurred one little. Ahmed et al., Traitement du Signal 41(4), 2024, compare
an image with re-blurred versions of itself in the same spirit, with parts that are not published.
The Gaussian, the ratio and its bounds are ours.
"""

from __future__ import annotations

from torch import Tensor

from perceptloss.card import opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.functional import YIQ, blur, gaussian, mix_channels, root, soften

__all__ = ["ENTRIES", "Reblur", "reblur"]

_TAPS, _SIGMA = 9, 1.5
_QUIET = 1e-3  # mean edge, in units of [0, 1], below which the gradient fades (photographs: 1e-2 and more)


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Size of the gradient, averaged by the blur, and of the blurred gradient, which is never larger; (N, 1, h, w)."""
    window = gaussian(_TAPS, _SIGMA)
    luma = mix_channels(x, YIQ[:1])
    down = luma[..., 1:, :-1] - luma[..., :-1, :-1]
    across = luma[..., :-1, 1:] - luma[..., :-1, :-1]
    before = blur(root(down.square() + across.square()), window)
    return before, root(blur(down, window).square() + blur(across, window).square())


def _taken(before: Tensor, after: Tensor) -> Tensor:
    """Share of the edges that is gone; 0 where there was none."""
    there = before > 0
    return (1 - after / before.where(there, before.new_ones(()))).where(there, before.new_zeros(()))


def reblur(x: Tensor) -> Tensor:
    r"""Share of the edges that a further blur takes, in [0, 1]: 1 - \sum |G * \nabla I| / \sum G * |\nabla I|.

    Args:
        x: Images, (N, 3, H, W), RGB in [0, 1], sides of at least 10.

    Returns:
        One value per image, (N,); 0 for flat images, and near 0 for straight ramps. Does not change with
        brightness and contrast.
    """
    before, after = (edge.mean((1, 2, 3)) for edge in _edges(x))
    return soften(_taken(before, after), before, _QUIET)


class Reblur(Critic):
    """After Crete et al., 2007; architecture partly ours. Sharpness in [0, 1]; higher is sharper.

    Example:
        >>> critic = create_critic("reblur")
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return reblur(x)

    def quality_map(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Share of each place's edges that the blur takes, (N, 1, H - 9, W - 9); higher is sharper.

        A cell stands for the 10x10 pixels from its place on, the middle ones most; 0 where there is no edge. The
        score is their mean, weighted by the edges.
        """
        return _taken(*_edges(x))


_CARD = opinion_card(
    name="reblur",
    summary="Share of the edges that a further blur takes away; high for sharp images.",
    kind="nr",
    bounds=(0.0, 1.0),
    domains=frozenset({"blur"}),
    min_size=10,
    fidelity="after-paper",
    licence_code="none needed (written from the principle)",
    paper="Crete et al., The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur Metric, "
    "SPIE 2007",
    source="ours; compare Ahmed et al., Traitement du Signal 41(4), 2024",
    notes=(
        "sees blur and nothing else: noise and ringing raise it, so use the default shape 'hinge', which asks for the "
        "sharpness of the reference and no more, beside a loss that punishes noise",
        "a ratio: brightness and contrast do not change it",
        "a scene that is smooth, or out of focus on purpose, scores low",
    ),
)

ENTRIES = {"reblur": Entry(_CARD, Reblur)}
