"""Rules by which critics read checkpoints whose layout is not their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["STAGED_L2_TRUNK", "TORCHVISION_TRUNK", "Rule"]


@dataclass(frozen=True)
class Rule:
    r"""How one kind of foreign key is read.

    Attributes:
        pattern: Regular expression that must match the whole key.
        target: The critic's own key (may use groups, `\1`), several keys that start from the same tensor, or
            None to leave the tensor out.
        reason: Why it may be left out; required when `target` is None.
        check: What a left-out tensor must satisfy, such as being the constant that we use too.
    """

    pattern: str
    target: str | tuple[str, ...] | None
    reason: str = ""
    check: Callable[[Any, Tensor], bool] | None = None

    def __post_init__(self) -> None:
        if self.target is None and not self.reason:
            raise ValueError(f"rule {self.pattern!r} drops a tensor without a reason")


TORCHVISION_TRUNK = (
    Rule(r"features\.(.+)", r"trunk.features.\1"),
    Rule(r"classifier\..+", None, "the classifier behind the features is not used"),
)
"""Layout of torchvision's VGG, AlexNet and SqueezeNet files."""

STAGED_L2_TRUNK = (
    Rule(r"stage\d\.(\d+\.(?:weight|bias))", r"trunk.features.\1"),
    Rule(
        r"stage\d\.\d+\.filter",
        None,
        "the binomial pooling filter",
        lambda critic, t: torch.allclose(t, critic.trunk.features[4].filter[:1].to(t).expand_as(t), atol=1e-6),
    ),
)
"""Layout of a VGG16 with L2 pooling, cut into stages, as DISTS and DeepWSD store it."""
