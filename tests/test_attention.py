"""Attention against torch's own, and its second derivative, which torch's fused kernels lack."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perceptloss.networks.attention import attend


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_is_torchs_attention(heads):
    q, k, v = tokens(2, 5, 12), tokens(2, 7, 12), tokens(2, 7, 12).flip(0)
    split = [t.view(2, -1, heads, 12 // heads).transpose(1, 2) for t in (q, k, v)]
    expected = F.scaled_dot_product_attention(*split).transpose(1, 2).reshape(2, 5, 12)
    torch.testing.assert_close(attend(q, k, v, heads), expected)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 5, 7), (1, 1, 1, 7)])
def test_adds_a_bias_to_its_logits(shape):
    q, k, v, bias = tokens(2, 5, 12), tokens(2, 7, 12), tokens(2, 7, 12).flip(0), tokens(*shape)
    split = [t.view(2, -1, 3, 4).transpose(1, 2) for t in (q, k, v)]
    masked = F.scaled_dot_product_attention(*split, attn_mask=bias.expand(2, 3, 5, 7))
    torch.testing.assert_close(attend(q, k, v, 3, bias), masked.transpose(1, 2).reshape(2, 5, 12))


def test_first_and_second_derivatives():
    q, k, v = (tokens(1, n, 4).requires_grad_() for n in (2, 3, 3))
    assert torch.autograd.gradcheck(lambda *t: attend(*t, 2), (q, k, v))
    assert torch.autograd.gradgradcheck(lambda *t: attend(*t, 2), (q, k, v))


def test_large_logits_stay_finite():
    q, k = (1e4 * tokens(1, 4, 8)).float().requires_grad_(), (1e4 * tokens(1, 4, 8)).float()
    attend(q, k, k, 2).sum().backward()
    assert torch.isfinite(q.grad).all()
