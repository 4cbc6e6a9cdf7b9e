"""Restorers: networks of ours, BasicSR and spandrel by name, their weight files, and running them on whole images."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from _lib.lora import add_lora, merged
from perceptloss.errors import ConfigError, WeightsError, near
from perceptloss.integrations.networks import find_network
from perceptloss.networks.autoencoder import Autoencoder
from perceptloss.networks.restorers import (
    IPASSR,
    NAFSSR,
    RFDN,
    AffineUNet,
    Compact,
    NU2Net,
    SGUIENet,
    StereoCompact,
)
from perceptloss.output.files import replacing
from perceptloss.output.tensors import sort_metadata
from perceptloss.runs.options import Model
from perceptloss.runs.state import Ema
from perceptloss.weights.manifest import manifest
from perceptloss.weights.search import find

__all__ = [
    *("ENHANCER", "NETWORK", "STEREO_NETWORK", "bicubic", "build_network", "export", "has_parts_that_rest"),
    *("load_weights", "restore", "start_of"),
]

NETWORK: Final = {"num_feat": 48, "num_conv": 12, "upscale": 4}
"""Arguments of Compact that the shipped start was made for."""
STEREO_NETWORK: Final = {**NETWORK, "num_looks": 3}
"""Arguments of StereoCompact that the shipped start of pairs was made for."""
ENHANCER: Final = {"width": 16, "grid_width": 48}
"""Arguments of AffineUNet that the shipped starts of enhancement were made for."""
_FITTING: Final = "fitting:"  # before weights of which only what fits is taken
_STARTS: Final = {"Compact": ("sr-start", NETWORK), "StereoCompact": ("stereo-start", STEREO_NETWORK)}

_OURS: Final[dict[str, type[nn.Module]]] = {
    kind.__name__: kind
    for kind in (AffineUNet, Autoencoder, Compact, IPASSR, NAFSSR, NU2Net, RFDN, SGUIENet, StereoCompact)
}


def _architecture(name: str) -> type[nn.Module]:
    if name in _OURS:
        return _OURS[name]
    known = dict(_OURS)
    ours = ", ".join(_OURS)
    try:
        import perceptloss.integrations.basicsr  # noqa: F401 - makes BasicSR importable, and fills its registry
    except ImportError as error:
        problem = f"{name!r} is not one of ours ({ours}), and {error}"
    else:
        from basicsr.utils.registry import ARCH_REGISTRY

        known |= {key.removesuffix("_basicsr"): entry for key, entry in ARCH_REGISTRY if key not in _OURS}
        problem = f"neither we, nor BasicSR, nor spandrel have {name!r}{near(name, known, 1)}"
    found = known.get(name) or find_network(name)
    if found is None:
        raise ConfigError([f"model.arch: {problem}"], "model")
    return found


def build_network(model: Model, side: int, channels: int = 3) -> nn.Module:
    """The network of a configuration, on the CPU.

    Args:
        model: Name, arguments, scale, weights.
        side: Low-quality side to try it on, pixels.
        channels: Of the images: 3, or 6 for stereo pairs.

    Raises:
        ConfigError: if name or arguments are unknown, BasicSR is needed and not there, or the factor is another.
    """
    architecture = _architecture(model.arch)
    accepted = inspect.signature(architecture).parameters
    unknown = [key for key in model.options if key not in accepted]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        raise ConfigError(
            [f"model.options: {model.arch} has no {key!r}{near(key, accepted, 1)}" for key in unknown], "model"
        )
    try:
        network = architecture(**model.options)
    except (TypeError, ValueError) as error:
        raise ConfigError([f"model.options: {model.arch}: {error}"], "model") from error
    if (start := start_of(model)) is not None:
        load_weights(network, _file_of(start.removeprefix(_FITTING)), fitting=start.startswith(_FITTING))
    _freeze(network, model.frozen)
    if model.lora:
        add_lora(network, model.lora)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        shape = network.eval()(torch.zeros(1, channels, side, side)).shape
    if shape != (1, channels, side * model.scale, side * model.scale):
        turned = f"{channels}x{side}x{side} into {tuple(shape[1:])}"
        raise ConfigError([f"model: {model.arch} turns {turned}, but model.scale is {model.scale}"], "model")
    return network.train()


def _freeze(network: nn.Module, beginnings: Sequence[str]) -> None:
    names = [name for name, _ in network.named_parameters()]
    if unknown := [start for start in beginnings if not any(name.startswith(start) for name in names)]:
        known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
        raise ConfigError(
            [f"model.frozen: no parameter begins with {start!r}; known: {known}" for start in unknown], "model"
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(beginnings)))


def has_parts_that_rest(model: Model) -> bool:
    """Whether parts of a network of ours have no gradient in some steps."""
    return getattr(_OURS.get(model.arch), "rests", False)


def start_of(model: Model) -> str | None:
    """What a network starts from: with `auto` the shipped start if it was made for this network, else nothing."""
    if model.weights != "auto":
        return model.weights
    name, options = _STARTS.get(model.arch, (None, None))
    return name if model.options == options else None


def _file_of(weights: str) -> Path:
    """A path, or the file of a name in the weights manifest."""
    path = Path(weights)
    return find(weights) if not path.exists() and weights in manifest() else path


def load_weights(network: nn.Module, path: Path, *, fitting: bool = False) -> None:
    """Load a state: safetensors, or BasicSR's layout with `params_ema` or `params`; into StereoCompact a Compact's.

    Args:
        network: Gets the weights.
        path: Of the file.
        fitting: Take what has the shape it has here and leave the rest as it is, as for another factor of enlargement.

    Raises:
        WeightsError: if the file cannot be read or does not fit.
    """
    try:
        is_safe = path.suffix == ".safetensors"
        state: Any = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("params_ema") or state.get("params") or state
        if isinstance(network, StereoCompact) and not any(name.startswith("looks.") for name in state):
            state = {**network.state_dict(), **state}  # of a Compact: its looks begin with nothing
        own = network.state_dict()
        if fitting and (state := {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}):
            state = {**own, **state}
        network.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} does not hold the weights of this network: {error}") from error


def restore(network: nn.Module, lq: Tensor, scale: int, multiple: int = 1) -> Tensor:
    """Enlarge one image, (3, h, w) to (3, h * scale, w * scale), padded by reflection to the multiple meanwhile."""
    height, width = lq.shape[-2:]
    padded = (
        F.pad(lq[None], (0, -width % multiple, 0, -height % multiple), mode="reflect") if multiple > 1 else lq[None]
    )
    return network(padded)[0, :, : height * scale, : width * scale].float()


def bicubic(lq: Tensor, scale: int) -> Tensor:
    """Plain bicubic enlargement, the floor of every table."""
    return F.interpolate(lq[None], scale_factor=scale, mode="bicubic", align_corners=False)[0].clamp(0, 1)


def export(
    accelerator: Accelerator, network: nn.Module, ema: Ema | None, model: Model, stem: Path, facts: dict[str, Any]
) -> None:
    """Write `stem.safetensors`, `stem_ema.safetensors` and `stem.pth` (BasicSR's layout); call on all processes.

    Args:
        accelerator: Of the run.
        network: As prepared.
        ema: Averages, if they are kept.
        model: How to build the network again; goes into the metadata.
        stem: Path without suffix.
        facts: More for the metadata.
    """
    states = {"params": _gathered(accelerator, network)}
    if ema is not None:
        with ema.swapped_in():
            states["params_ema"] = _gathered(accelerator, network)
    if accelerator.is_main_process:
        stem.parent.mkdir(parents=True, exist_ok=True)
        shared = {"format": "pt", "arch": model.arch, "options": json.dumps(model.options), "scale": str(model.scale)}
        shared |= {key: json.dumps(value) for key, value in facts.items()}
        for kind, state in states.items():
            end = "_ema" if kind == "params_ema" else ""
            with replacing(stem.with_name(f"{stem.name}{end}.safetensors")) as path:
                save_file(state, path, {**shared, "kind": kind})
                sort_metadata(path)
        with replacing(stem.with_name(f"{stem.name}.pth")) as path:
            torch.save(states, path)
    accelerator.wait_for_everyone()  # the others may read the files next


def _gathered(accelerator: Accelerator, network: nn.Module) -> dict[str, Tensor]:
    state = accelerator.get_state_dict(network)
    return {key: value.detach().cpu().clone().contiguous() for key, value in merged(state).items()}
