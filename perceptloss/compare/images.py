"""The one reader of picture files: what a file is, what speaks against it, and its pixels exactly.

Which kinds of files are taken, and what is done with them, is a `Policy` that every caller declares. What `inspect`
accepts is what `read` reads.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from perceptloss.compare.formats import INTERLACED, ORIENTATION, SWAPS, bits, is_srgb, opened, rgb16, upright
from perceptloss.errors import InputError, PerceptlossError

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageFile",
    "Pixels",
    "Policy",
    "inspect",
    "inspect_all",
    "read",
    "read_hashed",
    "require_pillow",
]

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS: Final = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ALPHA: Final = ("RGBA", "LA", "PA", "La", "RGBa")
_GREY: Final = ("L", "I;16", "I;16B", "I;16L", "I")
_HEAD: Final = 4096  # bytes of a file in which formats say how many bits they hold
MAX_PIXELS: Final = 178_956_970  # beyond which Pillow, left alone, refuses a picture
_THREADS: Final = min(32, os.cpu_count() or 1)

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which files are taken, and what becomes of them.

    Attributes:
        exif: A rotation in EXIF: `refuse` it, or `apply` it.
        grey: One channel: `refuse` it, or `replicate` it three times.
        palette: Palettes and bilevel images: `refuse` them, or `expand` them to the colours that they name.
        alpha: An alpha channel or a transparent colour: `refuse` it, or `drop` it.
        profile: An ICC profile other than sRGB: `refuse` it, or `ignore` it and take the values as they are.
        depth: 16 bits: `keep` them, or `round` them to 8.
        max_pixels: Largest picture that is decoded.
    """

    exif: Literal["refuse", "apply"] = "refuse"
    grey: Literal["refuse", "replicate"] = "refuse"
    palette: Literal["refuse", "expand"] = "refuse"
    alpha: Literal["refuse", "drop"] = "refuse"
    profile: Literal["refuse", "ignore"] = "refuse"
    depth: Literal["keep", "round"] = "keep"
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class ImageFile:
    """A file that was found good.

    Attributes:
        path: As given by the user, with forward slashes.
        sha256: Of the file's bytes, hexadecimal; empty where only the header was looked at.
        width: Pixels, after rotation by EXIF if that is applied.
        height: Pixels, likewise.
        mode: `rgb8`, `rgb16`, `grey8` or `grey16`: what the file holds.
        right: The right view, where this one is the left one of a stereo pair.
    """

    path: str
    sha256: str
    width: int
    height: int
    mode: str
    right: ImageFile | None = None

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """This one, and the right view if there is one."""
        return (self,) if self.right is None else (self, self.right)

    @property
    def digest(self) -> str:
        """Of the bytes of all its files, 64 hexadecimal digits; empty where they were not looked at."""
        if self.right is None or not self.sha256:
            return self.sha256
        return hashlib.sha256(f"{self.sha256}{self.right.sha256}".encode()).hexdigest()

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


