"""FR with NR features: what an image lost against its reference, beside how it looks on its own.

After Dutta, Das, Shah: "Can No-reference features help in Full-reference image quality estimation?",
2022, of which neither code nor weights are public. From the paper: full-reference features of both
images and no-reference features of the judged one are joined before the regression. Ours: the
trunks, the pooling, the regression, and the additive form, in which the no-reference part is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, distance_card, opinion_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.distances import VGG16_CHANNELS
from perceptloss.networks.layers import unit_distance
from perceptloss.networks.trunks import (
    Features,
    JoinedTrunk,
    Keep,
    Trunk,
    TrunkCritic,
    TrunkName,
    resnet_rules,
    squeezenet,
    staged,
    vgg16,
)
from perceptloss.weights.rules import LPIPS_HEADS, Rule

__all__ = ["ENTRIES", "FRNR", "FRNRAdditive"]

_SQUEEZE: Final = {"relu1": 64, "fire3": 128, "fire5": 256, "fire7": 384, "fire9": 512}
_WIDTHS = (64, 128, 256, 512)

_TRUNK_RULES = (
    Rule(r"features\.(.+)", r"trunk.fr.features.\1"),
    Rule(r"classifier\..+", None, "the classifier behind the features is not used"),
    *resnet_rules(target="trunk.nr"),
)


class _TwoTrunks(JoinedTrunk):
    """One trunk as `fr` and one as `nr`: VGG16 and a ResNet, or SqueezeNet 1.1 and lite0-smooth, which ship.

    Args:
        depth: Of the ResNet.
        cap: Largest share that `nr` may have of an image's gradient.
        name: `resnet` or `lite0-smooth`.

    Attributes:
        fr_taps: Taps that are read, with their channels.
        nr_taps: Likewise.
    """

    def __init__(self, depth: int, cap: float | None = None, name: TrunkName = "resnet") -> None:
        second = staged(name, depth, _WIDTHS)
        first, taps = (vgg16(), VGG16_CHANNELS) if name == "resnet" else (squeezenet(), _SQUEEZE)
        first.ships = None if name == "resnet" else "squeezenet1_1"
        super().__init__(fr=first, nr=second.trunk)
        self.cap = cap
        self.fr_taps = {f"fr.{tap}": channels for tap, channels in taps.items()}
        self.nr_taps = {f"nr.{tap}": channels for tap, channels in zip(second.taps, second.channels, strict=True)}

    def shown(self, image: Tensor, keep: Keep) -> dict[str, Tensor]:
        if self.cap is None or not image.requires_grad:
            return super().shown(image, keep)
        return dict(zip(self.names, _Capped.apply(image, self.cap), strict=True))

    def same_as(self, other: Trunk) -> bool:
        # a cap weighs what comes back from all who read the trunk
        is_capped = self.cap is not None or getattr(other, "cap", None) is not None
        return self is other if is_capped else super().same_as(other)


class _Capped(torch.autograd.Function):
    """Two copies of the images; the second's gradient is shortened to a share of both norms, image by image."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, cap: float) -> tuple[Tensor, Tensor]:
        ctx.ratio = cap / (1 - cap)
        return image.clone(), image.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        first, second = (torch.linalg.vector_norm(g, dim=(1, 2, 3), keepdim=True) for g in grads)
        longest = ctx.ratio * first
        factor = longest / torch.maximum(longest, second).clamp_min(torch.finfo(second.dtype).tiny)
        return grads[0] + factor * grads[1], None


def _pooled(f: Features, taps: Iterable[str]) -> Tensor:
    """Logarithm of 1 + the mean of every channel, (N, channels of all taps), so that large features do not rule.

    Odd, for features that have known no ReLU: the mean of -m gives what that of m gives, with its sign.
    """
    mean = torch.cat([f[tap].mean((2, 3)) for tap in taps], 1)
    return torch.log1p(mean.clamp_min(0)) - torch.log1p(F.relu(-mean))


