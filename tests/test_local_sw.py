"""Local sliced Wasserstein distance: a loop that anyone can follow, answers known by hand, slopes, and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceptloss.critics.jspl import local_sw
from perceptloss.critics.jspl.local_sw import local_sliced_wasserstein, orthogonal_directions
from perceptloss.errors import InputError

ONE = torch.ones(1, 1, dtype=torch.float64)  # the only direction there is in one channel


def maps(n: int = 2, channels: int = 5, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Two feature maps and directions."""
    fx, fy = torch.randn(2, n, channels, height, width, dtype=torch.float64)
    return fx, fy, orthogonal_directions(channels).double()


def one_channel(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def shuffled(f: Tensor, window: int, seed: int = 3) -> Tensor:
    """The same features, each window's moved about inside it, by another permutation in each window."""
    generator = torch.Generator().manual_seed(seed)
    f = f.clone()
    for top in range(0, f.shape[2], window):
        for left in range(0, f.shape[3], window):
            part = f[..., top : top + window, left : left + window]
            order = torch.randperm(window**2, generator=generator)
            part.copy_(part.flatten(2)[..., order].view_as(part))
    return f


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((8, 8), 8, 4), ((12, 16), 8, 4), ((9, 11), 8, 4), ((5, 7), 2, 1), ((7, 6), 3, 2)]
)
def test_is_the_sum_written_as_a_loop(size, window, stride):
    fx, fy, directions = maps(2, 3, *size)
    height, width = size
    tops, lefts = (range(0, length - window + stride, stride) for length in size)
    found = local_sliced_wasserstein(fx, fy, directions, window, stride)
    assert found.shape == (2, 1, len(tops), len(lefts))
    for image in range(2):
        for i, top in enumerate(tops):
            for j, left in enumerate(lefts):
                places = [
                    (min(top + a, height - 1), min(left + b, width - 1)) for a in range(window) for b in range(window)
                ]
                total = 0.0
                for theta in directions:
                    x, y = (sorted(float(theta @ f[image, :, a, b]) for a, b in places) for f in (fx, fy))
                    total += sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
                expected = total / (len(directions) * window**2)
                assert found[image, 0, i, j].item() == pytest.approx(expected, rel=1e-10)


class TestKnownAnswers:
    def test_of_a_map_to_itself(self):
        fx, _, directions = maps()
        assert not local_sliced_wasserstein(fx, fx, directions, 4, 2).any()

    def test_is_symmetric(self):
        fx, fy, directions = maps()
        there, back = (local_sliced_wasserstein(*pair, directions, 4, 2) for pair in ((fx, fy), (fy, fx)))
        assert torch.equal(there, back)
        assert (there > 0).all()

    def test_two_values(self):
        first = local_sliced_wasserstein(one_channel([0, 1], [0, 1]), one_channel([1, 2], [1, 2]), ONE, 2, 2)
        assert first.flatten().tolist() == pytest.approx([1.0])
        swapped = local_sliced_wasserstein(one_channel([0, 2], [0, 2]), one_channel([2, 0], [2, 0]), ONE, 2, 2)
        assert swapped.flatten().tolist() == pytest.approx([0.0])

    def test_moving_features_inside_a_window_costs_nothing(self):
        fx, fy, directions = maps(height=16, width=16)
        before = local_sliced_wasserstein(fx, fy, directions, 4, 4)
        after = local_sliced_wasserstein(shuffled(fx, 4), shuffled(fy, 4, seed=5), directions, 4, 4)
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
        assert local_sliced_wasserstein(shuffled(fx, 4), fx, directions, 4, 4).max() < 1e-24

    def test_moving_features_to_another_window_does_not(self):
        fx, _, directions = maps(height=16, width=16)
        moved = fx.roll(4, 3)
        assert (local_sliced_wasserstein(moved, fx, directions, 4, 4) > 1e-3).all()
        # nor does moving them inside one window of a stride that overlaps
        assert (local_sliced_wasserstein(shuffled(fx, 4), fx, directions, 4, 2)[..., ::2, 1::2] > 1e-3).all()

    def test_offset_along_a_vector(self):
        fx, _, directions = maps()
        vector = torch.randn(5, dtype=torch.float64)
        fewer = directions[:3]
        found = local_sliced_wasserstein(fx + 0.7 * vector[:, None, None], fx, fewer, 8, 4)
        expected = 0.7**2 * (fewer @ vector).square().mean()
        torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-10, atol=0)

    def test_windows_of_one_are_squared_differences(self):
        fx, fy, directions = maps()
        found = local_sliced_wasserstein(fx, fy, directions[:2], 1, 1)
        projected = torch.einsum("mc,nchw->nmhw", directions[:2], fx - fy)
        torch.testing.assert_close(found, projected.square().mean(1, keepdim=True), rtol=1e-10, atol=1e-14)
        whole = local_sliced_wasserstein(fx, fy, directions, 1, 1)
        torch.testing.assert_close(whole, (fx - fy).square().mean(1, keepdim=True), rtol=1e-5, atol=1e-6)

    def test_last_row_and_column_count_whatever_the_stride(self):
        fx, _, directions = maps(1, height=9, width=10)
        for row, column in ((8, 0), (0, 9)):
            fy = fx.clone()
            fy[..., row, column] += 1
            assert local_sliced_wasserstein(fx, fy, directions, 8, 4).max() > 1e-4


