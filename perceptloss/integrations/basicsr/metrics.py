"""Critics as validation metrics of BasicSR.

The options of a metric stand in the config:

    val:
      metrics:
        lpips: {type: calculate_critic, critic: lpips-vgg, better: lower, crop_border: 4}
        gmsd: {type: calculate_critic_gmsd}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import METRIC_REGISTRY

from perceptloss.card import Card
from perceptloss.compare.pixels import as_tensor
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError, UnknownCritic, near
from perceptloss.integrations.hosts import Registry, add, identifier
from perceptloss.registry import DEFAULT, create_critic, get_card, list_critics

__all__ = ["calculate_critic", "prepare_metrics", "register_metrics"]

_KEYS = ("critic", "better", "crop_border", "weights", "precision", "device")
_NAME = "calculate_critic"


def calculate_critic(img: np.ndarray, img2: np.ndarray | None = None, crop_border: int = 0, **options: Any) -> float:
    """Score of one restored image in the critic's natural units.

    Args:
        img: Restored image, (H, W, 3), BGR, 0 to 255, uint8.
        img2: Ground truth, same shape; critics without reference ignore it.
        crop_border: Pixels cut off at each side before judging.
        options: `critic`, the registered name; `better`, which must agree with the card;
            `weights` and `precision` as for `create_critic`; `device`, by default the GPU if
            there is one.

    Raises:
        ConfigError: if an option is wrong.
        InputError: if an image is not what the critic needs.
    """
    card, problems = _check({"type": _NAME, "crop_border": crop_border, **options})
    if problems or card is None:
        raise ConfigError(problems, f"metric {_NAME}")
    if card.needs_reference and img2 is None:
        raise InputError(
            f"metric {card.name!r} compares with a reference, but there is no ground truth for this image: "
            "give the validation set one (dataroot_gt) or choose a critic without reference."
        )
    critic = _critic(options)
    device = torch.device(_device(options))
    with torch.no_grad():
        y = _tensor(img2, crop_border, device) if card.needs_reference and img2 is not None else None
        return float(critic(_tensor(img, crop_border, device), y))


def _tensor(image: np.ndarray, border: int, device: torch.device) -> torch.Tensor:
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


def _critic(options: Mapping[str, Any]) -> Critic:
    weights = options.get("weights", DEFAULT)
    weights = tuple(weights) if isinstance(weights, list) else weights
    return _built(options["critic"], weights, options.get("precision", "fp32"), _device(options))


@cache
def _built(name: str, weights: Any, precision: Any, device: str) -> Critic:
    return create_critic(name, weights, precision=precision).as_published().to(device)


def _check(entry: Mapping[str, Any]) -> tuple[Card | None, list[str]]:
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
    better = entry.get("better")
    if better is not None and better != card.better:
        problems.append(f"better: {better} is wrong for {name!r}, whose card says better: {card.better}")
    if card.channels != 3:
        problems.append(f"critic {name!r} judges stereo pairs, BasicSR's metrics get single images")
    return card, problems


@cache
def _metric(critic: str) -> Callable[..., float]:
    def metric(img: np.ndarray, img2: np.ndarray | None = None, crop_border: int = 0, **options: Any) -> float:
        return calculate_critic(img, img2, crop_border, **{"critic": critic, **options})

    metric.__name__ = metric.__qualname__ = f"calculate_{identifier(critic)}"
    metric.__doc__ = f"Score by critic {critic!r}; see calculate_critic."
    return metric


def _names() -> dict[str, str]:
    """Registered metric name to critic, for critics of single images."""
    return {f"calculate_{identifier(card.name)}": card.name for card in list_critics() if card.channels == 3}


def register_metrics(registry: Registry = METRIC_REGISTRY) -> tuple[str, ...]:
    """Register `calculate_critic` and one metric for each critic; may be repeated.

    Args:
        registry: A BasicSR-style registry of metrics.

    Returns:
        The names.
    """
    return add(registry, {_NAME: calculate_critic, **{name: _metric(critic) for name, critic in _names().items()}})


def prepare_metrics(opt: dict[str, Any]) -> None:
    """Check the critics among `val.metrics`, complete their options, and build them now.

    BasicSR takes higher for better unless told, calls metrics for the first time after
    thousands of iterations, and validates on rank 0 only.

    Args:
        opt: BasicSR's options; `better` and `device` are filled in.

    Raises:
        ConfigError: with every problem.
        WeightsError: if a critic's weights are missing.
    """
    metrics = (opt.get("val") or {}).get("metrics") or {}
    names, problems = _names(), []
    ours: list[tuple[str, dict[str, Any], dict[str, Any], Card]] = []
    for label, entry in metrics.items():
        kind = str(entry.get("type"))
        if kind in names or kind == _NAME:
            full = {"critic": names[kind], **entry} if kind in names else dict(entry)
            card, found = _check(full)
            found += _without_reference(card, opt) if card else []
            problems += [f"val.metrics.{label}: {problem}" for problem in found]
            if card is not None:
                ours.append((label, entry, full, card))
        elif kind not in METRIC_REGISTRY and kind.startswith("calculate_cri"):
            problems.append(f"val.metrics.{label}: unknown type {kind!r}{near(kind, [_NAME, *names])}")
    if problems:
        raise ConfigError(problems, "the BasicSR config")
    for label, entry, full, card in ours:
        entry.setdefault("device", "cuda" if opt.get("num_gpu") else "cpu")
        if "better" not in entry:
            entry["better"] = card.better
            if card.better == "lower":
                get_root_logger().info(f"val.metrics.{label}: better: lower, from the card of {card.name!r}")
        if get_dist_info()[0] == 0:
            _critic({**full, **entry})


def _without_reference(card: Card, opt: Mapping[str, Any]) -> list[str]:
    return [
        f"critic {card.name!r} compares with a reference, but {phase} (SingleImageDataset) has none"
        for phase, dataset in (opt.get("datasets") or {}).items()
        if card.needs_reference
        and phase.split("_")[0] in ("val", "test")
        and dataset.get("type") == "SingleImageDataset"
    ]
