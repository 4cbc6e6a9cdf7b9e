"""What all trunks have in common: named taps, input normalisation, stages, and seeded random weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["HALF", "IMAGENET", "JoinedTrunk", "Keep", "Normalisation", "Trunk"]

Keep = Literal["all", "stages", "lean"]
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Trunk(nn.Module):
    """A frozen-friendly feature extractor: a row of steps, some of whose results are taps.

    A trunk owns its input normalisation, stops at the deepest tap asked for, and is told what to
    keep for the backward pass. Subclasses implement `parts` and `step`, and call `finish` once
    their layers exist.

    Args:
        arch: Name of the architecture and its options; two trunks of one arch, normalisation and
            state compute the same thing and may be shared.
        taps: Tap name to the position of the step after which it is read.
        normalise: Mean and standard deviation per channel, or None for raw [0, 1] images.
    """

    mean: Tensor
    std: Tensor
    ships: str | None = None
    """Name of the file of ours that it starts from where a critic is taught."""

    def __init__(self, arch: str, taps: dict[str, int], normalise: Normalisation | None) -> None:
        super().__init__()
        self.arch, self.tap_at, self.normalise = arch, dict(taps), normalise
        for name, values in zip(("mean", "std"), normalise or ((0.0,) * 3, (1.0,) * 3), strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Trunk:
        """Move or cast, with the constants rounded once: from their decimals to the new type."""
        super()._apply(fn, recurse)
        for name, values in zip(("mean", "std"), self.normalise or (), strict=False):
            self._buffers[name] = torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1).to(getattr(self, name))
        return self

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """The layers of every step."""
        raise NotImplementedError

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        """Features after one step, from those before it."""
        raise NotImplementedError

    def starts(self, last: int) -> Sequence[int]:
        """Positions up to `last`, from 1, at which recomputation may start; each step by default."""
        return range(1, last + 1)

    def stride(self, tap: str) -> int:
        """Pixels between neighbours of a tap."""
        return self.reach(tap)[0]

    def reach(self, tap: str) -> tuple[int, int]:
        """Stride of a tap, and how many pixels beyond its own a cell sees at most on any side."""
        raise NotImplementedError(f"{self.arch} does not say how far its taps see")

    def read(self, h: Tensor) -> Tensor:
        """A tap, (N, C, h, w), from the features at its position."""
        return h

    def finish(self) -> None:
        """Freeze, and fill with He initialisation decided by the architecture alone, so that random trunks agree."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.arch.split("-")[0].encode()))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)

    def forward(
        self, image: Tensor, taps: Iterable[str], keep: Keep = "all", dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Taps of (N, 3, H, W) images in [0, 1], each (N, C, h, w).

        Args:
            image: Images in the type of the weights.
            taps: Names to return.
            keep: What is kept for the backward: `all` activations, only the inputs of `stages`
                (recomputed), or `lean`: ReLU masks and pooling positions (first order only).
            dtype: Type in which the convolutions run and the taps come out, if not the image's.
        """
        wanted = {name: self.tap_at[name] for name in taps}
        last = max(wanted.values())
        h = image if self.normalise is None else (image - self.mean) / self.std
        h = h.to(dtype or h.dtype).contiguous(memory_format=torch.channels_last)
        bounds = [0, *self.starts(last), last + 1]
        found: dict[int, Tensor] = {}
        for first, end in pairwise(bounds):
            reads = [i for i in range(first, end) if i in wanted.values()]
            if keep == "stages":
                outputs = checkpoint(self.run, h, first, end, reads, keep, use_reentrant=False)
            else:
                outputs = self.run(h, first, end, reads, keep)
            h = outputs[0]
            found.update(zip(reads, outputs[1:], strict=True))
        return {name: found[i] for name, i in wanted.items()}

    def run(self, h: Tensor, first: int, end: int, reads: Sequence[int], keep: Keep) -> tuple[Tensor, ...]:
        """Features after the steps first ... end - 1, and the taps read on the way."""
        found = []
        for position in range(first, end):
            h = self.step(h, position, keep)
            if position in reads:
                found.append(self.read(h))
        return (h, *found)

    def unread(self, taps: Iterable[str]) -> list[nn.Parameter]:
        """Parameters behind the deepest of these taps, which never run."""
        last = max(self.tap_at[tap] for tap in taps)
        return [p for modules in self.parts()[last + 1 :] for module in modules for p in module.parameters()]

    def same_as(self, other: Trunk) -> bool:
        """Whether the two compute the same features, so that one can stand for both."""
        if (self.arch, self.normalise) != (other.arch, other.normalise) or self is other:
            return self is other
        mine, theirs = self.state_dict(), other.state_dict()
        return mine.keys() == theirs.keys() and all(
            a.device == theirs[k].device and a.dtype == theirs[k].dtype and torch.equal(a, theirs[k])
            for k, a in mine.items()
        )


class JoinedTrunk(Trunk):
    """Several trunks that a critic reads side by side, as one; their taps are called `trunk.tap`."""

    def __init__(self, **trunks: Trunk) -> None:
        taps = {f"{name}.{tap}": at for name, trunk in trunks.items() for tap, at in trunk.tap_at.items()}
        super().__init__("+".join(trunk.arch for trunk in trunks.values()), taps, None)
        self.names = tuple(trunks)
        for name, trunk in trunks.items():
            self.add_module(name, trunk)

    def shown(self, image: Tensor, keep: Keep) -> dict[str, Tensor]:
        """What each trunk sees of the images."""
        return dict.fromkeys(self.names, image)

    def _taps_of(self, name: str, taps: Iterable[str]) -> list[str]:
        return [tap.removeprefix(f"{name}.") for tap in taps if tap.startswith(f"{name}.")]

    def forward(
        self, image: Tensor, taps: Iterable[str], keep: Keep = "all", dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        taps, found = tuple(taps), {}
        for name, seen in self.shown(image, keep).items():
            wanted = self._taps_of(name, taps)
            if wanted:
                features = getattr(self, name)(seen, wanted, keep, dtype)
                found.update({f"{name}.{tap}": value for tap, value in features.items()})
        return found

    def unread(self, taps: Iterable[str]) -> list[nn.Parameter]:
        taps = tuple(taps)
        unread: list[nn.Parameter] = []
        for name in self.names:
            wanted = self._taps_of(name, taps)
            trunk = getattr(self, name)
            unread += trunk.unread(wanted) if wanted else list(trunk.parameters())
        return unread

    def same_as(self, other: Trunk) -> bool:
        if not isinstance(other, JoinedTrunk) or self.names != other.names:
            return False
        return all(getattr(self, name).same_as(getattr(other, name)) for name in self.names)
