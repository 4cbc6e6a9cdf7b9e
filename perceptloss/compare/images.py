"""Reading images exactly: what a file is, what speaks against it, and its pixels as a tensor."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perceptloss.compare.settings import Settings
from perceptloss.errors import PerceptlossError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["SUFFIXES", "ImageFile", "inspect", "inspect_all", "luma", "read", "require_pillow", "resize"]

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS: Final = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION: Final = 0x0112
_BITS_PER_SAMPLE: Final = 258
_THREADS: Final = 4


@dataclass(frozen=True)
class ImageFile:
    """An image file that was decoded once and found good.

    Attributes:
        path: As given by the user, with forward slashes.
        sha256: Of the file's bytes, hexadecimal.
        width: Pixels, after rotation by EXIF if that is applied.
        height: Pixels, likewise.
        mode: `rgb8`, `rgb16`, `grey8` or `grey16`.
    """

    path: str
    sha256: str
    width: int
    height: int
    mode: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def depth(self) -> int:
        """Bits per sample, 8 or 16."""
        return 16 if self.mode.endswith("16") else 8


def require_pillow() -> None:
    """Say what to install where Pillow is not.

    Raises:
        PerceptlossError: if it cannot be imported.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise PerceptlossError("reading images needs Pillow: pip install 'perceptloss[compare]'") from error


def inspect_all(paths: Sequence[Path], settings: Settings) -> tuple[list[ImageFile | None], list[str]]:
    """Inspect files in parallel: what each is (None if unusable), and every problem found."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(inspect, settings=settings), paths))
    return [file for file, _ in found], [problem for _, problems in found for problem in problems]


def inspect(path: Path, settings: Settings) -> tuple[ImageFile | None, list[str]]:
    """Decode a file completely and say what speaks against scoring it.

    Returns:
        The file, or None if it cannot be used, and the problems, each naming the path.
    """
    try:
        data = path.read_bytes()
        image = _open(data)
        turned = _orientation(image)
        image.load()  # turns TIFF files by itself
    except Exception as error:  # decoders raise SyntaxError, struct.error, ... on damaged files
        return None, [f"{path}: cannot be read: {_reason(error)}"]
    mode, problems = _mode(image, data)
    problems += _refusals(image, mode, turned, settings)
    if problems or mode is None:
        return None, [f"{path}: {problem}" for problem in problems]
    width, height = image.size
    if _orientation(image) >= 5:  # the four that swap rows and columns
        width, height = height, width
    return ImageFile(path.as_posix(), hashlib.sha256(data).hexdigest(), width, height, mode), []


def read(file: ImageFile) -> Tensor:
    """Pixels of an inspected file, RGB in [0, 1]: 8-bit values over 255, 16-bit values over 65535.

    Returns:
        (3, H, W), fp32.
    """
    import numpy as np
    import torch

    data = Path(file.path).read_bytes()
    image = _open(data)
    pixels = _rgb16(data) if file.mode == "rgb16" else np.asarray(image)
    pixels = _rotate(pixels, _orientation(image))  # an identity, unless turning was allowed
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    top = np.float32(2**file.depth - 1)
    return torch.from_numpy(pixels.astype(np.float32) / top).permute(2, 0, 1).contiguous()


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (3, H, W) by Pillow's bicubic filter in floating point and clamp to [0, 1]."""
    import numpy as np
    import torch
    from PIL import Image as Pillow

    bicubic = Pillow.Resampling.BICUBIC
    planes = [np.asarray(Pillow.fromarray(plane.numpy()).resize((width, height), bicubic)) for plane in image]
    return torch.from_numpy(np.stack(planes)).clamp(0, 1)


def luma(image: Tensor) -> Tensor:
    """BT.601 luma of (..., 3, H, W) in [0, 1], range [16, 235]/255, repeated in three channels.

    The constants are those of MATLAB's `rgb2ycbcr`, which BasicSR's evaluation follows.
    """
    red, green, blue = image.unbind(-3)
    y = (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255
    return y.unsqueeze(-3).expand_as(image).contiguous()


def _open(data: bytes) -> Image:
    from PIL import Image as Pillow

    return Pillow.open(io.BytesIO(data), formats=_FORMATS)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"not an image in {', '.join(_FORMATS)} format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _bits(image: Image, data: bytes) -> int:
    """Bits per sample in the file; Pillow itself reduces 16-bit RGB to 8 without a word."""
    if image.format == "PNG":
        return int(data[24])
    if image.format == "TIFF":
        tags: Any = image
        return int(max(tags.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    if image.format == "PPM":
        maxval = _ppm_maxval(data)
        return 8 if maxval == 255 else 16 if maxval == 65535 else 0
    return 8


def _ppm_maxval(data: bytes) -> int:
    lines = [line.split(b"#")[0] for line in data[:4096].split(b"\n")]
    words = b" ".join(lines).split()
    return int(words[3]) if words[0] in (b"P5", b"P6", b"P2", b"P3") else 255


def _mode(image: Image, data: bytes) -> tuple[str | None, list[str]]:
    if getattr(image, "n_frames", 1) > 1:
        return None, ["holds several frames; save the one to be judged alone"]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return None, ["has an alpha channel; save it as RGB without alpha"]
    if image.mode in ("P", "1"):
        return None, [f"is {'a palette' if image.mode == 'P' else 'a bilevel'} image; save it as RGB"]
    bits = _bits(image, data)
    grey = image.mode in ("L", "I;16", "I;16B", "I;16L", "I")
    if grey and bits in (8, 16) and (image.mode, image.format) != ("I", "TIFF"):
        return f"grey{bits}", []
    if image.mode == "RGB" and (bits == 8 or (bits == 16 and image.format == "PNG" and _is_plain(data))):
        return f"rgb{bits}", []
    what = f"{bits}-bit {image.format}" if bits else f"{image.format} with an odd largest value"
    return None, [
        f"is a {what} image of mode {image.mode}, which cannot be read exactly; save it as 8- or 16-bit RGB PNG"
    ]


def _is_plain(png: bytes) -> bool:
    """Whether a PNG is not interlaced."""
    return png[28] == 0


def _refusals(image: Image, mode: str | None, turned: int, settings: Settings) -> list[str]:
    problems = []
    if mode is not None and mode.startswith("grey") and settings.grey == "refuse":
        problems.append("is a grey image; save it as RGB, or allow it by --grey replicate")
    if turned != 1 and settings.exif == "refuse":
        problems.append(f"is rotated by EXIF (orientation {turned}); rotate it, or allow it by --exif apply")
    profile = image.info.get("icc_profile")
    if profile and mode is not None and not _is_srgb(profile, mode):
        problems.append("has an ICC profile other than sRGB; convert it to sRGB")
    return problems


def _orientation(image: Image) -> int:
    return int(image.getexif().get(_ORIENTATION, 1) or 1)


def _rotate(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: transpose for 5 to 8, then flip rows or columns."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _is_srgb(profile: bytes, mode: str) -> bool:
    """Whether a profile maps a grid of colours to sRGB within two 8-bit steps."""
    import numpy as np
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


def _rgb16(data: bytes) -> np.ndarray:
    """Exact 16-bit RGB of a PNG, (H, W, 3).

    Pillow's decoder keeps one byte of each sample; told the samples are little-endian, it keeps
    the other one.
    """
    import numpy as np

    def one_byte(raw: str) -> np.ndarray:
        image: Any = _open(data)
        image.tile = [(*tile[:3], raw) for tile in image.tile]
        return np.asarray(image).astype(np.uint16)

    pixels: np.ndarray = one_byte("RGB;16B") * 256 + one_byte("RGB;16L")
    return pixels
