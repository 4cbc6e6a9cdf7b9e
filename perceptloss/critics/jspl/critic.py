"""JSPL: how far local feature sets of an image are from its reference's, valued by what the reference shows.

After Cao, Wang, Ren, Zuo: "Incorporating Semi-Supervised and Positive-Unlabeled Learning for Boosting
Full Reference Image Quality Assessment", CVPR 2022, of which neither code nor weights are public.
From the paper: two branches, spatial attention from the reference, local sliced Wasserstein
distances, and a classifier that tells images like the labelled ones from outliers. Ours: every
width, the two window sizes, the regression, and what the classifier reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry, given
from perceptloss.critics.jspl.local_sw import local_sliced_wasserstein, orthogonal_directions
from perceptloss.networks.lean import conv
from perceptloss.networks.trunks import HALF, Features, Keep, Trunk, TrunkCritic

__all__ = ["ENTRIES", "JSPL", "ConvLadder"]

_WINDOWS = ((2, 1), (8, 4))  # side and stride
_DEPTH = 4


class ConvLadder(Trunk):
    """Stages of four 3x3 convolutions with ReLUs, the first map added to the last; taps `stage1`, `stage2`, ...

    The ladder of WResNet without its last stage: strides 1, 2, 2, 2.

    Args:
        widths: Channels of each stage.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        taps = {f"stage{i}": i - 1 for i in range(1, len(widths) + 1)}
        super().__init__(f"ladder-{tuple(widths)}", taps, HALF)
        self.stages = nn.ModuleList()
        for position, (channels, width) in enumerate(zip((3, *widths[:-1]), widths, strict=True)):
            plan = [(channels, 2 if position else 1)] + [(width, 1)] * (_DEPTH - 1)
            self.stages.append(nn.ModuleList(nn.Conv2d(wide, width, 3, stride, 1) for wide, stride in plan))
        self.finish()

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [tuple(stage.children()) for stage in self.stages]

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        first, *others = self.parts()[position]
        shortcut = h = conv(h, first, relu=True, lean=keep == "lean")
        for layer in others:
            h = conv(h, layer, relu=True, lean=keep == "lean")
        return h + shortcut


