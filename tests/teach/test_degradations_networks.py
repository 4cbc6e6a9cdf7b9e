"""Networks as degradations: the ladder, the scales, small and odd sizes, processes, errors."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from images import photographs

from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.restorers import CARNM, RFDN
from perceptloss.teach.degradations import core, degrade, list_degradations, register_degradation
from perceptloss.teach.degradations.networks import network_degradation
from perceptloss.teach.degradations.resize import resize


def enlarge(x):
    """A network of a kind: bicubic, twice as large."""
    return resize(x, (2 * x.shape[2], 2 * x.shape[3]), "bicubic")


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
    monkeypatch.setattr(core, "_TABLE", dict(core._TABLE))


def registered(network, scale=None, **options):
    return register_degradation(network_degradation("net", network, scale, **options)).name


@pytest.mark.parametrize("damage", ["any", "blur", "noise", "jpeg"])
def test_damage_rises_and_level_1_is_the_clean_enlargement(damage):
    x, name = photographs(64), registered(enlarge, 2, damage=damage)
    assert list_degradations("network") == ("net",)
    ladder = torch.stack([degrade(x, name, level, seed=4) for level in (0, 0.5, 1, 2, 3, 4, 5)])
    assert ((ladder - x).square().mean((2, 3, 4)).diff(dim=0) > 0).all()
    clean = enlarge(resize(x, (32, 32), "bicubic").clamp(0, 1)).clamp(0, 1)
    torch.testing.assert_close(ladder[2], clean)
    torch.testing.assert_close(ladder[1], (x + clean) / 2)
    assert torch.equal(degrade(x, name, 3, seed=4), ladder[4])


def test_the_kind_of_damage_and_the_scale_are_drawn_by_the_seed():
    x = photographs(32)[:1]
    torch.manual_seed(0)
    name = registered(CARNM(features=4, groups=1).eval())
    for level, fewest, most in ((1, 3, 3), (2, 7, 16)):  # scales; scales and kinds, noise unlike any other
        out = torch.cat([degrade(x, name, level, seed=seed) for seed in range(16)]).flatten(1)
        unlike = (torch.cdist(out, out) > 1e-2).int().unique(dim=0)
        assert fewest <= len(unlike) <= most


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 90)])
def test_small_and_odd_images_go_through_a_real_network(size):
    torch.manual_seed(0)
    name = registered(RFDN(features=4).eval())
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    out = degrade(x, name, 4, seed=1)
    assert out.shape == x.shape and not torch.equal(out, x)


def test_padding_does_not_shift_the_picture():
    line = torch.linspace(0.2, 0.8, 45)
    x = line.expand(1, 3, 45, 45).contiguous()
    out = degrade(x, registered(enlarge, 2), 1, seed=0)
    torch.testing.assert_close(out[..., 6:-6], x[..., 6:-6], rtol=0, atol=2e-3)


def test_it_can_be_sent_to_another_process():
    torch.manual_seed(0)
    kind = network_degradation("net", CARNM(features=4, groups=1).eval(), 2)
    copy = pickle.loads(pickle.dumps(kind))
    x = photographs(32)
    with torch.no_grad():
        results = [k.function(x, 3.0, torch.Generator().manual_seed(1)) for k in (kind, copy)]
    assert torch.equal(*results)


def test_mistakes_are_told_all_at_once():
    with pytest.raises(ConfigError, match="2 problems") as caught:
        network_degradation("net", CARNM(features=4, groups=1), 5, damage="fog")
    assert "scale: expected one of (2, 3, 4), got 5" in str(caught.value)
    assert "damage: expected any, blur, noise, jpeg, got 'fog'" in str(caught.value)
    with pytest.raises(ConfigError, match="does not say which it can do"):
        network_degradation("net", enlarge)
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        network_degradation("net", enlarge, 1)
    with pytest.raises(InputError, match="the network gave"):
        degrade(photographs(48), registered(F.relu, 2), 1, seed=0)
