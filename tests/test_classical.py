"""The formula critics: agreement with piq, known answers, and finite bounded gradients on every training patch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import piq
import piq.functional.resize
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perceptloss.critics import gmsd as gmsd_module
from perceptloss.critics.ssim import MSSSIM, ms_ssim
from perceptloss.networks.functional import imresize
from perceptloss.networks.windows import SCALE_WEIGHTS, ssim_maps
from perceptloss.registry import create_critic, get_card

Pair = tuple[Tensor, Tensor]

PIQ: dict[str, Callable[..., Tensor]] = {
    "ssim": lambda x, y: piq.ssim(x, y, reduction="none"),
    "ssim-full": lambda x, y: piq.ssim(x, y, downsample=False, reduction="none"),
    "ms-ssim": lambda x, y: piq.multi_scale_ssim(x, y, reduction="none"),
    "vif": lambda x, y: piq.vif_p(x, y, reduction="none"),
    "fsim": lambda x, y: piq.fsim(x, y, chromatic=False, reduction="none"),
    "fsimc": lambda x, y: piq.fsim(x, y, reduction="none"),
    "vsi": lambda x, y: piq.vsi(x, y, reduction="none"),
    "gmsd": lambda x, y: piq.gmsd(x, y, reduction="none"),
    "ms-gmsd": lambda x, y: piq.multi_scale_gmsd(x, y, reduction="none"),
    "ms-gmsdc": lambda x, y: piq.multi_scale_gmsd(x, y, chromatic=True, reduction="none"),
    "mdsi": lambda x, y: piq.mdsi(x, y, reduction="none"),
    "haarpsi": lambda x, y: piq.haarpsi(x, y, reduction="none"),
    "dss": lambda x, y: piq.dss(x, y, reduction="none"),
    "iw-ssim": lambda x, y: piq.information_weighted_ssim(x, y, reduction="none"),
    "psnr": lambda x, y: piq.psnr(x, y, reduction="none"),
    "sr-sim": lambda x, y: piq.srsim(x, y, reduction="none"),
    "sr-simc": lambda x, y: piq.srsim(x, y, chromatic=True, reduction="none"),
    "tv": lambda x, y: piq.total_variation(x, reduction="none"),
    "tv-l1": lambda x, y: piq.total_variation(x, reduction="none", norm_type="l1"),
    "tv-l2-squared": lambda x, y: piq.total_variation(x, reduction="none", norm_type="l2_squared"),
}
NAMES = sorted([*PIQ, "fgiqa", "nlpd"])
every = pytest.mark.parametrize("name", NAMES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def picture(height: int, width: int, n: int = 1, seed: int = 0) -> Tensor:
    """Smooth colours, an edge and some grain, float64 in [0, 1]."""
    coarse = noise(n, 3, 7, 7, seed=seed)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    smooth[..., height // 3 :, : width // 2] *= 0.6
    return (smooth + 0.04 * (noise(n, 3, height, width, seed=seed + 1) - 0.5)).clamp(0, 1)


def damaged(y: Tensor, seed: int = 5) -> Tensor:
    return (0.9 * F.avg_pool2d(y, 3, 1, 1) + 0.1 * noise(*y.shape, seed=seed)).clamp(0, 1)


def side(name: str) -> int:
    return max(64, get_card(name).min_size + 2)


def special(n: int) -> dict[str, Pair]:
    """Pairs on which published codes give NaN, or which an unfinished restorer makes."""

    def flat(level: float) -> Tensor:
        return torch.full((1, 3, n, n), level, dtype=torch.float64)

    random, other, image = noise(1, 3, n, n), noise(1, 3, n, n, seed=1), picture(n, n)
    grid = torch.arange(n)
    step, late, line = flat(0.0), flat(0.0), flat(0.0)
    step[..., n // 2 :], late[..., n // 2 + 1 :], line[..., n // 2] = 1, 1, 1
    checks = ((grid[:, None] + grid) % 2).double().expand(1, 3, n, n)
    half = image.clone()
    half[..., : n // 2] = 0.25
    almost_flat = 0.5 + 1e-4 * (random - 0.5)
    return {
        "equal": (random, random.clone()),
        "black": (flat(0.0), flat(0.0)),
        "white": (flat(1.0), flat(1.0)),
        "black-random": (flat(0.0), random),
        "random-black": (random, flat(0.0)),
        "flats": (flat(0.4), flat(0.6)),
        "random-grey": (random, flat(0.4)),
        "step": (step, late),
        "line-black": (line, flat(0.0)),
        "black-line": (flat(0.0), line),
        "checkerboards": (checks, 1 - checks),
        "overshoot": (1.7 * random - 0.3, image),
        "flat-noise": (almost_flat, flat(0.5)),
        "flat-noise-picture": (almost_flat, image),
        "picture-flat-noise": (image, almost_flat),
        "random-flat-noise": (other, almost_flat),
        "half-flat": ((half + 0.02 * random).clamp(0, 1), half),
        "inverse": (1 - image, image),
        "almost-equal": (image + 1e-6 * random, image),
        "flat-bright": (image, torch.where(grid < n // 2, image, 0.95)),
    }


def value_and_gradient(function: Callable[..., Tensor], x: Tensor, y: Tensor) -> Pair:
    x = x.clone().requires_grad_()
    score = function(x, y)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    return score.detach(), gradient


def check_score_and_gradient(name: str, theirs: Callable[..., Tensor], y: Tensor) -> None:
    x = damaged(y)
    ours = (
        MSSSIM(get_card(name), extend="start") if name == "ms-ssim" else create_critic(name)
    )  # as piq halves odd sides
    score, gradient = value_and_gradient(ours, x, y)
    expected, slope = value_and_gradient(theirs, x, y)
    torch.testing.assert_close(score, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max()))
    torch.testing.assert_close(gradient.norm(), slope.norm(), rtol=1e-6, atol=0)


@pytest.fixture
def _exact_piq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resizing in the precision of the images: piq rounds to float32, DSS its subbands too (to 6e-8)."""
    monkeypatch.setattr(piq.functional.resize, "cast_input", lambda x: (x, None))


