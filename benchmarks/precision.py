"""How far the gradient turns when the trunk runs in bf16, by distance to the reference.

Near the reference the features of both images agree in most of their bits, so the rounding of
bf16 (8 bits) is a large part of their difference; far from it, it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.cases import images, ours
from perceptloss.critic import Precision
from perceptloss.output.tables import text

__all__ = ["CRITICS", "LEVELS", "cosine", "table"]

CRITICS = ("lpips-vgg", "dists", "vgg-content", "vgg-style")
LEVELS = (1, 2, 4, 16, 64)


def _gradient(name: str, precision: Precision, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    ours((name,), x.device, precision=precision, micro_batch=1)(x, y).backward()
    assert x.grad is not None
    return x.grad.flatten(1).double()


def cosine(name: str, level: float, size: tuple[int, int, int], device: torch.device | str = "cpu") -> float:
    """Mean cosine of the angle between the bf16 and the fp32 gradient of an image.

    Args:
        name: A critic that may run in low precision.
        level: Standard deviation of the noise between x and y, in 1/255.
        size: N, H, W.
        device: Where to run.
    """
    _, y = images(size, device)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device)
    x = y + noise * level / 255
    low, full = _gradient(name, "bf16", x, y), _gradient(name, "fp32", x, y)
    return float(torch.nn.functional.cosine_similarity(low, full).mean())


def table(
    names: Sequence[str], size: tuple[int, int, int], device: torch.device | str = "cpu"
) -> tuple[str, dict[str, dict[int, float]]]:
    """Cosines of critics by level of noise, as text and as numbers."""
    found = {name: {level: cosine(name, level, size, device) for level in LEVELS} for name in names}
    body = [[name, *(f"{value:.3f}" for value in row.values())] for name, row in found.items()]
    head = ["cosine, bf16 to fp32, x = y + noise of", *(f"{level}/255" for level in LEVELS)]
    return text([head, *body], "lr", rule=True), found
