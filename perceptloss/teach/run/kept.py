"""Scored sets of which only what a fixed trunk says is kept: its taps, which any critic on that trunk can read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptloss.networks.trunks import Features, TrunkCritic
from perceptloss.output.files import replacing
from perceptloss.output.progress import bar
from perceptloss.teach.run.sources import Batch, SourceOptions
from perceptloss.teach.run.teachers import Ladders, images

__all__ = ["AT_ONCE", "Kept", "KeptTaps", "Shapes", "in_halves", "looked_at", "rows_of", "shapes_of", "taps_in"]

Shapes = Mapping[str, tuple[int, ...]]
"""Taps of one image by name: patches, channels, height, width."""
AT_ONCE = 16
"""Images looked at together."""
_MOST = 6e4  # halves go no further


class Kept:
    """A scored set, as taught, of whose images only rows of numbers are left; else as `Ladders`.

    Args:
        inner: The set.
    """

    def __init__(self, inner: Ladders) -> None:
        self.inner = inner
        self.options: SourceOptions = inner.options
        self.gives, self.kinds = inner.gives, inner.kinds

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph of each item."""
        return self.inner.content_ids

    def __len__(self) -> int:
        return len(self.inner)


class KeptTaps(Kept):
    """The taps of a fixed trunk: `Batch.x` and `Batch.y` are (N, numbers), float32.

    Args:
        inner: The set.
        critic: On whose trunk; it must be fixed.
        device: Where it looks.
    """

    def __init__(self, inner: Ladders, critic: TrunkCritic, device: torch.device) -> None:
        super().__init__(inner)
        taught = inner.taught
        is_clean = np.flatnonzero(np.asarray(taught.level) == 0)
        self.clean = np.empty(len(taught.references), dtype=np.int64)
        self.clean[np.asarray(taught.reference)[is_clean]] = is_clean
        was_training = critic.training
        critic.to(device).eval()
        self.shapes, self.rows = _taps(inner, critic, device)
        critic.train(was_training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """As `Ladders.batch`, with taps for images."""
        rows = self.inner.rows(indices, generator)
        clean = self.clean[np.asarray(self.inner.taught.reference)[rows]]
        y = self._floats(clean) if self.inner.with_reference else None
        return self.inner.known(rows, self._floats(rows), y)

    def _floats(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.rows[rows]).float()


def rows_of(taps: Features, count: int) -> tuple[Shapes, Tensor]:
    """Taps of so many images, of one patch or more each, as their shapes and rows of numbers (N, numbers)."""
    shapes = {name: (len(tap) // count, *tap.shape[1:]) for name, tap in taps.items()}
    return shapes, torch.cat([tap.reshape(count, -1) for tap in taps.values()], 1)


def shapes_of(sources: Iterable[object]) -> Shapes:
    """Of the taps that these sources keep, which are alike; empty if none does."""
    return next((source.shapes for source in sources if isinstance(source, KeptTaps)), {})


def taps_in(rows: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """What `rows_of` made rows of."""
    parts = rows.split([int(np.prod(shape)) for shape in shapes.values()], 1)
    return {name: part.reshape(-1, *shape[1:]) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def in_halves(found: Tensor) -> np.ndarray:
    """As float16, cut to what that holds."""
    return found.clamp(-_MOST, _MOST).cpu().numpy().astype(np.float16)


@torch.no_grad()
def looked_at(inner: Ladders, name: str, look: Callable[[np.ndarray], Tensor], more: bytes = b"") -> np.ndarray:
    """What is seen in all images of a set, (M, ...), float16: from a file beside it, or else leaves that file.

    Args:
        inner: The set.
        name: Of what is seen; the first images and `more` tell which file is meant.
        look: Numbers of rows of the set to what is seen in them.
        more: What else it depends on.
    """
    count = len(inner.taught.level)

    def seen(start: int) -> np.ndarray:
        return in_halves(look(np.arange(start, min(start + AT_ONCE, count))))

    first = seen(0)
    file = Path(inner.options.folder) / f"{name}-{hashlib.sha256(first.tobytes() + more).hexdigest()[:16]}.npy"
    if not file.is_file():
        with replacing(file) as draft:
            found = np.lib.format.open_memmap(draft, "w+", np.float16, (count, *first.shape[1:]))
            with bar(name, count, show=True) as shown:
                for start in range(0, count, AT_ONCE):
                    found[start : start + AT_ONCE] = first if start == 0 else seen(start)
                    shown.update(min(AT_ONCE, count - start))
            found.flush()
    return np.load(file, mmap_mode="r")


def _taps(inner: Ladders, critic: TrunkCritic, device: torch.device) -> tuple[Shapes, np.ndarray]:
    shapes: Shapes = {}

    def look(rows: np.ndarray) -> Tensor:
        nonlocal shapes
        x = images(inner.taught, rows, False)[0].to(device).float().div_(255)
        shapes, found = rows_of(critic.look(x), len(x))
        return found

    kept = looked_at(inner, "taps", look)
    return shapes, kept