def test_directions_span_the_space_and_follow_the_seed():
    torch.manual_seed(4)
    first = orthogonal_directions(16)
    other = orthogonal_directions(16)
    torch.manual_seed(4)
    assert torch.equal(orthogonal_directions(16), first)
    assert not torch.allclose(first, other, atol=0.1)
    torch.testing.assert_close(first @ first.T, torch.eye(16), rtol=0, atol=1e-5)


def test_gradient_is_the_slope():
    fx, fy, directions = maps(2, 3, 5, 6)
    fx.requires_grad_()
    fy.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: local_sliced_wasserstein(a, b, directions, 4, 2), (fx, fy))
    assert torch.autograd.gradgradcheck(lambda a: local_sliced_wasserstein(a, fy.detach(), directions, 4, 2), fx)


def test_gradient_is_finite_where_values_are_equal():
    flat = torch.zeros(1, 5, 8, 8, dtype=torch.float64, requires_grad=True)
    _, fy, directions = maps(1)
    (gradient,) = torch.autograd.grad(local_sliced_wasserstein(flat, fy, directions).sum(), flat)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient.sum((2, 3)), -2 * fy.mean((2, 3)) / 5)  # the mean is pulled as it should
    (gradient,) = torch.autograd.grad(local_sliced_wasserstein(flat, flat.detach(), directions).sum(), flat)
    assert not gradient.any()


def test_blocks_of_directions_change_nothing(monkeypatch):
    fx, fy, directions = maps(2, 6, 12, 12)
    fx.requires_grad_()

    def both() -> tuple[Tensor, Tensor]:
        value = local_sliced_wasserstein(fx, fy, directions, 8, 4)
        return value.detach(), torch.autograd.grad(value.square().sum(), fx)[0]

    whole = both()
    monkeypatch.setattr(local_sw, "_AT_ONCE", 2 * 4 * 64)  # two directions of four windows
    calls = []
    summed = local_sw._summed
    monkeypatch.setattr(local_sw, "_summed", lambda *args: calls.append(len(args[2])) or summed(*args))
    torch.testing.assert_close(both(), whole, rtol=1e-12, atol=1e-14)
    assert calls[:3] == [2, 2, 2]


def test_no_window_is_kept_for_the_backward():
    fx, fy, directions = maps(2, 16, 32, 32)
    fx.requires_grad_()

    def kept(function) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            function(fx, fy, directions, 8, 4)
        return sum(sizes)

    assert kept(local_sw._summed) > 5 * fx.nbytes
    assert kept(local_sliced_wasserstein) <= fx.nbytes + fy.nbytes + directions.nbytes


@pytest.mark.parametrize(
    ("window", "stride", "message"), [(9, 4, "9x9 need maps of at least that, got 8x8"), (4, 5, "1 to 4"), (4, 0, "1 ")]
)
def test_refuses_what_would_leave_features_out(window, stride, message):
    with pytest.raises(InputError, match=message):
        local_sliced_wasserstein(*maps(), window, stride)
