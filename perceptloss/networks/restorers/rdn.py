"""RDN: residual dense network, in the form that idealo/image-super-resolution trains against a discriminator.

Zhang et al.: Residual dense network for image super-resolution, CVPR 2018, https://arxiv.org/abs/1802.08797. Written
from the paper and the layers of the weights in the package @upscalerjs/esrgan-slim (MIT), whose names it keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.restorers.base import SuperResolver

__all__ = ["RDN"]


class RDN(SuperResolver):
    """RDN.

    Args:
        features: Width.
        blocks: Number of residual dense blocks.
        convs: Convolutions of a block.
        growth: Maps that each of them adds.
        scale: Factor of enlargement.
    """

    KEY: ClassVar[str] = "F_m1.weight"

    def __init__(self, features: int = 64, blocks: int = 2, convs: int = 1, growth: int = 4, scale: int = 4) -> None:
        super().__init__()
        self.scales = (scale,)
        self.blocks, self.convs = blocks, convs
        layers = {"F_m1": (3, features, 3), "F_0": (features, features, 3)}
        for block in range(1, blocks + 1):
            for conv in range(1, convs + 1):
                layers[f"F_{block}_{conv}"] = (features + (conv - 1) * growth, growth, 3)
            layers[f"LFF_{block}"] = (features + convs * growth, features, 1)
        layers |= {"GFF_1": (blocks * features, features, 1), "GFF_2": (features, features, 3)}
        layers |= {"UPN1": (features, 64, 5), "UPN2": (64, 32, 3), "UPN3": (32, 3 * scale**2, 3)}
        layers["SR"] = (3 * scale**2, 3, 3)
        for name, (inputs, outputs, size) in layers.items():
            self.add_module(name, nn.Conv2d(inputs, outputs, size, padding=size // 2))

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> RDN:
        blocks = sum(name.startswith("LFF_") and name.endswith("weight") for name in state)
        convs = sum(name.startswith("F_1_") and name.endswith("weight") for name in state)
        scale = round((state["UPN3.weight"].shape[0] / 3) ** 0.5)
        return cls(state[cls.KEY].shape[0], blocks, convs, state["F_1_1.weight"].shape[0], scale)

    def _apply_layer(self, name: str, x: Tensor) -> Tensor:
        out: Tensor = self.get_submodule(name)(x)
        return out

    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        layer = self._apply_layer
        shallow = layer("F_m1", x)
        features, found = layer("F_0", shallow), []
        for block in range(1, self.blocks + 1):
            dense = features
            for conv in range(1, self.convs + 1):
                dense = torch.cat([dense, F.relu(layer(f"F_{block}_{conv}", dense))], 1)
            features = features + layer(f"LFF_{block}", dense)
            found.append(features)
        features = shallow + layer("GFF_2", layer("GFF_1", torch.cat(found, 1)))
        features = layer("UPN3", F.relu(layer("UPN2", F.relu(layer("UPN1", features)))))
        return layer("SR", F.interpolate(features, scale_factor=float(scale), mode="nearest"))
