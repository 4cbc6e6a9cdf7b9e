"""Files that were saved again: JPEG over JPEG on another grid, and WebP."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor

from perceptloss.errors import PerceptlossError
from perceptloss.teach.degradations.compression import jpeg
from perceptloss.teach.degradations.core import degradation
from perceptloss.teach.degradations.resize import resize

__all__ = ["webp"]


@degradation(
    "double-jpeg",
    "compression",
    (60.0, 36.0, 20.0, 12.0, 6.0),
    "Jiang, Zhang, Timofte, FBCNN, ICCV 2021",
    identity=100.0,
)
def _double_jpeg(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Quality of a JPEG that was cut off its grid (shift drawn) and saved again at a somewhat better one."""
    down, across = (1 + torch.randint(14, (2,), generator=generator)).tolist()
    first = jpeg(x.roll((down, across), (2, 3)), quality).roll((-down, -across), (2, 3))
    return jpeg(first, quality + 0.25 * (100 - quality))


@degradation(
    "reposted-jpeg", "compression", (70.0, 50.0, 34.0, 20.0, 10.0), "pictures shared again and again", identity=100.0
)
def _reposted(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Quality of three JPEGs in turn, between which the picture was resized a little."""
    size = (x.shape[2], x.shape[3])
    for _ in range(3):
        factor = 0.75 + 0.2 * float(torch.rand((), generator=generator))
        smaller = (max(16, round(size[0] * factor)), max(16, round(size[1] * factor)))
        share = min(1.0, (100 - quality) / 30)
        x = x.lerp(resize(resize(x, smaller, "bicubic"), size, "bicubic"), share)
        x = jpeg(x.clamp(0, 1), quality)
    return x


def webp(x: Tensor, quality: int) -> Tensor:
    """Lossy WebP by Pillow.

    Args:
        x: Images, (N, 3, H, W), in [0, 1].
        quality: 0 to 100.

    Raises:
        PerceptlossError: Pillow is missing.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise PerceptlossError("WebP needs Pillow: pip install 'perceptloss[compare]'") from error
    coded = []
    for picture in (255 * x.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=2)
        coded.append(np.asarray(Image.open(stream).convert("RGB")))
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(x) / 255 if coded else x.clone()


@degradation("webp", "compression", (50.0, 25.0, 12.0, 5.0, 0.0), "RFC 9649; libwebp", identity=100.0)
def _webp(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Quality, 0 to 100, rounded."""
    return webp(x, round(quality))
