"""Feature extractors of timm as trunks: patch tokens of vision transformers, stages of convolutional networks."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss.errors import PerceptlossError
from perceptloss.networks.trunks.trunk import IMAGENET, Keep, Normalisation, Trunk

__all__ = ["TimmFeatures"]


class TimmFeatures(Trunk):
    """A timm network up to its deepest tap (`pip install "perceptloss[timm]"`), always in evaluation mode.

    `stages` and `lean` recompute the whole network in the backward.

    Args:
        name: timm's name.
        taps: Tap name to the number of the block (transformers) or stage whose result it is.
        normalise: See `Trunk`.
        normed: Whether results pass the norm behind the last block, too, as DINOv2's own code has it.
        options: Further arguments of timm, such as `embed_dim`.

    Raises:
        PerceptlossError: if timm is missing, or does not have this network with these taps.
    """

    model: Any

    def __init__(
        self,
        name: str,
        taps: Mapping[str, int],
        normalise: Normalisation | None = IMAGENET,
        *,
        normed: bool = False,
        **options: Any,
    ) -> None:
        parts = [name, *(f"{key}={value}" for key, value in sorted(options.items())), *["normed"] * normed]
        arch = "-".join(parts)
        super().__init__(arch, dict(taps), normalise)
        self.normed = normed
        self.model = self._made(name, **options)
        try:
            self.model.prune_intermediate_layers(sorted(taps.values()), prune_norm=not normed, prune_head=True)
        except (AttributeError, AssertionError, IndexError, ValueError) as error:
            raise PerceptlossError(f"timm's {name!r} has no taps {sorted(taps.values())}: {error}") from error
        for module in self.model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # type: ignore[assignment]  # it has no second derivative
        self.requires_grad_(False).eval()

    def _made(self, name: str, **options: Any) -> Any:
        try:
            import timm
        except ImportError as error:
            raise PerceptlossError(f'the trunk {name!r} needs timm: pip install "perceptloss[timm]"') from error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(self.arch.encode()))
            try:
                return timm.create_model(name, pretrained=False, **options)
            except (RuntimeError, TypeError) as error:
                raise PerceptlossError(f"timm cannot make {name!r}: {error}") from error

    def train(self, mode: bool = True) -> TimmFeatures:
        return super().train(False)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [(self.model,)]

    def unread(self, taps: Iterable[str]) -> list[nn.Parameter]:
        return []

    def forward(
        self, image: Tensor, taps: Iterable[str], keep: Keep = "all", dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        wanted = {name: self.tap_at[name] for name in taps}
        order = sorted(set(wanted.values()))
        h = image if self.normalise is None else (image - self.mean) / self.std

        def run(h: Tensor) -> tuple[Tensor, ...]:
            with torch.autocast(h.device.type, dtype=dtype, enabled=dtype is not None):
                return tuple(
                    self.model.forward_intermediates(
                        h, indices=order, norm=self.normed, stop_early=True, output_fmt="NCHW", intermediates_only=True
                    )
                )

        is_recomputed = keep != "all" and h.requires_grad and torch.is_grad_enabled()
        found = dict(zip(order, checkpoint(run, h, use_reentrant=False) if is_recomputed else run(h), strict=True))
        return {name: found[at] for name, at in wanted.items()}
