"""A-DISTS: where structure is, what channels weigh, and which image says so; its parity is in `tests/parity`."""

from __future__ import annotations

import pytest
import torch
from images import pair, photographs

from perceptloss import create_critic
from perceptloss.critics.a_dists import channel_weights, local_distance, structure_probability
from perceptloss.errors import ConfigError
from perceptloss.networks.distances import texture_and_structure
from perceptloss.networks.functional import gaussian

WINDOW = gaussian(5, 5 / 3)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestStructure:
    def test_is_where_windows_vary_more_than_elsewhere(self):
        feature = torch.full((1, 1, 12, 24), 0.5)
        feature[..., 12:] += 0.25 * (-1) ** torch.arange(12)
        (likely,) = structure_probability([feature], WINDOW)
        assert likely.shape == (1, 1, 8, 20)
        assert likely[..., :8].max() < 0.01
        assert likely[..., 12:].min() > 0.9

    def test_a_coarser_level_takes_it_away(self):
        fine = random(1, 2, 16, 16)
        coarse = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
        coarse[..., 4:] += 0.25 * (-1) ** torch.arange(4)
        alone, _ = structure_probability([fine, torch.ones_like(coarse)], WINDOW)
        below, above = structure_probability([fine, coarse], WINDOW)
        assert alone.max() == 0, "a coarse level without any structure leaves none to a finer one"
        assert above[..., 0].max() < above[..., -1].min()
        assert below[..., :3].max() < 0.2
        assert float(below.max()) == pytest.approx(1)

    @pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
    def test_a_flat_image_has_none(self, value):
        (likely,) = structure_probability([torch.full((1, 3, 40, 44), value)], gaussian(21, 7))
        assert likely.tolist() == torch.zeros(1, 1, 20, 24).tolist()

    def test_maps_without_two_windows_are_one_window(self):
        for height, width in ((4, 9), (5, 5)):
            feature = random(1, 1, height, width)
            (likely,) = structure_probability([feature], WINDOW)
            wanted = (feature.var(correction=0) / feature.mean()).sigmoid()
            torch.testing.assert_close(likely, wanted.expand(1, 1, 1, 1))


def test_channels_weigh_by_their_entropy_within_half_a_deviation():
    point = torch.zeros(4, 4)
    point[1, 2] = 1
    (weights,) = channel_weights([torch.stack([torch.ones(4, 4), point])[None]])
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))  # 4 and 0 bits: 1 and 0, held at 1/2 +- 1/4
    levels = channel_weights([random(2, 3, 8, 8), random(2, 7, 4, 4)])
    assert [level.shape for level in levels] == [(2, 3), (2, 7)]
    torch.testing.assert_close(torch.cat(levels, 1).sum(1), torch.ones(2, dtype=torch.float64))


class TestLocalDistance:
    def test_is_of_texture_where_there_is_no_structure_and_else_of_structure(self):
        fx, fy = random(1, 2, 4, 4), random(1, 2, 4, 4, seed=1)
        lengths = (f / f.norm(dim=(2, 3), keepdim=True) for f in (fx, fy))
        for part, similar in enumerate(texture_and_structure(*lengths)):
            structure = torch.full((1, 1, 1, 1), float(part), dtype=torch.float64)
            torch.testing.assert_close(local_distance(fx, fy, structure, WINDOW), 1 - similar)

    def test_is_the_formula_in_windows(self):
        fx, fy = random(1, 1, 6, 5), random(1, 1, 6, 5, seed=1)
        structure = random(1, 1, 2, 1, seed=2)
        x, y = fx[0, 0] / fx.norm(), fy[0, 0] / fy.norm()
        weights = torch.outer(*(torch.tensor(WINDOW, dtype=torch.float64),) * 2)
        wanted = 0.0
        for row in range(2):
            a, b, p = x[row : row + 5], y[row : row + 5], structure[0, 0, row, 0]
            mx, my = (weights * a).sum(), (weights * b).sum()
            vx, vy, xy = ((weights * (u - m) * (v - n)).sum() for u, v, m, n in _moments(a, b, mx, my))
            texture = (2 * mx * my + 1e-6) / (mx**2 + my**2 + 1e-6)
            wanted += 1 - (1 - p) * texture - p * (2 * xy + 1e-6) / (vx + vy + 1e-6)
        torch.testing.assert_close(local_distance(fx, fy, structure, WINDOW), (wanted / 2).expand(1, 1))

    def test_the_scale_of_a_channel_is_lost(self):
        fx = random(1, 2, 8, 8)
        assert local_distance(fx, 3 * fx, torch.full((1, 1, 4, 4), 0.5), WINDOW).abs().max() < 1e-9


def _moments(a, b, mx, my):
    return (a, a, mx, mx), (b, b, my, my), (a, b, mx, my)


class TestCritic:
    def test_the_judged_image_may_be_the_guide(self):
        x, y = pair(1, 48)
        plain = create_critic("a-dists", weights=None)
        judged = create_critic("a-dists", weights=None, options={"guide": "judged"})
        torch.testing.assert_close(judged(x, y), plain(y, x))
        assert (judged(x, y) - plain(x, y)).abs() > 1e-4

    def test_its_guidance_has_a_slope_only_where_it_is_not_held(self):
        critic = create_critic("a-dists", weights=None, options={"guide": "judged"}).double()
        x, y = pair(1, 48, dtype=torch.float64)
        x = (0.9 * x + 0.05).requires_grad_()
        (held,) = torch.autograd.grad(critic(x, y).sum(), x)
        critic.hold_weights = False
        (free,) = torch.autograd.grad(critic(x, y).sum(), x)
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
        with torch.no_grad():
            ahead, behind = (critic(x + sign * 1e-8 * along, y) for sign in (1, -1))
        slope = float((ahead - behind) / 2e-8)
        assert slope == pytest.approx(float((free * along).sum()), rel=1e-3, abs=1e-4 * float(free.norm()))
        assert abs(slope - float((held * along).sum())) > 1e-2 * float(free.norm())

    def test_degenerate_guides_leave_gradients_finite(self):
        critic = create_critic("a-dists", weights=None, options={"guide": "judged"})
        y = photographs(48)[:1]
        for hold in (True, False):
            critic.hold_weights = hold
            for x in (torch.zeros_like(y), torch.full_like(y, 0.5), y.clone(), y - 0.5):
                (gradient,) = torch.autograd.grad(critic(x.requires_grad_(), y).sum(), x)
                assert torch.isfinite(gradient).all()

    def test_equal_images_are_exactly_alike(self):
        critic = create_critic("a-dists", weights=None)
        y = torch.cat([photographs(48)[:1], torch.full((1, 3, 48, 48), 0.5)])
        assert critic(y.clone(), y).tolist() == [0.0, 0.0]

    def test_other_options_are_refused_at_once(self):
        with pytest.raises(ConfigError, match=r"(?s)2 problems.*window must be an odd.*got 20.*guide must be one of"):
            create_critic("a-dists", weights=None, options={"window": 20, "guide": "x"})
