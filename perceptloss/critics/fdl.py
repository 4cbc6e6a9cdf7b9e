"""fdl and fdl-dino: amplitudes and phases of deep features compared as distributions, by sorted random projections.

Ni, Wu, Wang, Yang, Wang, Ma: "Misalignment-Robust Frequency Distribution Loss for Image Transformation", CVPR 2024.
Original: https://github.com/eezkni/FDL (MIT; package fdl-pytorch 1.0). Ours: the projections are drawn once from a
seed; phases of coefficients that are nothing but rounding are 0, so that flat features have a value and a slope.
fdl-dino is that of patch tokens of DINOv2, as in neosr's fdl_loss (https://github.com/neosr-project/neosr, Apache-2.0;
written from its facts).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import root, soften
from perceptloss.networks.trunks import IMAGENET, Features, TimmFeatures, TrunkCritic, vgg19
from perceptloss.weights.rules import TORCHVISION_TRUNK, Rule

__all__ = ["ENTRIES", "FDL", "FDLDino", "amplitude_and_phase"]

_TAPS = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
_WIDTHS = (64, 128, 256, 512, 512)
_PATCH = 5  # side
Border = Literal["zeros", "replicate"]
_ROUNDING = 1e-5  # of the largest coefficient of a channel


def amplitude_and_phase(f: Tensor, fade: float = 0.0) -> tuple[Tensor, Tensor]:
    """Of the Fourier coefficients of features (N, C, H, W), each of that shape; phases in (-pi, pi].

    The slopes of phases fade where amplitudes are below `fade` of the largest of their channel.
    """
    spectrum = torch.fft.fft2(f)
    real, imaginary = spectrum.real, spectrum.imag
    amplitude = root(real.square() + imaginary.square())
    largest = amplitude.detach().amax((2, 3), keepdim=True)
    is_signal = amplitude > _ROUNDING * largest
    # the sign of an imaginary part of 0 would decide between pi and -pi
    imaginary = torch.where(imaginary.abs() > _ROUNDING * largest, imaginary, imaginary.abs())
    phase = torch.atan2(torch.where(is_signal, imaginary, 0), torch.where(is_signal, real, 1))
    return amplitude, soften(phase, amplitude / largest.clamp_min(1e-12), fade) if fade else phase


class _Distributions(TrunkCritic):
    """Sum over taps of the distances of amplitudes and phases."""

    fade = 0.0
    stride: int
    phase_weight: float
    scales: dict[str, float]
    layers: Mapping[str, float] = {}

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        parts = [self.layers.get(tap, 1.0) * self._of(tap, fx[tap], fy[tap]) for tap in self.taps]
        return torch.stack(parts).sum(0)

    def _of(self, tap: str, fx: Tensor, fy: Tensor) -> Tensor:
        fade = self.fade if self.hold_weights else 0.0  # else the exact derivative is asked for
        (ax, px), (ay, py) = (amplitude_and_phase(f, fade) for f in (fx, fy))
        directions = getattr(self, f"projections_{tap}")
        amplitudes = self.scales[tap] * self._distance(ax, ay, directions)
        return amplitudes + self.phase_weight * self._distance(px, py, directions)

    def _distance(self, x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
        sets = [F.conv2d(image, directions, stride=self.stride).flatten(2).sort(-1).values for image in (x, y)]
        return (sets[0] - sets[1]).abs().mean((1, 2))

    def _project(self, widths: Sequence[int], num_proj: int, patch_size: int) -> None:
        """Draw the projections of every tap."""
        generator = torch.Generator().manual_seed(zlib.crc32(b"fdl"))
        for tap, channels in zip(self.taps, widths, strict=True):
            drawn = torch.randn(num_proj, channels, patch_size, patch_size, generator=generator)
            directions = drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]
            self.register_buffer(f"projections_{tap}", directions, persistent=False)


def _problems(whole: Mapping[str, object], phase_weight: object, scales: Sequence[float], taps: int) -> list[str]:
    """What is wrong with options that both have."""
    problems = [
        f"options.{name} must be a whole number of at least 1, got {value!r}"
        for name, value in whole.items()
        if not isinstance(value, int) or value < 1
    ]
    if not (isinstance(phase_weight, (int, float)) and phase_weight >= 0):
        problems.append(f"options.phase_weight must be a number of at least 0, got {phase_weight!r}")
    if len(scales) != taps or min(scales, default=0) < 0 or not any(scales):
        problems.append(f"options.scales must be {taps} numbers of at least 0, not all 0, got {tuple(scales)!r}")
    return problems


def _in_order(layers: Mapping[str, float]) -> list[str]:
    """Names of taps from shallow to deep, and those that are none behind them."""
    return sorted(layers, key=lambda tap: _TAPS.index(tap) if tap in _TAPS else len(_TAPS))


class FDL(_Distributions):
    """Frequency distribution loss of VGG19 features; lower is better, 0 for equal images.

    Args:
        card: What it is.
        num_proj: Projections of a patch of coefficients, at each of five taps.
        patch_size: Side of a patch.
        stride: Between patches.
        phase_weight: Of the phases beside the amplitudes.
        scales: By which the features of the taps are multiplied, which phases do not see; all 1 if left out.
        layers: Taps, of `relu1_2`, `relu2_2`, `relu3_4`, `relu4_4` and `relu5_4`, and the weights of their distances;
            all five, each 1, if left out.
        border: What the first convolution sees around the image: `zeros`, or its outermost pixels (`replicate`).
        widths: Channels of the five stages of VGG19.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("fdl", weights=None, options={"num_proj": 8})
        >>> x = torch.rand(1, 3, 80, 80, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 80, 80)).sum().backward()
    """

    taps: tuple[str, ...] = _TAPS
    rules = TORCHVISION_TRUNK

    def __init__(
        self,
        card: Card,
        *,
        num_proj: int = 256,
        patch_size: int = _PATCH,
        stride: int = 1,
        phase_weight: float = 1.0,
        scales: Sequence[float] | None = None,
        layers: Mapping[str, float] | None = None,
        border: Border = "zeros",
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        layers = dict.fromkeys(_TAPS, 1.0) if layers is None else {tap: layers[tap] for tap in _in_order(layers)}
        scales = (1.0,) * len(layers) if scales is None else tuple(scales)
        whole = {"num_proj": num_proj, "patch_size": patch_size, "stride": stride}
        problems = _problems(whole, phase_weight, scales, len(layers))
        if not layers or min(layers.values()) < 0 or not any(layers.values()):
            problems.append(f"options.layers must be taps with weights of at least 0, not all 0, got {dict(layers)!r}")
        problems += [
            f"options.layers names {tap!r}: known are {', '.join(_TAPS)}" for tap in layers if tap not in _TAPS
        ]
        if border not in get_args(Border):
            problems.append(f"options.border must be 'zeros' or 'replicate', got {border!r}")
        if problems:
            raise ConfigError(problems, card.name)
        super().__init__(replace(card, min_size=16 * patch_size))
        self.trunk = vgg19(widths=widths, border=border)
        self.taps, self.layers = tuple(layers), layers
        self.stride, self.phase_weight, self.scales = stride, phase_weight, dict(zip(layers, scales, strict=True))
        self._project([widths[_TAPS.index(tap)] for tap in layers], num_proj, patch_size)


class FDLDino(_Distributions):
    """Frequency distribution loss of DINOv2's patch tokens; lower is better, 0 for equal images.

    Args:
        card: What it is.
        model: timm's name of a vision transformer.
        depths: Numbers of the blocks whose tokens are compared, from 0; all pass the norm behind the last block.
        scales: By which their amplitudes are multiplied.
        num_proj: Projections of a patch of coefficients, at each depth.
        patch_size: Side of a patch, in tokens.
        stride: Between patches.
        phase_weight: Of the phases beside the amplitudes.
        normalise: Whether images are brought to ImageNet's mean and deviation first; in neosr they are not.
        sizes: Further arguments of timm, such as `embed_dim`.

    Raises:
        ConfigError: if an option is none of these.
        PerceptlossError: if timm is missing or does not have the network.

    Example:
        >>> critic = create_critic("fdl-dino", weights=None, options={"depths": [0, 1], "scales": [1, 0.5]})
        >>> x = torch.rand(1, 3, 56, 56, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 56, 56)).sum().backward()
    """

    fade = 3e-3  # tokens of flat images differ by little more than rounding

    def __init__(
        self,
        card: Card,
        *,
        model: str = "vit_base_patch14_dinov2",
        depths: Sequence[int] = tuple(range(8)),
        scales: Sequence[float] = (1.0, 0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 0.1),
        num_proj: int = 24,
        patch_size: int = 4,
        stride: int = 1,
        phase_weight: float = 1.0,
        normalise: bool = False,
        sizes: Mapping[str, object] | None = None,
    ) -> None:
        whole = {"num_proj": num_proj, "patch_size": patch_size, "stride": stride}
        problems = _problems(whole, phase_weight, tuple(scales), len(depths))
        if not (depths and all(isinstance(d, int) and d >= 0 for d in depths) and list(depths) == sorted(set(depths))):
            problems.append(f"options.depths must be numbers from 0, rising, got {depths!r}")
        if problems:
            raise ConfigError(problems, card.name)
        taps = {f"depth{depth}": depth for depth in depths}
        options = {"dynamic_img_size": True, **(sizes or {})}
        trunk = TimmFeatures(model, taps, IMAGENET if normalise else None, normed=True, **options)
        self.patch = int(trunk.model.patch_embed.patch_size[0])
        super().__init__(replace(card, min_size=(patch_size - 1) * self.patch + 1))
        self.trunk, self.taps = trunk, tuple(taps)
        self.stride, self.phase_weight, self.scales = stride, phase_weight, dict(zip(taps, scales, strict=True))
        self._project([trunk.model.embed_dim] * len(taps), num_proj, patch_size)
        kept = "|".join(str(k) for k in range(max(depths) + 1))
        self.rules = (  # type: ignore[misc]
            Rule(
                rf"((?:cls_token|reg_token|pos_embed|norm\..+|patch_embed\..+|blocks\.(?:{kept})\..+))",
                r"trunk.model.\1",
            ),
            Rule(r"(blocks\.\d+|fc_norm|head)\..+|mask_token", None, "layers behind the last tap are not used"),
        )

    def prepare(self, image: Tensor) -> Tensor:
        down, right = (-side % self.patch for side in image.shape[-2:])
        around = (right // 2, right - right // 2, down // 2, down - down // 2)
        return F.pad(image, around, mode="reflect") if down or right else image


_CARD = distance_card(
    name="fdl",
    summary="Distance of amplitudes and phases of deep features as distributions; robust to misalignment.",
    min_size=80,
    tiling="never",
    fidelity="paper",
    licence_code="MIT",
    licence_weights="BSD-3-Clause (torchvision trunk)",
    weights=("vgg19",),
    paper="Ni et al., Misalignment-Robust Frequency Distribution Loss for Image Transformation, CVPR 2024",
    source="https://github.com/eezkni/FDL, package fdl-pytorch 1.0",
    notes=(
        "amplitudes are not normalised, so that scores are large: weights of 0.001 to 0.01 beside an L1 loss are usual",
        "the authors draw projections anew for each training; these come from a seed",
        "256 projections of 5 x 5 patches cost more than VGG19 itself: options: {num_proj: 24} for less",
        "it sees which frequencies there are, not where: combine with a pixel loss where images align",
    ),
)

_DINO = distance_card(
    name="fdl-dino",
    summary="Distance of amplitudes and phases of DINOv2's patch tokens as distributions.",
    min_size=43,
    tiling="never",
    fidelity="paper",
    licence_code="MIT (FDL), Apache-2.0 (neosr, timm)",
    licence_weights="Apache-2.0 (DINOv2)",
    weights=("dinov2-base",),
    paper="Ni et al., Misalignment-Robust Frequency Distribution Loss for Image Transformation, CVPR 2024; "
    "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024",
    source="https://github.com/neosr-project/neosr losses/fdl_loss.py (facts only); timm vit_base_patch14_dinov2",
    notes=(
        "amplitudes are not normalised, so that scores are large: state a share, or the weight of neosr, 0.75",
        "sides that are no multiple of 14 pixels are continued by mirrored pixels on both sides",
        "it sees which frequencies there are, not where: combine with a pixel loss where images align",
    ),
)

ENTRIES = {"fdl": Entry(_CARD, FDL), "fdl-dino": Entry(_DINO, FDLDino)}
