"""Strict conversion of the authors' layouts, and what `create_critic` accepts as weights."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from machine import TABLE, make_machine
from safetensors.torch import save_file

from perceptloss import create_critic
from perceptloss.errors import MissingWeights, WeightsError
from perceptloss.weights.convert import convert, fingerprint, load_states
from perceptloss.weights.manifest import manifest
from perceptloss.weights.rules import Rule

pytestmark = pytest.mark.smoke

NAME = "lpips-squeeze"
FILES = ("squeezenet1_1", "lpips-squeeze")


@pytest.fixture(scope="module")
def model():
    return create_critic(NAME, weights=None)


def authors(model) -> tuple[dict, dict]:
    """Trunk as in torchvision and heads as in the authors' file, with other values than a fresh critic has."""
    own = expected(model)
    trunk = {key.removeprefix("trunk."): tensor for key, tensor in own.items() if key.startswith("trunk.")}
    trunk |= {"classifier.1.weight": torch.zeros(5, 512, 1, 1), "classifier.1.bias": torch.zeros(5)}
    heads = {f"lin{k}.model.1.weight": own[f"heads.{k}"].view(1, -1, 1, 1) for k in range(7)}
    return trunk, heads


def expected(model) -> dict:
    return {key: 0.9 * tensor + 0.01 for key, tensor in model.state_dict().items()}


def save(state: dict, path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)


def equal(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in other)


# lpips


def test_two_files_make_one_critic(model):
    critic = create_critic(NAME, weights=authors(model))
    assert equal(critic.state_dict(), expected(model))
    assert critic.weights_id == fingerprint(expected(model))
    assert critic.is_frozen
    assert not any(p.requires_grad for p in critic.parameters())


def test_the_authors_whole_network_fits(model):
    trunk, heads = authors(model)
    whole = {
        f"net.slice1.{key.removeprefix('features.')}": t for key, t in trunk.items() if key.startswith("features.")
    }
    whole |= {"scaling_layer.shift": torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)}
    whole |= {"scaling_layer.scale": torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)}
    whole |= {f"lins.{key.removeprefix('lin')}": tensor for key, tensor in heads.items()} | heads  # it holds them twice
    assert equal(convert(model, whole), expected(model))


def test_half_precision_files_are_widened(model):
    trunk, heads = authors(model)
    critic = create_critic(NAME, weights=[{k: t.half() for k, t in trunk.items()}, heads])
    assert critic.dtype == torch.float32
    assert torch.equal(critic.state_dict()["trunk.features.0.bias"], trunk["features.0.bias"].half().float())


