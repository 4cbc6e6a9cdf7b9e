"""Content statistics: answers known beforehand, on photographs where they have to hold."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from honest import GRIDS, SIDE, photograph, scrambled
from PIL import Image, ImageFilter
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.honesty.content import TOLERANCES, Content, excesses, mean, measure
from perceptloss.honesty.grid import grid_figures

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
TEXTURES = ("brick", "grass", "gravel")


def _as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def _as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _jpeg(image: Tensor) -> Tensor:
    file = io.BytesIO()
    _as_pillow(image).save(file, "JPEG", quality=90)
    return _as_tensor(Image.open(file))


def _enlarged(image: Tensor, mode: str) -> Tensor:
    small = F.interpolate(image, scale_factor=0.25, mode="bicubic", antialias=True)
    return F.interpolate(small, scale_factor=4, mode=mode).clamp(0, 1)


# what restorers and cameras do to a picture without printing a pattern
INNOCENT = {
    "equal": lambda y: y,
    "blur": lambda y: _as_tensor(_as_pillow(y).filter(ImageFilter.GaussianBlur(1.5))),
    "sharpened": lambda y: _as_tensor(_as_pillow(y).filter(ImageFilter.UnsharpMask(1, 80, 0))),
    "grain": lambda y: (y + 4 / 255 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
    "contrast": lambda y: (0.5 + 1.1 * (y - 0.5)).clamp(0, 1),
    "jpeg": _jpeg,
    "bicubic": lambda y: _enlarged(y, "bicubic"),
    "moved": lambda y: y.roll(1, -1),
}


def _peaks(x: Tensor, y: Tensor) -> dict[str, float]:
    return {kind: float(value) for kind, value in grid_figures(x, y).items() if kind != "energy"}


@pytest.mark.parametrize("name", [*PHOTOGRAPHS, *TEXTURES])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_of_two_levels_is_found(name, grid):
    """Also where the picture below it is a blurred one, as restorers make."""
    y = photograph(name)
    for below in (y, INNOCENT["blur"](y), INNOCENT["grain"](y)):
        peaks = _peaks((below + GRIDS[grid].pattern).clamp(0, 1), y)
        assert peaks[GRIDS[grid].kind] > TOLERANCES["grid_half"].high, peaks


@pytest.mark.parametrize("name", [*PHOTOGRAPHS, *TEXTURES])
@pytest.mark.parametrize("change", INNOCENT)
def test_no_grid_is_found_where_there_is_none(name, change):
    y = photograph(name)
    peaks = _peaks(INNOCENT[change](y), y)
    assert max(peaks.values()) < TOLERANCES["grid_half"].high, peaks
    assert change != "equal" or set(peaks.values()) == {0.0}


def test_enlarging_by_repetition_is_a_grid():
    y = photograph("astronaut")
    peaks = _peaks(_enlarged(y, "nearest"), y)
    assert min(peaks["quarter"], peaks["half"]) > 10


def test_a_pattern_of_the_scene_is_no_grid():
    stripes = (photograph("chelsea") + 8 * GRIDS["columns of 4"].pattern).clamp(0, 1)
    assert max(_peaks(stripes, stripes).values()) == 0
    assert _peaks(stripes, photograph("chelsea"))["quarter"] > 10


def test_a_checkerboard_whose_phase_wanders_is_found():
    y = photograph("coffee")
    sign = F.interpolate(torch.randn(1, 1, SIDE // 16, SIDE // 16).sign(), scale_factor=16)
    assert _peaks((y + sign * GRIDS["checkerboard"].pattern).clamp(0, 1), y)["corner"] > 3


def test_energy_is_that_of_the_spectrum():
    y = 0.1 * torch.randn(1, 3, SIDE, SIDE) + 0.5
    assert float(grid_figures(0.5 + 2 * (y - 0.5), y)["energy"]) == pytest.approx(20 * np.log10(2), abs=0.05)


def _flat(*colour: float, side: int = SIDE) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, side, side).clone()


def test_equal_images_are_equal_in_all():
    y = photograph("chelsea")
    assert measure(y, y) == Content(1, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert excesses(measure(y, y)) == {}


@pytest.mark.parametrize("name", [*PHOTOGRAPHS, *TEXTURES])
@pytest.mark.parametrize("change", ["blur", "jpeg", "bicubic", "moved"])
def test_what_adds_nothing_is_within_tolerance(name, change):
    y = photograph(name)
    assert excesses(measure(INNOCENT[change](y), y)) == {}


def test_edge_density_counts_edges():
    one, two = _flat(0.2, 0.2, 0.2), _flat(0.2, 0.2, 0.2)
    one[..., 64:128] = two[..., 64:128] = two[..., 160:224] = 0.8
    edges = 4 / SIDE  # two edges, two pixels wide each
    assert measure(two, one).edge_density == pytest.approx((2 * edges + 0.01) / (edges + 0.01), abs=1e-5)
    faint = one + 0.05 * (torch.arange(SIDE) % 32 < 16)  # steps of 13 levels are none
    assert measure(faint, one).edge_density == pytest.approx(1)


def test_colour_entropy_is_in_bits():
    two, four = _flat(0.5, 0.5, 0.5), _flat(0.5, 0.5, 0.5)
    two[..., SIDE // 2 :] = four[..., SIDE // 2 :] = _flat(0.8, 0.2, 0.2)[..., SIDE // 2 :]
    four[..., : SIDE // 2, : SIDE // 2] = _flat(0.2, 0.8, 0.2)[..., : SIDE // 2, : SIDE // 2]
    four[..., : SIDE // 2, SIDE // 2 :] = _flat(0.2, 0.2, 0.8)[..., : SIDE // 2, SIDE // 2 :]
    assert measure(two, _flat(0.5, 0.5, 0.5)).colour_entropy == pytest.approx(1, abs=1e-5)
    assert measure(four, two).colour_entropy == pytest.approx(1, abs=1e-5)


def _in_lab(image: Tensor, change) -> Tensor:
    from kornia.color import lab_to_rgb, rgb_to_lab

    return lab_to_rgb(change(rgb_to_lab(image)), clip=False)


def test_saturation_is_mean_chroma():
    y = 0.35 + 0.3 * photograph("coffee")  # away from the ends of the gamut
    more = _in_lab(y, lambda lab: lab * torch.tensor([1.0, 1.25, 1.25]).view(1, 3, 1, 1))
    figures = measure(more.clamp(0, 1), y)
    from kornia.color import rgb_to_lab

    chroma = float(rgb_to_lab(F.avg_pool2d(y, 8))[:, 1:].norm(dim=1).mean())
    assert figures.saturation == pytest.approx((1.25 * chroma + 3) / (chroma + 3), abs=5e-3)
    assert "saturation" in excesses(figures)


def test_chroma_drift_is_signed_and_cancels_over_a_set():
    y = 0.35 + 0.3 * photograph("coffee")
    red, green = (
        measure(_in_lab(y, lambda lab, by=by: lab + torch.tensor([0.0, by, 0.0]).view(1, 3, 1, 1)).clamp(0, 1), y)
        for by in (2.0, -2.0)
    )
    assert (red.drift_a, red.drift_b) == (pytest.approx(2, abs=0.05), pytest.approx(0, abs=0.05))
    assert red.chroma_drift == pytest.approx(2, abs=0.05)
    assert "chroma_drift" in excesses(red)
    assert mean([red, green]).chroma_drift == pytest.approx(0, abs=0.05)


def test_flat_noise_is_what_was_added_in_levels():
    ramp = torch.linspace(0.3, 0.7, SIDE).expand(1, 3, SIDE, SIDE).clone()
    ramp[..., : SIDE // 2, :] = 0.5 + 0.2 * scrambled(SIDE)[..., : SIDE // 2, :]  # not flat, and not asked
    grainy = ramp + 4 / 255 * torch.randn(ramp.shape)
    assert measure(grainy, ramp).flat_noise == pytest.approx(4, abs=0.15)
    assert measure(ramp, grainy).flat_noise == pytest.approx(-4, abs=0.4)  # the flattest of noise is not all of it
    assert measure(grainy, photograph("grass")).flat_noise == 0, "which is texture everywhere"


def test_a_batch_is_the_mean_of_its_images():
    y = torch.cat([photograph("chelsea"), photograph("coffee")])
    x = INNOCENT["contrast"](y)
    singly = mean(measure(x[n : n + 1], y[n : n + 1]) for n in range(2))
    for name in ("edge_density", "saturation", "flat_noise", "grid_quarter", "drift_b"):
        assert getattr(measure(x, y), name) == pytest.approx(getattr(singly, name), abs=1e-4)


def test_without_kornia_one_sentence_names_the_extra():
    code = "import sys; sys.modules['kornia'] = None; import perceptloss.honesty.content"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("content statistics need kornia: pip install 'perceptloss[teach]'")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.rand(3, 64, 64), r"shape \(N, 3, H, W\)"),
        (torch.rand(1, 3, 24, 64), r"sides of at least 32.*Use larger"),
        (torch.rand(1, 3, 64, 64) * 2, r"values from .*Clamp"),
        (torch.full((1, 3, 64, 64), torch.nan), "NaN or infinite"),
        (torch.rand(1, 3, 64, 32), "one shape"),
    ],
)
def test_what_is_no_image_is_refused(x, text):
    with pytest.raises(InputError, match=text):
        measure(x, torch.rand(1, 3, 64, 64))
    with pytest.raises(InputError, match="at least one image"):
        mean([])
