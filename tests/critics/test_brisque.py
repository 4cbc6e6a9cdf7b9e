"""BRISQUE: agreement with piq, the regression's known answers, hard images, files, and its two forms."""

from __future__ import annotations

import sys

import piq  # noqa: F401
import pytest
import torch
from images import pair

from perceptloss import create_critic, get_card
from perceptloss.critics.brisque import BRISQUE, RANGES, features
from perceptloss.errors import WeightsError
from perceptloss.networks.functional import imresize
from perceptloss.weights.convert import load_states

PIQ = sys.modules["piq.brisque"]  # the function of this name hides the module
SHAPES = [0, *range(2, 18, 4), 18, *range(20, 36, 4)]


def grainy(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Pictures of 8 bits without flat areas, where piq counts its rounding errors as samples; float64.

    No luminance is half way between two levels, where the order of a sum would decide.
    """
    x = pair(n, height, width, seed=seed, dtype=torch.float64)[1]
    grain = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    levels = (0.8 * 255 * x + 40 * grain).round()
    fraction = (levels * levels.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).frac()
    levels[:, 0] += (fraction - 0.5).abs() < 1e-6
    return levels / 255


def machine(vectors: int = 774) -> dict[str, torch.Tensor]:
    """A regression of piq's layout, with coefficients of the size of the published ones."""
    generator = torch.Generator().manual_seed(4)
    coefficients = torch.rand(vectors, generator=generator, dtype=torch.float64) * 2048 - 1024
    near = 2 * torch.rand(vectors, 36, generator=generator, dtype=torch.float64) - 1
    return {"0": coefficients, "1": near}


class TestPiq:
    @pytest.mark.parametrize("size", [(96, 130), (97, 131)])
    def test_features(self, size):
        grey = (grainy(2, *size)[:, :1] * 255).round()
        ours = features(grey, table=True)
        half = size[0] // 2, size[1] // 2
        smaller = imresize(grey, half, (half[0] / size[0], half[1] / size[1]))
        theirs = torch.cat([PIQ._natural_scene_statistics(level) for level in (grey, smaller)], 1)
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("size", [(96, 130), (97, 131)])
    def test_score(self, monkeypatch, size):
        x, state = grainy(2, *size, seed=1), machine()
        monkeypatch.setattr(PIQ, "load_url", lambda url, map_location: (state["0"].clone(), state["1"].clone()))
        single = PIQ.brisque(x, reduction="none")
        monkeypatch.setattr(sys.modules["piq.functional.resize"], "cast_input", lambda x: (x, None))  # not to float32
        critic = create_critic("brisque", weights=state)
        critic.table = True
        expected = PIQ.brisque(x, reduction="none")
        torch.testing.assert_close(critic(x), expected, rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(critic(x), single, rtol=1e-3, atol=0)
        assert (expected[0] - expected[1]).abs() > 10

    def test_scaling(self):
        low, high = torch.tensor([pair for group in RANGES for pair in group], dtype=torch.float64).unbind(1)
        corners = torch.stack([low, high, (low + high) / 2])
        expected = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64)[:, None].expand(3, 36)
        torch.testing.assert_close(PIQ._scale_features(corners), expected, rtol=0, atol=1e-12)
        assert torch.equal(BRISQUE(get_card("brisque")).ranges, torch.stack([low, high], 1))


class TestForms:
    def test_they_differ_by_the_step_of_the_table_and_by_rounding(self):
        grey = 255 * grainy(2, 96, 130)[:, :1]
        smooth, table = (features(grey.round(), table=table) for table in (False, True))
        others = [i for i in range(36) if i not in SHAPES]
        assert 1e-5 < (smooth - table)[:, SHAPES].abs().max() <= 5.001e-4
        torch.testing.assert_close(smooth[:, others], table[:, others], rtol=0, atol=1e-3)
        x = grainy(1, 96, 130)
        critic = create_critic("brisque", weights=machine())
        exact, name = critic(x).item(), critic.signature
        critic.table = True
        assert abs(critic(x).item() - exact) > 1e-6
        assert name.endswith("|smooth") and critic.signature.endswith("|table")

    def test_the_reported_form_has_the_slope_of_the_smooth_one(self):
        slopes = []
        for table in (True, False):
            critic = create_critic("brisque", weights=machine())
            critic.table = table
            x = grainy(1, 64, 80).requires_grad_()
            slopes.append(torch.autograd.grad(critic(x).sum(), x)[0].flatten())
        assert torch.nn.functional.cosine_similarity(*slopes, dim=0) > 0.9


class TestRegression:
    def with_one_vector(self, vector: torch.Tensor) -> BRISQUE:
        critic = BRISQUE(get_card("brisque"), vectors=1, gamma=0.05, rho=-3.0)
        load_states(critic, [{"coefficients": torch.tensor([7.0]), "vectors": vector[None]}])
        return critic.freeze()

    def test_known_answers(self):
        x = grainy(1, 64, 64)
        low, high = BRISQUE(get_card("brisque")).ranges.unbind(1)
        found = features(0.299 * 255 * x[:, :1] + 0.587 * 255 * x[:, 1:2] + 0.114 * 255 * x[:, 2:])[0]
        scaled = 2 * (found - low) / (high - low) - 1
        assert self.with_one_vector(scaled)(x).item() == pytest.approx(7 + 3, abs=1e-6)
        away = scaled.clone()
        away[5] += 4
        assert self.with_one_vector(away)(x).item() == pytest.approx(7 * 2.718281828 ** (-0.05 * 16) + 3, abs=1e-6)

    def test_far_from_all_vectors_it_is_the_offset_without_slope(self):
        x = grainy(1, 64, 64).requires_grad_()
        score = self.with_one_vector(torch.full((36,), 1e3))(x)
        assert score.item() == 3
        assert not torch.autograd.grad(score.sum(), x)[0].any()

    @pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
    def test_flat_images_have_a_finite_score(self, level):
        critic = create_critic("brisque", weights=machine())
        x = torch.full((1, 3, 40, 44), level, requires_grad=True)
        score = critic(x)
        (gradient,) = torch.autograd.grad(score.sum(), x)
        assert torch.isfinite(score).all() and torch.isfinite(gradient).all()
        assert not gradient[..., 16:-16, 16:-16].any()  # only the border, beside the zeros outside, has contrast


class TestFiles:
    def test_the_file_of_piq(self, tmp_path):
        state = machine()
        torch.save((state["0"].float(), state["1"].float()), tmp_path / "brisque_svm_weights.pt")
        critic = create_critic("brisque", weights=tmp_path / "brisque_svm_weights.pt")
        torch.testing.assert_close(critic.vectors.detach(), state["1"], rtol=1e-6, atol=1e-6)
        assert critic.coefficients.shape == (774,)

    def write(self, path, rho: float = -153.591, gamma: float = 0.05, vectors: int = 774):
        state = machine(vectors)
        head = f"svm_type epsilon_svr\nkernel_type rbf\ngamma {gamma}\nnr_class 2\ntotal_sv {vectors}\nrho {rho}\nSV\n"
        rows = [
            f"{c!r} " + " ".join(f"{i}:{v!r}" for i, v in enumerate(row, 1))
            for c, row in zip(state["0"].tolist(), state["1"].tolist(), strict=True)
        ]
        path.write_text(head + "\n".join(rows) + "\n")
        return state

    def test_the_text_of_libsvm(self, tmp_path):
        state = self.write(tmp_path / "allmodel.txt")
        critic = create_critic("brisque", weights=tmp_path / "allmodel.txt")
        assert torch.equal(critic.vectors.detach(), state["1"])
        x = grainy(1, 64, 64)
        assert torch.equal(critic(x), create_critic("brisque", weights=state)(x))

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"rho": -155.845}, "rho: expected the offset as given"),
            ({"gamma": 0.099}, "gamma: expected the width of the kernel as given"),
            ({"vectors": 770}, r"vectors: shape \(770, 36\), expected \(774, 36\)"),
        ],
    )
    def test_another_regression_is_refused_unless_it_is_described(self, tmp_path, options, problem):
        path = tmp_path / "allmodel.txt"
        self.write(path, **options)
        with pytest.raises(WeightsError, match=problem):
            create_critic("brisque", weights=path)
        from perceptloss.weights.checkpoints import read_state

        described = BRISQUE(get_card("brisque"), ranges=torch.tensor([[-2.0, 2.0]] * 36), **options)
        load_states(described, [read_state(path)])
        assert torch.isfinite(described(grainy(1, 64, 64))).all()
