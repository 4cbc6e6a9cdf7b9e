"""Restorers of stereo pairs: what passes between the views, loading, and what training and evaluation share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.restorers import IPASSR, NAFSSR, Compact, StereoCompact, load_sr
from perceptloss.networks.restorers.ipassr import ipassr_losses
from perceptloss.networks.restorers.nafssr import box_means


def small(kind: type, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    arguments = {NAFSSR: (4, 8, 2), StereoCompact: (8, 4, 4, 2), IPASSR: (4,)}[kind]
    return kind(*arguments).eval()


def opened(network: torch.nn.Module) -> torch.nn.Module:
    """With branches that count."""
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.constant_(parameter, 0.5)
    return network


def pair(seed: int = 1, n: int = 2) -> torch.Tensor:
    return torch.rand(n, 6, 10, 14, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [NAFSSR, StereoCompact, IPASSR])
def test_a_saved_network_is_recognised_and_enlarges_pairs(kind, tmp_path):
    network = opened(small(kind))
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    loaded = load_sr(tmp_path / "net.pth")
    assert type(loaded) is kind and loaded.channels == 6
    x = pair()
    with torch.no_grad():
        out = loaded(x)
        assert out.shape == (2, 6, 40, 56)
        torch.testing.assert_close(out, network(x))
        torch.testing.assert_close(loaded(x[1:]), out[1:])
    with pytest.raises(InputError, match=r"needs \(N, 6, H, W\).*six channels"):
        loaded(torch.rand(1, 3, 10, 14))


@pytest.mark.parametrize("kind", [NAFSSR, StereoCompact])
def test_before_the_attention_learns_each_view_is_on_its_own(kind):
    network, x = small(kind), pair()
    other = torch.cat([x[:, :3], pair(2)[:, 3:]], 1)
    with torch.no_grad():
        assert torch.equal(network(x)[:, :3], network(other)[:, :3])
        opened(network)
        assert not torch.allclose(network(x)[:, :3], network(other)[:, :3])


def test_stereo_compact_adds_to_the_bicubic_enlargement_what_its_compact_adds_to_the_nearest():
    torch.manual_seed(3)
    alone, network = Compact(8, 4, 4).eval(), small(StereoCompact)
    assert not network.load_state_dict(alone.state_dict(), strict=False).unexpected_keys
    x = pair()
    nearest, bicubic = (F.interpolate(x, scale_factor=4, mode=mode) for mode in ("nearest", "bicubic"))
    with torch.no_grad():
        added = torch.cat([alone(x[:, :3]), alone(x[:, 3:])], 1) - nearest
        torch.testing.assert_close(network(x) - bicubic, added, atol=1e-5, rtol=0)
    for parameter in network.body[-1].parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(network(x), bicubic), "without steps where there is nothing to add"


def test_stochastic_depth_leaves_blocks_out_in_training_alone():
    torch.manual_seed(0)
    network = opened(NAFSSR(2, 8, 3, drop_path_rate=0.5))
    x = pair()
    assert len({network.train()(x).sum().item() for _ in range(12)}) > 1
    network.eval()
    assert torch.equal(network(x), network(x))


def test_local_averages_are_those_of_the_window_and_of_evaluation():
    x = torch.rand(1, 2, 9, 12, dtype=torch.float64)
    exact = box_means(x, (3, 5))
    torch.testing.assert_close(exact[0, :, 4, 6], x[0, :, 3:6, 4:9].mean((1, 2)))
    assert exact.shape == x.shape and torch.equal(exact[..., 0, :], exact[..., 1, :])
    torch.testing.assert_close(box_means(x, (9, 12)), x.mean((2, 3), keepdim=True))
    network = opened(small(NAFSSR))
    before = network(pair())
    network.average_over((5, 7))
    assert not torch.allclose(network(pair()), before)
    network.train()
    torch.testing.assert_close(network(pair()), before)


def test_bad_sizes_are_told_all_at_once():
    with pytest.raises(ConfigError, match=r"width must be(?s:.*)drop_path_rate must be(?s:.*)") as caught:
        NAFSSR(4, 0, 2, drop_path_rate=1.5, window=(3,))
    assert len(caught.value.problems) == 3


def test_the_losses_of_the_attention_and_of_the_image_reach_each_its_own():
    """photo, smooth and cycle teach the attention and not the image; cons the image and not the attention."""
    network, lq = small(IPASSR), pair()
    gt = torch.rand(2, 6, 40, 56, generator=torch.Generator().manual_seed(5))
    restored, parallax = network.with_parallax(lq)
    losses = ipassr_losses(restored, parallax, lq, gt)
    last, query = network.upscale[2].weight, network.pam.bq.weight
    for name, reaches_image in (("photo", False), ("smooth", False), ("cycle", False), ("cons", True)):
        of_image, of_query = torch.autograd.grad(losses[name], (last, query), retain_graph=True, allow_unused=True)
        assert (of_image is not None and float(of_image.norm()) > 0) == reaches_image, name
        assert of_query is not None and float(of_query.norm()) > 0, name
    assert losses["total"].item() == pytest.approx(
        (losses["SR"] + 0.1 * sum(losses[n] for n in ("photo", "smooth", "cycle", "cons"))).item(), rel=1e-5
    )
    fixed = restored.detach().requires_grad_()
    cons = ipassr_losses(fixed, parallax, lq, gt)["cons"]
    of_share = torch.autograd.grad(cons, (fixed, parallax.to_left), allow_unused=True)
    assert of_share[0] is not None and of_share[1] is None


def test_the_attention_adds_up_in_half_precision():
    network = opened(small(NAFSSR)).bfloat16()
    out = network(pair().bfloat16())
    assert out.dtype == torch.bfloat16 and out.isfinite().all()
