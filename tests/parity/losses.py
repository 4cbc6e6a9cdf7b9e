"""What readers of training losses share: a critic that learns for a while, and gradients that are taken once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from perceptloss.critic import Critic

from .named import NamedCase, Reader

__all__ = ["Losses", "loss_readers"]

Losses = Mapping[str, Tensor]
Teach = Callable[[Critic, NamedCase, Mapping[str, Tensor]], Losses]
"""The authors' losses by the names of their rows, from the images of the batch, which may require gradients."""


@contextmanager
def _learning(critic: Critic) -> Iterator[None]:
    critic.unfreeze()  # in evaluation mode still
    try:
        yield
    finally:
        critic.freeze()


def loss_readers(
    teach: Teach, images: tuple[str, ...], losses: tuple[str, ...], image_row: str, weight_rows: Mapping[str, str]
) -> dict[str, Reader]:
    """Readers of the rows of losses and of the gradients of `loss_total`.

    Args:
        teach: Gives the losses.
        images: Names of the inputs it needs.
        losses: Names of its rows.
        image_row: Name of the rows that hold gradients in an image.
        weight_rows: Names of the rows that hold gradients in a weight, to our names of the weights.
    """

    @lru_cache(maxsize=2)
    def found(critic: Critic, case: NamedCase) -> Losses:
        """Losses, and gradients under the names of what they are with respect to."""
        with _learning(critic):
            given = {name: case.image(name).requires_grad_() for name in images}
            wanted = given | {name: critic.get_parameter(name) for name in weight_rows.values()}
            values = teach(critic, case, given)
            gradients = torch.autograd.grad(values["loss_total"], list(wanted.values()))
        return {row: values[row].detach() for row in losses} | dict(zip(wanted, gradients, strict=True))

    def read(key: str) -> Reader:
        return lambda critic, case, name: found(critic, case)[key]

    readers = {row: read(row) for row in losses} | {row: read(weight) for row, weight in weight_rows.items()}
    return readers | {image_row: lambda critic, case, name: found(critic, case)[name]}
