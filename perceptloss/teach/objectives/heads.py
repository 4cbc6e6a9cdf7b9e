"""One quality learned from datasets of different scales: a monotone map of it to the scores of each.

After Feng, Zhang, Jia, Chen, Wang: "Learning from Mixed Datasets: A Monotonic Image Quality Assessment Model",
Electronics Letters 59(3), 2023. Ours: maps that bend and shift, and fitting a new one to a finished critic.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.errors import ConfigError, InputError, near
from perceptloss.networks.monotone import MonotoneHead
from perceptloss.teach.objectives.regression import norm_in_norm

__all__ = ["DatasetHeads"]

_LEAST = 2  # opinions that a map can be fitted to
_SMALL = 1e-3


class DatasetHeads(nn.Module):
    """Monotone maps of one quality q, higher is better, to the opinion scores of each dataset.

    The labels of all sets must rise with quality and have ranges of about the same size, such as 0 to 10, or
    the set of the widest range decides alone what is learned. All maps keep the order of q, so
    q alone is what a test or a restorer's loss reads: never a map, which may be nearly flat.

    Args:
        datasets: Their names, or heads by name that a critic has already (`StrictMonotonic.heads`), which are
            then shared with it.
        steps: Logistic steps of each new `MonotoneHead`.

    Raises:
        ConfigError: if there is no dataset, a name comes twice, or a name cannot stand in a state dict.

    Example:
        >>> heads = DatasetHeads(["tid2013", "kadid10k"])
        >>> q, mos = torch.rand(4, requires_grad=True), torch.tensor([3.0, 7.0, 1.0, 9.0])
        >>> heads.loss(q, mos, ["tid2013", "tid2013", "kadid10k", "kadid10k"]).backward()
    """

    def __init__(self, datasets: Iterable[str] | nn.ModuleDict, *, steps: int = 8) -> None:
        super().__init__()
        self.steps = steps
        shared = isinstance(datasets, nn.ModuleDict)
        self.heads = datasets if isinstance(datasets, nn.ModuleDict) else nn.ModuleDict()
        for name in () if shared else datasets:
            self.add(name)
        if not len(self.heads):
            raise ConfigError(["expected at least one dataset, got none"], "dataset heads")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the heads."""
        return tuple(self.heads)

    def add(self, dataset: str, head: nn.Module | None = None) -> nn.Module:
        """Add a dataset, by default with a new `MonotoneHead`; the other heads stay what they are.

        Its parameters are new to an optimiser: hand them over with `add_param_group`, or `fit` them.

        Raises:
            ConfigError: if the name is taken or cannot stand in a state dict.
        """
        if dataset in self.heads:
            raise ConfigError([f"dataset {dataset!r} has a head already"], "dataset heads")
        if not dataset or "." in dataset or hasattr(nn.ModuleDict, dataset):
            told = f"a dataset cannot be called {dataset!r}: choose a name without dots that no module attribute has"
            raise ConfigError([told], "dataset heads")
        self.heads[dataset] = MonotoneHead(self.steps) if head is None else head
        like = next(self.parameters(), None)
        return self.heads[dataset] if like is None else self.heads[dataset].to(like)

    def forward(self, q: Tensor, datasets: str | Sequence[str]) -> Tensor:
        """Qualities (N,) to scores (N,), each on the scale of its dataset.

        Args:
            q: Qualities, (N,).
            datasets: One for all, or one of each image.

        Raises:
            ConfigError: if a dataset has no head.
            InputError: if counts differ.
        """
        places = self._places(q, datasets)
        if not places:
            return q
        order = torch.cat(list(places.values())).argsort()
        return torch.cat([self.heads[name](q[at]) for name, at in places.items()])[order]

    def losses(self, q: Tensor, labels: Tensor, datasets: str | Sequence[str]) -> dict[str, Tensor]:
        """Of each dataset in the batch, SmoothL1 plus `norm_in_norm` of its mapped qualities; scalars.

        Args:
            q: Qualities, (N,).
            labels: Opinion scores, (N,), each on the scale of its dataset.
            datasets: One for all, or one of each image.

        Raises:
            ConfigError: if a dataset has no head.
            InputError: if counts differ.
        """
        if labels.shape != q.shape:
            raise InputError(f"expected one label per quality, {tuple(q.shape)}, got labels {tuple(labels.shape)}")
        q = q.float() if q.dtype in (torch.float16, torch.bfloat16) else q
        labels = labels.to(q)
        return {name: _set_loss(self.heads[name], q[at], labels[at]) for name, at in self._places(q, datasets).items()}

    def loss(
        self,
        q: Tensor,
        labels: Tensor,
        datasets: str | Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
    ) -> Tensor:
        """Average of `losses` over the datasets in the batch, a scalar; an empty batch gives 0.

        Args:
            q: Qualities, (N,).
            labels: Opinion scores, (N,).
            datasets: One for all, or one of each image.
            weights: Factors of the datasets, 1 where not named. A 0 silences a set and leaves what the others
                contribute as it was: the count that the sum is divided by stays.

        Raises:
            ConfigError: if a dataset has no head.
            InputError: if counts differ.
        """
        factors = weights or {}
        self._known(factors)
        losses = self.losses(q, labels, datasets)
        if not losses:
            return q.sum()
        return torch.stack([factors.get(name, 1.0) * loss for name, loss in losses.items()]).mean()

    def fit(self, dataset: str, q: Tensor, labels: Tensor, *, rounds: int = 100) -> float:
        """Fit one head alone to the qualities that a finished critic gives a dataset.

        Neither the critic nor the other heads take part. Deterministic, and independent of what the head was before
        if it is a `MonotoneHead`.

        Args:
            dataset: One that has a head.
            q: Qualities of many images, (N,), not all equal.
            labels: Their opinion scores, (N,).
            rounds: Iterations of L-BFGS at most.

        Returns:
            Its loss.

        Raises:
            ConfigError: if the dataset has no head.
            InputError: if counts differ, values are not finite, or qualities are all equal.
        """
        self._known([dataset])
        q, labels = (t.detach().to("cpu", torch.float64) for t in (q, labels))
        if q.ndim != 1 or q.shape != labels.shape or len(q) < _LEAST:
            shapes = f"qualities {tuple(q.shape)} and labels {tuple(labels.shape)}"
            raise InputError(f"expected qualities and labels (N,), N >= {_LEAST}, got {shapes}")
        if not (torch.isfinite(q).all() and torch.isfinite(labels).all()) or q.min() == q.max():
            raise InputError("qualities and labels to fit must be finite, and the qualities not all equal")
        # in float64, where the line search can tell small steps from rounding
        work = copy.deepcopy(self.heads[dataset]).to("cpu", torch.float64).requires_grad_()
        if isinstance(work, MonotoneHead):
            _start(work, q, labels)
        loss = _descend(work, q, labels, rounds)
        self.heads[dataset].load_state_dict(work.state_dict())
        return loss

    def _known(self, datasets: Iterable[str]) -> None:
        known = self.datasets
        problems = [
            f"dataset {name!r} has no head; there are {', '.join(known)}{near(name, known)}; add() makes one"
            for name in dict.fromkeys(datasets)
            if name not in known
        ]
        if problems:
            raise ConfigError(problems, "dataset heads")

    def _places(self, q: Tensor, datasets: str | Sequence[str]) -> dict[str, Tensor]:
        """Where in the batch each dataset is, in the order of the heads."""
        names = [datasets] * len(q) if isinstance(datasets, str) else list(datasets)
        if q.ndim != 1 or len(names) != len(q):
            raise InputError(f"expected qualities (N,) and N datasets, got {tuple(q.shape)} and {len(names)}")
        self._known(names)
        places = {name: [i for i, own in enumerate(names) if own == name] for name in self.datasets}
        return {name: torch.tensor(at, device=q.device) for name, at in places.items() if at}


