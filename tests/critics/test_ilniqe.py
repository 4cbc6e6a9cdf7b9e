"""IL-NIQE: its features against the published steps written with scipy, its fits, its distance, and its file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from images import ladder, photographs
from scipy.io import savemat
from scipy.ndimage import convolve
from scipy.signal import convolve2d
from scipy.special import gamma
from scipy.stats import weibull_min

from perceptloss import create_critic
from perceptloss.critics.ilniqe.critic import distances
from perceptloss.critics.ilniqe.features import COUNT, block_features, weibull
from perceptloss.errors import WeightsError

_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def window(side: int, sigma: float) -> np.ndarray:
    along = np.arange(side) - (side - 1) / 2
    taps = np.exp(-(along**2) / (2 * sigma**2))
    return np.outer(taps, taps) / taps.sum() ** 2


def gaussian_fit(v: np.ndarray) -> tuple[float, float, float]:
    """Shape and both scales, by the published table."""
    left, right = (np.sqrt(np.mean(side**2)) for side in (v[v < 0], v[v > 0]))
    skew = left / right
    ratio = np.mean(np.abs(v)) ** 2 / np.mean(v**2) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _SHAPES[np.argmin((_RATIOS - ratio) ** 2)]
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def published(image: np.ndarray, side: int) -> np.ndarray:
    """Features of blocks in columns, of levels (H, W, 3), both scales side by side."""
    red, green, blue = np.moveaxis(image, 2, 0)
    planes = [0.3 * red + 0.04 * green - 0.35 * blue, 0.34 * red - 0.6 * green + 0.17 * blue]
    planes += [0.06 * red + 0.63 * green + 0.27 * blue, red, green, blue]
    scales = []
    for scale in (1, 2):
        grey, block = planes[2], side // scale
        soft = window(5, 5 / 6)
        mean = convolve(grey, soft, mode="nearest")
        contrast = (grey - mean) / (np.sqrt(np.abs(convolve(grey**2, soft, mode="nearest") - mean**2)) + 1)
        sigma = 1.66 / scale**0.28
        half = math.ceil(3 * sigma)
        down, across = np.mgrid[-half : half + 1, -half : half + 1]
        bell = np.exp(-(across**2 + down**2) / (2 * sigma**2))

        def slopes(plane: np.ndarray, bell=bell, across=across, down=down) -> list[np.ndarray]:
            return [convolve2d(plane, kernel * bell, mode="same") for kernel in (across, down)]

        logs = [np.log(plane + 1e-5) for plane in planes[3:]]
        logs = [plane - plane.mean() for plane in logs]
        colours = [sum(logs) / math.sqrt(3), (logs[0] + logs[1] - 2 * logs[2]) / math.sqrt(6)]
        colours.append((logs[0] - logs[1]) / math.sqrt(2))
        first = [slope for plane in planes[:3] for slope in slopes(plane)]
        rows, columns = grey.shape
        v, u = np.meshgrid(np.fft.fftfreq(rows), np.fft.fftfreq(columns), indexing="ij")
        radius, angle = np.hypot(u, v), np.arctan2(-v, u)
        radius[0, 0] = 1
        waves = []
        for k in range(3):
            ring = np.exp(-(np.log(radius * 2.4 / scale**0.87 * 1.31**k) ** 2) / (2 * math.log(0.55) ** 2))
            ring[0, 0] = 0
            for o in range(4):
                away = np.angle(np.exp(1j * (angle - o * math.pi / 4)))
                fan = np.exp(-(away**2) / (2 * (math.pi / 4 / 1.1) ** 2))
                found = np.fft.ifft2(np.fft.fft2(grey) * ring * fan)
                waves += [found.real, found.imag]
        second = [slope for wave in waves for slope in slopes(wave)]
        sizes = [np.hypot(a, b) for maps in (first, second) for a, b in zip(maps[::2], maps[1::2], strict=True)]
        rows_of_features = []
        for left in range(0, columns, block):
            for top in range(0, rows, block):
                part = (slice(top, top + block), slice(left, left + block))
                shape, low, high = gaussian_fit(contrast[part])
                features = [shape, (low + high) / 2]
                for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    product = contrast[part] * np.roll(contrast[part], shift, (0, 1))
                    shape, low, high = gaussian_fit(product)
                    features += [shape, (high - low) * gamma(2 / shape) / gamma(1 / shape), low, high]
                fitted = []
                for plane in sizes:
                    shape, _, size = weibull_min.fit(plane[part].ravel(), floc=0)
                    fitted += [size, shape]
                features += fitted[:6]
                for plane in colours:
                    features += [plane[part].mean(), plane[part].var()]
                for plane in (*first, *waves, *second):
                    shape, low, high = gaussian_fit(plane[part])
                    features += [shape, (low + high) / 2]
                rows_of_features.append(features + fitted[6:])
        scales.append(np.array(rows_of_features))
        planes = [convolve(plane, window(6, 0.9), mode="nearest")[::2, ::2] for plane in planes]
    return np.concatenate(scales, 1)


def test_features_are_those_of_the_published_steps():
    image = (255 * photographs(96)[1:2, :, :48]).round().double()
    found, defined = block_features(image, 48, table=True)
    wanted = published(image[0].permute(1, 2, 0).numpy(), 48)
    assert found.shape == (1, 2, COUNT) and defined.all()
    difference = np.abs(found[0].numpy() - wanted) / (np.abs(wanted) + 1e-3)
    assert difference.max() < 2e-3  # next to nothing is added to gradients, whose logarithms the fit sees


class TestWeibull:
    def test_is_the_likeliest(self):
        for shape, size in ((0.7, 2.0), (1.5, 30.0), (6.0, 0.1)):
            sample = weibull_min.rvs(shape, scale=size, size=500, random_state=0)
            wanted_shape, _, wanted_size = weibull_min.fit(sample, floc=0)
            found = weibull(torch.from_numpy(sample))
            assert found[0].item() == pytest.approx(wanted_shape, rel=1e-3)
            assert found[1].item() == pytest.approx(wanted_size, rel=1e-3)

    def test_slope(self):
        x = torch.rand(2, 20, dtype=torch.float64) + 0.1
        assert torch.autograd.gradcheck(weibull, x.requires_grad_())

    def test_constant_values_have_the_steepest_shape(self):
        shape, size = weibull(torch.full((1, 30), 3.0, dtype=torch.float64))
        assert shape.item() == 50 and size.item() == pytest.approx(3)


def test_distance_without_spread_is_mahalanobis():
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    block = torch.tensor([[[3.0, -1.0], [3.0, -1.0]]], dtype=torch.float64)
    mean = torch.tensor([1.0, 1.0], dtype=torch.float64)
    off = np.array([2.0, -2.0])
    wanted = math.sqrt(off @ np.linalg.inv(covariance.numpy() / 2) @ off)
    found = distances(block, torch.tensor([[True, True]]), mean, covariance)
    torch.testing.assert_close(found, torch.full((1, 2), wanted, dtype=torch.float64))


def test_blocks_without_features_count_as_the_mean_of_the_others():
    features = torch.randn(1, 5, 3, dtype=torch.float64)
    there = torch.tensor([[True, True, False, True, True]])
    features[0, 2] = torch.nan
    mean, covariance = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    found = distances(features, there, mean, covariance)
    filled = features.clone()
    filled[0, 2] = features[0, [0, 1, 3, 4]].mean(0)
    rest = distances(features[:, [0, 1, 3, 4]], there[:, [0, 1, 3, 4]], mean, covariance)
    torch.testing.assert_close(found[:, [0, 1, 3, 4]], rest)
    assert torch.isfinite(found).all()


SMALL = {"side": 72, "block": 24, "components": 12}


class TestFile:
    def cells(self, *arrays: object) -> np.ndarray:
        cells = np.empty((1, len(arrays)), object)
        for place, array in enumerate(arrays):
            cells[0, place] = array
        return cells

    def test_reads_the_authors_cells(self, tmp_path):
        ours = create_critic("ilniqe", None, options=SMALL)
        arrays = [ours.mean[None], ours.covariance, ours.origin[:, None], ours.directions]
        savemat(tmp_path / "templateModel.mat", {"templateModel": self.cells(*(a.numpy() for a in arrays))})
        read = create_critic("ilniqe", tmp_path / "templateModel.mat", options=SMALL)
        x = photographs(80)
        assert torch.equal(read(x), ours(x))

    def test_cells_of_other_things_are_refused(self, tmp_path):
        savemat(tmp_path / "templateModel.mat", {"templateModel": self.cells(np.ones(3), "text")})
        with pytest.raises(WeightsError, match="templateModel"):
            create_critic("ilniqe", tmp_path / "templateModel.mat")


def test_damage_moves_statistics_away_from_those_of_photographs():
    """With the statistics of the photographs themselves as the pristine ones."""
    critic = create_critic("ilniqe", None, options={"side": 168, "block": 42, "components": 40})
    y = photographs(168)
    features, _ = block_features(255 * y.double(), 42)
    rows = (features.flatten(0, 1) - critic.origin) @ critic.directions
    critic.mean.copy_(rows.mean(0))
    critic.covariance.copy_(rows.T.cov())
    clean, damaged = critic(y), critic(ladder("noise", y)[3])
    assert (damaged > 2 * clean).all()