CASES = {
    "unknown": (lambda s: s.update({"lin9.extra": torch.ones(1, 3)}), r"lin9.extra: unknown key of shape \(1, 3\)"),
    "no such layer": (lambda s: s.update({"features.99.weight": torch.ones(1)}), "no layer of this critic is called"),
    "shape": (
        lambda s: s.update({"features.0.bias": torch.ones(63)}),
        r"features.0.bias: shape \(63,\), expected \(64,\)",
    ),
    "transposed": (
        lambda s: s.update({"features.0.weight": s["features.0.weight"].mT[..., :2]}),
        "features.0.weight: shape",
    ),
    "nan": (
        lambda s: s["lin0.model.1.weight"].view(-1)[3].fill_(torch.nan),
        "lin0.model.1.weight: holds NaN or infinity",
    ),
    "overflow": (
        lambda s: s.update({"features.0.bias": torch.full((64,), 1e300, dtype=torch.float64)}),
        "features.0.bias: holds NaN or infinity",
    ),
    "integers": (
        lambda s: s.update({"features.0.bias": torch.ones(64, dtype=torch.uint8)}),
        "features.0.bias: type torch.uint8, expected torch.float32",
    ),
    "contradiction": (
        lambda s: s.update({"lins.0.model.1.weight": s["lin0.model.1.weight"] + 1}),
        "lins.0.model.1.weight: contradicts another tensor for 'heads.0'",
    ),
    "other constant": (lambda s: s.update({"scaling_layer.shift": torch.zeros(3)}), "expected the ImageNet mean"),
    "constant of another shape": (
        lambda s: s.update({"scaling_layer.shift": torch.zeros(5)}),
        "expected the ImageNet mean",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_an_error(model, case):
    spoil, message = CASES[case]
    trunk, heads = authors(model)
    state = {key: tensor.clone() for key, tensor in (trunk | heads).items()}
    convert(model, state)
    spoil(state)
    with pytest.raises(WeightsError, match=f"(?s)mine.pth does not fit critic 'lpips-squeeze' .1 problems.*{message}"):
        convert(model, state, "mine.pth")


def test_all_problems_come_at_once(model):
    with pytest.raises(WeightsError, match="11 problems") as caught:
        convert(model, {f"x{n}": torch.ones(1) for n in range(11)})
    assert "x7" in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_a_tensor_in_no_file_is_an_error(model):
    trunk, heads = authors(model)
    del heads["lin3.model.1.weight"]
    critic = create_critic(NAME, weights=None)
    before = {key: tensor.clone() for key, tensor in critic.state_dict().items()}
    with pytest.raises(WeightsError, match=r"(?s)a.pth, b.pth is incomplete.*heads.3: in no file"):
        load_states(critic, [trunk, heads], ["a.pth", "b.pth"])
    assert equal(critic.state_dict(), before), "a refused file must not be half loaded"
    assert critic.weights_id == "random"


def test_files_may_repeat_but_not_contradict_each_other(model):
    trunk, heads = authors(model)
    assert equal(create_critic(NAME, weights=[trunk, heads, heads]).state_dict(), expected(model))
    other = {key: tensor + 1 for key, tensor in heads.items()}
    with pytest.raises(WeightsError, match=r"(?s)contradict.*heads.0: not the same in state dict 2 of 3 and"):
        create_critic(NAME, weights=[trunk, heads, other])


def test_a_rule_that_drops_needs_a_reason():
    with pytest.raises(ValueError, match="without a reason"):
        Rule("x", None)


# dists


@pytest.fixture(scope="module")
def dists():
    return create_critic("dists", weights=None)


def whole_dists(dists) -> dict:
    own = dists.state_dict()
    state = {f"stage1.{k.removeprefix('trunk.features.')}": t for k, t in own.items() if k.startswith("trunk.")}
    state |= {key: own[key].view(1, -1, 1, 1) for key in ("alpha", "beta")}
    row = torch.tensor([1.0, 2.0, 1.0])
    state["stage2.4.filter"] = (row[:, None] * row / 16).expand(64, 1, 3, 3)
    state |= {"mean": torch.tensor([0.485, 0.456, 0.406]), "std": torch.tensor([0.229, 0.224, 0.225])}
    return state


def test_dists_authors_network_fits(dists):
    assert equal(convert(dists, whole_dists(dists)), dists.state_dict())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stage2.4.filter", torch.full((64, 1, 3, 3), 1 / 9), "expected the binomial pooling filter"),
        ("stage2.4.filter", torch.ones(64, 1, 5, 5), "expected the binomial pooling filter"),
        ("mean", torch.zeros(3), "expected the ImageNet mean"),
        ("alpha", torch.ones(1, 1474, 1, 1), r"alpha: shape \(1, 1474, 1, 1\), expected \(1475,\)"),
        ("beta", torch.full((1, 1475, 1, 1), torch.inf), "beta: holds NaN or infinity"),
        ("gamma", torch.ones(1), "gamma: unknown key"),
    ],
)
def test_dists_refuses_what_does_not_fit(dists, key, value, message):
    with pytest.raises(WeightsError, match=message):
        convert(dists, whole_dists(dists) | {key: value})


