"""Judges from other packages, imported when they are first asked: teachers of scored sets, not critics.

They are not differentiated, and what they say is what their authors' code says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceptloss.errors import PerceptlossError, near

__all__ = ["DISPLAYED", "PACKAGES", "Package", "Score", "is_package", "open_package", "package", "version_of"]

Score = Callable[[Tensor, Tensor], Tensor]
_PREFIX: Final = "package:"
DISPLAYED: Final = f"{_PREFIX}cvvdp"  # the one that knows of displays


@dataclass(frozen=True)
class Package:
    """A judge of another package; its score is better if higher.

    Attributes:
        module: Name of the distribution.
        requirement: What pip is to install.
        open: Imports it for pixels per degree or None; see `open_package`.
        min_size: Smallest side, in pixels.
        licence: Of code and constants.
        paper: Authors, title, venue, year.
    """

    module: str
    requirement: str
    open: Callable[[float | None], Score]
    min_size: int
    licence: str
    paper: str


def is_package(critic: str) -> bool:
    """Whether a teacher's critic is of another package."""
    return critic.startswith(_PREFIX)


def package(critic: str) -> Package:
    """The judge called `package:NAME`.

    Raises:
        KeyError: with the known names, if there is none.
    """
    if critic not in PACKAGES:
        raise KeyError(f"there is no {critic!r}{near(critic, PACKAGES)}; known: {', '.join(PACKAGES)}")
    return PACKAGES[critic]


def version_of(found: Package) -> str | None:
    """Installed version; None if it is not installed."""
    try:
        return version(found.module)
    except PackageNotFoundError:
        return None


def open_package(critic: str, pixels_per_degree: float | None = None) -> Score:
    """Import the judge `package:NAME`: scores (N,) of x against y, (N, 3, H, W), RGB in [0, 1], all y the same.

    Raises:
        PerceptlossError: if it does not work, saying what to install.
    """
    found = package(critic)
    try:
        return found.open(pixels_per_degree)
    except (ImportError, OSError) as error:
        raise PerceptlossError(
            f"{critic}: {found.module} {version_of(found)} does not work here ({error}): pip install "
            f"'{found.requirement}', or perceptloss[teachers]."
        ) from error


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Convolve planes of one channel without oneDNN, which takes twice as long for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch restores a setting that this machine does not have
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _open_cvvdp(pixels_per_degree: float | None) -> Score:
    import pycvvdp

    display: dict[str, Any] = {"display_name": "standard_4k"}
    if pixels_per_degree is not None:
        display["display_geometry"] = pycvvdp.vvdp_display_geometry((3840, 2160), ppd=pixels_per_degree)
    metric = pycvvdp.cvvdp(**display, device=torch.device("cpu"), quiet=True)

    def score(x: Tensor, y: Tensor) -> Tensor:
        with _without_onednn():
            jod, _ = metric.predict(x.float().clamp(0, 1), y[:1].float().clamp(0, 1), dim_order="BCHW")
        return torch.as_tensor(jod).reshape(-1)

    return score


def _open_ssimulacra2(_: float | None) -> Score:
    from ssimulacra2 import ssimulacra2 as its

    def score(x: Tensor, y: Tensor) -> Tensor:
        reference = list(_scales(its, y[0]))
        return torch.tensor([_ssimulacra2(its, list(_scales(its, image)), reference) for image in x])

    return score


Scale = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _scales(its: Any, image: Tensor) -> list[Scale]:
    """XYB of an image at each scale with its blurred self and square."""
    linear = its.srgb_to_linear(image.double().mul(255).permute(1, 2, 0).numpy())
    scales: list[Scale] = []
    while len(scales) < its.kNumScales and min(linear.shape[:2]) >= 8:
        xyb = its.make_positive_xyb(its.linear_rgb_to_xyb(linear))
        scales.append((xyb, its.blur_image(xyb), its.blur_image(xyb * xyb)))
        linear = its.downsample(linear, 2, 2)
    return scales


def _ssimulacra2(its: Any, judged: list[Scale], reference: list[Scale]) -> float:
    """`compute_ssimulacra2` of arrays; its own reads files, and computes all of the reference again."""
    found = its.Msssim()
    for (x, mean_x, square_x), (y, mean_y, square_y) in zip(judged, reference, strict=True):
        scale = its.MsssimScale()
        scale.avg_ssim = its.ssim_map(mean_y, mean_x, square_y, square_x, its.blur_image(y * x))
        scale.avg_edgediff = its.edge_diff_map(y, mean_y, x, mean_x)
        found.scales.append(scale)
    return float(found.score())


PACKAGES: Final = {
    f"{_PREFIX}ssimulacra2": Package(
        module="ssimulacra2",
        requirement="ssimulacra2>=0.3,<0.4",
        open=_open_ssimulacra2,
        min_size=8,
        licence="BSD-3-Clause",
        paper="Sneyers, SSIMULACRA 2, Cloudinary 2022",
    ),
    DISPLAYED: Package(
        module="cvvdp",
        requirement="cvvdp>=0.5.7,<0.6",
        open=_open_cvvdp,
        min_size=16,
        licence="MIT",
        paper="Mantiuk et al., ColorVideoVDP: A visual difference predictor for image, video and display distortions, "
        "SIGGRAPH 2024",
    ),
}
