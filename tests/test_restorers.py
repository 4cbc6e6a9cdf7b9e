"""Super-resolution networks: layouts of the published files, shapes, strict loading, errors. Random weights only."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec

import pytest
import torch

from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.restorers import CARNM, RDN, RFDN, RRDB, AffineUNet, Compact, NU2Net, SGUIENet, load_sr


def small_rfdn(scale=4):
    torch.manual_seed(0)
    return RFDN(features=8, scale=scale).eval()


def small_carn():
    torch.manual_seed(0)
    return CARNM(features=8, groups=2).eval()


def small_compact():
    torch.manual_seed(0)
    return Compact(num_feat=8, num_conv=3, upscale=4).eval()


def small_rrdb():
    torch.manual_seed(0)
    return RRDB(features=8, blocks=2, growth=4).eval()


def small_rdn(scale=4):
    torch.manual_seed(0)
    return RDN(features=8, blocks=3, convs=2, growth=4, scale=scale).eval()


def test_the_layouts_are_those_of_the_published_files():
    rfdn, carn = RFDN().state_dict(), CARNM().state_dict()
    assert len(rfdn) == 128 and sum(t.numel() for t in rfdn.values()) == 433_448
    assert len(carn) == 58 and sum(t.numel() for t in carn.values()) == 414_811
    rrdb, rdn = RRDB().state_dict(), RDN().state_dict()
    assert sum(t.numel() for t in rrdb.values()) == 16_697_987
    assert sum(t.numel() for t in rdn.values()) == 233_451
    assert rfdn["B3.esa.conv3_.weight"].shape == (12, 12, 3, 3)
    assert rfdn["B4.c5.weight"].shape == (50, 100, 1, 1)
    assert rfdn["upsampler.0.weight"].shape == (48, 50, 3, 3)
    assert carn["b2.c3.body.0.weight"].shape == (64, 256, 1, 1)
    assert carn["upsample.up3.body.0.weight"].shape == (576, 16, 3, 3)
    assert carn["upsample.up4.body.3.weight"].shape == (256, 16, 3, 3)


@pytest.mark.parametrize(
    ("network", "scale"),
    [
        (small_rfdn(), 4),
        (small_compact(), 4),
        (small_rrdb(), 4),
        (small_rdn(3), 3),
        *((small_carn(), s) for s in (2, 3, 4)),
    ],
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


@pytest.mark.parametrize("build", [small_rfdn, small_carn, small_compact, small_rrdb, small_rdn])
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


@pytest.mark.parametrize("build", [small_rfdn, small_carn, small_compact, small_rrdb, small_rdn])
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


@pytest.mark.skipif(find_spec("basicsr") is None, reason="needs BasicSR")
def test_rrdb_is_basicsrs():
    from perceptloss.integrations.basicsr import shim

    shim.install()
    from basicsr.archs.rrdbnet_arch import RRDBNet

    ours, theirs = small_rrdb(), RRDBNet(3, 3, num_feat=8, num_block=2, num_grow_ch=4).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.rand(2, 3, 11, 13)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def ncnn_file(state, path, halves):
    """Layers in their order, without names: a convolution's mark, weights and biases, or slopes."""
    data = b""
    for name, tensor in state.items():
        values = tensor.detach().numpy()
        if tensor.dim() == 4:
            data += (0x01306B47 if halves else 0).to_bytes(4, "little")
            data += values.astype("<f2" if halves else "<f4").tobytes()
        else:
            data += values.astype("<f4").tobytes()
        assert name.rpartition(".")[2] in ("weight", "bias")
    path.write_bytes(data)


@pytest.mark.parametrize("halves", [True, False])
def test_files_of_ncnn_are_read(halves, tmp_path):
    torch.manual_seed(0)
    network = Compact(64, 16, 4).eval()
    ncnn_file(network.state_dict(), tmp_path / "net.bin", halves)
    loaded = load_sr(tmp_path / "net.bin").state_dict()
    assert list(loaded) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        is_half = halves and tensor.dim() == 4
        assert torch.equal(loaded[name], tensor.half().float() if is_half else tensor)
    data = (tmp_path / "net.bin").read_bytes()
    (tmp_path / "net.bin").write_bytes(data[1:])
    with pytest.raises(WeightsError, match=rf"of {len(data) - 1} bytes, which is no known network"):
        load_sr(tmp_path / "net.bin")
    (tmp_path / "net.bin").write_bytes(b"\1" + data[1:])
    with pytest.raises(WeightsError, match=r"expected the weights of body\.0 at byte 0"):
        load_sr(tmp_path / "net.bin")