class Regressor(nn.Module):
    """Score from distances and from the content they are seen on.

    Hidden units are kinds of difference; how visible each is, from 0 to 2, the content decides. A
    new one ranks equal images first: its units start at 0 there, and each speaks against the image.
    """

    def __init__(self, distances: int, content: int, hidden: int) -> None:
        super().__init__()
        self.kinds = nn.Linear(distances, hidden)
        self.visibility = nn.Linear(content, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.kaiming_normal_(self.kinds.weight, nonlinearity="relu")
        nn.init.uniform_(self.out.weight, -32 / hidden, 0)  # so that random scores are O(1)
        for layer in (self.kinds, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, distances: Tensor, content: Tensor) -> Tensor:
        """(N, distances) and (N, content) to (N,)."""
        kinds = F.relu(self.kinds(distances))
        return self.out(kinds * (2 * torch.sigmoid(self.visibility(content)))).squeeze(1)


class JSPL(TrunkCritic):
    """After JSPL; architecture partly ours: opinion score, higher is better, not fixed at identity.

    Distances of windows are averaged with attention maps that the reference alone decides, so that
    no image can move attention away from its errors.

    `confidence` says how much a pair is like those that the critic was fitted to. With `guard`, each
    image's gradient is multiplied by it, while scores stay what they are: a critic that is out of
    its depth then pulls less. The attribute may be set at any time.

    Args:
        card: What it is.
        widths: Channels of the four stages; distances are taken at all but the first, whose
            full-size maps would cost more sorting than the others together.
        attention: Attention maps of each stage.
        hidden: Units of the regression and of the classifier.
        guard: Whether the gradient is weighted by the confidence.

    Example:
        >>> critic = create_critic("jspl", weights=None)
        >>> x = torch.rand(1, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 96, 96)).sum().backward()
    """

    unused = (r"classifier\..+",)

    def __init__(
        self,
        card: Card,
        *,
        widths: Sequence[int] = (64, 128, 256, 256),
        attention: int = 8,
        hidden: int = 64,
        guard: bool = False,
    ) -> None:
        super().__init__(card)
        self.guard = guard
        self.trunk = ConvLadder(widths)
        self.taps = tuple(self.trunk.tap_at)[1:]
        self.attend = nn.ModuleList(nn.Conv2d(width, attention, 1) for width in widths[1:])
        for name, width in zip(self.taps, widths[1:], strict=True):
            self.register_buffer(f"directions_{name}", orthogonal_directions(width))
        distances, content = len(self.taps) * len(_WINDOWS) * attention, widths[-1]
        self.regressor = Regressor(distances, content, hidden)
        self.classifier = nn.Sequential(
            nn.Linear(distances + 2 * content, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0)
        )

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        distances = self.distances(fx, fy)
        score = self.regressor(distances, self._content(fy))
        if not self.guard:
            return score
        with torch.no_grad():
            confidence = torch.sigmoid(self._logit(distances, fx, fy))
        constant = score.detach()
        return constant + confidence * (score - constant)

    def distances(self, fx: Features, fy: Features) -> Tensor:
        """log(1 + attended mean distance), (N, stages * windows * attention maps), from the taps of both images."""
        found = []
        for tap, attend in zip(self.taps, self.attend, strict=True):
            attention, directions = attend(fy[tap]), getattr(self, f"directions_{tap}")
            for window, stride in _WINDOWS:
                map_ = local_sliced_wasserstein(fx[tap], fy[tap], directions, window, stride).flatten(1)
                found.append(torch.einsum("nkw,nw->nk", _shares(attention, window, stride), map_))
        return torch.log1p(torch.cat(found, 1))

    def _content(self, f: Features) -> Tensor:
        return f[self.taps[-1]].mean((2, 3))

    def _logit(self, distances: Tensor, fx: Features, fy: Features) -> Tensor:
        return self.classifier(torch.cat([distances, self._content(fx), self._content(fy)], 1).detach())

    def logit(self, x: Tensor, y: Tensor) -> Tensor:
        """Read-out of the classifier before its sigmoid, (N,), to teach it with.

        Its inputs are detached: neither the image nor anything but the classifier gets a gradient.
        """
        x, checked = self.admit(x, y)
        with torch.autocast(x.device.type, enabled=False):
            with torch.no_grad():
                fx, fy = self.look(x), self.look(given(checked))
                distances = self.distances(fx, fy)
            return self._logit(distances, fx, fy)

    @torch.no_grad()
    def confidence(self, x: Tensor, y: Tensor) -> Tensor:
        """How much each pair is like those that the critic was fitted to, in (0, 1), without a gradient: (N,)."""
        return torch.sigmoid(self.logit(x, y))


def _shares(attention: Tensor, window: int, stride: int) -> Tensor:
    """Attention maps (N, K, H, W) as shares of the windows, which sum to 1: (N, K, windows)."""
    below, beside = (-(length - window) % stride for length in attention.shape[-2:])
    padded = F.pad(attention, (0, beside, 0, below), mode="replicate")
    return F.avg_pool2d(padded, window, stride).flatten(2).softmax(-1)


_CARD = opinion_card(
    name="jspl",
    summary="Opinion score from local distributions of features, tolerant of small shifts; tells when it is unsure.",
    kind="fr",
    min_size=64,
    fidelity="after-paper",
    licence_code="none published (ours: Apache-2.0)",
    licence_weights="none published",
    weights=("jspl",),
    paper="Cao et al., Incorporating Semi-Supervised and Positive-Unlabeled Learning for Boosting Full Reference Image "
    "Quality Assessment, CVPR 2022",
    source="https://github.com/happycaoyue/JSPL (no code at the time of writing)",
    notes=(
        "after the paper, architecture partly ours: 5.1 M parameters, to be fitted to opinions by its user",
        "texture may be scrambled inside a window of features at no cost: combine with a pixel loss",
        "projections are stored with the weights, not drawn at each step: scores repeat",
        "critic.guard = True multiplies each image's gradient by the classifier's confidence; the score stays as it is",
        "critic.confidence(x, y) is near 0 on images unlike the labelled ones",
        "when it learns from its own labels: no label above that of the reference, hold the critic between refreshes",
    ),
)

ENTRIES = {"jspl": Entry(_CARD, JSPL)}