def _set_loss(head: nn.Module, q: Tensor, labels: Tensor) -> Tensor:
    mapped = head(q)
    return F.smooth_l1_loss(mapped, labels) + norm_in_norm(mapped, labels)


@torch.no_grad()
def _start(head: MonotoneHead, q: Tensor, labels: Tensor) -> None:
    """Steps at quantiles of the qualities, half of the rise in them and half in the line, through the means."""
    count = len(head.places)
    low, high = q.min(), q.max()
    rise = (labels.max() - labels.min()).clamp_min(_SMALL)
    head.places.copy_(torch.quantile(q, (torch.arange(count).to(q) + 0.5) / count))
    head.rates.fill_(_inverse_softplus(2 * count / (high - low)))
    head.heights.fill_(_inverse_softplus(rise / (2 * count)))
    head.gain.fill_(_inverse_softplus(rise / (2 * (high - low))))
    head.offset.zero_()
    head.offset.copy_(labels.mean() - head(q).mean())


def _inverse_softplus(value: Tensor) -> float:
    return float(value + torch.log(-torch.expm1(-value)))


def _descend(head: nn.Module, q: Tensor, labels: Tensor, rounds: int) -> float:
    search = torch.optim.LBFGS(head.parameters(), max_iter=rounds, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = _set_loss(head, q, labels)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        search.step(closure)
    with torch.no_grad():
        return float(_set_loss(head, q, labels))
