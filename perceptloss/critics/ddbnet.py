"""DDB-Net-style critic of night images: reflectance and illumination apart, then what they do to each other.

Jiang, Xu, Mao, Zhou, Min, Zhai: "Deep Decomposition and Bilinear Pooling Network for Blind
Night-Time Image Quality Evaluation", arXiv 2205.05880, 2022. Nothing but the idea is public: a
Retinex decomposition, an encoder for each layer, bilinear pooling. Every size, the backbone and the
normalisations are ours; the decomposition is shaped like that of RetinexNet (Wei et al., BMVC 2018), but only the
illumination is learned, and the reflectance is the image divided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.layers import unit_norm
from perceptloss.networks.lean import conv
from perceptloss.networks.trunks import (
    Features,
    JoinedTrunk,
    Keep,
    Trunk,
    TrunkCritic,
    TrunkName,
    resnet_rules,
    staged,
)

__all__ = ["ENTRIES", "DDBNet", "RetinexTrunk", "outer_product", "signed_root"]

_DEPTH = 5
_EPS = 1e-4
_DARK = 1e-2  # added to the illumination: noise in the dark is raised a hundredfold at most


class RetinexTrunk(JoinedTrunk):
    """Splits an image into reflectance and illumination, and encodes each by an encoder of its own.

    Taps `reflectance.layer2`, `illumination.layer2`, ... The illumination enters its encoder as a grey image.

    Args:
        widths: Channels of the four stages of an encoder, a ResNet-18.
        hidden: Channels of the decomposition.
        encoder: `resnet` or `lite0-smooth`.
        read: How many of the four stages are read, the last ones.

    Attributes:
        stages: Taps of an encoder that are read.
        channels: Of these.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        hidden: int = 64,
        encoder: TrunkName = "resnet",
        read: int = 3,
    ) -> None:
        first, second = (staged(encoder, 18, widths) for _ in range(2))
        super().__init__(reflectance=first.trunk, illumination=second.trunk)
        self.stages, self.channels = first.taps[-read:], first.channels[-read:]
        self.arch = f"retinex-{hidden}-{self.arch}"
        plan = [(4, hidden, 9), *[(hidden, hidden, 3)] * _DEPTH, (hidden, 1, 3)]
        self.decomposition = nn.ModuleList(nn.Conv2d(wide, out, k, padding=k // 2) for wide, out, k in plan)
        self.finish()

    def decompose(self, image: Tensor, *, lean: bool = False) -> tuple[Tensor, Tensor]:
        """Reflectance (N, 3, H, W) and illumination (N, 1, H, W) of images in [0, 1], both in [0, 1].

        The illumination is learned, and at least as bright as the brightest channel; the reflectance is what it leaves
        of the image. A reflectance that is learned too keeps of fine detail what a few layers let through.
        """
        brightest = image.amax(1, keepdim=True)
        h = torch.cat([image, brightest], 1)
        for position, layer in enumerate(self.decomposition):
            h = conv(h, layer, relu=0 < position <= _DEPTH, lean=lean)
        illumination = torch.maximum(torch.sigmoid(h), brightest)
        return image / (illumination + _DARK), illumination

    def shown(self, image: Tensor, keep: Keep) -> dict[str, Tensor]:
        if keep == "stages":
            reflectance, illumination = checkpoint(self.decompose, image, use_reentrant=False)
        else:
            reflectance, illumination = self.decompose(image, lean=keep == "lean")
        return {"reflectance": reflectance, "illumination": illumination.expand_as(reflectance)}

    def same_as(self, other: Trunk) -> bool:
        return Trunk.same_as(self, other) and super().same_as(other)


def outer_product(r: Tensor, i: Tensor) -> Tensor:
    r"""Mean over pixels of r i^T: maps (N, C, h, w) and (N, D, h, w) to (N, C, D), of rank at most h w."""
    r, i = r.flatten(2), i.flatten(2)
    return r @ i.transpose(1, 2) / r.shape[2]


def signed_root(v: Tensor, eps: float = _EPS) -> Tensor:
    r"""sign(v) (\sqrt{|v| + eps} - \sqrt{eps}), elementwise: odd, 0 at 0, slope at most 1 / (2 \sqrt{eps})."""
    return v / ((v.abs() + eps).sqrt() + eps**0.5)


class DDBNet(TrunkCritic):
    r"""After Jiang et al. 2022; architecture partly ours: opinion score of a night image, unbounded, higher is better.

    .. math:: s = \operatorname{MLP}(\ldots, v_3, v_4), \quad
        v_k = u(\rho(u(\operatorname{mean} R_k I_k^T)))

    R and I are maps of reflectance and illumination after a stage, `width` channels each; u makes unit
    vectors and rho is the signed root. Unit length before the root too makes v exactly blind to the
    gain of either map. `decompose` gives the two layers, whose distances to those of a reference can
    be weighted apart: content, noise and colour by the one, exposure by the other.

    Args:
        card: What it is.
        widths: Channels of the four stages of an encoder.
        trunk: Of both encoders: `resnet` or `lite0-smooth`.
        width: Channels of a map before the outer product.
        hidden: Units of the regression.
        decomposition: Channels of the decomposition.
        stages: How many of the four stages of an encoder are read, the last ones; 4: the finest too.

    Raises:
        ConfigError: if there are not so many.

    Example:
        >>> critic = create_critic("ddbnet", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    trunk: RetinexTrunk
    rules = tuple(
        # torchvision's file starts both encoders
        rule if rule.target is None else replace(rule, target=(r"trunk.reflectance.\1", r"trunk.illumination.\1"))
        for rule in resnet_rules()
    )

    def __init__(
        self,
        card: Card,
        *,
        trunk: TrunkName = "resnet",
        widths: Sequence[int] = (64, 128, 256, 512),
        width: int = 64,
        hidden: int = 256,
        decomposition: int = 64,
        stages: int = 3,
    ) -> None:
        super().__init__(card)
        if not 1 <= stages <= len(widths):
            raise ConfigError([f"stages: from 1 to {len(widths)}, got {stages!r}"], card.name)
        self.trunk = RetinexTrunk(widths, decomposition, trunk, stages)
        self.taps = tuple(
            f"{layer}.{stage}" for layer in ("reflectance", "illumination") for stage in self.trunk.stages
        )
        self.reflectance, self.illumination = (
            nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.trunk.channels) for _ in range(2)
        )
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(stages * width**2, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0)
        )
        self._initialise(hidden)

    def _initialise(self, hidden: int) -> None:
        """Random weights whose scores are of the order of 1: the vectors that are regressed have unit length."""
        _, first, _, last, _ = self.head
        for layer, std in ((first, 1.0), (last, hidden**-0.5)):
            nn.init.normal_(layer.get_parameter("weight"), std=std)
            nn.init.zeros_(layer.get_parameter("bias"))

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.head(self.pooled(fx).flatten(1))

    def pooled(self, f: Features) -> Tensor:
        """What reflectance and illumination do to each other at each stage: unit vectors, (N, stages, width ** 2)."""
        vectors = []
        for stage, of_r, of_i in zip(self.trunk.stages, self.reflectance, self.illumination, strict=True):
            product = outer_product(of_r(f[f"reflectance.{stage}"]), of_i(f[f"illumination.{stage}"]))
            vectors.append(unit_norm(signed_root(unit_norm(product.flatten(1)))))
        return torch.stack(vectors, 1)

    def decompose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reflectance, (N, 3, H, W), and illumination, (N, 1, H, W), in [0, 1]; differentiable in `x`.

        Only training fixes how an image is shared out between them: (R / c, c I) is the same image as (R, I).
        """
        x, _ = self.admit(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.trunk.decompose(x)


_CARD = after_paper_card(
    name="ddbnet",
    summary="Opinion score of a night image from its reflectance and illumination; train it, nothing is published.",
    kind="nr",
    domains=frozenset({"night"}),
    min_size=32,
    licence_weights="BSD-3-Clause (torchvision trunk); the rest is the user's own",
    weights=("resnet18", "ddbnet"),
    paper="Jiang et al., Deep Decomposition and Bilinear Pooling Network for Blind Night-Time Image Quality "
    "Evaluation, arXiv 2205.05880, 2022",
    source="no code published; the decomposition is shaped like https://github.com/weichen582/RetinexNet (MIT)",
    notes=(
        "not a reproduction: decomposition, backbone, widths, pooling, head and losses are our choice",
        "for night images only, in crops of 256 pixels or so; means nothing on daylight",
        "blind night critics reward plain brightening and loss of colour: combine with a pixel loss, "
        "and rank over-exposed copies below the truth when it learns",
        "the decomposition means something only after training on pairs (low light, normal light); "
        "critic.decompose(x) gives both layers",
        "both encoders start from torchvision's file and learn apart: a file of your own holds all parts",
    ),
)

ENTRIES = {"ddbnet": Entry(_CARD, DDBNet)}
