"""Super-resolution networks: layouts of the published files, shapes, strict loading, errors. Random weights only."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
import torch

from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.restorers import CARNM, RFDN, Compact, load_sr


def small_rfdn(scale=4):
    torch.manual_seed(0)
    return RFDN(features=8, scale=scale).eval()


def small_carn():
    torch.manual_seed(0)
    return CARNM(features=8, groups=2).eval()


def small_compact():
    torch.manual_seed(0)
    return Compact(num_feat=8, num_conv=3, upscale=4).eval()


def test_the_layouts_are_those_of_the_published_files():
    rfdn, carn = RFDN().state_dict(), CARNM().state_dict()
    assert len(rfdn) == 128 and sum(t.numel() for t in rfdn.values()) == 433_448
    assert len(carn) == 58 and sum(t.numel() for t in carn.values()) == 414_811
    assert rfdn["B3.esa.conv3_.weight"].shape == (12, 12, 3, 3)
    assert rfdn["B4.c5.weight"].shape == (50, 100, 1, 1)
    assert rfdn["upsampler.0.weight"].shape == (48, 50, 3, 3)
    assert carn["b2.c3.body.0.weight"].shape == (64, 256, 1, 1)
    assert carn["upsample.up3.body.0.weight"].shape == (576, 16, 3, 3)
    assert carn["upsample.up4.body.3.weight"].shape == (256, 16, 3, 3)


@pytest.mark.parametrize(
    ("network", "scale"), [(small_rfdn(), 4), (small_compact(), 4), *((small_carn(), s) for s in (2, 3, 4))]
)
def test_every_scale_enlarges(network, scale):
    x = torch.rand(2, 3, 17, 23, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = network(x, scale)
        assert out.shape == (2, 3, 17 * scale, 23 * scale) and out.isfinite().all()
        torch.testing.assert_close(network(x[1:], scale), out[1:])


def test_the_mean_is_taken_off_and_put_back():
    network = small_carn()
    assert network.sub_mean(network.add_mean(torch.full((1, 3, 2, 2), 0.3))).flatten().tolist() == pytest.approx(
        [0.3] * 12
    )
    mean = network.add_mean(torch.zeros(1, 3, 1, 1)).flatten()
    assert mean.tolist() == pytest.approx([0.4488, 0.4371, 0.4040])
    for name in ("weight", "bias"):
        torch.nn.init.zeros_(getattr(network.exit, name))
    with torch.no_grad():
        out = network(torch.rand(1, 3, 5, 5), 2)
    torch.testing.assert_close(out, mean.detach()[None, :, None, None].expand_as(out))


def test_rfdn_sees_values_up_to_255():
    network, seen = small_rfdn(), []
    network.fea_conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].max().item()))
    network(torch.ones(1, 3, 16, 16))
    assert seen == [255]


@pytest.mark.parametrize("build", [small_rfdn, small_carn, small_compact])
def test_a_saved_network_is_recognised_and_frozen(build, tmp_path):
    network = build()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    loaded = load_sr(tmp_path / "net.pth")
    assert type(loaded) is type(network) and loaded.scales == network.scales
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(x, 4), network(x, 4))


def test_the_scale_of_an_rfdn_follows_from_its_file(tmp_path):
    torch.save(small_rfdn(3).state_dict(), tmp_path / "net.pth")
    assert load_sr(tmp_path / "net.pth").scales == (3,)


@pytest.mark.parametrize("build", [small_rfdn, small_carn, small_compact])
def test_files_that_do_not_fit_are_refused(build, tmp_path):
    state, path = build().state_dict(), tmp_path / "net.pth"
    last = list(state)[-1]
    for wrong in (
        {k: v for k, v in state.items() if k != last},
        {**state, "extra.weight": torch.zeros(1)},
        {**state, last: torch.zeros(99)},
        {type(build()).KEY: state[type(build()).KEY]},
    ):
        torch.save(wrong, path)
        with pytest.raises(WeightsError, match=rf"{re.escape(str(path))} looks like {type(build()).__name__}"):
            load_sr(path)
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"no known super-resolution network.*RFDN.*CARNM.*got conv\.weight"):
        load_sr(path)


def test_bad_inputs_are_told():
    with pytest.raises(InputError, match="CARNM enlarges by 2 or 3 or 4, got scale=5"):
        small_carn()(torch.rand(1, 3, 16, 16), 5)
    with pytest.raises(InputError, match="got scale=None"):
        small_carn()(torch.rand(1, 3, 16, 16))
    with pytest.raises(InputError, match=r"RFDN needs .* from 15, got \(1, 3, 14, 20\)"):
        small_rfdn()(torch.rand(1, 3, 14, 20))
    assert small_rfdn()(torch.rand(1, 3, 15, 15)).shape == (1, 3, 60, 60)


@pytest.mark.skipif(find_spec("basicsr") is None, reason="needs BasicSR")
@pytest.mark.parametrize("arguments", [(8, 3, 4), (16, 2, 2)])
def test_compact_is_basicsrs_to_the_bit(arguments):
    from perceptloss.integrations.basicsr import shim

    shim.install()
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    torch.manual_seed(0)
    ours = Compact(*arguments)
    torch.manual_seed(0)
    theirs = SRVGGNetCompact(num_feat=arguments[0], num_conv=arguments[1], upscale=arguments[2])
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    x = torch.rand(2, 3, 11, 13)
    out, same = ours(x), theirs(x)
    assert torch.equal(out, same)
    out.square().sum().backward()
    same.square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
