"""Critics as validation metrics of frameworks that find metrics in a registry, such as BasicSR.

The options of a metric stand in the config:

    val:
      metrics:
        lpips: {type: calculate_critic, critic: lpips-vgg, better: lower, crop_border: 4}
        gmsd: {type: calculate_critic_gmsd}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, get_args

import numpy as np
import torch

from perceptloss.card import Card
from perceptloss.compare.pixels import as_tensor
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError, UnknownCritic, near
from perceptloss.integrations.hosts import Registry, add, identifier
from perceptloss.loss.terms import Grey
from perceptloss.registry import DEFAULT, create_critic, get_card, list_critics

__all__ = [
    "METRIC",
    "build_metric",
    "calculate_critic",
    "check_metric",
    "listening",
    "metric_names",
    "register_metrics",
]

_KEYS = ("critic", "better", "crop_border", "weights", "precision", "device", "grey")
METRIC = "calculate_critic"
_listeners: list[Callable[[float], None]] = []


def calculate_critic(img: np.ndarray, img2: np.ndarray | None = None, crop_border: int = 0, **options: Any) -> float:
    """Score of one restored image in the critic's natural units.

    Args:
        img: Restored image, (H, W, 3), BGR, 0 to 255, uint8; (H, W) or (H, W, 1) with `grey: replicate`.
        img2: Ground truth, same shape; critics without reference ignore it.
        crop_border: Pixels cut off at each side before judging.
        options: `critic`, the registered name; `better`, which must agree with the card;
            `weights` and `precision` as for `create_critic`; `device`, by default the GPU if
            there is one; `grey`, whether images of one channel are refused or replicated.

    Raises:
        ConfigError: if an option is wrong.
        InputError: if an image is not what the critic needs.
    """
    card, problems = check_metric({"type": METRIC, "crop_border": crop_border, **options})
    if problems or card is None:
        raise ConfigError(problems, f"metric {METRIC}")
    if card.needs_reference and img2 is None:
        raise InputError(
            f"metric {card.name!r} compares with a reference, but there is no ground truth for this image: "
            "give the validation set one (dataroot_gt) or choose a critic without reference."
        )
    critic = build_metric(options)
    device = torch.device(_device(options))
    with torch.no_grad():
        tensor = partial(_tensor, border=crop_border, device=device, grey=options.get("grey", "refuse"))
        score = float(critic(tensor(img), tensor(img2) if card.needs_reference and img2 is not None else None))
    for hear in _listeners:
        hear(score)
    return score


@contextmanager
def listening(hear: Callable[[float], None]) -> Iterator[None]:
    """Tell each score of a metric to `hear` meanwhile, as the host asks for them."""
    _listeners.append(hear)
    try:
        yield
    finally:
        _listeners.remove(hear)


def _tensor(image: np.ndarray, border: int, device: torch.device, grey: str) -> torch.Tensor:
    if not isinstance(image, np.ndarray):
        raise InputError(f"critics as metrics need arrays, (H, W, 3) of uint8, got {type(image).__name__}.")
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        if grey != "replicate":
            raise InputError(
                f"critics as metrics need colour images, (H, W, 3), got one channel, {image.shape}. With the option "
                "grey: replicate it is taken three times."
            )
        image = np.repeat(np.atleast_3d(image), 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"critics as metrics need colour images, (H, W, 3) of uint8, got {image.shape} of {image.dtype}."
        )
    height, width = image.shape[:2]
    if 2 * border >= min(height, width):
        raise InputError(f"crop_border {border} leaves nothing of an image of {height}x{width}.")
    rgb = image[border : height - border, border : width - border, ::-1]
    return as_tensor(rgb)[None].to(device)


def _device(options: Mapping[str, Any]) -> str:
    return options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")


def build_metric(options: Mapping[str, Any]) -> Critic:
    """The critic that a metric's options ask for, the same one for the same options."""
    weights = options.get("weights", DEFAULT)
    weights = tuple(weights) if isinstance(weights, list) else weights
    return _built(options["critic"], weights, options.get("precision", "fp32"), _device(options))


@cache
def _built(name: str, weights: Any, precision: Any, device: str) -> Critic:
    return create_critic(name, weights, precision=precision).as_published().to(device)


def check_metric(entry: Mapping[str, Any]) -> tuple[Card | None, list[str]]:
    """The card a metric's options name, and what is wrong with them."""
    problems = [
        f"unknown key {key!r}{near(key, _KEYS)} Known: {', '.join(_KEYS)}"
        for key in entry
        if key not in (*_KEYS, "type")
    ]
    border, name = entry.get("crop_border", 0), entry.get("critic")
    if isinstance(border, bool) or not isinstance(border, int) or border < 0:
        problems.append(f"crop_border must be a whole number of at least 0, got {border!r}")
    if not isinstance(name, str):
        return None, [*problems, f"'critic' must name a critic, got {name!r}"]
    try:
        card = get_card(name)
    except UnknownCritic as error:
        return None, [*problems, str(error)]
    if (grey := entry.get("grey", "refuse")) not in get_args(Grey):
        problems.append(f"grey must be one of {', '.join(get_args(Grey))}, got {grey!r}")
    better = entry.get("better")
    if better is not None and better != card.better:
        problems.append(f"better: {better} is wrong for {name!r}, whose card says better: {card.better}")
    if card.channels != 3:
        problems.append(f"critic {name!r} judges stereo pairs, metrics get single images")
    return card, problems


@cache
def _metric(critic: str) -> Callable[..., float]:
    def metric(img: np.ndarray, img2: np.ndarray | None = None, crop_border: int = 0, **options: Any) -> float:
        return calculate_critic(img, img2, crop_border, **{"critic": critic, **options})

    metric.__name__ = metric.__qualname__ = f"calculate_{identifier(critic)}"
    metric.__doc__ = f"Score by critic {critic!r}; see calculate_critic."
    return metric


def metric_names() -> dict[str, str]:
    """Registered metric name to critic, for critics of single images."""
    return {f"calculate_{identifier(card.name)}": card.name for card in list_critics() if card.channels == 3}


def register_metrics(registry: Registry) -> tuple[str, ...]:
    """Register `calculate_critic` and one metric for each critic; may be repeated.

    Args:
        registry: The host's registry of metrics.

    Returns:
        The names.
    """
    return add(
        registry, {METRIC: calculate_critic, **{name: _metric(critic) for name, critic in metric_names().items()}}
    )
