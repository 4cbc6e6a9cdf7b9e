"""fdl: how far apart amplitudes and phases of deep features are as distributions, by sorted random projections.

Ni, Wu, Wang, Yang, Wang, Ma: "Misalignment-Robust Frequency Distribution Loss for Image Transformation", CVPR 2024.
Original: https://github.com/eezkni/FDL (MIT; package fdl-pytorch 1.0). Ours: the projections are drawn once from a
seed; phases of coefficients that are nothing but rounding are 0, so that flat features have a value and a slope.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import root
from perceptloss.networks.trunks import Features, TrunkCritic, vgg19
from perceptloss.weights.rules import TORCHVISION_TRUNK

__all__ = ["ENTRIES", "FDL", "amplitude_and_phase"]

_TAPS = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
_WIDTHS = (64, 128, 256, 512, 512)
_PATCH = 5  # side
_ROUNDING = 1e-5  # of the largest coefficient of a channel


def amplitude_and_phase(f: Tensor) -> tuple[Tensor, Tensor]:
    """Of the Fourier coefficients of features (N, C, H, W), each of that shape; phases in (-pi, pi]."""
    spectrum = torch.fft.fft2(f)
    real, imaginary = spectrum.real, spectrum.imag
    amplitude = root(real.square() + imaginary.square())
    largest = amplitude.detach().amax((2, 3), keepdim=True)
    is_signal = amplitude > _ROUNDING * largest
    # the sign of an imaginary part of 0 would decide between pi and -pi
    imaginary = torch.where(imaginary.abs() > _ROUNDING * largest, imaginary, imaginary.abs())
    phase = torch.atan2(torch.where(is_signal, imaginary, 0), torch.where(is_signal, real, 1))
    return amplitude, phase


class FDL(TrunkCritic):
    """Frequency distribution loss of VGG19 features; lower is better, 0 for equal images.

    Args:
        card: What it is.
        num_proj: Projections of a patch of coefficients, at each of five taps.
        patch_size: Side of a patch.
        stride: Between patches.
        phase_weight: Of the phases beside the amplitudes.
        scales: By which the features of the five taps are multiplied, which phases do not see; all 1 if left out.
        widths: Channels of the five stages of VGG19.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("fdl", weights=None, options={"num_proj": 8})
        >>> x = torch.rand(1, 3, 80, 80, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 80, 80)).sum().backward()
    """

    taps = _TAPS
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
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        problems = [
            f"options.{name} must be a whole number of at least 1, got {value!r}"
            for name, value in {"num_proj": num_proj, "patch_size": patch_size, "stride": stride}.items()
            if not isinstance(value, int) or value < 1
        ]
        if not (isinstance(phase_weight, (int, float)) and phase_weight >= 0):
            problems.append(f"options.phase_weight must be a number of at least 0, got {phase_weight!r}")
        scales = (1.0,) * len(_TAPS) if scales is None else tuple(scales)
        if len(scales) != len(_TAPS) or min(scales) < 0 or not any(scales):
            problems.append(f"options.scales must be {len(_TAPS)} numbers of at least 0, not all 0, got {scales!r}")
        if problems:
            raise ConfigError(problems, card.name)
        super().__init__(replace(card, min_size=16 * patch_size))
        self.trunk = vgg19(widths=widths)
        self.stride, self.phase_weight, self.scales = stride, phase_weight, dict(zip(_TAPS, scales, strict=True))
        generator = torch.Generator().manual_seed(zlib.crc32(b"fdl"))
        for tap, channels in zip(_TAPS, widths, strict=True):
            drawn = torch.randn(num_proj, channels, patch_size, patch_size, generator=generator)
            directions = drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]
            self.register_buffer(f"projections_{tap}", directions, persistent=False)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return torch.stack([self._of(tap, fx[tap], fy[tap]) for tap in self.taps]).sum(0)

    def _of(self, tap: str, fx: Tensor, fy: Tensor) -> Tensor:
        (ax, px), (ay, py) = amplitude_and_phase(fx), amplitude_and_phase(fy)
        directions = getattr(self, f"projections_{tap}")
        amplitudes = self.scales[tap] * self._distance(ax, ay, directions)
        return amplitudes + self.phase_weight * self._distance(px, py, directions)

    def _distance(self, x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
        sets = [F.conv2d(image, directions, stride=self.stride).flatten(2).sort(-1).values for image in (x, y)]
        return (sets[0] - sets[1]).abs().mean((1, 2))


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

ENTRIES = {"fdl": Entry(_CARD, FDL)}
