"""ST-LPIPS: its pooling, and what it reads of the authors' files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perceptloss import create_critic
from perceptloss.critics.st_lpips import BlurPool
from perceptloss.errors import WeightsError


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (9, 12), (31, 6)])
def test_blur_pooling_is_a_strided_convolution_of_mirrored_images(size):
    x = torch.rand(2, 4, *size, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    kernel = (torch.outer(row, row) / 16).expand(4, 1, 3, 3)
    wanted = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=4)
    pool = BlurPool(4).double()
    torch.testing.assert_close(pool(x), wanted)
    grad = torch.rand_like(wanted)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, grad)[0] for out in (pool(x), wanted)))
    assert wanted.shape[2:] == tuple((n + 1) // 2 + 1 for n in size)
    assert torch.autograd.gradgradcheck(pool, x[:1, :, :4, :4].detach().requires_grad_())


def test_blur_pooling_keeps_no_features_for_the_backward():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        BlurPool(8)(torch.rand(1, 8, 32, 32, requires_grad=True))
    assert sum(kept) == 8 * 9, "the filter alone"


def test_the_filters_in_a_file_must_be_the_ones_that_are_used():
    state = create_critic("st-lpips-alex", weights=None).state_dict()
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    state["net.slice2.4.filt"] = torch.outer(row, row).expand(64, 1, 3, 3).clone()
    create_critic("st-lpips-alex", weights=state)
    state["net.slice2.4.filt"][5, 0, 1, 1] += 0.01
    with pytest.raises(WeightsError, match=r"net.slice2.4.filt: expected the binomial blur, got other values"):
        create_critic("st-lpips-alex", weights=state)
