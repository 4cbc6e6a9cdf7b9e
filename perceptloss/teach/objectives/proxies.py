"""An embedding drawn to fixed binary anchors of classes: a side task for a critic, and codes of images.

After Morgado, Li, Costa Pereira, Saberian, Vasconcelos: "Deep Hashing with Hash-Consistent Large Margin Proxy
Embeddings", IJCV 2020. Ours: distances that are 0 between equal embeddings, also where they are not saturated.
`perceptloss.teach.objectives.anchors` places the anchors.

For which distortion at which level, on the features of a critic, or for finding like content. A code says nothing
about the order of qualities, and calls an artefact that was never seen by a wrong name: no restorer may be optimised by
it alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.objectives.anchors import (
    assignment_cost,
    class_proxies,
    greedy_assignment,
    hash_consistent,
    large_margin_proxies,
    level_similarity,
    procrustes,
    simplex_proxies,
    spread_proxies,
)

__all__ = [
    "ProxyHead",
    "assignment_cost",
    "balanced_bce",
    "batch_triplets",
    "class_proxies",
    "code_distance",
    "greedy_assignment",
    "hamming",
    "hash_consistent",
    "large_margin_proxies",
    "level_similarity",
    "procrustes",
    "simplex_proxies",
    "spread_proxies",
    "triplet_loss",
]


def _full(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def hamming(a: Tensor, b: Tensor) -> Tensor:
    """Number of bits that differ, int64, of codes (..., d) of bool; leading dimensions broadcast.

    Raises:
        InputError: if they are not bool or differ in length.
    """
    if a.dtype != torch.bool or b.dtype != torch.bool or a.shape[-1] != b.shape[-1]:
        shapes = f"{tuple(a.shape)} of {a.dtype} and {tuple(b.shape)} of {b.dtype}"
        raise InputError(f"expected codes (..., d) of torch.bool with the same d, got {shapes}")
    return (a ^ b).sum(-1)


def code_distance(v: Tensor, other: Tensor) -> Tensor:
    """|v - v'|^2 / 4 of embeddings (..., d) in [-1, 1], in [0, d]: `hamming` of their codes where both are saturated.

    The published (d - v.v') / 2 is the same there, but elsewhere not 0 between equal embeddings.
    """
    return (_full(v) - _full(other)).square().sum(-1) / 4


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of log(1 + exp(margin + d(anchor, positive) - d(anchor, negative))), d = `code_distance`; a scalar.

    Args:
        anchor: Embeddings, (N, d).
        positive: Of images of the same class, (N, d).
        negative: Of images of another, (N, d).
        margin: In bits.
    """
    gap = code_distance(anchor, positive) - code_distance(anchor, negative)
    return F.softplus(margin + gap).mean() if len(gap) else gap.sum()


def batch_triplets(v: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """`triplet_loss` of all triplets in a batch, a scalar; 0 where there is none.

    Args:
        v: Embeddings, (N, d). Memory grows as N times the number of pairs of one class.
        labels: Classes, (N,), integers.
        margin: In bits.
    """
    # not by products: between near embeddings their differences would drown
    distance = code_distance(v[:, None], v[None])
    same = labels[:, None] == labels
    anchors, positives = torch.nonzero(same & ~torch.eye(len(v), dtype=torch.bool, device=v.device), as_tuple=True)
    gaps = distance[anchors, positives][:, None] - distance[anchors]
    found = gaps[~same[anchors]]
    return F.softplus(margin + found).mean() if len(found) else distance.sum() * 0


def balanced_bce(logits: Tensor, tags: Tensor, frequency: Tensor | None = None) -> Tensor:
    """Binary cross entropy of tags in which the images with a tag weigh as much as those without; a scalar.

    Args:
        logits: (N, C).
        tags: 0 or 1, (N, C).
        frequency: Share of the training images that have each tag, (C,), inside (0, 1). None: both sides of each tag
            are averaged in the batch, and a side that the batch has not is left out.

    Raises:
        InputError: if shapes do not fit, or a frequency is not inside (0, 1).
    """
    if frequency is not None and not ((frequency > 0) & (frequency < 1)).all():
        raise InputError("frequencies must be inside (0, 1); leave out tags that no image or every image has")
    if logits.ndim != 2 or tags.shape != logits.shape or (frequency is not None and len(frequency) != logits.shape[1]):
        counts = "" if frequency is None else f" and {len(frequency)} frequencies"
        told = f"logits {tuple(logits.shape)}, tags {tuple(tags.shape)}{counts}"
        raise InputError(f"expected logits and tags (N, C) and C frequencies, got {told}")
    logits, tags = _full(logits), tags.to(logits.dtype if logits.dtype == torch.float64 else torch.float32)
    with_tag, without = tags * F.softplus(-logits), (1 - tags) * F.softplus(logits)
    if frequency is not None:
        share = frequency.to(with_tag)
        return (with_tag / share + without / (1 - share)).sum() / 2 / max(1, logits.numel())
    counts_with = tags.sum(0)
    counts_without = len(tags) - counts_with
    sides = (counts_with > 0).to(tags) + (counts_without > 0).to(tags)
    each = with_tag.sum(0) / counts_with.clamp_min(1) + without.sum(0) / counts_without.clamp_min(1)
    return (each / sides.clamp_min(1)).sum() / max(1, logits.shape[1])


class ProxyHead(nn.Module):
    """Embedding v = tanh(L f + b) in (-1, 1)^d of features f, classified by fixed binary proxies W.

    Only L and b learn; W is a buffer and gets no gradient. The signs of v are the code.

    Args:
        features: Length of f.
        proxies: W of -1 and 1, (d, C), no two columns alike, as from `class_proxies`.
        scale: tau: the logits are W^T v times tau / sqrt(d), so between -tau sqrt(d) and tau sqrt(d). The larger it is,
            the sooner the softmax is content, with bits still wrong: sqrt(d), which is W^T v itself, leaves
            several times as many as the default.

    Raises:
        ConfigError: if the proxies are not such, or a number is not positive.

    Example:
        >>> levels = level_similarity(["blur"] * 3 + ["noise"] * 3, [1, 2, 3] * 2)
        >>> head = ProxyHead(512, class_proxies(6, 32, similarity=levels))
        >>> f = torch.randn(4, 512, requires_grad=True)
        >>> head.loss(f, torch.tensor([0, 0, 5, 3])).backward()
        >>> hamming(head.code(head(f)), head.code(head(f[:1]))).shape
        torch.Size([4])
    """

    proxies: Tensor

    def __init__(self, features: int, proxies: Tensor, *, scale: float = 2.0) -> None:
        super().__init__()
        problems = []
        if features < 1:
            problems.append(f"features must be 1 or more, got {features!r}")
        if not scale > 0:
            problems.append(f"scale must be positive, got {scale!r}")
        if proxies.ndim != 2 or not (proxies.abs() == 1).all() or len(proxies.T.unique(dim=0)) < proxies.shape[1]:
            told = f"got shape {tuple(proxies.shape)}; class_proxies makes such"
            problems.append(f"proxies must be (d, C) of -1 and 1 without equal columns, {told}")
        if problems:
            raise ConfigError(problems, "ProxyHead")
        self.scale = scale
        self.embed = nn.Linear(features, len(proxies))
        self.register_buffer("proxies", proxies.detach().clone().to(self.embed.weight.dtype))

    @property
    def bits(self) -> int:
        """Length of the code."""
        return len(self.proxies)

    @property
    def classes(self) -> int:
        """Number of proxies."""
        return self.proxies.shape[1]

    def extra_repr(self) -> str:
        return f"bits={self.bits}, classes={self.classes}, scale={self.scale:g}"

    def raw(self, f: Tensor) -> Tensor:
        """L f + b, (N, d): the embedding before its tanh, whose slope 1 - v^2 a distance for a loss should avoid.

        Raises:
            InputError: if the features are not (N, features).
        """
        if f.ndim != 2 or f.shape[1] != self.embed.in_features:
            raise InputError(f"expected features (N, {self.embed.in_features}), got {tuple(f.shape)}")
        return self.embed(f)

    def forward(self, f: Tensor) -> Tensor:
        """Features (N, features) to embeddings in (-1, 1), (N, d)."""
        return torch.tanh(self.raw(f))

    def logits(self, v: Tensor) -> Tensor:
        """Of embeddings (N, d) for the classes, (N, C)."""
        v = _full(v)
        with torch.autocast(v.device.type, enabled=False):  # halves would round logits of up to 64 to a quarter
            return v @ self.proxies.to(v) * (self.scale / math.sqrt(self.bits))

    def code(self, v: Tensor) -> Tensor:
        """Bits of embeddings before or after the tanh, (N, d), bool: True where an entry is 0 or more."""
        return v.detach() >= 0

    def nearest(self, v: Tensor) -> Tensor:
        """Class whose proxy is nearest to the embedding, (N,), int64."""
        return self.logits(v.detach()).argmax(1)

    def loss(self, f: Tensor, labels: Tensor, *, triplets: float = 0.0, margin: float = 0.0) -> Tensor:
        """Cross entropy over the proxies, plus `triplets` times `batch_triplets`; a scalar.

        Triplets help with classes that were not trained; the paper gives them weight 1.

        Args:
            f: Features, (N, features).
            labels: Classes, (N,), int64.
            triplets: Weight of the triplets.
            margin: Of the triplets, in bits.

        Raises:
            InputError: if labels do not fit the features.
        """
        if labels.shape != f.shape[:1] or labels.dtype != torch.int64:
            told = f"got shape {tuple(labels.shape)} of {labels.dtype}; several tags per image: tag_loss"
            raise InputError(f"expected one int64 class for each of {len(f)} features, {told}")
        v = self(f)
        loss = F.cross_entropy(self.logits(v), labels) if len(f) else v.sum()
        return loss + triplets * batch_triplets(v, labels, margin) if triplets else loss

    def tag_loss(self, f: Tensor, tags: Tensor, frequency: Tensor | None = None) -> Tensor:
        """`balanced_bce` over the proxies, for images with any number of tags; a scalar."""
        return balanced_bce(self.logits(self(f)), tags, frequency)
