"""Deformable convolution: torchvision's operator to the last digits, its gradients, and what it keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.errors import InputError
from perceptloss.networks.deform import deform_conv2d

CASES = {
    "3x3": (2, 5, 8, 8, 3, 3, 1, 1),
    "3x3, stride 2": (2, 4, 9, 7, 3, 3, 2, 1),
    "3x3, no padding": (1, 3, 6, 11, 3, 3, 1, 0),
    "1x1": (2, 3, 5, 4, 1, 1, 1, 0),
    "2x3, stride 3, padding 2": (1, 2, 10, 8, 2, 3, 3, 2),
}


def arguments(
    n: int, channels: int, height: int, width: int, kh: int, kw: int, stride: int, padding: int, reach: float = 2.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maps, offsets, kernel and bias, all in float64 and asking for gradients."""
    rows, columns = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    shapes = (n, channels, height, width), (n, 2 * kh * kw, rows, columns), (4, channels, kh, kw), (4,)
    h, offset, weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return tuple(t.requires_grad_() for t in (h, (reach * offset).detach(), weight, bias))


@pytest.mark.parametrize("reach", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_agrees_with_torchvision_in_value_and_every_gradient(case, reach):
    ops = pytest.importorskip("torchvision.ops")
    *_, stride, padding = case
    given = arguments(*case, reach)
    ours = deform_conv2d(*given, stride=stride, padding=padding)
    theirs = ops.deform_conv2d(*given, stride=stride, padding=padding)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    along = torch.randn_like(theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, given, along), torch.autograd.grad(theirs, given, along), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


def test_gradients_are_the_slopes():
    h, offset, weight, bias = arguments(1, 2, 4, 4, 3, 3, 1, 1)
    assert torch.autograd.gradcheck(deform_conv2d, (h, offset, weight, bias))
    assert torch.autograd.gradgradcheck(lambda h: deform_conv2d(h.square(), offset, weight, bias), h)


def test_no_offset_is_an_ordinary_convolution():
    h, offset, weight, bias = arguments(2, 3, 7, 6, 3, 3, 2, 1)
    still = torch.zeros_like(offset)
    ours = deform_conv2d(h, still, weight, bias, stride=2)
    torch.testing.assert_close(ours, F.conv2d(h, weight, bias, 2, 1))
    torch.testing.assert_close(deform_conv2d(h, still, weight, stride=2), F.conv2d(h, weight, None, 2, 1))


def test_offsets_are_down_then_right():
    h, offset, _, _ = arguments(1, 1, 6, 5, 1, 1, 1, 0)
    moved = torch.zeros_like(offset)
    moved[:, 0], moved[:, 1] = 2, -1
    ours = deform_conv2d(h, moved, torch.ones(1, 1, 1, 1, dtype=h.dtype), padding=0)
    wanted = F.pad(h, (1, 0, 0, 2))[:, :, 2:, :5]
    torch.testing.assert_close(ours, wanted)


def test_outside_is_zero_however_far():
    h, offset, weight, bias = arguments(1, 2, 5, 5, 3, 3, 1, 1)
    for far in (7.0, -8.0, 1e30, float("inf"), float("-inf")):
        out = deform_conv2d(h, torch.full_like(offset, far), weight, bias)
        torch.testing.assert_close(out, bias[:, None, None].expand_as(out))


def test_an_offset_that_is_not_a_number_spoils_its_pixel_only():
    h, offset, weight, bias = arguments(1, 2, 5, 5, 3, 3, 1, 1)
    clean = deform_conv2d(h, offset, weight, bias)
    broken = offset.detach().clone()
    broken[0, 4, 2, 3] = torch.nan
    out = deform_conv2d(h, broken, weight, bias)
    spoilt = torch.isnan(out).any(1)[0]
    assert spoilt.nonzero().tolist() == [[2, 3]]
    assert torch.equal(out[:, :, ~spoilt], clean[:, :, ~spoilt])


def test_keeps_positions_but_no_samples_when_only_the_maps_learn():
    h, offset, weight, bias = (t.detach() for t in arguments(2, 64, 8, 8, 3, 3, 1, 1))
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = deform_conv2d(h.requires_grad_(), offset, weight, bias)
    assert out.requires_grad
    kept.pop(weight.untyped_storage().data_ptr(), None)
    positions = 9 * 4 * 2 * 64  # taps, corners, images, pixels: an address and a share each
    assert sum(kept.values()) <= positions * (8 + 8)


def test_wrong_offsets_are_refused():
    h, offset, weight, bias = arguments(2, 3, 6, 6, 3, 3, 1, 1)
    with pytest.raises(InputError, match=r"offsets of shape \(2, 18, 6, 6\), got \(2, 9, 6, 6\)"):
        deform_conv2d(h, offset[:, ::2], weight, bias)
    with pytest.raises(InputError, match=r"\(2, 18, 3, 3\), got \(2, 18, 6, 6\)"):
        deform_conv2d(h, offset, weight, bias, stride=2)