class FRNR(TrunkCritic):
    r"""After FR with NR features; architecture partly ours: opinion score, higher is better, not fixed at identity.

    .. math:: s = \operatorname{MLP}(p(|F(x) - F(y)|), p(F(y)), p(N(x)))

    F five VGG16 maps, N four ResNet maps, p a spatial mean. The regression may let N overrule F:
    `fr-nr-additive` bounds it.

    Args:
        card: What it is.
        trunk: `resnet`, or `lite0-smooth` for N, and SqueezeNet 1.1 for F.
        depth: Of the ResNet: 18, 34 or 50.
        width: To which each of the three vectors is reduced.
        hidden: Units of the regression.

    Example:
        >>> critic = create_critic("fr-nr", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    rules = _TRUNK_RULES
    trunk: _TwoTrunks

    def __init__(
        self, card: Card, *, trunk: TrunkName = "resnet", depth: int = 50, width: int = 128, hidden: int = 128
    ) -> None:
        super().__init__(card)
        self.trunk = _TwoTrunks(depth, None, trunk)
        self.taps = (*self.trunk.fr_taps, *self.trunk.nr_taps)
        total = sum(self.trunk.fr_taps.values())
        self.difference, self.reference = nn.Linear(total, width), nn.Linear(total, width)
        self.alone = nn.Linear(sum(self.trunk.nr_taps.values()), width)
        self.regressor = nn.Sequential(
            nn.ReLU(), nn.Linear(3 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0)
        )

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        seen = self.trunk.fr_taps
        difference = {tap: (fx[tap] - fy[tap]).abs() for tap in seen}
        lost, content = self.difference(_pooled(difference, seen)), self.reference(_pooled(fy, seen))
        return self.regressor(torch.cat([lost, content, self.alone(_pooled(fx, self.trunk.nr_taps))], 1))


class FRNRAdditive(TrunkCritic):
    r"""After FR with NR features; architecture ours: distance plus a bounded penalty, lower is better, 0 at identity.

    .. math:: D = d(x, y) + \lambda \max(0, q(y) - q(x))

    d the distance of LPIPS in VGG16, q a no-reference quality in (0, 1) from ResNet maps. The
    second part adds less than lambda, is silent where x looks no worse than y, and pulls where x is
    close to y but ugly.

    Args:
        card: What it is.
        depth: Of the ResNet: 18, 34 or 50.
        hidden: Units of the no-reference head.
        nr_weight: Lambda, in units of d; 0 leaves the distance alone, to the bit, and runs no ResNet.
        nr_cap: Largest share of the second part in the norms of an image's two gradients, from 0 to below 1;
            None leaves the gradient as it is. A no-reference network is easy to fool, so that a
            cap of 0.1 is wise in training; near identity, where d is flat, it silences the second part.
            `critic.trunk.cap` may also be set before the critic enters a loss.

    Raises:
        ConfigError: if `nr_weight` or `nr_cap` is out of range.

    Example:
        >>> critic = create_critic("fr-nr-additive", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    rules = (*_TRUNK_RULES, LPIPS_HEADS)
    trunk: _TwoTrunks

    def __init__(
        self, card: Card, *, depth: int = 50, hidden: int = 128, nr_weight: float = 0.05, nr_cap: float | None = None
    ) -> None:
        super().__init__(card)
        if not (0 <= nr_weight < math.inf and (nr_cap is None or 0 <= nr_cap < 1)):
            expected = "a number of at least 0 for nr_weight, a share from 0 to below 1 or None for nr_cap"
            raise ConfigError([f"expected {expected}, got {nr_weight!r} and {nr_cap!r}"], card.name)
        self.nr_weight = nr_weight
        self.trunk = _TwoTrunks(depth, nr_cap)
        self.taps = (*self.trunk.fr_taps, *(self.trunk.nr_taps if nr_weight else ()))
        self.heads = nn.ParameterList([torch.rand(channels) / channels for channels in VGG16_CHANNELS.values()])
        total = sum(self.trunk.nr_taps.values())
        self.quality = nn.Sequential(
            nn.Linear(total, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid(), nn.Flatten(0)
        )

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        distance, penalty = self._parts(fx, fy)
        return distance + penalty

    def _parts(self, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
        pairs = zip(self.trunk.fr_taps, self.heads, strict=True)
        distance = torch.stack([unit_distance(fx[tap], fy[tap], head) for tap, head in pairs]).sum(0)
        if not self.nr_weight:
            return distance, torch.zeros_like(distance)
        qx, qy = (self.quality(_pooled(f, self.trunk.nr_taps)) for f in (fx, fy))
        return distance, self.nr_weight * F.relu(qy - qx)

    def parts(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The distance and the weighted penalty, whose sum is the score, (N,) each; for logging."""
        x, y = self.admit(x, y)  # type: ignore[assignment]
        with torch.autocast(x.device.type, enabled=False):
            fx = self.look(x)
            with torch.no_grad():
                fy = self.look(y)
            return self._parts(fx, fy)

    def nr_share(self, x: Tensor, y: Tensor) -> Tensor:
        """Share of the penalty in the norms of the two gradients of each image, 0 to 1, after the cap: (N,).

        For logging: runs the critic and two backward passes. 0 where there is no gradient at all.
        """
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            distance, penalty = self.parts(leaf, y)
            (of_distance,) = torch.autograd.grad(distance.sum(), leaf, retain_graph=True)
            (of_both,) = torch.autograd.grad((distance + penalty).sum(), leaf)
        first, second = (g.flatten(1).norm(dim=1) for g in (of_distance, of_both - of_distance))
        return second / (first + second).clamp_min(torch.finfo(second.dtype).tiny)


_FACTS: dict[str, Any] = {
    "min_size": 32,
    "fidelity": "after-paper",
    "licence_code": "none published (ours: Apache-2.0)",
    "paper": "Dutta, Das and Shah, Can No-reference features help in Full-reference image quality estimation?, 2022",
    "source": "no code published",
}


_CONCAT = opinion_card(
    **_FACTS,
    kind="fr",
    name="fr-nr",
    summary="Opinion score from what an image lost against its reference together with how it looks on its own.",
    licence_weights="none published (head), BSD-3-Clause (torchvision trunks)",
    weights=("fr-nr", "vgg16", "resnet50"),
    notes=(
        "after the paper, architecture partly ours: VGG16 and ResNet-50 trunks, and a head of 0.9 M parameters to be "
        "fitted to opinions by its user",
        "the no-reference features may overrule the others, and are easy to fool: fr-nr-additive bounds their part",
        "a ResNet-50 fitted to opinions serves better than ImageNet's: give its file under torchvision's names",
    ),
)

_ADDITIVE = distance_card(
    **_FACTS,
    name="fr-nr-additive",
    summary="LPIPS-like distance plus a bounded penalty for looking worse than the reference on its own.",
    licence_weights="none published (no-reference head), BSD-2-Clause (LPIPS heads), BSD-3-Clause (torchvision trunks)",
    weights=("fr-nr-additive", "vgg16", "lpips-vgg", "resnet50"),
    notes=(
        "after the paper, architecture partly ours: D = d(x, y) + 0.05 max(0, q(y) - q(x))",
        "the heads of d are those of lpips-vgg unless fitted anew; bounds hold for heads that are not negative",
        "an image that looks better than its reference gains nothing by it",
        "critic.trunk.cap = 0.1 keeps the penalty's part of every image's gradient at a tenth; "
        "nr_share(x, y) measures it, parts(x, y) gives both parts of the score",
    ),
)

ENTRIES = {"fr-nr": Entry(_CONCAT, FRNR), "fr-nr-additive": Entry(_ADDITIVE, FRNRAdditive)}