def inspect_all(
    paths: Sequence[Path], policy: Policy, *, decode: bool = True
) -> tuple[dict[Path, ImageFile], list[str]]:
    """Inspect files in parallel: what each usable one is, and every problem found."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(inspect, policy=policy, decode=decode), paths))
    files = {path: file for path, (file, _) in zip(paths, found, strict=True) if file is not None}
    return files, [problem for _, problems in found for problem in problems]


def inspect(path: Path, policy: Policy, *, decode: bool = True) -> tuple[ImageFile | None, list[str]]:
    """What a file is, and what speaks against it.

    Args:
        path: The file.
        policy: What is taken.
        decode: Decode every pixel, which finds damage, and hash the file; otherwise look at the header alone.

    Returns:
        The file, or None if it cannot be used, and the problems, each naming the path.
    """
    try:
        with _Opened(path, policy, whole=decode) as picture:
            mode, problems = picture.judged(policy)
            height, width = picture.size()
            digest = hashlib.sha256(picture.data).hexdigest() if decode else ""
    except Exception as error:  # decoders raise SyntaxError, struct.error, ... on damaged files
        return None, [f"{path}: cannot be read: {_reason(error)}"]
    if problems or mode is None:
        return None, [f"{path}: {problem}" for problem in problems]
    return ImageFile(path.as_posix(), digest, width, height, mode), []


def read(path: Path, policy: Policy, *, least: int | None = None) -> Pixels:
    """Pixels of a file, RGB: 8 bits as they are, 16 bits likewise unless the policy rounds them.

    Args:
        path: The file.
        policy: What is taken.
        least: A decoder that can give a smaller picture sooner (that of JPEG) may, down to this side.

    Returns:
        (H, W, 3), uint8 or uint16, perhaps not writeable.

    Raises:
        InputError: saying all that `inspect` says of the file.
    """
    return _decoded(path, policy, least)[0]


def read_hashed(path: Path, policy: Policy) -> tuple[Pixels, str]:
    """What `read` gives, and the sha256 of the very bytes that it was decoded from."""
    pixels, data = _decoded(path, policy, None)
    return pixels, hashlib.sha256(data).hexdigest()


def _decoded(path: Path, policy: Policy, least: int | None) -> tuple[Pixels, bytes]:
    require_pillow()
    try:
        with _Opened(path, policy, whole=True, least=least) as picture:
            mode, problems = picture.judged(policy)
            pixels = None if problems or mode is None else picture.pixels(mode)
    except Exception as error:
        raise InputError(f"{path}: cannot be read: {_reason(error)}") from error
    if pixels is None:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))
    if pixels.dtype == np.uint16 and policy.depth == "round":
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels, picture.data


class _Opened:
    """A file that is open while its context lasts; made to be looked at upright.

    Args:
        path: The file.
        policy: How large it may be.
        whole: Decode it; otherwise its header alone is read.
        least: As `read` says.
    """

    def __init__(self, path: Path, policy: Policy, *, whole: bool, least: int | None = None) -> None:
        from PIL import Image as Pillow

        if not path.is_file() and path.exists():  # a pipe would be waited for, a device has no end
            raise ValueError("expected a regular file, got a folder, pipe or device")
        with path.open("rb") as file:
            self.data = file.read() if whole else file.read(_HEAD)
        self.image = opened(io.BytesIO(self.data) if whole else path, _FORMATS)
        if (pixels := math.prod(self.image.size)) > policy.max_pixels:
            size = "{1}x{0}".format(*self.image.size)
            raise ValueError(
                f"it is {size}, more than the {policy.max_pixels} pixels allowed; --max-pixels {pixels} allows it"
            )
        if least is not None:
            self.image.draft(self.image.mode, (least, least))
        # a PNG may hold EXIF behind its pixels, and then is decoded for it
        exif = self.image.getexif() if whole else Pillow.Image.getexif(self.image)
        named = exif.get(ORIENTATION, 1) or 1
        if named not in range(1, 9):
            raise ValueError(f"its EXIF names orientation {named!r}, expected 1 to 8; save it without that tag")
        self.turned = int(named)
        self.still_turned = self.turned
        if self.image.format == "TIFF" and self.turned != 1:
            self.image.load()  # which turns it
            self.still_turned = 1
        elif whole:
            self.image.load()

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.image.close()

    def size(self) -> tuple[int, int]:
        """Height and width, upright."""
        width, height = self.image.size
        return (width, height) if self.still_turned >= SWAPS else (height, width)

    def judged(self, policy: Policy) -> tuple[str | None, list[str]]:
        """The mode, if it can be read exactly, and what the policy says against the file."""
        mode, problem = self._mode(policy)
        problems = [problem] if problem else []
        if mode is not None and mode.startswith("grey") and policy.grey == "refuse":
            problems.append("is a grey image; save it as RGB, or allow it by --grey replicate")
        if self.turned != 1 and policy.exif == "refuse":
            problems.append(f"is rotated by EXIF (orientation {self.turned}); rotate it, or allow it by --exif apply")
        profile = self.image.info.get("icc_profile")
        if policy.profile == "refuse" and profile and mode is not None and not is_srgb(profile, mode):
            problems.append("has an ICC profile other than sRGB; convert it to sRGB")
        return mode, problems

    def _mode(self, policy: Policy) -> tuple[str | None, str]:
        image, depth = self.image, bits(self.image, self.data)
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # whose other pictures are previews
            return None, "holds several frames; save the one to be judged alone"
        has_alpha = image.mode in _ALPHA or "transparency" in image.info
        if has_alpha and policy.alpha == "refuse":
            return None, "has an alpha channel; save it as RGB without alpha"
        if image.mode in ("P", "PA", "1"):
            if policy.palette == "refuse":
                return None, f"is {'a bilevel' if image.mode == '1' else 'a palette'} image; save it as RGB"
            return "grey8" if image.mode == "1" else "rgb8", ""
        if image.mode in _GREY and (image.mode, image.format) != ("I", "TIFF") and depth in (2, 4, 8, 16):
            return f"grey{max(depth, 8)}", ""
        is_deep = depth == 16 and image.format == "PNG" and self.data[INTERLACED] == 0
        if image.mode == "RGB" and (depth == 8 or is_deep):
            return f"rgb{depth}", ""
        if has_alpha and depth == 8:
            return "grey8" if image.mode in ("LA", "La") else "rgb8", ""
        what = f"{depth}-bit {image.format}" if depth else f"{image.format} with an odd largest value"
        advice = "which cannot be read exactly; save it as 8- or 16-bit RGB PNG"
        return None, f"is a {what} image of mode {image.mode}, {advice}"

    def pixels(self, mode: str) -> Pixels:
        """(H, W, 3), upright."""
        if mode == "rgb16":
            found = rgb16(self.data)
        else:
            is_plain = self.image.mode in ("RGB", *_GREY)
            found = np.asarray(self.image if is_plain else self.image.convert("RGB" if mode == "rgb8" else "L"))
            found = found.astype(np.uint16 if mode == "grey16" else np.uint8, copy=False)
        found = upright(found, self.still_turned)
        return np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"not an image in {', '.join(_FORMATS)} format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
