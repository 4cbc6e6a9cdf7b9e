"""NIQE: agreement with BasicSR, distances with known answers, flat and hard images, files, and its two forms."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from images import LADDERS, ladder, pair, photographs
from PIL import Image
from skimage import data
from test_numerics import hard_pairs

from perceptloss import create_critic, get_card
from perceptloss.cli.main import main
from perceptloss.critics.niqe import NIQE, block_features, distance, features, moments
from perceptloss.errors import WeightsError
from perceptloss.networks.functional import gaussian
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.convert import load_states

SPEC = importlib.util.find_spec("basicsr")
needs_basicsr = pytest.mark.skipif(SPEC is None, reason="needs BasicSR, whose pristine statistics it takes")


def pristine() -> dict[str, torch.Tensor]:
    return read_state(Path(SPEC.origin).with_name("metrics") / "niqe_pris_params.npz")


def published(**options) -> NIQE:
    critic = NIQE(get_card("niqe"), **options)
    load_states(critic, [pristine()])
    return critic.freeze()


def whole_levels(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A picture of 8 bits with a flat area larger than a block, (1, 3, H, W), float64."""
    x = (pair(1, height, width, seed=seed, dtype=torch.float64)[1] * 255).round()
    x[..., : height // 2, : width // 2] = 90
    return x / 255


@pytest.fixture
def reference(monkeypatch):
    """BasicSR's function of an image, and a switch that makes it compute exactly."""
    import perceptloss.integrations.basicsr  # noqa: F401, I001  makes BasicSR importable
    import basicsr.metrics.niqe as module

    def run(x: torch.Tensor) -> float:
        grey = module.to_y_channel((x[0] * 255).permute(1, 2, 0).numpy()[..., ::-1].copy())
        return module.niqe(np.squeeze(grey).round().astype(run.type), *(pristine()[k].numpy() for k in KEYS))

    def exactly() -> None:
        """In float64, without what rounding leaves of flat areas, which BasicSR counts as samples."""
        run.type, means = np.float64, []
        blurred = module.convolve

        def convolve(image, window, mode):
            out = blurred(image, window, mode=mode)
            if not means:
                out = np.where(np.abs(image - out) > 1e-9, out, image)
                means.append(out)
            else:
                means.clear()
            return out

        monkeypatch.setattr(module, "convolve", convolve)
        monkeypatch.setattr(module, "imresize", halved)

    run.type, run.exactly = np.float32, exactly
    return run


KEYS = ("mu_pris_param", "cov_pris_param", "gaussian_window")


def halved(image: np.ndarray, scale: float, antialiasing: bool) -> np.ndarray:
    """Antialiased bicubic reduction to one half: eight taps at every second place, borders mirrored."""
    assert scale == 0.5 and antialiasing
    at = np.abs(np.arange(8) - 3.5) / 2
    taps = np.where(at <= 1, 1.5 * at**3 - 2.5 * at**2 + 1, -0.5 * at**3 + 2.5 * at**2 - 4 * at + 2)
    taps /= taps.sum()
    for _ in range(2):
        padded = np.pad(image, ((3, 3), (0, 0)), mode="symmetric")
        image = sum(tap * padded[i : i + image.shape[0] : 2] for i, tap in enumerate(taps)).T
    return image


@needs_basicsr
class TestBasicSR:
    @pytest.mark.parametrize(("height", "width", "seed"), [(201, 300, 0), (384, 288, 1)])
    def test_the_reported_form_is_that_of_basicsr(self, reference, height, width, seed):
        x = whole_levels(height, width, seed)
        critic = published(table=True)
        ours = critic(x).item()
        assert ours == pytest.approx(reference(x), rel=0.1)  # in float32, where rounding to grey levels decides by bits
        reference.exactly()
        assert ours == pytest.approx(reference(x), rel=1e-9)
        assert critic(x.float()).item() == pytest.approx(ours, rel=1e-3)

    def test_the_smooth_form_stays_close(self):
        """On whole grey levels the two differ by the step of the table alone."""
        critic = published()
        x = whole_levels(288, 288)
        grey = (16 + (x * x.new_tensor([65.481, 128.553, 24.966])[:, None, None]).sum(1, keepdim=True)).round()
        (smooth, there), (table, also) = (features(grey, table=table) for table in (False, True))
        assert torch.equal(there, also)
        shapes = [0, *range(2, 18, 4), 18, *range(20, 36, 4)]
        assert 1e-5 < (smooth - table)[..., shapes].abs().max() <= 5.001e-4
        exact = critic(x).item()
        critic.table = True
        assert critic(x).item() == pytest.approx(exact, rel=0.05)
        assert critic(x).item() != exact

    def test_degradations_score_worse(self):
        critic = published(table=True)
        y = photographs(384)
        for kind in LADDERS:
            scores = [critic(x) for x in ladder(kind, y)]
            assert all((milder < stronger).all() for milder, stronger in pairwise(scores)), kind

    def test_slope_on_hard_images_is_bounded(self):
        critic = published()
        for name, (x, _) in hard_pairs(critic).items():
            x = x[None].requires_grad_()
            score = critic(x)
            (gradient,) = torch.autograd.grad(score.sum(), x)
            assert 0 < score.item() < 200, name
            assert gradient.norm() < 500, name

    def test_the_reported_form_has_the_slope_of_the_smooth_one(self):
        x = whole_levels(192, 192).requires_grad_()
        slopes = [torch.autograd.grad(published(table=table)(x).sum(), x)[0] for table in (True, False)]
        cosine = torch.nn.functional.cosine_similarity(*(slope.flatten() for slope in slopes), dim=0)
        assert cosine > 0.8

    def test_descent_lowers_the_reported_score(self):
        critic = published()
        x = pair(1, 192, dtype=torch.float64)[0].requires_grad_()
        for _ in range(5):
            (gradient,) = torch.autograd.grad(critic(x).sum(), x)
            x = (x - 0.2 * gradient / gradient.norm()).detach().requires_grad_()
        critic.table = True
        start = pair(1, 192, dtype=torch.float64)[0]
        assert critic(x.detach().clamp(0, 1)).item() < critic(start).item() - 0.2


class TestDistance:
    def fitted(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        v = torch.randn(50, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + seed
        return v.mean(0), torch.cov(v.mT)

    def test_of_a_model_to_itself_is_zero_with_a_finite_slope(self):
        mean, covariance = self.fitted(1)
        mean.requires_grad_()
        value = distance(mean, covariance, mean.detach(), covariance)
        assert value.item() == 0
        assert torch.isfinite(torch.autograd.grad(value, mean)[0]).all()

    def test_is_symmetric(self):
        a, b = self.fitted(1), self.fitted(2)
        assert distance(*a, *b).item() == pytest.approx(distance(*b, *a).item(), rel=1e-12)
        assert distance(*a, *b) > 1

    def test_known_answers(self):
        eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        step = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
        assert distance(zero, eye, step, eye).item() == pytest.approx(5, rel=1e-12)
        assert distance(zero, eye, step, 3 * eye).item() == pytest.approx(5 / 2**0.5, rel=1e-12)
        singular = torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
        assert distance(zero, singular, step, singular).item() == pytest.approx(3, rel=1e-12)  # the pseudo-inverse


class TestBlocks:
    def test_each_block_is_judged_alone(self):
        _, grey = pair(1, 208, 310, channels=1, dtype=torch.float64)
        found, defined = features(255 * grey)
        assert found.shape == defined.shape == (1, 6, 36)
        assert defined.all()
        assert torch.equal(features(255 * grey[..., :192, :288])[0], found)
        elsewhere = grey.clone()
        elsewhere[..., 150:, 250:] = grey[..., 150:, 250:].flip(
            -1
        )  # inside the last block, with a margin of the window
        changed = (features(255 * elsewhere)[0] != found).any(-1)[0]
        assert changed.tolist() == [False] * 5 + [True]

    def test_a_flat_block_has_shapes_only(self):
        found, defined = block_features(torch.zeros(2, 12, 12, dtype=torch.float64))
        shapes = [0, *range(2, 18, 4)]
        assert (found[:, shapes] == 0.2).all() and defined[:, shapes].all()
        others = [i for i in range(18) if i not in shapes]
        assert not found[:, others].any() and not defined[:, others].any()

    def test_flat_blocks_move_the_mean_shape_alone(self):
        _, grey = pair(1, 192, 384, channels=1, dtype=torch.float64)
        grey[..., 220:] = 0.5  # in the third column of blocks, and all of the last one
        found, defined = features(255 * grey)
        whole = defined.all(-1)[0]
        assert whole.tolist() == [True, True, True, False] * 2
        mean, covariance = moments(found, defined)
        torch.testing.assert_close(covariance[0], torch.cov(found[0, whole].mT), rtol=1e-9, atol=1e-12)
        shapes = torch.tensor([0, *range(2, 18, 4), 18, *range(20, 36, 4)])
        others = [i for i in range(36) if i not in shapes]
        torch.testing.assert_close(mean[0, others], found[0, whole].mean(0)[others])
        expected = 0.75 * found[0, whole].mean(0)[shapes] + 0.25 * 0.2
        torch.testing.assert_close(mean[0, shapes], expected)

    def test_a_single_block_has_no_covariance(self):
        found, defined = features(255 * pair(2, 96, channels=1, dtype=torch.float64)[1])
        mean, covariance = moments(found, defined)
        torch.testing.assert_close(mean, found[:, 0])
        torch.testing.assert_close(covariance, torch.zeros_like(covariance))

    @pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
    def test_a_flat_image_has_a_finite_score_and_no_slope(self, level):
        critic = NIQE(get_card("niqe"))
        x = torch.full((1, 3, 192, 192), level, requires_grad=True)
        score = critic(x)
        (gradient,) = torch.autograd.grad(score.sum(), x)
        assert torch.isfinite(score).all() and score == critic(torch.zeros(1, 3, 192, 192))
        assert not gradient.any()


class TestFiles:
    def state(self) -> dict[str, torch.Tensor]:
        critic = NIQE(get_card("niqe"))
        taps = torch.tensor(gaussian(7, 7 / 6), dtype=torch.float64)
        return {
            "mu_pris_param": 2 * critic.mean[None],
            "cov_pris_param": 3 * critic.covariance,
            "gaussian_window": taps[:, None] * taps,
        }

    def test_both_layouts_load(self):
        state = self.state()
        matlab = {"mu_prisparam": state["mu_pris_param"], "cov_prisparam": state["cov_pris_param"]}
        first, second = (create_critic("niqe", weights=layout) for layout in (state, matlab))
        assert torch.equal(first.mean, state["mu_pris_param"][0])
        assert torch.equal(first.covariance, second.covariance) and first.covariance.dtype == torch.float64
        assert first.weights_id == second.weights_id != "random"

    def test_another_window_is_refused(self):
        with pytest.raises(WeightsError, match="gaussian_window: expected the Gaussian window of 7x7"):
            create_critic("niqe", weights={**self.state(), "gaussian_window": torch.full((7, 7), 1 / 49)})

    def test_the_signature_tells_the_form(self):
        critic = create_critic("niqe", weights=self.state())
        smooth = critic.signature
        assert smooth.endswith("|smooth")
        critic.table = True
        assert critic.signature == smooth.removesuffix("smooth") + "table"

    def test_it_computes_in_float64_and_answers_in_the_type_of_the_image(self):
        critic = create_critic("niqe", weights=self.state())
        x, _ = pair(1, 192)
        assert critic(x).dtype == torch.float32
        assert critic(x).item() == pytest.approx(critic(x.double()).item(), rel=1e-6)


def test_reports_use_the_published_form(tmp_path, capsys):
    pytest.importorskip("basicsr")  # brings the statistics
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    assert main(["score", str(tmp_path / "a.png"), "-c", "niqe"]) == 0
    assert "|table|" in capsys.readouterr().out.replace("\n", "|\n")
    assert create_critic("niqe").signature.endswith("|smooth")
