"""Swin blocks: how maps are cut into windows, and the whole block against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.swin_transformer import SwinTransformerBlock

from perceptloss.critics.maniqa.swin import SwinBlock, merged, relative_index, shift_mask, windows

DIM, HEADS, SIDE, HIDDEN = 12, 3, 4, 24


def tokens(height: int = 8, width: int = 12, n: int = 2) -> Tensor:
    return torch.randn(n, height, width, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def block(height: int, width: int, shift: int) -> SwinBlock:
    ours = SwinBlock(DIM, (height, width), SIDE, HEADS, HIDDEN, shift).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return ours


def test_windows_are_squares_row_by_row_and_merge_again():
    h = tokens()
    parts = windows(h, SIDE)
    assert parts.shape == (2 * 2 * 3, 16, DIM)
    assert torch.equal(parts[6 + 4], h[1, 4:8, 4:8].reshape(16, DIM))
    assert torch.equal(merged(parts, 8, 12), h)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_relative_places_are_those_of_torchvision(side):
    peer = SwinTransformerBlock(DIM, HEADS, [side, side], [0, 0])
    assert torch.equal(relative_index(side).flatten(), peer.attn.relative_position_index)


@pytest.mark.parametrize(("size", "shift"), [((8, 12), 0), ((8, 12), 2), ((12, 8), 1), ((4, 8), 0), ((4, 4), 2)])
def test_a_block_is_that_of_torchvision(size, shift):
    ours, peer = block(*size, shift), SwinTransformerBlock(DIM, HEADS, [SIDE, SIDE], [shift, shift], HIDDEN / DIM)
    names = {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}
    renamed = {}
    for key, tensor in ours.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{leaf}"] = tensor
    peer = peer.double().eval()
    peer.load_state_dict({"attn.relative_position_index": peer.attn.relative_position_index, **renamed})
    x = tokens(*size).requires_grad_()
    found, wanted = ours(x), peer(x)
    torch.testing.assert_close(found, wanted)
    along = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(3))
    gradients = [torch.autograd.grad((h * along).sum(), x)[0] for h in (found, wanted)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_token_is_heard_in_its_window_only(shift):
    ours, x = block(8, 8, shift), tokens(8, 8, 1)
    moved = x.clone()
    moved[0, 1, 1, 0] += 1
    changed = (ours(moved) - ours(x)).abs().amax(3)[0] > 1e-9
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[: shift or SIDE, : shift or SIDE] = True  # a shifted window at the corner is what is left of it
    assert torch.equal(changed, expected)


def test_the_mask_parts_what_the_shift_joined():
    mask = shift_mask(8, 8, 4, 2)
    assert mask.shape == (4, 16, 16)
    assert mask.unique().tolist() == [-100, 0]
    assert not mask[0].any(), "no window but the last ones reaches over an edge"
    assert [(mask[k] == 0).sum().item() for k in range(4)] == [256, 128, 128, 64]
    assert torch.equal(mask, mask.mT)
