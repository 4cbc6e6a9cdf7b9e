"""What images must be before a critic or a loss looks at them, and what is said if they are not."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from perceptloss.card import Card
from perceptloss.errors import InputError

__all__ = [
    *("advice", "all_finite", "check_channels", "check_image", "check_pixels", "check_roles", "described", "extremes"),
    *("is_transformed", "not_finite", "usable"),
]

_SLACK = 1e-3  # resampling in float leaves values this far outside [0, 1]


def check_image(card: Card, name: str, image: Tensor) -> None:
    """Refuse what is no batch of images for the critic of a card, (N, channels, H, W) in floating point.

    Raises:
        InputError: saying what came and what to do.
    """
    check_channels(card, name, image)
    who = f"critic {card.name!r} needs"
    if not image.is_floating_point():
        raise InputError(f"{who} floating-point {name} in [0, 1], got {image.dtype}. Use x.float() / 255.")
    height, width = image.shape[-2:]
    if min(height, width) < card.min_size:
        raise InputError(
            f"{who} images of at least {card.min_size}x{card.min_size}, got {name} of {height}x{width}. Use larger "
            "patches or another critic (perceptloss list shows sizes)."
        )
    if height % card.multiple_of or width % card.multiple_of:
        need = f"sides that are multiples of {card.multiple_of}"
        raise InputError(f"{who} {need}, got {name} of {height}x{width}. Crop the images.")


def check_channels(card: Card, name: str, image: Tensor) -> None:
    """Refuse what is not of shape (N, channels, H, W) for the critic of a card.

    Raises:
        InputError: saying what came and what to do.
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != card.channels:
        need = f"critic {card.name!r} needs {name} of shape (N, {card.channels}, H, W), RGB in [0, 1]"
        raise InputError(f"{need}, got {described(image)}.{advice(image, card.channels)}")


def check_pixels(card: Card, name: str, image: Tensor, *, may_overshoot: bool = False) -> None:
    """Refuse pixels that are not finite and, unless they may be, values outside [0, 1]; waits for the device.

    Raises:
        InputError: saying what came and what to do.
    """
    low, high = extremes(image)
    if not math.isfinite(high - low):
        raise InputError(f"critic {card.name!r} needs finite {name}, got {not_finite(image)}. Nothing can be scored.")
    if not may_overshoot and (low < -_SLACK or high > 1 + _SLACK):
        raise InputError(
            f"critic {card.name!r} needs {name} in [0, 1], got values from {low:.4g} to {high:.4g}. Rescale "
            "(for [-1, 1]: (x + 1) / 2; CriticLoss has input_range), or set critic.overshoot = 'pass' or 'clamp'."
        )


def check_roles(x: Tensor, y: Tensor | None, who: str) -> None:
    """Refuse a pair in the wrong order: with y trained and x not, nothing would learn.

    Raises:
        InputError: if gradients are on and y asks for one, but x does not. Both may: y is a constant all the same.
    """
    if torch.is_grad_enabled() and y is not None and _asks(y) and not _asks(x):
        raise InputError(
            f"{who} is called as (x, y): the judged image first, the reference second. Here y asks for a gradient and "
            "x does not, so nothing would be trained: change their places, or detach y."
        )


def _asks(image: Tensor) -> bool:
    return image.requires_grad or is_transformed(image)


def usable(image: Tensor) -> Tensor:
    """The image, or a copy that autograd may keep if it was made under `torch.inference_mode`."""
    return image.clone() if image.is_inference() and not torch.is_inference_mode_enabled() else image


def extremes(image: Tensor) -> tuple[float, float]:
    """Least and largest pixel, NaN if one is; 0 and 0 of an empty batch. Waits for the device."""
    low, high = image.detach().aminmax() if image.numel() else (0.0, 0.0)
    return float(low), float(high)


def is_transformed(image: Tensor) -> bool:
    """Whether derivatives are asked for by forward mode or `torch.func` instead of a backward pass."""
    if torch.compiler.is_compiling():
        return False
    is_dual = forward_ad._current_level >= 0 and forward_ad.unpack_dual(image).tangent is not None
    return is_dual or bool(torch._C._functorch.is_functorch_wrapped_tensor(image))


def all_finite(*tensors: Tensor | None) -> bool:
    """Whether no value is NaN or infinite; waits for the device once."""
    # an extreme is NaN or infinite if any value is; and no map of flags is made
    ends = [end for tensor in tensors if tensor is not None and tensor.numel() for end in tensor.detach().aminmax()]
    return not ends or bool(torch.isfinite(torch.stack([end.double() for end in ends])).all())


def not_finite(image: Tensor) -> str:
    """How many pixels are NaN or infinite, and in which images of a batch."""
    bad = ~torch.isfinite(image.detach())
    places = bad.flatten(1).any(1).nonzero().flatten().tolist()
    shown = ", ".join(map(str, places[:8])) + (", ..." if len(places) > 8 else "")
    return f"{int(bad.sum())} of {image.numel()} values NaN or infinite (in images {shown} of the batch)"


def described(image: object) -> str:
    """What came instead of a batch of images."""
    return f"{tuple(image.shape)} of {image.dtype}" if isinstance(image, Tensor) else type(image).__name__


def advice(image: object, channels: int) -> str:
    """How to make a batch of images of what came, as far as that is clear."""
    if image is None:
        return " Give a tensor."
    if not isinstance(image, Tensor):
        return " Make it a tensor, such as torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255."
    if image.ndim == 3:
        return " For a single image: image[None]."
    if image.ndim == 5:
        return " For clips, (N, T, C, H, W): image.flatten(0, 1)."
    if image.ndim == 4 and image.shape[3] == channels:
        return " For channels last: image.permute(0, 3, 1, 2)."
    if image.ndim == 4 and image.shape[1] == 1 and channels == 3:
        return " For grey images: image.expand(-1, 3, -1, -1), or grey='replicate' of CriticLoss."
    return ""
