"""Rules by which critics read checkpoints whose layout is not their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["LPIPS_HEADS", "LPIPS_SCALING", "STAGED_L2_TRUNK", "TORCHVISION_TRUNK", "Rule", "constant"]


@dataclass(frozen=True)
class Rule:
    r"""How one kind of foreign key is read.

    Attributes:
        pattern: Regular expression that must match the whole key.
        target: The critic's own key (may use groups, `\1`), several keys that start from the same tensor, or
            None to leave the tensor out.
        reason: Why it may be left out; required when `target` is None.
        check: What a left-out tensor must satisfy, such as being the constant that we use too.
        change: What a tensor goes through first, such as a transposition of another framework's kernels.
    """

    pattern: str
    target: str | tuple[str, ...] | None
    reason: str = ""
    check: Callable[[Any, Tensor], bool] | None = None
    change: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.target is None and not self.reason:
            raise ValueError(f"rule {self.pattern!r} drops a tensor without a reason")


def constant(pattern: str, reason: str, ours: Callable[[Any], Tensor], atol: float = 1e-6) -> Rule:
    """A rule that leaves out a tensor that must be a constant of ours.

    Args:
        pattern: As of `Rule`.
        reason: What the constant is.
        ours: The constant of a critic; broadcast to the stored tensor, or of as many values.
        atol: Largest difference.
    """

    def is_ours(critic: Any, stored: Tensor) -> bool:
        wanted = ours(critic).to(stored)
        wanted = wanted.view_as(stored) if wanted.numel() == stored.numel() else wanted.expand_as(stored)
        return torch.allclose(stored, wanted, atol=atol)

    return Rule(pattern, None, reason, is_ours)


TORCHVISION_TRUNK = (
    Rule(r"features\.(.+)", r"trunk.features.\1"),
    Rule(r"classifier\..+", None, "the classifier behind the features is not used"),
)
"""Layout of torchvision's VGG, AlexNet and SqueezeNet files."""

STAGED_L2_TRUNK = (
    Rule(r"stage\d\.(\d+\.(?:weight|bias))", r"trunk.features.\1"),
    constant(r"stage\d\.\d+\.filter", "the binomial pooling filter", lambda c: c.trunk.features[4].filter[:1]),
)
"""Layout of a VGG16 with L2 pooling, cut into stages, as DISTS and DeepWSD store it."""

LPIPS_HEADS = Rule(r"lins?\.?(\d)\.model\.1\.weight", r"heads.\1")
"""Heads of LPIPS, which files hold twice, as lin0 and as lins.0."""


LPIPS_SCALING = (
    constant(r"scaling_layer\.shift", "the ImageNet mean on [-1, 1]", lambda c: 2 * c.trunk.mean - 1, 1e-5),
    constant(r"scaling_layer\.scale", "the ImageNet deviation on [-1, 1]", lambda c: 2 * c.trunk.std, 1e-5),
)
"""What files of LPIPS say of their input, which must be what the trunk does."""
