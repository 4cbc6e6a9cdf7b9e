"""Tiled scores of large images: what is exact, what is refused, and that one tile at a time is held."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import toys
from images import pair
from rounding import assert_same
from small import build_small
from torch import Tensor

from perceptloss import create_critic
from perceptloss.errors import InputError
from perceptloss.maps.tiles import score_tiled, tiled
from perceptloss.networks.tiles import _spans, edges


def recorded(**facts) -> tuple[toys.Toy, list[tuple[int, int]]]:
    """An exact critic, the mean squared difference, and the sizes of the tiles that it is shown."""
    sizes: list[tuple[int, int]] = []

    def score(x: Tensor, y: Tensor | None) -> Tensor:
        assert not torch.is_grad_enabled()
        sizes.append(tuple(x.shape[-2:]))
        return (x - y).square().mean((1, 2, 3))

    known = {"kind": "fr", "better": "lower", "identity": 0.0, "shape": "distance", "tiling": "exact"}
    return toys.toy("recorded", score, **{**known, **facts}), sizes


class TestSpans:
    @pytest.mark.parametrize(("length", "side"), [(100, 40), (2160, 1024), (3840, 512), (41, 40), (40, 40)])
    @pytest.mark.parametrize("overlap", [0, 8])
    @pytest.mark.parametrize("multiple", [1, 4])
    def test_parts_cover_everything_once_and_share_the_overlap(self, length, side, overlap, multiple):
        length -= length % multiple
        spans = _spans(length, side, multiple, overlap)
        assert sum(core for core, _ in spans) == length
        assert spans[0][1].start == 0
        assert spans[-1][1].stop == length
        for _, part in spans:
            assert part.stop - part.start <= side
            assert (part.stop - part.start) % multiple == 0
            assert part.start % multiple == 0
        for (_, before), (_, after) in pairwise(spans):
            assert before.stop - after.start == overlap

    def test_parts_are_even_and_few(self):
        assert edges(100, 40) == [0, 33, 66, 100]
        assert [part.stop - part.start for _, part in _spans(100, 40, 1, 8)] == [29, 33, 33, 29]
        assert _spans(40, 40, 1, 8) == [(40, slice(0, 40))]


class TestExact:
    def test_a_4k_image_in_the_memory_of_one_tile(self):
        """The 8.3 million pixels are never seen together, and the mean is that of all of them."""
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.rand(1, 3, 2160, 3840, generator=generator) for _ in range(2))
        critic, sizes = recorded()
        score = score_tiled(critic, x.requires_grad_(), y, tile=512)
        assert len(sizes) == 5 * 8
        assert max(map(max, sizes)) <= 512
        assert sum(h * w for h, w in sizes) == 2160 * 3840
        assert score.shape == (1,)
        assert score.dtype == torch.float64
        assert not score.requires_grad
        expected = (x.detach() - y).double().square().mean((1, 2, 3))
        torch.testing.assert_close(score, expected, rtol=1e-6, atol=0)

    def test_tiles_of_unequal_size_count_by_area(self):
        x, y = pair(3, 101, 67, dtype=torch.float64)
        critic, sizes = recorded()
        score = score_tiled(critic, x, y, tile=40)
        assert len(set(sizes)) > 1
        torch.testing.assert_close(score, (x - y).square().mean((1, 2, 3)), rtol=1e-13, atol=0)

    def test_an_image_of_one_tile_is_simply_scored(self):
        x, y = pair(2, 64, 48)
        critic = create_critic("ssim")  # whose card says never
        assert_same(score_tiled(critic, x, y, tile=64).float(), critic(x, y))

    def test_overlap_would_count_pixels_twice(self):
        critic, _ = recorded()
        with pytest.raises(InputError, match="has a halo of 0"):
            score_tiled(critic, *pair(1, 64), tile=32, overlap=8)


class TestApproximate:
    def test_is_the_mean_of_its_tiles_by_area(self):
        x, y = pair(2, 96, 48, dtype=torch.float64)
        critic = toys.toy("mean-root", lambda x, y: (x - y).square().mean((1, 2, 3)).sqrt(), kind="fr")
        assert critic.card.tiling == "approximate"
        parts = (slice(0, 56), slice(40, 96))
        expected = torch.stack([critic(x[:, :, part], y[:, :, part]) for part in parts]).mean(0)
        torch.testing.assert_close(score_tiled(critic, x, y, tile=64, overlap=16), expected)
        assert (critic(x, y) != expected).all()

    def test_overlap_gives_context_but_no_weight(self):
        """The score of a tile is its height here; areas are those between the cuts."""
        x = torch.rand(1, 3, 96, 32)
        critic = toys.toy("height", lambda x, y: x.new_full((1,), float(x.shape[-2])), tiling="approximate")
        assert score_tiled(critic, x, tile=48, overlap=16).item() == pytest.approx((40 + 48 + 40) / 3)
        assert score_tiled(critic, x, tile=48).item() == 48

    def test_can_be_refused(self):
        critic = build_small("gsn")
        x, y = pair(1, 192)
        assert torch.isfinite(score_tiled(critic, x, y, tile=96)).all()
        with pytest.raises(InputError, match="only approximated"):
            score_tiled(critic, x, y, tile=96, approximate=False)

    def test_tiles_are_legal_for_the_critic(self):
        critic = build_small("gsn")
        x, y = pair(1, 192, 224)
        score = score_tiled(critic, x, y, tile=100, overlap=0)
        expected = tiled(critic, x, y, 96, 32)
        assert_same(score.float(), expected.float())
        for overlap, tile in ((32, 128), (63, 128), (-64, 128), (128, 128)):
            with pytest.raises(InputError, match="overlap must be a multiple of 64"):
                score_tiled(critic, x, y, tile=tile, overlap=overlap)
        with pytest.raises(InputError, match="tiles of at least 128"):
            score_tiled(critic, x, y, tile=127, overlap=64)
        with pytest.raises(InputError, match="tiles of at least 64"):
            score_tiled(critic, x, y, tile=63)


class TestRefusals:
    def test_never_is_never(self):
        x, y = pair(1, 96)
        for name in ("ssim", "ms-gmsd", "fsim", "vsi", "mdsi"):
            with pytest.raises(InputError, match=rf"{name}.*must see whole images"):
                score_tiled(create_critic(name), x, y, tile=48)

    def test_images_of_two_sizes(self):
        critic, _ = recorded()
        x, _ = pair(1, 64)
        with pytest.raises(InputError, match="one shape"):
            score_tiled(critic, x, torch.cat([x, x], 3), tile=32)

    def test_the_critic_still_checks_each_tile(self):
        critic, _ = recorded()
        x, y = pair(1, 64)
        x[..., -1, -1] = 2
        with pytest.raises(InputError, match=r"x in \[0, 1\]"):
            score_tiled(critic, x, y, tile=32)
        with pytest.raises(InputError, match="reference"):
            score_tiled(critic, y, tile=32)
