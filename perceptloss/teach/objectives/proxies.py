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

__all__ = ["ProxyHead", "batch_triplets", "code_distance"]

# logits are W^T v times this over sqrt(d): the larger, the sooner the softmax is content, with bits still wrong;
# sqrt(d), which is W^T v itself, leaves several times as many
_SCALE = 2.0


def _full(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def code_distance(v: Tensor, other: Tensor) -> Tensor:
    """|v - v'|^2 / 4 of embeddings (..., d) in [-1, 1], in [0, d]: bits that differ where both are saturated.

    The published (d - v.v') / 2 is the same there, but elsewhere not 0 between equal embeddings.
    """
    return (_full(v) - _full(other)).square().sum(-1) / 4


def batch_triplets(v: Tensor, labels: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of log(1 + exp(margin + d(anchor, positive) - d(anchor, negative))), a scalar; 0 without a triplet.

    Over all triplets of the batch, d = `code_distance`.

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


class ProxyHead(nn.Module):
    """Embedding v = tanh(L f + b) in (-1, 1)^d of features f, classified by fixed binary proxies W.

    Only L and b learn; W is a buffer and gets no gradient. The signs of v are the code.

    Args:
        features: Length of f.
        proxies: W of -1 and 1, (d, C), no two columns alike, as from `class_proxies`.

    Example:
        >>> from perceptloss.teach.objectives.anchors import class_proxies, level_similarity
        >>> levels = level_similarity(["blur"] * 3 + ["noise"] * 3, [1, 2, 3] * 2)
        >>> head = ProxyHead(512, class_proxies(6, 32, similarity=levels))
        >>> f = torch.randn(4, 512, requires_grad=True)
        >>> head.loss(f, torch.tensor([0, 0, 5, 3])).backward()
    """

    proxies: Tensor

    def __init__(self, features: int, proxies: Tensor) -> None:
        super().__init__()
        self.embed = nn.Linear(features, len(proxies))
        self.register_buffer("proxies", proxies.detach().clone().to(self.embed.weight.dtype))

    def forward(self, f: Tensor) -> Tensor:
        """Features (N, features) to embeddings in (-1, 1), (N, d)."""
        return torch.tanh(self.embed(f))

    def logits(self, v: Tensor) -> Tensor:
        """Of embeddings (N, d) for the classes, (N, C)."""
        v = _full(v)
        with torch.autocast(v.device.type, enabled=False):  # halves would round logits of up to 64 to a quarter
            return v @ self.proxies.to(v) * (_SCALE / math.sqrt(len(self.proxies)))

    def loss(self, f: Tensor, labels: Tensor, *, triplets: float = 0.0, margin: float = 0.0) -> Tensor:
        """Cross entropy over the proxies, plus `triplets` times `batch_triplets`; a scalar.

        Triplets help with classes that were not taught; the paper gives them weight 1.

        Args:
            f: Features, (N, features).
            labels: Classes, (N,), int64.
            triplets: Weight of the triplets.
            margin: Of the triplets, in bits.
        """
        v = self(f)
        loss = F.cross_entropy(self.logits(v), labels) if len(f) else v.sum()
        return loss + triplets * batch_triplets(v, labels, margin) if triplets else loss
