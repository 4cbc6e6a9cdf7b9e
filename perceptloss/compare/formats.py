"""What the formats of pictures keep where Pillow does not say it, and pixels that it does not give exactly."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["INTERLACED", "ORIENTATION", "SWAPS", "bits", "is_srgb", "opened", "rgb16", "upright"]

SWAPS: Final = 5  # the first of the four orientations that swap rows and columns
ORIENTATION: Final = 0x0112  # the tag of EXIF: 1 to 8; 1 is upright
INTERLACED: Final = 28  # place in the header of a PNG; 0 where its rows are plain
_BITS_PER_SAMPLE: Final = 258
_limit = threading.Lock()


def opened(source: Path | BinaryIO, formats: Sequence[str]) -> Image:
    """A picture of any size, its header read; Pillow's limit is a global, which stays as it was for everybody else."""
    from PIL import Image as Pillow

    with _limit:
        before, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None
        try:
            return Pillow.open(source, formats=tuple(formats))
        finally:
            Pillow.MAX_IMAGE_PIXELS = before


def bits(image: Image, data: bytes) -> int:
    """Bits per sample in the file; Pillow itself reduces 16-bit RGB to 8 without a word."""
    if image.format == "PNG":
        return int(data[24])
    if image.format == "TIFF":
        tags: Any = image
        return int(max(tags.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    if image.format == "PPM":
        kind, *numbers = _ppm_words(data)
        largest = int(numbers[2]) if kind in (b"P5", b"P6", b"P2", b"P3") else 255
        return 8 if largest == 255 else 16 if largest == 65535 else 0
    return 8


def _ppm_words(data: bytes) -> list[bytes]:
    """The first four words of a header; a comment ends at a new line or return, and may stand inside a word."""
    words, place = [b""], 0
    while len(words) <= 4 and place < len(data):
        sign = data[place : place + 1]
        if sign == b"#":
            while place < len(data) and data[place] not in b"\r\n":
                place += 1
        elif not sign.isspace():
            words[-1] += sign
        elif words[-1]:
            words.append(b"")
        place += 1
    if len(words) < 4:
        raise ValueError("the header has no end in its first bytes; save it without comments")
    return words[:4]


def upright(pixels: np.ndarray, turned: int) -> np.ndarray:
    """Undo an EXIF orientation: transpose for 5 to 8, then flip rows or columns."""
    if turned >= SWAPS:
        pixels = pixels.swapaxes(0, 1)
    if turned in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turned in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


@lru_cache(maxsize=16)  # most pictures of a folder have the same one
def is_srgb(profile: bytes, mode: str) -> bool:
    """Whether a profile maps a grid of colours to sRGB within two 8-bit steps."""
    from PIL import Image as Pillow
    from PIL import ImageCms

    steps = np.linspace(0, 255, 6).astype(np.uint8)
    if mode.startswith("grey"):
        source = Pillow.fromarray(steps[None].repeat(6, 0))
    else:
        source = Pillow.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(6, 36, 3))
    try:
        ours = ImageCms.createProfile("sRGB")
        mapped = ImageCms.profileToProfile(source, io.BytesIO(profile), ours, outputMode="RGB")
    except ImageCms.PyCMSError:
        return False
    if mapped is None:
        return False
    difference = np.asarray(mapped).astype(int) - np.asarray(source.convert("RGB")).astype(int)
    return bool(abs(difference).max() <= 2)


def rgb16(data: bytes) -> np.ndarray:
    """Exact 16-bit RGB of a PNG, (H, W, 3).

    Pillow's decoder keeps one byte of each sample; told the samples are little-endian, it keeps
    the other one.
    """

    def one_byte(raw: str) -> np.ndarray:
        image: Any = opened(io.BytesIO(data), ("PNG",))
        image.tile = [(*tile[:3], raw) for tile in image.tile]
        return np.asarray(image).astype(np.uint16)

    pixels: np.ndarray = one_byte("RGB;16B") * 256 + one_byte("RGB;16L")
    return pixels