@pytest.mark.usefixtures("_exact_piq")
@pytest.mark.parametrize("name", PIQ)
@pytest.mark.parametrize("extra", [(0, 0), (0, 5), (1, 2)])
def test_score_and_gradient_are_those_of_piq(name: str, extra: tuple[int, int]) -> None:
    """At the smallest sizes; larger ones are in the parity case `classical`."""
    size = get_card(name).min_size
    y = picture(size + extra[0], size + extra[1], seed=3)
    if size + extra[1] > 2:
        check_score_and_gradient(name, PIQ[name], y)
    else:  # four pixels, where ours bounds the slope
        torch.testing.assert_close(create_critic(name)(damaged(y), y), PIQ[name](damaged(y), y), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("length", "size"), [(41, 11), (164, 41), (41, 163), (11, 44)])
@pytest.mark.usefixtures("_exact_piq")
def test_imresize_is_that_of_piq(length: int, size: int) -> None:
    x = noise(2, 1, length, length + 3)
    if size < length:  # given a zoom, whose size is rounded up
        ours, theirs = imresize(x, (size, -(-(length + 3) // 4)), (0.25, 0.25)), piq.functional.imresize(x, scale=0.25)
    else:  # given a size
        ours = imresize(x, (size, size + 7), (size / length, (size + 7) / (length + 3)))
        theirs = piq.functional.imresize(x, sizes=(size, size + 7))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@every
def test_float32_agrees_with_float64(name: str) -> None:
    critic, y = create_critic(name), picture(168, 176, seed=8)
    x = damaged(y).float()
    score = critic(x, y.float())
    assert score.dtype == torch.float32
    torch.testing.assert_close(score.double(), critic(x.double(), y.float().double()), rtol=2e-5, atol=1e-6)


@every
@pytest.mark.parametrize("kind", special(8))
def test_special_pairs_have_a_true_score_and_a_bounded_gradient(name: str, kind: str) -> None:
    critic = create_critic(name)
    low, high = critic.card.bounds
    x, y = special(side(name))[kind]
    results = {}
    for dtype in (torch.float32, torch.float64):
        score, gradient = value_and_gradient(critic, x.to(dtype), y.to(dtype))
        assert torch.isfinite(score).all()
        slack = 1e-6 if dtype == torch.float64 else 4e-6  # E[x^2] - E[x]^2 of almost flat windows
        assert low - slack <= score.item() <= high + slack
        assert gradient.abs().max().item() <= 25  # NaN compares false
        results[dtype] = score.item()
    # precision must not decide the score, not even where images are flat
    assert results[torch.float32] == pytest.approx(results[torch.float64], abs=0.012, rel=0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if get_card(name).needs_reference])
@pytest.mark.parametrize("kind", ["equal", "black", "white", "picture", "checkerboards", "half-flat"])
def test_equal_images_get_the_identity_score_and_no_gradient(name: str, kind: str) -> None:
    critic, n = create_critic(name), side(name)
    y = picture(n, n) if kind == "picture" else special(n)[kind][1]
    for dtype in (torch.float32, torch.float64):
        score, gradient = value_and_gradient(critic, y.to(dtype), y.to(dtype))
        assert score.item() == pytest.approx(critic.card.identity, abs=1e-6)
        if name != "vif":  # which rewards more contrast than the reference has
            assert gradient.abs().max() < 1e-6


@every
def test_images_of_a_batch_do_not_touch(name: str) -> None:
    critic, n = create_critic(name), side(name)
    y = torch.cat([picture(n, n, seed=1), 0.1 * picture(n, n, seed=2), torch.zeros(1, 3, n, n, dtype=torch.float64)])
    x = torch.cat([damaged(y[:1]), y[1:2] ** 0.8, noise(1, 3, n, n)])
    together, gradient = value_and_gradient(critic, x, y)
    assert together.shape == (3,)
    for i in range(3):
        alone, slope = value_and_gradient(critic, x[i : i + 1], y[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradient[i : i + 1], slope, rtol=1e-6, atol=1e-12)


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if getattr(out, "dtype", None) != torch.float64:  # which keeps its digits
            self.seen.add(func.overloadpacket.__name__)
        return out


@every
def test_no_operation_that_tf32_rounds(name: str) -> None:
    critic, n = create_critic(name), side(name)
    with _Operations() as operations:
        value_and_gradient(critic, picture(n, n).float(), picture(n, n, seed=2).float())
    rounded = {"convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm", "dot", "mv"}
    assert "mul" in operations.seen
    assert not operations.seen & rounded


@pytest.mark.parametrize("name", ["fsim", "vsi", "sr-sim", "fgiqa"])
def test_constants_made_in_inference_mode_serve_training(name: str) -> None:
    critic, y = create_critic(name), picture(106, 97)
    x = damaged(y)
    with torch.inference_mode():
        first = critic(x, y)
    score, gradient = value_and_gradient(critic, x, y)
    assert score == first
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["fsim", "fsimc", "gmsd", "ms-gmsdc", "mdsi", "dss", "sr-sim", "sr-simc", "iw-ssim"])
def test_rounding_in_flat_areas_makes_no_gradient(name: str) -> None:
    n = side(name)
    flat = (picture(n, n) * 5).round() / 5  # areas of exactly one colour
    _, gradient = value_and_gradient(create_critic(name), flat, picture(n, n))
    _, nudged = value_and_gradient(create_critic(name), flat * (1 - 1e-13), picture(n, n))
    torch.testing.assert_close(gradient, nudged, rtol=1e-5, atol=1e-8)


def test_ssim_known_answers() -> None:
    critic = create_critic("ssim")
    flat = torch.full((1, 3, 32, 32), 0.4, dtype=torch.float64)
    assert critic(flat, flat + 0.2).item() == pytest.approx((2 * 0.24 + 1e-4) / (0.52 + 1e-4), abs=1e-9)
    x, y = noise(1, 3, 64, 64), noise(1, 3, 64, 64, seed=1)
    assert critic(x, y).item() == pytest.approx(critic(y, x).item(), abs=1e-12)
    assert critic(1 - x, x).item() == pytest.approx(-0.965, abs=0.005)
    grain = torch.randn(1, 3, 256, 256, generator=generator(3), dtype=torch.float64)
    base = noise(1, 3, 256, 256)
    for sigma, expected in ((0.01, 0.9994), (0.05, 0.985), (0.1, 0.946), (0.2, 0.821)):
        assert critic((base + sigma * grain).clamp(0, 1), base).item() == pytest.approx(expected, abs=4e-3)


def test_ssim_full_is_ssim_without_downsampling() -> None:
    whole, full = create_critic("ssim"), create_critic("ssim-full")
    y = picture(384, 390)
    x = damaged(y)
    assert whole(x, y).item() > full(x, y).item() + 0.05
    assert whole(x[..., :383, :383], y[..., :383, :383]) == full(x[..., :383, :383], y[..., :383, :383])


@pytest.mark.parametrize("sides", [(176, 192), (168, 163), (181, 173)])
def test_ms_ssim_halves_as_its_authors_do(sides: tuple[int, int]) -> None:
    """Their `imfilter(image, ones(2) / 4, 'symmetric', 'same')` and every second pixel from the first."""
    y = picture(*sides)
    x = damaged(y)
    expected, images = torch.ones(3, dtype=torch.float64), [x[0].numpy(), y[0].numpy()]
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            square = np.full((1, 2, 2), 0.25)
            images = [ndimage.correlate(i, square, mode="reflect", origin=(0, -1, -1))[:, ::2, ::2] for i in images]
        luminance, structure = ssim_maps(*(torch.from_numpy(np.ascontiguousarray(i))[None] for i in images))
        s = luminance * structure if scale == 4 else structure
        expected = expected * s.mean((2, 3))[0] ** weight
    score = create_critic("ms-ssim")(x, y)
    assert score.item() == pytest.approx(expected.mean().item(), abs=1e-14)
    is_even = sides == (176, 192)
    assert (score.item() == pytest.approx(ms_ssim(x, y, extend="start").item(), abs=1e-15)) is is_even


def test_ms_ssim_known_answers() -> None:
    assert sum(SCALE_WEIGHTS) == pytest.approx(1.0001, abs=1e-12)
    y = picture(161, 161)
    score, gradient = value_and_gradient(create_critic("ms-ssim"), 1 - y, y)  # anticorrelated at every scale
    assert score.item() == 0
    assert gradient.abs().max() == 0


def test_gmsd_known_answers() -> None:
    assert sum(gmsd_module.SCALE_WEIGHTS) == pytest.approx(1, abs=1e-12)
    critic = create_critic("gmsd")
    base = noise(1, 1, 256, 256).expand(-1, 3, -1, -1)
    grain = torch.randn(1, 1, 256, 256, generator=generator(3), dtype=torch.float64)
    scores = [critic((base + sigma * grain).clamp(0, 1), base).item() for sigma in (0, 0.01, 0.05, 0.1, 0.2)]
    assert scores == sorted(scores)
    assert scores[0] == 0
    assert scores[2:4] == pytest.approx([0.0336, 0.0780], rel=0.08)
    light = gmsd_module.gms_map(0.5 * base + 0.2, 0.5 * base)  # a uniform shift, seen at the border only
    torch.testing.assert_close(light[..., 1:-1, 1:-1], torch.ones_like(light[..., 1:-1, 1:-1]), rtol=0, atol=1e-10)


def test_vif_known_answers() -> None:
    critic, y = create_critic("vif"), 0.3 + 0.4 * picture(96, 96)
    mean = y.mean((2, 3), keepdim=True)
    assert critic(mean + 1.3 * (y - mean), y).item() > 1.02
    assert critic(mean + 0.7 * (y - mean), y).item() < 0.95
    x = damaged(y)
    assert abs(critic(x, y).item() - critic(y, x).item()) > 1e-3


def test_vif_finds_no_information_in_flat_areas_in_float32() -> None:
    y = torch.full((1, 3, 64, 64), 0.9)
    x = (y + 0.2 * (noise(1, 3, 64, 64).float() - 0.5)).clamp(0, 1)
    assert create_critic("vif")(x, y).item() == 1


def test_vsi_of_flat_images_is_blind() -> None:
    score, gradient = value_and_gradient(create_critic("vsi"), *special(64)["flats"])
    assert score.item() == 1
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(
    "name", ["ssim", "ssim-full", "fsim", "fsimc", "vsi", "gmsd", "mdsi", "haarpsi", "sr-sim", "sr-simc", "fgiqa"]
)
def test_maps_show_where_the_damage_is(name: str) -> None:
    critic, y = create_critic(name), picture(192, 192)
    x = y.clone()
    x[..., 96:] = damaged(y)[..., 96:]
    quality = critic.maps(x, y)
    assert quality.shape[:2] == (1, 1)
    assert quality.max() <= (1.12 if name == "mdsi" else 1 + 1e-12)
    near, far = quality[..., : quality.shape[-1] // 3], quality[..., -quality.shape[-1] // 3 :]
    assert near.mean() > far.mean()
    if name.startswith("ssim"):
        assert quality.mean().item() == pytest.approx(critic(x, y).item(), abs=1e-12)
    if name == "gmsd":
        assert quality.std(correction=0).item() == pytest.approx(critic(x, y).item(), abs=1e-12)
