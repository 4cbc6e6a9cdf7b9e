"""Constant pixel weights where a restored image shows artefacts (LDL)."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.inputs import check_roles
from perceptloss.networks.artefacts import artefact_map

__all__ = ["artefact_weights"]


def artefact_weights(x: Tensor, y: Tensor, steady: Tensor | None = None, *, window: int = 7) -> Tensor:
    """LDL's weights of a pixel loss, see `networks.artefacts`, without a gradient.

    Args:
        x: Restored images, (N, C, H, W).
        y: References, same shape.
        steady: What the averaged weights (EMA) restore, same shape, or None.
        window: Odd side of the window in which the error's variance is taken.

    Returns:
        Weights >= 0, (N, 1, H, W), in fp32 or better.

    Raises:
        InputError: if shapes differ, images are smaller than half a window, or the window is even.

    Example:
        >>> x, y = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> weights = artefact_weights(x, y, x.detach() * 0.9 + y * 0.1)
        >>> loss = (weights * (x - y).abs()).mean()
        >>> loss.backward()
    """
    check_roles(x, y, "artefact_weights")
    shapes = {tuple(image.shape) for image in (x, y, steady) if image is not None}
    if x.ndim != 4 or len(shapes) > 1:
        raise InputError(f"artefact_weights needs images (N, C, H, W) of one shape, got {sorted(shapes)}.")
    if window % 2 == 0 or window < 3 or min(x.shape[-2:]) <= window // 2:
        raise InputError(
            f"artefact_weights needs an odd window of at least 3 and images larger than its half, got window "
            f"{window} and {x.shape[-2]}x{x.shape[-1]}."
        )
    images = [
        None if image is None else image.detach().to(torch.promote_types(image.dtype, torch.float32))
        for image in (x, y, steady)
    ]
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        return artefact_map(images[0], images[1], images[2], window)  # type: ignore[arg-type]
