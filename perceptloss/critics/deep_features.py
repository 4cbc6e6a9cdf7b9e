"""dino and convnext: distances of unit features at several depths, as in LPIPS, of networks newer than its own.

The distance is that of Zhang, Isola, Efros, Shechtman, Wang: "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, without learned weights. The networks are those of Oquab et al., "DINOv2: Learning Robust
Visual Features without Supervision", TMLR 2024 (https://github.com/facebookresearch/dinov2, Apache-2.0), whose patch
tokens are compared, of Simeoni et al., "DINOv3", 2025 (a licence of its own, weights of the user's), and of Liu et al.,
"A ConvNet for the 2020s", CVPR 2022 (https://github.com/facebookresearch/ConvNeXt, MIT). Layers are timm's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.layers import unit_distance
from perceptloss.networks.trunks import Features, TimmFeatures, TrunkCritic
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "ConvNeXt", "Dino"]

_BEHIND = "layers behind the last tap are not used"


class _UnitFeatures(TrunkCritic):
    """Mean over taps of the mean squared distance of unit features."""

    trunk: TimmFeatures

    def _read(self, model: str, depths: Sequence[int], sizes: Mapping[str, Any]) -> None:
        whole = isinstance(depths, Sequence) and all(isinstance(d, int) and d >= 0 for d in depths)
        if not (depths and whole and list(depths) == sorted(set(depths))):
            raise ConfigError([f"options.depths must be numbers from 0, rising, got {depths!r}"], self.card.name)
        self.trunk = TimmFeatures(model, {f"depth{d}": d for d in depths}, **sizes)
        self.taps = tuple(self.trunk.tap_at)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        distances = []
        for tap in self.taps:
            alike = fx[tap].new_ones(fx[tap].shape[1])
            distances.append(unit_distance(fx[tap], fy[tap], alike))
        return torch.stack(distances).mean(0)


class Dino(_UnitFeatures):
    """Distance of DINO's patch tokens, in [0, 4]; lower is better, 0 for equal images.

    Args:
        card: What it is.
        model: timm's name of a vision transformer: `vit_small_patch14_dinov2`, `vit_small_patch16_dinov3`, ...
        depths: Numbers of the blocks whose tokens are compared, from 0.
        sizes: Further arguments of timm, such as `embed_dim`.

    Raises:
        ConfigError: if the depths are none.
        PerceptlossError: if timm is missing or does not have the network.

    Example:
        >>> critic = create_critic("dino", weights=None, options={"depths": [0, 1]})
        >>> x = torch.rand(1, 3, 56, 56, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 56, 56)).sum().backward()
    """

    def __init__(
        self,
        card: Card,
        *,
        model: str = "vit_small_patch14_dinov2",
        depths: Sequence[int] = (2, 5, 8, 11),
        sizes: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(card)
        self._read(model, depths, {"dynamic_img_size": True, **(sizes or {})})
        self.patch = int(self.trunk.model.patch_embed.patch_size[0])
        kept = "|".join(str(k) for k in range(max(depths) + 1))
        self.rules = (  # type: ignore[misc]
            Rule(rf"((?:cls_token|reg_token|pos_embed|patch_embed\..+|blocks\.(?:{kept})\..+))", r"trunk.model.\1"),
            Rule(r"(blocks\.\d+|norm|fc_norm|head)\..+|mask_token", None, _BEHIND),
        )

    def prepare(self, image: Tensor) -> Tensor:
        down, right = (-side % self.patch for side in image.shape[-2:])
        return F.pad(image, (0, right, 0, down), mode="reflect") if down or right else image


class ConvNeXt(_UnitFeatures):
    """Distance of ConvNeXt's stages, in [0, 4]; lower is better, 0 for equal images.

    Args:
        card: What it is.
        model: timm's name of a ConvNeXt.
        depths: Numbers of the stages whose results are compared, from 0 to 3.
        sizes: Further arguments of timm, such as `embed_dim`.

    Raises:
        ConfigError: if the depths are none.
        PerceptlossError: if timm is missing or does not have the network.

    Example:
        >>> critic = create_critic("convnext", weights=None, options={"depths": [0, 1]})
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    def __init__(
        self,
        card: Card,
        *,
        model: str = "convnext_tiny",
        depths: Sequence[int] = (0, 1, 2, 3),
        sizes: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(card)
        self._read(model, depths, sizes or {})
        kept = "|".join(str(k) for k in range(max(depths) + 1))
        self.rules = (  # type: ignore[misc]
            Rule(rf"((?:stem\..+|stages\.(?:{kept})\..+))", r"trunk.model.\1"),
            Rule(r"(stages\.\d+|norm_pre|head)\..+", None, _BEHIND),
        )


_DINO = distance_card(
    name="dino",
    summary="Distance of DINOv2's patch tokens at four depths: sees parts and their places more than texture.",
    bounds=(0.0, 4.0),
    min_size=28,
    tiling="never",
    fidelity="after-paper",
    licence_code="Apache-2.0 (timm)",
    licence_weights="Apache-2.0 (DINOv2)",
    weights=("dinov2-small",),
    paper="Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024; distance after "
    "Zhang et al., CVPR 2018",
    source="timm vit_small_patch14_dinov2; https://github.com/facebookresearch/dinov2",
    notes=(
        "the distance is ours: no weights of channels were learned from people's choices",
        "sides that are no multiple of the patch (14 pixels) are continued by mirrored pixels",
        "DINOv3 has a licence of its own: options: {model: vit_small_patch16_dinov3}, and weights: of yours",
        "a token is 14 pixels wide: combine with a pixel loss, and expect grids of this period without shift:",
    ),
)
_CONVNEXT = distance_card(
    name="convnext",
    summary="Distance of ConvNeXt-T's four stages as unit features.",
    bounds=(0.0, 4.0),
    min_size=32,
    tiling="never",
    fidelity="after-paper",
    licence_code="Apache-2.0 (timm)",
    licence_weights="MIT (ConvNeXt)",
    weights=("convnext-tiny",),
    paper="Liu et al., A ConvNet for the 2020s, CVPR 2022; distance after Zhang et al., CVPR 2018",
    source="timm convnext_tiny; https://github.com/facebookresearch/ConvNeXt",
    notes=(
        "the distance is ours: no weights of channels were learned from people's choices",
        "its stem reads blocks of 4 pixels without overlap: a gradient of this period, see shift in CriticLoss",
    ),
)

ENTRIES = {"convnext": Entry(_CONVNEXT, ConvNeXt), "dino": Entry(_DINO, Dino)}
