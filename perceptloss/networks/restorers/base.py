"""What every super-resolution network here has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from perceptloss.errors import InputError

__all__ = ["SuperResolver"]


class SuperResolver(nn.Module):
    """Enlarges RGB images in [0, 1], or stereo pairs of them, by an integer factor; the output is not clamped.

    Attributes:
        KEY: A name in the state dict that tells this network from the others.
        channels: 3, or 6 of a stereo pair: left RGB, right RGB.
        scales: Factors that it can enlarge by.
        minimum: Smallest height and width of the input, in pixels.
    """

    KEY: ClassVar[str]
    channels: ClassVar[int] = 3
    scales: tuple[int, ...]
    minimum: int = 1

    @classmethod
    @abstractmethod
    def like(cls, state: Mapping[str, Tensor]) -> SuperResolver:
        """A network with random weights of the widths that a state dict asks for."""

    @abstractmethod
    def enlarge(self, x: Tensor, scale: int) -> Tensor:
        """(N, channels, H, W) to (N, channels, scale H, scale W), arguments already checked."""

    def forward(self, x: Tensor, scale: int | None = None) -> Tensor:
        """Enlarge.

        Args:
            x: (N, channels, H, W), RGB in [0, 1].
            scale: One of `scales`; may be left out if there is only one.

        Returns:
            (N, channels, scale H, scale W).

        Raises:
            InputError: for another scale, a wrong shape, or an image below `minimum`.
        """
        name = type(self).__name__
        if scale is None and len(self.scales) == 1:
            scale = self.scales[0]
        if scale not in self.scales:
            raise InputError(f"{name} enlarges by {' or '.join(map(str, self.scales))}, got scale={scale}.")
        if x.ndim != 4 or x.shape[1] != self.channels or min(x.shape[2:]) < self.minimum:
            raise InputError(
                f"{name} needs (N, {self.channels}, H, W) with H and W from {self.minimum}, got {tuple(x.shape)}; "
                f"{'give left RGB and right RGB as six channels' if self.channels == 6 else 'pad small images'}."
            )
        return self.enlarge(x, scale)
