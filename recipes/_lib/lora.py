"""LoRA: a network learns by small additions to its weights alone, which are merged into them in what is delivered.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; the layers are those of `peft`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from perceptloss.errors import ConfigError

__all__ = ["FIRST", "add_lora", "merged"]

FIRST = ".lora_A."
"""In the names of those factors of the additions that start at random; the others start at zero."""
_SECOND, _BASE, _NAME = ".lora_B.", ".base_layer.", "default"


def add_lora(network: nn.Module, rank: int) -> None:
    """Give each convolution and linear layer an addition of this rank, which is zero at first; nothing else learns.

    Args:
        network: Is changed.
        rank: Of the additions, at least 1.

    Raises:
        ConfigError: if `peft` is missing, or nothing in the network can be added to.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError([f'model.lora needs peft: pip install "perceptloss[lora]" ({error})'], "model") from error
    layers = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]
    if not layers:
        raise ConfigError(
            [f"model.lora adds to linear layers and convolutions; {type(network).__name__} has none"], "model"
        )
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), network)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network with the additions in its weights, by the names it has without them."""
    plain = {}
    for name, tensor in state.items():
        layer, base, end = name.rpartition(_BASE)
        if not base:
            if FIRST not in name and _SECOND not in name:
                plain[name] = tensor
            continue
        first, second = (state[f"{layer}{factor}{_NAME}.weight"] for factor in (FIRST, _SECOND))
        added = (second.flatten(1) @ first.flatten(1)).view_as(tensor) if end == "weight" else 0
        plain[f"{layer}.{end}"] = tensor + added
    return plain
