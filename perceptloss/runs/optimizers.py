"""The optimizers of recipes: AdamW, and Muon for the matrices of a network with AdamW for the rest of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from perceptloss.runs.options import Train

__all__ = ["Muon", "make_optimizer"]

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_LIKE_ADAM: Final = 0.2  # root mean square of what AdamW changes in units of its learning rate, about

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def make_optimizer(parameters: Parameters, train: Train) -> Optimizer:
    """The optimizer that a configuration names."""
    if train.optimizer == "muon":
        return Muon(parameters, train.lr, train.betas, train.weight_decay)
    return AdamW(parameters, train.lr, train.betas, weight_decay=train.weight_decay)


class Muon(Optimizer):
    """Steps of matrices are made orthogonal, so that all of their directions learn equally fast; AdamW for the rest.

    After Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, with the step size of Liu et
    al., "Muon is Scalable for LLM Training", 2025, so that learning rates of AdamW fit. Kernels of convolutions are
    matrices of outputs by all else; biases, norms and slopes get AdamW. (`torch.optim.Muon` takes matrices alone.)

    Args:
        parameters: Or groups of them.
        lr: Learning rate.
        betas: Of AdamW.
        weight_decay: Of both, decoupled.
        momentum: Of Muon, Nesterov's.
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if parameter.ndim > 1:
                    alike[parameter.flatten(1).shape].append(parameter)
                else:
                    self._adapt(parameter, group)
            for shape, matrices in alike.items():
                steps = _orthogonal(torch.stack([self._momentum(m, group) for m in matrices]))
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.sub_(step.view_as(matrix), alpha=group["lr"] * _LIKE_ADAM * max(shape) ** 0.5)
        return loss

    def _momentum(self, matrix: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
        """What Nesterov's momentum makes of its gradient, (rows, columns)."""
        assert matrix.grad is not None
        mean: Tensor = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
        mean.lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(mean, group["momentum"]).flatten(1)

    def _adapt(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        """AdamW's step."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(parameter),
                "square": torch.zeros_like(parameter),
            }
        state["step"] += 1
        short, long = group["betas"]
        state["mean"].lerp_(gradient, 1 - short)
        state["square"].lerp_(gradient.square(), 1 - long)
        count = state["step"].item()
        root = (state["square"] / (1 - long**count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - short**count))


def _orthogonal(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Matrices (N, rows, columns) of the same singular vectors, with singular values of 0.7 to 1.2 (0 stays 0)."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    first, third, fifth = _QUINTIC
    for _ in range(rounds):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.mT if is_tall else x
