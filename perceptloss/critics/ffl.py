"""ffl: focal frequency loss, squared differences of Fourier coefficients, weighed by how large they are.

Jiang, Dai, Wu, Loy: "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021. Original:
https://github.com/EndlessSora/focal-frequency-loss (package focal-frequency-loss 0.3.0, MIT). Ours: a spectrum that is
equal everywhere has weights 0 without a division by 0, and no value waits for the device.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError
from perceptloss.networks.functional import bounded_power

__all__ = ["ENTRIES", "FocalFrequency"]

_FLOOR = 1e-8  # of squared coefficients: the slope of a weight, where it is followed at all, is held below


class FocalFrequency(Critic):
    r"""Focal frequency loss: mean of w |F_x - F_y|^2 with w = |F_x - F_y|^\alpha / max; lower is better, 0 is equal.

    The weights of the spectrum are constants of the gradient, as published (`hold_weights`).

    Args:
        card: What it is.
        alpha: Exponent of the weights.
        patch_factor: The images are cut into so many rows and columns of patches, each with its own spectrum.
        log_matrix: Whether the weights are logarithms of 1 + themselves before they are divided by their maximum.
        ave_spectrum: Whether spectra are averaged over the batch first: one value for all images of a batch.
        batch_matrix: Whether the maximum is one of the whole batch.

    Raises:
        ConfigError: if an option is none of these.

    Example:
        >>> critic = create_critic("ffl")
        >>> x = torch.rand(2, 3, 32, 32, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 32, 32)).sum().backward()
    """

    def __init__(
        self,
        card: Card,
        *,
        alpha: float = 1.0,
        patch_factor: int = 1,
        log_matrix: bool = False,
        ave_spectrum: bool = False,
        batch_matrix: bool = False,
    ) -> None:
        problems = []
        if not (isinstance(alpha, (int, float)) and alpha > 0):
            problems.append(f"options.alpha must be a number above 0, got {alpha!r}")
        if not (isinstance(patch_factor, int) and patch_factor > 0):
            problems.append(f"options.patch_factor must be a whole number of at least 1, got {patch_factor!r}")
        if problems:
            raise ConfigError(problems, card.name)
        least, couples = card.min_size * patch_factor, ave_spectrum or batch_matrix
        super().__init__(replace(card, min_size=least, multiple_of=patch_factor, couples_batch=couples))
        self.alpha, self.patch_factor, self.log_matrix = alpha, patch_factor, log_matrix
        self.ave_spectrum, self.batch_matrix = ave_spectrum, batch_matrix

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        fx, fy = self._spectrum(x), self._spectrum(given(y))
        squared = (fx - fy).square().sum(-1)
        values = (squared * self._weights(squared)).mean((1, 2, 3, 4))
        return values.expand(len(x))

    def _spectrum(self, image: Tensor) -> Tensor:
        """Orthonormal coefficients of every patch, (N, C, P, h, w, 2)."""
        parts = self.patch_factor
        rows = image.unflatten(3, (parts, -1)).unflatten(2, (parts, -1))
        patches = rows.permute(0, 1, 2, 4, 3, 5).flatten(2, 3)
        spectrum = torch.view_as_real(torch.fft.fft2(patches, norm="ortho"))
        return spectrum.mean(0, keepdim=True) if self.ave_spectrum else spectrum

    def _weights(self, squared: Tensor) -> Tensor:
        if self.hold_weights and self.is_frozen:
            squared = squared.detach()
        size = bounded_power(squared, self.alpha / 2, _FLOOR)
        if self.log_matrix:
            size = size.log1p()
        most = size.amax() if self.batch_matrix else size.amax((-2, -1), keepdim=True)
        return size / torch.where(most > 0, most, 1)


_CARD = distance_card(
    name="ffl",
    summary="Squared differences of Fourier coefficients, the largest of which weigh most (focal frequency loss).",
    min_size=2,
    tiling="never",
    licence_code="MIT",
    paper="Jiang et al., Focal Frequency Loss for Image Reconstruction and Synthesis, ICCV 2021",
    source="https://github.com/EndlessSora/focal-frequency-loss, package focal-frequency-loss 0.3.0",
    notes=(
        "made to stand beside a pixel loss: coefficients that are nearly right are hardly pulled",
        "small numbers: weights of 1 to 100 beside an L1 loss are usual",
        "options ave_spectrum and batch_matrix make the score of an image depend on its batch",
    ),
)

ENTRIES = {"ffl": Entry(_CARD, FocalFrequency)}
