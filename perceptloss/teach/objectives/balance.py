"""Losses of several tasks weighed by uncertainties that are learned with them.

After Kendall, Gal, Cipolla: "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
Semantics", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from perceptloss.errors import ConfigError

__all__ = ["UncertaintyWeights"]

_BOUND = 5.0


class _Bounded(torch.autograd.Function):
    """Clamp to [-bound, bound] that lets a gradient through at the bound where it leads back inside."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(s)
        ctx.bound = bound
        return s.clamp(-bound, bound)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (s,) = ctx.saved_tensors
        outward = ((s >= ctx.bound) & (grad < 0)) | ((s <= -ctx.bound) & (grad > 0))
        return grad.masked_fill(outward, 0), None


class UncertaintyWeights(nn.Module):
    r"""Sum of task losses, each weighed by a learned variance; it may be negative.

    .. math:: \sum_{r} \tfrac12 (e^{-s_r} L_r + s_r) + \sum_{c} (e^{-s_c} L_c + \tfrac12 s_c)

    over regressions r and classifications c, with log-variances s that start at 0. For fixed losses the optimum is
    exp(s_r) = L_r and exp(s_c) = 2 L_c. A loss that reaches 0 would send its s to minus infinity and its weight to
    plus infinity, so s counts as no less than -5 and no more than 5. Give the log-variances ten times the learning
    rate of the network and no weight decay.

    Args:
        regressions: Names of tasks with a squared or absolute error.
        classifications: Names of tasks with a cross entropy.

    Raises:
        ConfigError: if there is no task, a name comes twice, or a name cannot stand in a state dict.

    Example:
        >>> weigh = UncertaintyWeights(["quality"], ["native"])
        >>> quality, native = torch.rand(2, requires_grad=True)
        >>> weigh({"quality": quality, "native": native}).backward()
    """

    def __init__(self, regressions: Iterable[str], classifications: Iterable[str] = ()) -> None:
        super().__init__()
        self.regressions, self.classifications = tuple(regressions), tuple(classifications)
        names = self.regressions + self.classifications
        problems = [f"task {name!r} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
        problems += [
            f"a task cannot be called {name!r}: choose a name without dots that no module attribute has"
            for name in names
            if not name or "." in name or hasattr(nn.ParameterDict, name)
        ]
        if problems or not names:
            raise ConfigError(problems or ["expected at least one task, got none"], "uncertainty weights")
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in names})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weigh the losses of the tasks that a batch has labels for.

        Args:
            losses: Task to its loss, a scalar >= 0; any of the tasks, at least one.

        Returns:
            A scalar, float32 for losses of lower precision.
        """
        terms = []
        for name, loss in losses.items():
            s = _Bounded.apply(self.log_variances[name], _BOUND)
            loss = loss.float() if loss.dtype in (torch.float16, torch.bfloat16) else loss
            share = 0.5 if name in self.regressions else 1.0
            terms.append(share * torch.exp(-s) * loss + 0.5 * s)
        return torch.stack(terms).sum()