def test_models_of_tensorflow_js_are_read(tmp_path):
    network, entries, data = small_rdn(2), [], b""
    for name, tensor in sorted(network.state_dict().items()):
        stored = tensor.permute(2, 3, 1, 0) if tensor.dim() == 4 else tensor
        layer, _, part = name.rpartition(".")
        kind = "kernel" if part == "weight" else part
        entries.append({"name": f"{layer}/{kind}", "shape": list(stored.shape), "dtype": "float32"})
        data += stored.contiguous().numpy().astype("<f4").tobytes()
    (tmp_path / "one.bin").write_bytes(data[:1000])
    (tmp_path / "two.bin").write_bytes(data[1000:])
    manifest = [{"paths": ["one.bin", "two.bin"], "weights": entries}]
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": manifest}))
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(load_sr(tmp_path / "model.json")(x), network(x))
    (tmp_path / "two.bin").write_bytes(data[1000:-4])
    with pytest.raises(WeightsError, match=r"model\.json cannot be read as a model of TensorFlow\.js"):
        load_sr(tmp_path / "model.json")


@pytest.mark.parametrize("size", [(1, 7), (33, 50), (64, 64)])
def test_affine_unet_begins_as_the_identity_and_takes_any_size(size):
    network, x = AffineUNet(width=4, grid_width=8), torch.rand(2, 3, *size)
    assert torch.equal(network(x), x)
    for parameter in (network.maps.weight, network.residual.weight):
        torch.nn.init.normal_(parameter, std=0.05)
    out = network(x)
    assert out.shape == x.shape
    assert not torch.allclose(out, x, atol=1e-3)
    assert torch.allclose(out[:1], network(x[:1]), atol=1e-6)  # a picture alone is what it is among others
    with pytest.raises(InputError, match="RGB"):
        network(x[:, :1])


def test_the_stretch_of_nu2net_can_leave_neighbours_alone():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 24)
    x[1] = 0.5 + 0.01 * x[1]
    networks = {tail: NU2Net(width=8, tail=tail) for tail in ("norm", "each", "none")}
    torch.nn.init.normal_(networks["norm"].decoder.output[0].weight, std=0.02)
    for network in networks.values():
        network.load_state_dict(networks["norm"].state_dict())
    outside = networks["none"](x)
    assert outside[0].max() > 1 and outside[1].min() >= 0 and outside[1].max() <= 1
    apart = {tail: torch.cat([network(x[:1]), network(x[1:])]) for tail, network in networks.items()}
    assert torch.allclose(networks["each"](x), apart["each"], atol=1e-6)
    assert torch.equal(apart["norm"], apart["each"])
    assert (networks["norm"](x) - apart["norm"]).abs().max() > 0.1  # the second is stretched because of the first
    for wrong in (x[..., :20], x[..., :8, :8]):
        with pytest.raises(InputError, match="multiples of 8, larger than 8x8"):
            networks["each"](wrong)
    assert networks["each"](x[..., :8, :16]).shape == (2, 3, 8, 16)


def test_regions_guide_sguie_net_only_where_they_are():
    torch.manual_seed(0)
    network, x = SGUIENet(width=8, groups=1, blocks=1).eval(), torch.rand(2, 3, 64, 96)
    masks = torch.zeros(2, 8, 64, 96)
    masks[0, 2, 4:50, 6:60] = 1
    masks[0, 5, 10:41, 10:90] = 1  # 31 rows: too low
    made = network.enhance(x, masks)
    assert [(r.number, r.left, r.top, r.width, r.height) for r in made.regions[0]] == [(2, 6, 4, 54, 46)]
    assert made.regions[1] == [] and made.region_images[0][0].shape == (1, 3, 46, 54)
    plain = network(x)
    assert torch.allclose(made.image[1], plain[1], atol=1e-6)
    assert not torch.allclose(made.image[0], plain[0], atol=1e-6)
    assert torch.equal(network(x, torch.zeros_like(masks)), plain)
    with pytest.raises(InputError, match="plane for each class"):
        network(x, masks[..., :-1])