# what create_critic accepts


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without internet whose only weights are in `home`."""
    real = manifest()
    tables = {name: {**TABLE, "file": f"{name}.pth", "holds": list(real[name].holds)} for name in FILES}
    return make_machine(tmp_path, monkeypatch, **tables) / "home"


def test_paths_mappings_and_wrappers_may_be_mixed(home, model, tmp_path):
    trunk, heads = authors(model)
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in trunk.items()}}, tmp_path / "trunk.pth")
    save(heads, tmp_path / "heads.safetensors")
    for sources in (
        [tmp_path / "trunk.pth", str(tmp_path / "heads.safetensors")],
        (tmp_path / "trunk.pth", {"model": heads}),
    ):
        assert equal(create_critic(NAME, weights=sources).state_dict(), expected(model))
    torch.save(expected(model), tmp_path / "own.pth")
    assert equal(create_critic(NAME, weights=tmp_path / "own.pth").state_dict(), expected(model))
    assert equal(create_critic(NAME, weights=str(tmp_path / "own.pth")).state_dict(), expected(model))


def test_default_files_are_found(home, model):
    trunk, heads = authors(model)
    save(trunk, home / "squeezenet1_1.safetensors")
    save(heads, home / "lpips-squeeze.safetensors")
    assert equal(create_critic(NAME).state_dict(), expected(model))
    assert equal(create_critic(NAME, weights=["squeezenet1_1", "lpips-squeeze"]).state_dict(), expected(model))


def test_missing_default_files_are_fetched_by_one_command(home):
    with pytest.raises(
        MissingWeights, match=r"(?s)'squeezenet1_1' are not on.*weights fetch lpips-squeeze` fetches all 2"
    ):
        create_critic(NAME)


@pytest.mark.parametrize(("given", "filled"), [("trunk", "lpips-squeeze"), ("heads", "squeezenet1_1")])
def test_what_is_open_is_filled_and_nothing_else_is_asked_for(home, model, caplog, given, filled):
    trunk, heads = authors(model)
    mine, file = (trunk, heads) if given == "trunk" else (heads, trunk)
    save(file, home / f"{filled}.safetensors")
    with caplog.at_level(logging.INFO, "perceptloss.registry"):
        critic = create_critic(NAME, weights=mine)  # the card's other file is nowhere
    assert equal(critic.state_dict(), expected(model))
    assert f"{filled}.safetensors" in caplog.text


def test_filling_never_replaces_what_was_given(home, model):
    trunk, heads = authors(model)
    del heads["lin3.model.1.weight"]
    others = {key: torch.full_like(tensor, 7.0) for key, tensor in authors(model)[1].items()}
    save(others, home / "lpips-squeeze.safetensors")
    state = create_critic(NAME, weights=[trunk, heads]).state_dict()
    assert equal(state, expected(model) | {"heads.3": torch.full((384,), 7.0)})


def test_what_cannot_be_filled_is_said(home, model):
    _, heads = authors(model)
    with pytest.raises(
        MissingWeights, match=r"(?s)state dict 1 of 1: leave 50 tensors.*trunk.features.*fetch squeezenet1_1"
    ):
        create_critic(NAME, weights=heads)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("none.pth", "no such checkpoint file: none.pth"),
        ("squeezenet", "neither a file in .* did you mean 'squeezenet1_1'"),
        ([], "are an empty list"),
        ({}, "state dict 1 of 1 holds no tensors"),
        ({"a": [1]}, "'a': an object of type list"),
        ([3], "must be paths or state dicts, got int"),
        (3, "must be paths or state dicts, got int"),
    ],
)
def test_weights_that_are_none(home, weights, message):
    with pytest.raises(WeightsError, match=message):
        create_critic(NAME, weights=weights)


def test_a_damaged_file_is_named_together_with_the_critic(home, model, tmp_path):
    torch.save({"foreign": torch.ones(1)}, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"mine.pth does not fit critic 'lpips-squeeze'"):
        create_critic(NAME, weights=tmp_path / "mine.pth")
