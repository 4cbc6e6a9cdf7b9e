"""Critics after papers on the trunks that ship: the same networks, narrower, that learn on a CPU."""

from __future__ import annotations

import pytest
import torch

from perceptloss import create_critic
from perceptloss.critics.gsn import GSN
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.trunks import Lite, Trunk
from perceptloss.registry import find_entry
from perceptloss.teach.run.critic import build_critic
from perceptloss.teach.run.options import CriticOptions
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.search import find

SIZES = {
    "gsn": {"width": 4, "fused": 8, "hidden": 4},
    "fr-nr": {"width": 16, "hidden": 16},
    "unified-fr": {"net": {"width": 8, "heads": 2, "layers": 1, "inner": 8, "hidden": 4}},
    "unified-nr": {"net": {"width": 8, "heads": 2, "layers": 1, "inner": 8, "hidden": 4}},
    "pmos": {"width": 4, "context": 4, "hidden": 4},
    "pmos-map": {"width": 4, "context": 4, "hidden": 4},
    "reqa": {"side": 64, "local": 4, "context": 20, "width": 8, "heads": 2, "inner": 8},
    "biqa4k": {"side": 32, "width": 4, "hidden": 4},
    "ddbnet": {"width": 4, "hidden": 8, "decomposition": 4},
    "stereo-srqa": {"matched": 4, "hidden": 4},
}


def options_of(name):
    return {"trunk": "lite0-smooth", **SIZES[name]}


@pytest.mark.parametrize("name", SIZES)
def test_scores_and_gradients(name):
    critic = create_critic(name, weights=None, options=options_of(name))
    x = torch.rand(2, critic.card.channels, 64, 64, requires_grad=True)
    y = torch.rand_like(x) if critic.card.needs_reference else None
    score = critic(x, y)
    (critic.linear(x, y) if name == "reqa" else score).sum().backward()  # its score ends in a ReLU
    assert score.shape == (2,) and torch.isfinite(score).all()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
    torch.testing.assert_close(critic(x[1:], None if y is None else y[1:]), score[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SIZES)
def test_trunks_start_as_they_ship_where_a_critic_is_taught(name):
    critic = build_critic(CriticOptions(name=name, options=options_of(name)), 0)
    shipped = [module for module in critic.modules() if isinstance(module, Trunk) and module.ships]
    kinds = {"ddbnet": ["lite0-smooth"] * 2, "fr-nr": ["squeezenet1_1", "lite0-smooth"]}
    assert [trunk.ships for trunk in shipped] == kinds.get(name, ["lite0-smooth"])
    for trunk in shipped:
        file = read_state(find(trunk.ships))
        for key, tensor in trunk.state_dict().items():
            assert torch.equal(tensor, next(file[k] for k in (key, f"trunk.{key}") if k in file).float())


def test_a_trunk_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="trunk: one of resnet, lite0-smooth, got 'vgg'"):
        create_critic("gsn", weights=None, options={"trunk": "vgg"})


def test_patches_decide_the_smallest_image():
    critic = create_critic("biqa4k", weights=None, options=options_of("biqa4k"))
    assert critic.card.min_size == 32
    with pytest.raises(InputError, match="at least 32"):
        critic(torch.rand(1, 3, 31, 40))


def test_modes_of_one_network_share_the_trunk_that_ships():
    fr = create_critic("unified-fr", weights=None, options=options_of("unified-fr"))
    nr = fr.twin()
    assert isinstance(fr.trunk, Lite) and nr.trunk is fr.trunk and nr.taps == fr.taps
    x = torch.rand(1, 3, 64, 64)
    state = dict(fr.state_dict())
    other = create_critic("unified-nr", weights=state, options=options_of("unified-nr"))
    torch.testing.assert_close(nr(x), other(x))


def test_levels_take_the_central_differences_that_the_trunk_cannot():
    plan = {"trunk": "lite0-smooth", "width": 4, "fused": 8, "hidden": 4}
    blind, plain = (GSN(find_entry("gsn").card, theta=(theta,) * 4, **plan).double().eval() for theta in (1.0, 0.0))
    plain.load_state_dict(blind.state_dict())
    fx, fy = (
        {
            tap: torch.rand(1, conv.weight.shape[1] // 3, 16 >> k, 16 >> k, dtype=torch.float64)
            for k, (tap, conv) in enumerate(zip(blind.taps, blind.pair, strict=True))
        }
        for _ in range(2)
    )
    brighter = {tap: f + 1 for tap, f in fx.items()}
    for critic, is_blind in ((blind, True), (plain, False)):
        for a, b in zip(critic.pairs(fx, fy), critic.pairs(brighter, fy), strict=True):
            inside = (..., slice(1, -1), slice(1, -1))
            if a[inside].numel():
                assert (torch.allclose(a[inside], b[inside])) is is_blind
