"""LPIPS and DISTS refitted by content-diverse comparisons (AIPQ): old distances, retrained VGG16 and weights.

Thong, Costa Pereira, Parisot, Leonardis, McDonagh: "Content-Diverse Comparisons improve IQA",
BMVC 2022. Original: https://github.com/huawei-noah/noah-research, folder aipq (commit 917a050,
MIT-style; parts of LPIPS BSD-2-Clause, of DISTS MIT). Trained on KADID-10k with pairs of unlike
content and correlation terms; the trunk learned too, so torchvision's file does not fit. Their
LPIPS maps [0, 1] to [-1, 1] and leaves out LPIPS's scaling. Ours: the gradient where all features
are zero is limited, and the covariance of DISTS is centred, as in `lpips` and `dists`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry
from perceptloss.networks.distances import IMAGENET_RULES, VGG16_CHANNELS, TextureStructureCritic, UnitDistanceCritic
from perceptloss.networks.trunks import HALF, vgg16
from perceptloss.weights.rules import LPIPS_HEADS, STAGED_L2_TRUNK, Rule

__all__ = ["AIPQDISTS", "AIPQLPIPS", "ENTRIES", "PooledAIPQLPIPS"]

_TRUNK = Rule(r"net\.slice\d\.(\d+\.(?:weight|bias))", r"trunk.features.\1")
_FILTER = replace(STAGED_L2_TRUNK[1], pattern=r"net\.slice\d\.\d+\.filter")


class AIPQLPIPS(UnitDistanceCritic):
    """LPIPS distance with retrained VGG16 and heads; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("aipq-lpips", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    rules: ClassVar[tuple[Rule, ...]] = (LPIPS_HEADS, _TRUNK)

    pool: Literal["max", "l2"] = "max"

    def __init__(self, card: Card) -> None:
        super().__init__(card, partial(vgg16, pool=self.pool, normalise=HALF), VGG16_CHANNELS)


class PooledAIPQLPIPS(AIPQLPIPS):
    """The same with the L2 pooling of DISTS; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("aipq-lpips-l2pool", weights=None)
        >>> x = torch.rand(2, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 64, 64)).sum().backward()
    """

    rules = (LPIPS_HEADS, _TRUNK, _FILTER)
    pool = "l2"


class AIPQDISTS(TextureStructureCritic):
    """DISTS distance with retrained VGG16, alpha and beta; lower is better, 0 for equal images.

    Example:
        >>> critic = create_critic("aipq-dists", weights=None)
        >>> x = torch.rand(1, 3, 128, 128, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 128, 128)).sum().backward()
    """

    rules = (_TRUNK, _FILTER, *IMAGENET_RULES)


_NOTES = (
    "fitted on KADID-10k at 256x256, without resizing; use crops of 128 pixels or more",
    "refitting made it a better judge of whole images; as an objective it is untried by its authors",
)


def _entry(name: str, what: str, top: float, notes: tuple[str, ...], build: Callable[[Card], Critic]) -> Entry:
    card = distance_card(
        name=name,
        summary=f"{what} refitted, trunk included, to rank images of unlike content.",
        bounds=(0.0, top),
        min_size=32,
        low_precision=True,
        fidelity="paper",
        licence_code="MIT, with BSD-2-Clause and MIT parts",
        licence_weights="MIT",
        weights=(name,),
        paper="Thong et al., Content-Diverse Comparisons improve IQA, BMVC 2022",
        source="https://github.com/huawei-noah/noah-research folder aipq, commit 917a050",
        notes=(*notes, *_NOTES),
    )
    return Entry(card, build)


_SIGN = "bounds hold for heads that are not negative; the authors' class has a clamp for that"
_SIGN_DISTS = "bounds hold for alpha and beta that are not negative"

ENTRIES = {
    "aipq-dists": _entry("aipq-dists", "DISTS", 2.0, (_SIGN_DISTS,), AIPQDISTS),
    "aipq-lpips": _entry("aipq-lpips", "LPIPS (VGG16)", float("inf"), (_SIGN,), AIPQLPIPS),
    "aipq-lpips-l2pool": _entry(
        "aipq-lpips-l2pool", "LPIPS (VGG16 with L2 pooling)", float("inf"), (_SIGN,), PooledAIPQLPIPS
    ),
}
