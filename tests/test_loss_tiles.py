"""CriticLoss on images that are cut into tiles: equal where the card says exact, and one tile at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toys
from images import pair
from small import build_small
from torch import Tensor

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError, InputError
from perceptloss.maps.tiles import score_tiled


def both(terms: Any, x: Tensor, y: Tensor, tile: int, **options: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """Value and gradient with tiles, and without."""
    losses = (CriticLoss(terms, tile=side, **options) for side in (tile, None))
    return tuple(loss.value_and_gradient(x, y, step=3) for loss in losses)


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(first[0], second[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(first[1], second[1], rtol=1e-3, atol=1e-5 * float(second[1].abs().max()))


class TestExact:
    def test_several_terms_and_images(self):
        same(*both({"haarpsi": 1.0, "gmsd": 0.5, "ssim-full": {"weight": 0.2, "shape": "hinge"}}, *pair(2, 70, 91), 48))

    def test_shift_range_and_overshoot(self):
        x, y = pair(1, 70, 91)
        same(*both({"ssim-full": 1.0}, 2.4 * x - 1.2, 2 * y - 1, 48, input_range=(-1, 1), shift=8, overshoot="clamp"))

    def test_each_view_of_a_stereo_pair(self):
        x, y = (torch.cat([*pair(2, 40, 91)], 1), torch.cat([*pair(2, 40, 91, seed=5)], 1))
        terms = {"haarpsi": 1.0, "ssim-full": 0.5, "psnr": {"weight": 0.01, "monitor": True}}
        same(*both(terms, x, y, 48, stereo=True))

    def test_shares_are_those_of_the_whole(self):
        x, y = pair(2, 64, 80)
        terms = {"haarpsi": {"share": 0.3}, "gmsd": {"share": 0.2}}
        same(*both(terms, x, y, 48, share_every=1))

    def test_backward_and_report(self):
        x, y = pair(1, 64, 80)
        reports = []
        for side in (40, None):
            loss = CriticLoss({"ssim-full": 1.0, "gmsd": {"weight": 1.0, "monitor": True}}, tile=side)
            leaf = x.clone().requires_grad_()
            loss(leaf, y).backward()
            reports.append({name: (row["score"], row["loss"]) for name, row in loss.report.items()})
        for name in reports[0]:
            assert reports[0][name] == pytest.approx(reports[1][name], rel=1e-5)

    def test_a_cropped_term_sees_its_crop(self):
        x, y = pair(1, 64, 80)
        same(*both({"ssim": {"weight": 1.0, "crop": 32}, "ssim-full": 0.5}, x, y, 40))


class TestJoint:
    @pytest.mark.parametrize("crop", [None, 24])
    def test_what_learns_sees_a_random_square(self, crop, monkeypatch):
        term = {"weight": 1.0, "weights": None, "joint": True, "options": {"width": 4}, "crop": crop}
        loss = CriticLoss({"patch": term}, tile=40)
        seen: list[Tensor] = []
        monkeypatch.setattr(loss.learners["patch"], "learn", lambda x, y, step, labelled: seen.append(x) or {})
        x, y = pair(2, 60, 100)
        for step in range(3):
            loss.learn(x, y, step=step)
        loss.learn(x[..., :40, :30], y[..., :40, :30], step=3)
        side = crop or 40
        assert [tuple(part.shape[-2:]) for part in seen] == [(side, side)] * 3 + [(24, 24) if crop else (40, 30)]
        assert not torch.equal(seen[0], seen[1])


class TestInside:
    def test_a_critic_that_chooses_its_patches_is_given_the_image(self):
        x, y = pair(1, 100, 130)
        critic = build_small("biqa4k")
        terms = [{"critic": critic, "weight": 1.0, "shape": "softplus"}, {"critic": "haarpsi", "weight": 1.0}]
        same(*both(terms, x, y, 48))
        assert torch.equal(score_tiled(critic, x, tile=48).float(), critic(x))


class TestMemory:
    @pytest.mark.parametrize("tiling", ["exact", "approximate"])
    def test_a_term_is_given_one_tile_at_a_time(self, tiling):
        sizes: list[tuple[int, int]] = []

        def score(x: Tensor, y: Tensor | None) -> Tensor:
            sizes.append(tuple(x.shape[-2:]))
            return (x - y).square().mean((1, 2, 3))

        known = {"kind": "fr", "better": "lower", "identity": 0.0, "shape": "distance", "tiling": tiling}
        critic = toys.toy("recorded", score, **known)
        x, y = pair(1, 300, 500)
        loss, plain = (CriticLoss([{"critic": critic, "weight": 1.0}], tile=side) for side in (64, None))
        found = loss.value_and_gradient(x, y)
        assert max(map(max, sizes)) <= 64
        same(found, plain.value_and_gradient(x, y))  # the mean of squares is the same cut anyhow


class TestApproximate:
    def test_is_the_mean_of_the_losses_of_tiles_by_area(self):
        x, y = pair(1, 40, 90, dtype=torch.float64)
        x = x * torch.linspace(0.5, 0.9, 90, dtype=torch.float64)  # one brightest pixel per tile
        critic = toys.toy("brightest", lambda x, y: x.amax((1, 2, 3)), shape="sigmoid")
        loss = CriticLoss([{"critic": critic, "weight": 1.0}], tile=40)
        parts = [x[..., :30], x[..., 30:60], x[..., 60:]]
        expected = sum((-part.amax()).sigmoid() for part in parts) / 3
        value, gradient = loss.value_and_gradient(x, y)
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
        assert int((gradient != 0).sum()) == 3  # the brightest of each tile


class TestRefusals:
    @pytest.mark.parametrize("critic", ["ssim-full", "mini-fr"], ids=["exact", "approximate"])
    def test_overshoot_is_refused_as_in_whole_images(self, critic):
        x, y = pair(1, 96, 160)
        x[..., 150] = 1.5
        for tile in (80, None):
            loss = CriticLoss({critic: 1.0}, tile=tile, overshoot="raise")
            with pytest.raises(InputError, match=r"needs x in \[0, 1\]"):
                loss(x.clone().requires_grad_(), y)

    @pytest.mark.parametrize(
        ("terms", "options", "said"),
        [
            ({"ssim": 1.0}, {"tile": 64}, "must see whole images; give it a 'crop'"),
            ({"lpips-squeeze": 1.0}, {"tile": 256}, "needs tiles of at least"),
            ({"ssim-full": 1.0}, {"tile": 64, "grad": "autograd"}, "tile goes with grad='fused'"),
            ({"ssim-full": 1.0}, {"tile": 0}, "tile must be a number of pixels"),
        ],
    )
    def test_says_what_to_do(self, terms, options, said):
        with pytest.raises(ConfigError, match=said):
            CriticLoss(terms, **options)
