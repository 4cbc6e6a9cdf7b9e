"""Losses that learn from images without labels: which of them are like the labelled ones, and labels of their own.

After Cao, Wang, Ren, Zuo: "Incorporating Semi-Supervised and Positive-Unlabeled Learning for Boosting Full Reference
Image Quality Assessment", CVPR 2022, which has no public code: a cross entropy that takes labelled images for
positive, an entropy that makes up its mind about every other one, and a term that asks for one negative in every
batch. Weights of 1 and the form of the entropy are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import InputError

__all__ = ["positive_unlabelled", "pseudo_labelled"]


def positive_unlabelled(logits: Tensor, is_labelled: Tensor) -> Tensor:
    r"""Loss of a classifier that knows positives alone, at least 0; h = sigmoid(logit).

    .. math:: -\operatorname{mean}_{l} \log h_l + \operatorname{mean}_{u} H(h_u) - \log(1 - \min_u h_u)

    l are labelled images, u the others, H the entropy of a coin that shows heads with that probability. The last term
    alone keeps it from calling everything positive, and reaches exactly one image.

    Args:
        logits: Of every image, (N,).
        is_labelled: Which are positive, (N,) bool; parts of which there is none are 0.

    Raises:
        InputError: if the lists do not fit.

    Example:
        >>> logits = torch.randn(8, requires_grad=True)
        >>> positive_unlabelled(logits, torch.arange(8) < 4).backward()
    """
    if logits.ndim != 1 or logits.shape != is_labelled.shape or is_labelled.dtype != torch.bool:
        raise InputError(
            f"positive_unlabelled needs logits (N,) and which are labelled, (N,) bool, got {tuple(logits.shape)} and "
            f"{is_labelled.dtype} {tuple(is_labelled.shape)}"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labelled, others = logits[is_labelled], logits[~is_labelled]
    loss = logits.sum() * 0
    if len(labelled):
        loss = loss + F.softplus(-labelled).mean()
    if len(others):
        h = torch.sigmoid(others)
        entropy = h * F.softplus(-others) + (1 - h) * F.softplus(others)
        loss = loss + entropy.mean() + F.softplus(others.amin())
    return loss


def pseudo_labelled(q: Tensor, label: Tensor, logits: Tensor) -> Tensor:
    r"""Squared error to labels of one's own, of images that a classifier takes for positive, at least 0.

    .. math:: \frac1N \sum_{h_i > 1/2} (q_i - \hat y_i)^2

    Args:
        q: Predictions, (N,).
        label: The labels, (N,), which receive no gradient.
        logits: Of the classifier, (N,), likewise.

    Example:
        >>> q = torch.rand(8, requires_grad=True)
        >>> pseudo_labelled(q, torch.rand(8), torch.ones(8)).backward()
    """
    error = (q - label.detach()).square() * (logits.detach() > 0)
    return error.sum() / max(len(q), 1)
