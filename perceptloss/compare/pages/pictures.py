"""Pictures for pages: exactly those that were checked, cut where they differ most, and embedded without loss."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.images import ImageFile, read_hashed
from perceptloss.compare.pixels import as_bytes, as_tensor, resize
from perceptloss.compare.results import ImageRecord
from perceptloss.compare.settings import Settings
from perceptloss.compare.sizes import cut
from perceptloss.errors import InputError

__all__ = ["Bytes", "pictures_of", "png", "thumbnail", "window"]

Bytes = NDArray[np.uint8]
_THUMBNAIL: Final = 128


def window(pictures: Sequence[Bytes], side: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the square in which pictures of one size differ most; in the middle if nowhere."""
    stack = np.stack(pictures)
    spread = (stack.max(axis=0) - stack.min(axis=0)).sum(axis=2, dtype=np.float64)
    height, width = spread.shape
    tall, wide = min(side, height), min(side, width)
    sums = np.pad(spread.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    if not inside.any():
        return (width - wide) // 2, (height - tall) // 2, wide, tall
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(left), int(top), wide, tall


def png(picture: Bytes) -> str:
    """Address that holds a picture, (H, W, 3), without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def thumbnail(picture: Bytes) -> str:
    """Address that holds a reduced picture."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return png(np.asarray(image))


def pictures_of(record: ImageRecord, settings: Settings, homes: Mapping[str, str]) -> list[Bytes]:
    """Outputs and reference as critics saw them but for the border, 8 bits; of stereo pairs the left view.

    Args:
        record: Of the image.
        settings: How it was read.
        homes: Where files may be besides: the beginning of paths as given, and what may stand for it.

    Raises:
        InputError: if they were in memory only, a file is gone or not what was scored, or sizes differ.
    """
    files = [*record.outputs, *([record.reference] if record.reference else [])]
    if any(file is None for file in files):
        raise InputError("scored from memory: there are no files to show")
    policy = replace(settings.policy, depth="round")
    pictures = []
    for file in files:
        assert file is not None
        path = next(iter(_places(homes, file)), None)
        if path is None:
            raise InputError(f"{file.path} is not there any more; run this where the images are")
        pixels, digest = read_hashed(path, policy)
        if digest != file.sha256:
            raise InputError(f"{path} is not the file that was scored; score again")
        pictures.append(pixels.astype(np.uint8, copy=False))
    return _alike(pictures, settings, has_reference=record.reference is not None)


def _places(homes: Mapping[str, str], file: ImageFile) -> Iterator[Path]:
    paths = [Path(file.path)]
    paths += [Path(home + file.path[len(given) :]) for given, home in homes.items() if file.path.startswith(given)]
    return (path for path in paths if path.is_file())


def _alike(pictures: list[Bytes], settings: Settings, *, has_reference: bool) -> list[Bytes]:
    sizes = [picture.shape[:2] for picture in pictures]
    if len(set(sizes)) == 1:
        return pictures
    if settings.resize == "to-ref" and has_reference:
        return [p if p.shape == pictures[-1].shape else as_bytes(resize(as_tensor(p), *sizes[-1])) for p in pictures]
    if settings.crop != "never":
        least = min(h for h, _ in sizes), min(w for _, w in sizes)
        return [as_bytes(cut(as_tensor(p), least, settings)) for p in pictures]
    raise InputError("pictures of different sizes are not shown side by side")
