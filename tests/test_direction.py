"""Which way a score goes can belong to the weights: on the call, in a term, and in a file's metadata."""

from __future__ import annotations

import pytest
import torch
from toys import flat, term, toy

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.cli.weights import save_converted
from perceptloss.critic import Entry
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.registry import _registered

NAME = "wresnet"  # a regression head: any direction may be trained into it


@pytest.fixture
def light(monkeypatch):
    """A critic of brightness, called `light`, higher better by its card."""
    made = toy("light", lambda x, y: x.mean((1, 2, 3)))
    monkeypatch.setitem(_registered, "light", Entry(made.card, lambda card: toy("light", made.function)))


def test_a_call_turns_the_critic(light):
    usual, turned = create_critic("light"), create_critic("light", better="lower")
    assert (usual.card.better, turned.card.better) == ("higher", "lower")
    assert get_card("light").better == "higher"
    assert "better" not in usual.signature
    assert "|better:lower|" in turned.signature
    turned.turn("higher")
    assert turned.signature == usual.signature


@pytest.mark.parametrize(("better", "loss"), [("higher", 0.2), ("lower", 0.0)])
def test_a_term_turns_the_loss(light, better, loss):
    loss_fn = CriticLoss([term("light", better=better)])
    assert loss_fn(flat(0.3), flat(0.5)).item() == pytest.approx(loss)
    assert loss_fn(flat(0.5), flat(0.3)).item() == pytest.approx(0.2 - loss)


def test_a_file_remembers_its_direction(tmp_path):
    state = create_critic(NAME, weights=None).state_dict()
    torch.save(state, tmp_path / "authors.pth")
    save_converted(NAME, [tmp_path / "authors.pth"], tmp_path / "dmos.safetensors", "lower")
    save_converted(NAME, [tmp_path / "authors.pth"], tmp_path / "mos.safetensors")
    assert create_critic(NAME, tmp_path / "dmos.safetensors").card.better == "lower"
    assert create_critic(NAME, tmp_path / "mos.safetensors").card.better == "higher"
    assert create_critic(NAME, tmp_path / "authors.pth").card.better == "higher"
    assert create_critic(NAME, tmp_path / "dmos.safetensors", better="higher").card.better == "higher", "a call wins"
    save_converted(NAME, [tmp_path / "authors.pth"], tmp_path / "other.safetensors", "higher")
    with pytest.raises(WeightsError, match="disagree"):
        create_critic(NAME, [tmp_path / "dmos.safetensors", tmp_path / "other.safetensors"])


def test_a_loss_follows_the_file(tmp_path):
    torch.save(create_critic(NAME, weights=None).state_dict(), tmp_path / "authors.pth")
    save_converted(NAME, [tmp_path / "authors.pth"], tmp_path / "dmos.safetensors", "lower")
    losses = {
        file: CriticLoss([term(NAME, shape="sigmoid", weights=str(tmp_path / file))])
        for file in ("authors.pth", "dmos.safetensors")
    }
    x, y = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    first, second = (loss_fn(x, y).item() for loss_fn in losses.values())
    assert first == pytest.approx(1 - second, abs=1e-6)


def test_wrong_directions_are_refused(light):
    with pytest.raises(ConfigError, match=r"'higher' or 'lower', got 'up'"):
        create_critic("light", better="up")
    with pytest.raises(ConfigError, match=r"'better' must be .* got 1"):
        CriticLoss([term("light", better=1)])
    with pytest.raises(ConfigError, match="'distance' needs a lower-better score"):
        create_critic("gmsd", better="higher")
    with pytest.raises(ConfigError, match=r"built already.*turn"):
        CriticLoss([term(create_critic("light"), better="lower")])
