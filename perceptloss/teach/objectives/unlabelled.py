"""Learning from images without opinions: which of them are like the labelled ones, and what score to give those.

After Cao, Wang, Ren, Zuo: "Incorporating Semi-Supervised and Positive-Unlabeled Learning for Boosting Full
Reference Image Quality Assessment", CVPR 2022. Ours: logits instead of probabilities, the moving average of
scores as pseudo-labels, and their cap. Scores here are higher for better images. For pseudo-labels of a slow
copy of the critic take `torch.optim.swa_utils.AveragedModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import ConfigError, InputError

__all__ = ["PULosses", "PseudoLabels", "pseudo_label_loss", "pu_loss", "pu_losses", "ramp"]

Decision = Literal["entropy", "nearest"]


class PULosses(NamedTuple):
    """Parts of the positive-unlabelled loss, each a scalar >= 0."""

    positive: Tensor
    unlabelled: Tensor
    negative: Tensor


def _list(name: str, t: Tensor) -> Tensor:
    if t.ndim != 1 or not t.is_floating_point():
        raise InputError(f"{name} must be a list of numbers (N,), got shape {tuple(t.shape)} of {t.dtype}")
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def pu_losses(labelled_logits: Tensor, unlabelled_logits: Tensor, *, decision: Decision = "entropy") -> PULosses:
    r"""What a classifier of labelled images (positive) against outliers pays, part by part.

    With logits z and probabilities h = sigmoid(z): the labelled are positive, -log h; each unlabelled one must
    be decided, either way; and the least positive of them is negative, -log(1 - h), without which
    calling everything positive would cost nothing. All in softplus form, exact for logits of any size.

    Args:
        labelled_logits: (N,).
        unlabelled_logits: (M,). Over several processes `gather_list` both first.
        decision: `entropy` of h, or `nearest`: the cost of the answer that is already the likelier.

    Returns:
        The three parts; those without images are 0.

    Raises:
        InputError: if the logits are not lists of numbers.
        ConfigError: if `decision` is neither.
    """
    if decision not in get_args(Decision):
        raise ConfigError([f"decision must be 'entropy' or 'nearest', got {decision!r}"], "pu_losses")
    p, u = _list("labelled_logits", labelled_logits), _list("unlabelled_logits", unlabelled_logits)
    positive = F.softplus(-p).mean() if p.numel() else p.sum()
    if not u.numel():
        return PULosses(positive, u.sum(), u.sum())
    if decision == "nearest":
        undecided = F.softplus(-u.abs())
    else:
        undecided = torch.sigmoid(u) * F.softplus(-u) + torch.sigmoid(-u) * F.softplus(u)
    # min() would share the gradient between equal logits, and so condemn all of them
    return PULosses(positive, undecided.mean(), F.softplus(u[u.argmin()]))


def pu_loss(
    labelled_logits: Tensor,
    unlabelled_logits: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    decision: Decision = "entropy",
) -> Tensor:
    """Weighted sum of `pu_losses`, a scalar.

    The negative part discards one image of each batch even where there is no outlier: keep its weight small then.

    Args:
        labelled_logits: (N,).
        unlabelled_logits: (M,).
        weights: Of the parts positive, unlabelled and negative.
        decision: See `pu_losses`.
    """
    parts = pu_losses(labelled_logits, unlabelled_logits, decision=decision)
    return sum((w * part for w, part in zip(weights, parts, strict=True)), start=torch.zeros_like(parts[0]))


def pseudo_label_loss(
    scores: Tensor, labels: Tensor, logits: Tensor, *, cap: Tensor | float | None = None, threshold: float = 0.5
) -> Tensor:
    """Mean squared error to pseudo-labels over the images that the classifier takes for positive, a scalar.

    Rejected images, and an image at the threshold, count neither in the loss nor in the mean. Only the
    scores get a gradient. Multiply it by `ramp`.

    Args:
        scores: (N,).
        labels: Pseudo-labels, (N,).
        logits: Of the classifier, (N,).
        cap: The score of each reference against itself, (N,) or one for all: no label counts as higher.
        threshold: Probability in (0, 1) above which an image is taken.

    Raises:
        InputError: if the lists are not equally long lists of numbers.
        ConfigError: if the threshold is not inside (0, 1).
    """
    if not 0 < threshold < 1:
        raise ConfigError([f"threshold must be between 0 and 1, got {threshold!r}"], "pseudo_label_loss")
    scores, labels, logits = _list("scores", scores), _list("labels", labels), _list("logits", logits)
    if not scores.shape == labels.shape == logits.shape:
        sizes = f"{len(scores)} scores, {len(labels)} labels and {len(logits)} logits"
        raise InputError(f"expected as many scores as labels and logits, got {sizes}")
    labels = _capped(labels.detach(), cap)
    taken = torch.sigmoid(logits.detach()) > threshold
    # picked, not multiplied by 0: a rejected score may well be infinite
    return (scores[taken] - labels[taken]).square().sum() / taken.sum().clamp_min(1)


def ramp(step: int, total: int, share: float = 0.3) -> float:
    """Weight of the pseudo-label loss: 0 at step 0, rising on a line to 1 at `share` of the `total` steps."""
    if total < 1 or step < 0 or not 0 < share <= 1:
        asked = f"step={step}, total={total}, share={share}"
        raise ConfigError([f"expected step >= 0, total >= 1 and 0 < share <= 1, got {asked}"], "ramp")
    return min(1.0, step / (share * total))


def _capped(labels: Tensor, cap: Tensor | float | None) -> Tensor:
    if cap is None:
        return labels
    highest = torch.as_tensor(cap, dtype=labels.dtype, device=labels.device).detach()
    if highest.ndim and highest.shape != labels.shape:
        raise InputError(f"cap must be one number or as many as labels, {len(labels)}, got {tuple(highest.shape)}")
    return torch.minimum(labels, highest)


class PseudoLabels:
    """Moving averages of scores by sample, kept on the CPU in float64.

    Self-training flatters: a generator pleases the critic, and the pseudo-label confirms it. So no label passes the
    score of the reference against itself, given as `cap`.

    Args:
        momentum: Share of the old label in the new, in [0, 1).

    Raises:
        ConfigError: if the momentum is not in [0, 1).

    Example:
        >>> store = PseudoLabels()
        >>> scores = torch.rand(2, requires_grad=True)
        >>> labels = store.update(["a.png", "b.png"], scores, cap=1.0)
        >>> pseudo_label_loss(scores, labels, logits=torch.ones(2)).backward()
    """

    def __init__(self, momentum: float = 0.95) -> None:
        if not 0 <= momentum < 1:
            raise ConfigError([f"momentum must be in [0, 1), got {momentum!r}"], "PseudoLabels")
        self.momentum = momentum
        self._labels: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, sample: str) -> bool:
        return sample in self._labels

    @torch.no_grad()
    def update(self, samples: Sequence[str], scores: Tensor, cap: Tensor | float | None = None) -> Tensor:
        """Blend new scores in; a sample that was never seen starts with its score.

        Args:
            samples: Names, unique in the training set; N of them, none twice.
            scores: (N,), finite.
            cap: The score of each reference against itself, (N,) or one for all.

        Returns:
            The new labels, (N,), like `scores`, without a gradient.

        Raises:
            InputError: if the counts differ, a name comes twice, or a score or cap is not finite. Nothing is
                changed then.
        """
        fresh = _list("scores", scores).detach().double().cpu()
        if len(samples) != len(fresh) or len(set(samples)) != len(samples):
            counts = f"{len(samples)} names ({len(set(samples))} different) and {len(fresh)} scores"
            raise InputError(f"expected one score for each of N different samples, got {counts}")
        old = [self._labels.get(name, float(new)) for name, new in zip(samples, fresh, strict=True)]
        blend = self.momentum * torch.tensor(old, dtype=torch.float64) + (1 - self.momentum) * fresh
        labels = _capped(blend, cap)
        finite = torch.isfinite(fresh) & torch.isfinite(labels)
        broken = [name for name, fine in zip(samples, finite.tolist(), strict=True) if not fine]
        if broken:
            raise InputError(f"scores and caps must be finite, but not those of {', '.join(map(str, broken))}")
        self._labels.update(zip(samples, labels.tolist(), strict=True))
        return labels.to(scores.device, scores.dtype)

    def labels(self, samples: Sequence[str]) -> Tensor:
        """Stored labels, (N,) in float64.

        Raises:
            InputError: naming the samples that have none.
        """
        missing = [str(name) for name in samples if name not in self._labels]
        if missing:
            raise InputError(f"no pseudo-label yet for {', '.join(missing)}; update() comes first")
        return torch.tensor([self._labels[name] for name in samples], dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on from, of types that `torch.load(weights_only=True)` takes."""
        values = torch.tensor(list(self._labels.values()), dtype=torch.float64)
        return {"momentum": self.momentum, "samples": list(self._labels), "labels": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, instead of all that was here.

        Raises:
            ConfigError: if it is not such a state.
        """
        wanted = {"momentum", "samples", "labels"}
        if set(state) != wanted or len(state["samples"]) != len(state["labels"]):
            told = f"expected {', '.join(sorted(wanted))} with a label per sample, got {', '.join(map(str, state))}"
            raise ConfigError([told], "state of PseudoLabels")
        self.momentum = float(state["momentum"])
        self._labels = dict(zip(state["samples"], map(float, state["labels"]), strict=True))
