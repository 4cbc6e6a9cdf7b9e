"""Critics in BasicSR: importing this module, before BasicSR itself, is all that a training script has to add.

    from perceptloss.integrations.basicsr import train_pipeline

It makes BasicSR 1.4.2 importable with current torch and torchvision, makes resuming work
without a GPU, and registers three ways to use critics:

1. A list under `train:`, with any model that has a pixel loss, unchanged. Each critic is logged
   as `l_<label>`, the pixel loss stays clean, `perceptual_opt` stays free for VGG.

       train:
         pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
         critics:
           - {critic: lpips-vgg, weight: 0.1, start: 5000, ramp: 5000}
           - {critic: ms-ssim, weight: 0.2}
         critic_opt: {grad: fused, log: [score, share]}

   `critic_opt` takes the options of `CriticLoss`, and `log` for more columns in the log. `val: {alarms: warn}` looks at
   every validation for signs that they are deceived.

2. A loss type: `pixel_opt: {type: CriticLoss, loss_weight: 1.0, critics: [...]}`, or
   `perceptual_opt: {type: CriticPerceptualLoss, ...}` for the slot that unpacks two values.

3. A loss type for each critic: `pixel_opt: {type: critic_lpips_vgg, loss_weight: 1.0}`.

A critic with `joint: true` goes on learning beside the generator, in any of BasicSR's models; `CriticSRModel` and
`CriticSRGANModel` are SRModel and SRGANModel under names that say so.

`network_g` may also name a network of spandrel, where that is installed: HAT, SPAN, NAFNet and others. For stereo pairs
there are `critic_opt: {stereo: true}`, NAFSSR, IPASSR and StereoCompact, and the data set `StereoPairDataset`.

Critics are also metrics: `calculate_critic` and `calculate_critic_<name>` under `val.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from perceptloss.integrations.basicsr import shim

shim.install()
try:
    import_module("basicsr.archs")  # first: a mere folder called basicsr, such as that of the recipes, has none
    _train: Any = import_module("basicsr.train")
except ImportError as error:
    raise ImportError(
        f"BasicSR could not be imported ({error}). It installs on Python 3.10 to 3.12: "
        "pip install setuptools wheel && pip install --no-build-isolation basicsr==1.4.2"
    ) from error

# not before the shim
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY  # noqa: E402

from perceptloss.errors import ConfigError  # noqa: E402
from perceptloss.integrations.basicsr.model import with_critics  # noqa: E402
from perceptloss.integrations.basicsr.stereo import StereoPairDataset  # noqa: E402
from perceptloss.integrations.hosts import register_losses  # noqa: E402
from perceptloss.integrations.metrics import calculate_critic, register_metrics  # noqa: E402
from perceptloss.integrations.networks import find_network  # noqa: E402

__all__ = ["calculate_critic", "install", "train_pipeline", "with_critics"]

train_pipeline: Callable[[str], None] = _train.train_pipeline


def install() -> None:
    """Register everything with BasicSR; done on import, and worth repeating after `register_critic`."""
    register_losses(LOSS_REGISTRY, pairs=True)
    for name in ("SRModel", "SRGANModel"):
        if f"Critic{name}" not in MODEL_REGISTRY:
            MODEL_REGISTRY._do_register(f"Critic{name}", with_critics(MODEL_REGISTRY.get(name)))
    register_metrics(METRIC_REGISTRY)
    if StereoPairDataset.__name__ not in DATASET_REGISTRY:
        DATASET_REGISTRY.register(StereoPairDataset)
    _train.load_resume_state = shim.load_resume_state
    if not hasattr(MODEL_REGISTRY.get, "without_critics"):
        MODEL_REGISTRY.get = _hooked(MODEL_REGISTRY.get)
    if not hasattr(ARCH_REGISTRY.get, "without_packages"):
        ARCH_REGISTRY.get = _with_packages(ARCH_REGISTRY.get)


def _hooked(get: Callable[..., type]) -> Callable[..., type]:
    @wraps(get)
    def get_with_critics(*args: Any, **kwargs: Any) -> type:
        return with_critics(get(*args, **kwargs))

    vars(get_with_critics)["without_critics"] = get
    return get_with_critics


def _with_packages(get: Callable[..., type]) -> Callable[..., type]:
    """Look for networks in other packages, too; not registered, so that a fork may still register its own."""

    @wraps(get)
    def get_anywhere(name: str, suffix: str = "basicsr") -> type:
        if name in ARCH_REGISTRY or f"{name}_{suffix}" in ARCH_REGISTRY:
            return get(name, suffix)
        found = find_network(name)
        if found is None:
            raise ConfigError(
                [f"neither BasicSR nor an installed package has {name!r}; spandrel has HAT, SPAN, NAFNet and others"],
                "network_g",
            )
        return found

    vars(get_anywhere)["without_packages"] = get
    return get_anywhere


install()
