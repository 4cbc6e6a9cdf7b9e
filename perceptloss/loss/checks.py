"""What a call of a loss is refused for before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from perceptloss.errors import GradientError, InputError
from perceptloss.inputs import advice, check_channels, check_roles, described, extremes, is_transformed
from perceptloss.loss.terms import GradMode, Term

__all__ = ["check_anchors", "check_call", "check_gradients", "transforms_named"]

_LABEL = 10.0  # opinions of five or of seven levels are learned from as they are; of a hundred, nothing else would be
_SLACK = 2e-3  # of the range, as resampling leaves it


def check_call(
    x: Tensor, y: Tensor | None, terms: Sequence[Term], input_range: Sequence[float], mode: GradMode
) -> None:
    """Refuse what is no pair of batches of images, in order, for all terms, also those that start later.

    Raises:
        InputError: saying what came and what to do.
        GradientError: if the mode cannot give the derivative that is asked for.
    """
    need = f"floating-point {{}} of shape (N, 3, H, W) in {input_range}"
    for name, image in (("x", x), ("y", y)):
        if image is None and name == "y":
            continue
        if not isinstance(image, Tensor) or image.ndim != 4:
            raise InputError(f"CriticLoss needs {need.format(name)}, got {described(image)}.{advice(image, 3)}")
        if not image.is_floating_point():
            levels = "x.float() / 255" if input_range[0] == 0 else "x.float() / 127.5 - 1"
            raise InputError(f"CriticLoss needs {need.format(name)}, got {image.dtype}. Use {levels}.")
        for term in terms:
            if not (term.spec.grey == "replicate" and image.shape[1] == 1):
                check_channels(term.critic.card, name, image)
    if y is not None and (y.shape != x.shape or y.device != x.device):
        shown = " and ".join(f"{tuple(image.shape)} on {image.device}" for image in (x, y))
        raise InputError(f"CriticLoss needs x and y of one shape on one device, got {shown}.")
    check_roles(x, y, "CriticLoss")
    if mode != "autograd" and is_transformed(x):
        raise GradientError(
            f"grad={mode!r} gives its gradient to backward() alone, not to torch.func or forward mode. Use "
            "CriticLoss(..., grad='autograd'), or value_and_gradient without a transform."
        )


def check_anchors(anchors: Any, input_range: Sequence[float]) -> None:
    """Refuse labelled sets that are not images, references or None, and a label for each image.

    Raises:
        InputError: saying what came.
    """
    need = "(images, references or None, labels)"
    if not isinstance(anchors, Mapping):
        raise InputError(f"anchors: expected a mapping of names to {need}, got {type(anchors).__name__}.")
    for name, given in anchors.items():
        parts = given if isinstance(given, Sequence) else ()
        kinds = ((Tensor,), (Tensor, type(None)), (Tensor,))
        if len(parts) != 3 or not all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True)):
            types = ", ".join(type(part).__name__ for part in parts) or type(given).__name__
            raise InputError(f"anchors {name!r}: expected {need}, tensors, got {types}.")
        images, references, labels = parts
        if tuple(labels.shape) != (len(images),):
            wanted, came = (len(images),), tuple(labels.shape)
            raise InputError(f"anchors {name!r}: {wanted[0]} images need labels of shape {wanted}, got {came}.")
        (low, high), (least, most) = input_range, extremes(labels)
        if not -_LABEL <= least <= most <= _LABEL:
            raise InputError(
                f"anchors {name!r}: expected labels in [0, 1] or so, higher is better, got {least:.4g} to {most:.4g}. "
                "Rescale them: (labels - lowest) / (highest - lowest) of their scale."
            )
        for what, image in (("images", images), ("references", references)):
            darkest, brightest = (low, high) if image is None else extremes(image)
            if not low - _SLACK <= darkest <= brightest <= high + _SLACK:
                got = f"{darkest:.4g} to {brightest:.4g}"
                raise InputError(f"anchors {name!r}: expected {what} in {tuple(input_range)}, got {got}. Rescale them.")


def check_gradients(gradients: Mapping[str, Tensor]) -> None:
    """Refuse gradients that are nothing or not finite.

    Raises:
        GradientError: naming the term of every such gradient.
    """
    norms = {label: float(gradient.norm()) for label, gradient in gradients.items()}
    bad = {label: norm for label, norm in norms.items() if not (math.isfinite(norm) and norm > 0)}
    if bad:
        listed = ", ".join(f"{label!r} ({'no gradient' if norm == 0 else norm})" for label, norm in bad.items())
        raise GradientError(f"these terms send no usable gradient to the image: {listed}. Remove or repair them.")


@contextmanager
def transforms_named(x: Tensor) -> Iterator[None]:
    """Say that `torch.func` or forward mode is the reason where torch cannot take a critic through it.

    Raises:
        GradientError: instead of what torch raises.
    """
    try:
        yield
    except GradientError:
        raise
    except RuntimeError as error:
        if not is_transformed(x):
            raise
        raise GradientError(
            "a critic of this loss does not go through torch.func or forward mode, only through backward(). "
            f"torch says: {error}"
        ) from error
