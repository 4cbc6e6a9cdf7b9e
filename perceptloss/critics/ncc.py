r"""ncc: how far each channel is from being a straight line of the reference's: blind to gain and offset.

The normalised cross-correlation of matching, as a loss of restorers in neosr and traiNNer-redux (both Apache-2.0;
written from their facts). Ours: an image's score does not depend on its batch, whose rows are mixed there, and flat
channels correlate as far as they are alike, where they have none there.
"""

from __future__ import annotations

from torch import Tensor

from perceptloss.card import distance_card
from perceptloss.critic import Critic, Entry, given

__all__ = ["ENTRIES", "NCC"]

_FLAT = 1e-8  # added to variances: channels below are flat


class NCC(Critic):
    r"""(1 - r) / 2, with r the mean over channels of the correlation with the reference, in [0, 1]; lower is better.

    Example:
        >>> critic = create_critic("ncc")
        >>> x = torch.rand(2, 3, 16, 16, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 16, 16)).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        (a, size_a), (b, size_b) = (_unit(image) for image in (x, given(y)))
        # 1 - r as a square, which is 0 for equal images; what was added to variances is one more place of the vectors
        apart = (a - b).square().mean((2, 3)) + _FLAT * (1 / size_a - 1 / size_b).square()
        return apart.mean(1) / 4


def _unit(image: Tensor) -> tuple[Tensor, Tensor]:
    """Centred channels of deviation 1, (N, C, H, W), and the deviations, (N, C)."""
    centred = image - image.mean((2, 3), keepdim=True)
    size = (centred.square().mean((2, 3)) + _FLAT).sqrt()
    return centred / size[..., None, None], size


_CARD = distance_card(
    name="ncc",
    summary="One minus the correlation of each channel with the reference's; blind to gain and offset.",
    bounds=(0.0, 1.0),
    min_size=2,
    tiling="never",
    fidelity="paper",
    licence_code="Apache-2.0 (neosr)",
    paper="Lewis, Fast Normalized Cross-Correlation, Vision Interface 1995",
    source="https://github.com/neosr-project/neosr losses/ncc_loss.py (facts only)",
    notes=(
        "made to stand beside others: another brightness or contrast of a whole channel costs nothing",
        "hosts mix the images of a batch; here each has its own score",
    ),
)

ENTRIES = {"ncc": Entry(_CARD, NCC)}
