"""What a loss holds while the restorer's graph is alive, and what it needs at its peak, in bytes of live storages."""

from __future__ import annotations

from functools import lru_cache, partial

import pytest
import torch
from images import pair

from benchmarks.memory import LiveStorage, footprint
from perceptloss import CriticLoss, create_critic
from perceptloss.critics.biqa4k.texture import cell_texture

FIVE = ("ssim", "gmsd", "vgg-content", "vgg-style", "lpips-vgg")
SIDE = 32


build = lru_cache(partial(create_critic, weights=None))


def loss(names=FIVE, **options) -> CriticLoss:
    return CriticLoss([{"critic": build(name), "weight": 1.0} for name in names], share_every=0, **options)


def nbytes(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()


def test_the_counter_counts():
    x = torch.zeros(1000)
    with LiveStorage() as storages:
        a = x + 1
        b = a * 2
        assert storages.live == 8000
        del a
        assert storages.live == 4000
        view = b[:10]
        del b
        assert storages.live == 4000
        del view
        assert storages.live == 0
    assert storages.peak == 8000


@pytest.mark.parametrize("names", [("lpips-vgg",), FIVE], ids=["one term", "five terms"])
@pytest.mark.parametrize("micro_batch", [1, 2, None])
def test_fused_holds_one_image_batch(names, micro_batch):
    x, y = pair(4, SIDE)
    assert footprint(loss(names, micro_batch=micro_batch), x, y).held <= 1.05 * nbytes(x)


def test_fused_holds_as_much_as_the_images_in_their_own_type():
    x, y = pair(4, SIDE)
    low = x.bfloat16()
    for image in (low, x.half()):
        assert footprint(loss(micro_batch=1), image, y.to(image.dtype)).held <= 1.05 * nbytes(low)


def test_plain_graphs_hold_much_more():
    x, y = pair(2, SIDE)
    held = {mode: footprint(loss(grad=mode), x, y).held for mode in ("autograd", "checkpoint", "fused")}
    assert held["fused"] * 20 < held["checkpoint"] < held["autograd"] / 2


def test_peak_of_one_by_one_does_not_grow_with_the_batch():
    peaks = {}
    for n in (1, 4):
        x, y = pair(n, SIDE)
        must_grow = 3 * nbytes(x)  # our gradient, x.grad, and its way from one to the other
        peaks[n] = footprint(loss(("lpips-vgg",), micro_batch=1), x, y).peak - must_grow
    assert peaks[4] <= 1.02 * peaks[1]


@pytest.mark.parametrize(
    "name",
    [pytest.param("haarpsi", id="exact"), pytest.param("mini-nr", id="approximate", marks=pytest.mark.thorough)],
)
def test_peak_of_tiles_does_not_grow_with_the_image(name):
    peaks = {}
    for side in (128, 384):
        x, y = pair(1, side)
        tiles = CriticLoss({name: {"weight": 1.0, "shape": "softplus"}}, tile=64, share_every=0)
        peaks[side] = footprint(tiles, x, y).peak - 3 * nbytes(x)  # as above
    assert peaks[384] <= 1.05 * peaks[128]


def test_choosing_patches_takes_the_memory_of_one_row_of_cells():
    peaks = {}
    for rows in (64, 512):
        with LiveStorage() as storages:
            cell_texture(torch.zeros(1, 3, rows, 128), 32)
        peaks[rows] = storages.peak - 4 * 3 * rows * 128  # the image itself
    assert peaks[512] <= 1.2 * peaks[64]


def test_micro_batches_lower_the_peak_and_lean_layers_too():
    x, y = pair(4, SIDE)
    whole = footprint(loss(("lpips-vgg",), micro_batch=None), x, y).peak
    single = footprint(loss(("lpips-vgg",), micro_batch=1), x, y).peak
    lean = footprint(loss(("lpips-vgg",), micro_batch=1, lean=True), x, y).peak
    assert single < whole / 3
    assert lean < single


def test_terms_that_share_a_trunk_share_its_activations():
    x, y = pair(1, SIDE)
    together = footprint(loss(("lpips-vgg", "vgg-content")), x, y).peak
    assert together < 1.2 * footprint(loss(("lpips-vgg",)), x, y).peak
