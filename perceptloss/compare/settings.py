"""Every choice that changes a score or decides which images are paired, checked as a whole."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args, get_type_hints

from perceptloss.compare.images import MAX_PIXELS, Policy
from perceptloss.errors import ConfigError

__all__ = ["AUTO_TILE", "Pairing", "Settings"]

AUTO_TILE: Final = 1024  # side of the tiles that `tile="auto"` cuts; smaller images stay whole
_CROP: Final = re.compile(r"never|to-ref|to-ref-centre|modcrop:([1-9]\d{0,3})")
_LAYOUT: Final = re.compile(r"flat|basicsr(:.{1,255})?")


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """How files are matched by their stems.

    Attributes:
        strip: Regular expressions; each removes one ending from a stem, in any order.
        recursive: Whether folders are searched below; the relative path is then part of the key.
        allow_missing: Compare the images that all sets have, and say so.
        layout: Of folders of systems: `flat`, or `basicsr`: what BasicSR and its kin write, `NAME/NAME_ITERATION.png`
            while training (the newest iteration that all images have; `basicsr:5000` for another) and
            `DATASET/NAME_SUFFIX.png` in tests (`basicsr:SUFFIX` where several are there).
        stereo: Two views are one image: a left and a right folder or file, `left,right`, or one folder in which names
            (`a_L` and `a_R`, `left` and `right`, `hr0` and `hr1`) or folders (`left/`, `right/`) tell them apart.

    Raises:
        ConfigError: if an expression is not valid, or there is no such layout.
    """

    strip: tuple[str, ...] = ()
    recursive: bool = False
    allow_missing: bool = False
    layout: str = "flat"
    stereo: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not _LAYOUT.fullmatch(self.layout):
            problems.append(f"layout must be flat, basicsr, basicsr:ITERATION or basicsr:SUFFIX, got {self.layout!r}")
        for pattern in self.strip:
            try:
                re.compile(f"(?:{pattern})$")
            except re.error as error:
                problems.append(f"strip: {pattern!r} is not a regular expression: {error}")
        if problems:
            raise ConfigError(problems, "pairing")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images become tensors, and how they are scored.

    Attributes:
        crop_border: Pixels removed from every side of both images, after resizing.
        colour: `rgb`, or `y`: BT.601 luma in [16, 235]/255 (as in BasicSR's evaluation),
            repeated in three channels; for full-reference critics without network or chroma.
        resize: `never`, or `to-ref`: bicubic (Pillow) to the size of the reference, clamped to
            [0, 1], where sizes differ.
        crop: `never`; `to-ref`: where sizes differ, all pictures of a name are cut to their common size from the top
            left (`to-ref-centre`: around the middle); `modcrop:N`: cut to multiples of N from the top left, as ground
            truth is for super-resolution by N. Before `crop_border`.
        exif: Images with a rotation in EXIF: `refuse` them or `apply` it.
        grey: Images with one channel: `refuse` them or `replicate` it three times.
        tile: `never`; a side in pixels: the score is the mean over tiles of at most that side,
            weighted by area; `auto`: 1024 where a side is longer.
        precision: Of the trunks of critics whose card allows `bf16`; statistics stay in fp32.
        batch: Images of equal size scored at once; `auto`: one on the CPU, by size on a GPU.
        device: A torch device; None: the GPU if there is one, else the CPU.
        max_pixels: Largest picture that is decoded, so that a small file cannot fill the memory.

    Raises:
        ConfigError: listing every value that is not allowed.
    """

    crop_border: int = 0
    colour: Literal["rgb", "y"] = "rgb"
    resize: Literal["never", "to-ref"] = "never"
    crop: str = "never"
    exif: Literal["refuse", "apply"] = "refuse"
    grey: Literal["refuse", "replicate"] = "refuse"
    tile: Literal["never", "auto"] | int = "never"
    precision: Literal["fp32", "bf16"] = "fp32"
    batch: Literal["auto"] | int = "auto"
    device: str | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        problems = []
        hints = get_type_hints(type(self))
        for name in ("colour", "resize", "exif", "grey", "precision"):
            value, words = getattr(self, name), get_args(hints[name])
            if value not in words:
                problems.append(f"{name} must be one of {', '.join(words)}, got {value!r}")
        if not _is_int(self.crop_border) or self.crop_border < 0:
            problems.append(f"crop_border must be a number of pixels, 0 or more, got {self.crop_border!r}")
        if not _CROP.fullmatch(str(self.crop)):
            problems.append(f"crop must be never, to-ref, to-ref-centre or modcrop:N, got {self.crop!r}")
        elif self.crop != "never" and self.resize != "never":
            problems.append(f"crop {self.crop} and resize {self.resize} are two answers to one question: leave one out")
        if not _is_int(self.max_pixels) or self.max_pixels < 1:
            problems.append(f"max_pixels must be a number of pixels, 1 or more, got {self.max_pixels!r}")
        if self.tile not in ("never", "auto") and not (_is_int(self.tile) and int(self.tile) > 0):
            problems.append(f"tile must be 'never', 'auto' or a side in pixels, got {self.tile!r}")
        if self.batch != "auto" and not (_is_int(self.batch) and int(self.batch) > 0):
            problems.append(f"batch must be 'auto' or a number of images, got {self.batch!r}")
        if problems:
            raise ConfigError(problems, "settings")

    @property
    def policy(self) -> Policy:
        """Which files are taken, and what becomes of them."""
        return Policy(exif=self.exif, grey=self.grey, max_pixels=self.max_pixels)

    @property
    def modulus(self) -> int:
        """The number of `modcrop`; 0 for any other crop."""
        match = _CROP.fullmatch(self.crop)
        return int(match[1] or 0) if match else 0

    @property
    def tile_side(self) -> int | None:
        """Longest side of a tile in pixels, or None if images are never cut."""
        if self.tile == "never":
            return None
        return AUTO_TILE if self.tile == "auto" else int(self.tile)

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices that change a score and are not the default, for signatures."""
        found = {
            "resize": "to-ref-bicubic-clamped" if self.resize == "to-ref" else "",
            "cut": self.crop.replace(":", "") if self.crop != "never" else "",
            "crop": self.crop_border or "",
            "exif": "applied" if self.exif == "apply" else "",
            "grey": "replicated" if self.grey == "replicate" else "",
            "tile": self.tile_side or "",
        }
        return tuple(f"{name}:{value}" for name, value in found.items() if value)

    def to_dict(self) -> dict[str, Any]:
        """The settings that change a score, as plain JSON types."""
        facts = asdict(self)
        del facts["batch"], facts["device"], facts["max_pixels"]
        return facts


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
