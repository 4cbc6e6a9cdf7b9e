"""Critics of our own learn from readings: what is kept of a set, attacks on it, and what a run makes of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import critic
import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from critic_helpers import PLAN, make_set, tiny

from perceptloss import create_critic
from perceptloss.errors import ConfigError
from perceptloss.teach.run.checks import attack_problems
from perceptloss.teach.run.critic import Place, Reader, build_critic
from perceptloss.teach.run.kept import shapes_of
from perceptloss.teach.run.options import CriticOptions
from perceptloss.teach.run.remember import Remembered, remembered
from perceptloss.teach.run.saving import export
from perceptloss.teach.run.setup import open_material
from perceptloss.teach.run.sources import parse_entries
from perceptloss.teach.run.targets import lowered
from perceptloss.teach.sets.plan import Plan
from perceptloss.teach.sets.schedule import versions
from perceptloss.weights.checkpoints import read_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remember")
    make_set(folder)
    return folder


def options_of(name, **changed):
    return CriticOptions(name=name, remember=True, fixed=("trunk.*",), **changed)


def material_of(folder, options):
    judge = build_critic(options, 0)
    entry = {
        "kind": "teachers",
        "folder": str(folder / "set"),
        "contents": 2,
        "versions": 1,
        "turns": "none",
        "hold_out": 0.3,
    }
    material = open_material(judge, parse_entries([entry], "data"), [], 0, [], Accelerator(cpu=True))
    return judge, material


@pytest.mark.parametrize("name", ["mini-fr", "mini-nr"])
def test_what_is_remembered_is_judged_as_the_images(folder, name):
    options = options_of(name)
    judge, material = material_of(folder, options)
    inner = material.sources[0]
    source = remembered(material, judge, options, CPU).sources[0]
    batch = source.batch([0, 1], torch.Generator().manual_seed(0))
    images = inner.batch([0, 1], torch.Generator().manual_seed(0))
    assert batch.x.shape[:2] == (len(images.x), 2 if name == "mini-fr" else 1)
    judge.eval()
    place, reader = Place(CPU, False), Reader(judge)
    with torch.no_grad():
        found, wanted = (reader([place.pair(b)])[0].q for b in (batch, images))
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-3)  # readings are kept in halves
    torch.testing.assert_close(batch.columns(), images.columns(), equal_nan=True)
    kept = list((folder / "set").glob("readings-*.npy"))
    assert kept
    again = Remembered(inner, judge, options, CPU)
    assert (again.readings == source.readings).all()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("fr-nr", {"width": 4, "hidden": 4}),
        ("biqa4k", {"side": 16, "width": 4, "hidden": 4}),
        ("ddbnet", {"width": 4, "hidden": 8, "decomposition": 4}),
    ],
)
def test_taps_of_a_fixed_trunk_stand_for_the_images(folder, name, sizes):
    options = options_of(name, options={"trunk": "lite0-smooth", **sizes})
    judge, material = material_of(folder, options)
    inner = material.sources[0]
    kept = remembered(material, judge, options, CPU)
    batch = kept.sources[0].batch([0, 1], torch.Generator().manual_seed(0))
    images = inner.batch([0, 1], torch.Generator().manual_seed(0))
    assert batch.x.ndim == 2 and (batch.y is None) is not judge.card.needs_reference
    judge.eval()
    place, reader = Place(CPU, False), Reader(judge, shapes=shapes_of(kept.sources))
    with torch.no_grad():
        found, wanted = (reader([place.pair(b)])[0].q for b in (batch, images))
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=5e-3)  # taps are kept in halves
    assert wanted.std() > 0
    torch.testing.assert_close(batch.columns(), images.columns(), equal_nan=True)
    files = list((folder / "set").glob("taps-*.npy"))
    stamps = [file.stat().st_mtime_ns for file in files]
    remembered(material, judge, options, CPU)
    assert stamps and [file.stat().st_mtime_ns for file in files] == stamps


def test_attacked_images_are_read_beside_their_references(folder, tmp_path):
    attacker = tmp_path / "attacker.safetensors"
    judge, _ = material_of(folder, options_of("mini-fr"))
    export(judge, attacker, {})
    options = options_of("mini-fr", attackers=(str(attacker),), attacked=6)
    judge, material = material_of(folder, options)
    source = remembered(material, judge, options, CPU).sources[0]
    attacked = np.isfinite(source.readings[:, 2, 0])
    assert source.readings.shape[1] == 3 and attacked.sum() == 6
    judge.eval()
    before, after = (judge.judge(torch.from_numpy(source.readings[attacked, k]).float()) for k in (0, 2))
    middle = np.median(source.inner.target[source.inner.is_used])
    should_rise = torch.from_numpy(source.inner.target[attacked] >= middle)  # of a distance
    moved = before > 0  # at distance 0 there is no slope to climb
    assert ((after > before) == should_rise)[moved].float().mean() > 0.7, (before, after, should_rise)


def test_a_run_learns_from_readings_alone(folder, tmp_path):
    changed = {
        "critic": {"name": "mini-fr", "remember": True, "fixed": ["trunk.*"]},
        "objectives": {"regression": {"head": "exponential"}, "prefer": 1.0},
    }
    config = tiny(folder, **changed)
    for entry in config["data"]:
        entry |= {"crops": [], "turns": "none"}
    (tmp_path / "critic.yaml").write_text(yaml.safe_dump(config))
    critic.main(["--config", str(tmp_path / "critic.yaml"), "--output", str(tmp_path / "run")])
    file = tmp_path / "run" / "models" / "mini-fr.safetensors"
    assert not any(key.startswith("trunk.") for key in read_state(file))
    taught, start = create_critic("mini-fr", weights=file), create_critic("mini-fr")
    assert torch.equal(taught.trunk.stem.weight, start.trunk.stem.weight)
    assert not torch.equal(taught.head.gain, torch.zeros_like(taught.head.gain))


def test_wrong_uses_are_refused(folder):
    options = options_of("mini-fr")
    judge, material = material_of(folder, options)
    judge.trunk.requires_grad_(True)
    with pytest.raises(ConfigError, match=r'the trunk learns; give `critic.fixed: \["trunk'):
        remembered(material, judge, options, CPU)
    attacked = options_of("fr-nr", options={"trunk": "lite0-smooth"}, attackers=("a.safetensors",))
    judge, material = material_of(folder, attacked)
    with pytest.raises(ConfigError, match="only critics of our own remember attacks, not 'fr-nr'"):
        remembered(material, judge, attacked, CPU)
    with pytest.raises(ConfigError, match="'ssim' has no trunk"):
        remembered(material, create_critic("ssim"), options, CPU)


@pytest.mark.parametrize(
    ("changed", "objective", "part"),
    [
        ({"remember": False, "attackers": ("weights/mini-fr.safetensors",)}, "steady", "attack what is remembered"),
        ({"attackers": ("none.safetensors",)}, "steady", "critic.attackers: no such checkpoint file: none.safe"),
        ({"attackers": ("mini-nr",)}, "steady", "critic.attackers: "),
        ({"attackers": ("mini-fr",)}, "pearson", "critic.attackers: no objective learns from what they attack"),
        ({}, "steady", "steady: nothing is attacked"),
        ({"remember": False}, "prefer", "prefer: learns from readings alone"),
    ],
)
def test_what_would_be_ignored_or_fail_late_is_told(changed, objective, part):
    own = replace(options_of("mini-fr"), **changed)
    labelled = {"objectives": {"label": {"objective": objective}}}
    for given, entry in (({objective: 1.0}, {}), ({}, labelled)):
        (problem,) = attack_problems(own, given, [entry])
        assert part in problem


def test_attackers_of_the_critic_are_fine():
    own = options_of("mini-fr", attackers=("mini-fr",))
    assert attack_problems(own, {"steady": 1.0, "prefer": 1.0}, []) == []
    assert attack_problems(replace(own, attackers=("later",)), {"steady": 1.0}, [], attacks=False) == []


def test_critics_start_like_their_kin(tmp_path):
    judge = build_critic(options_of("mini-fr"), 3)
    export(judge, tmp_path / "fr.safetensors", {})
    other = build_critic(CriticOptions(name="mini-stereo", weights=str(tmp_path / "fr.safetensors")), 4)
    assert torch.equal(other.head.gain, judge.head.gain) and torch.equal(
        other.trunk.stem.weight, judge.trunk.stem.weight
    )


def test_what_people_like_less_is_put_below():
    taught = SimpleNamespace(
        name=np.array(["a", "b", "a", "b", "c"]),
        reference=np.array([0, 0, 1, 2, 0]),
        level=np.array([2.0, 2.0, 2.0, 2.0, 2.0]),
    )
    target = np.array([0.9, 0.8, 0.9, 0.1, 0.7])
    found = lowered(taught, target, [["a", "b"]])
    np.testing.assert_allclose(found, [0.6, 0.8, 0.9, 0.1, 0.7])
    with pytest.raises(ConfigError, match=r"expected \[worse, better\]"):
        lowered(taught, target, [["a", "d"]])


def test_degradations_of_every_cut_share_their_levels():
    plan = Plan(**{**PLAN, "teachers": {}, "photos": ("a.png",), "always": ("enlarge-nearest", "enlarge-bilinear")})
    found = [v for v in versions(plan, 0) if v.name.startswith("enlarge-")]
    levels = {name: [v.level for v in found if v.name == name] for name in plan.always}
    assert (
        levels["enlarge-nearest"] == levels["enlarge-bilinear"] and len(levels["enlarge-nearest"]) == plan.levels_each
    )
    assert not set(plan.always) & set(plan.names)
