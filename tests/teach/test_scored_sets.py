"""Scored sets: what is drawn, that it can be repeated and continued, and what the teachers' consensus is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from perceptloss import create_critic
from perceptloss.errors import ConfigError
from perceptloss.networks.restorers import RFDN
from perceptloss.teach.degradations import Step, apply_steps, core, get_degradation
from perceptloss.teach.sets import Plan, ScoredSet, ScoredSetError, TeacherSpec, build
from perceptloss.teach.sets.consensus import consensus, midranks
from perceptloss.teach.sets.crops import crops_of
from perceptloss.teach.sets.plan import facts, identity, problems_in
from perceptloss.teach.sets.schedule import deal, versions
from perceptloss.teach.sets.worker import Worker

MAKING = import_module("perceptloss.teach.sets.build")  # not the function of that name
TEACHERS = {"gmsd": TeacherSpec(2.0), "ssim": TeacherSpec(1.0)}
FILES = ("images.npy", "references.npy", "set.json")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    paths = []
    for source, name in (("people", "astronaut"), ("food", "coffee"), ("food", "chelsea")):
        (root / source).mkdir(exist_ok=True)
        paths.append(root / source / f"{name}.png")
        Image.fromarray(getattr(data, name)()).reduce(2).save(paths[-1])
    return tuple(paths)


@pytest.fixture(scope="module")
def plan(photos):
    return Plan(photos, crop=96, singles=3, levels_each=2, chains=2, seed=3, teachers=TEACHERS)


@pytest.fixture(scope="module")
def made(plan, tmp_path_factory):
    return build(plan, tmp_path_factory.mktemp("sets") / "whole", processes=1, progress=False)


@pytest.fixture(scope="module")
def folder(made):
    return Path(made.images.filename).parent


def same(a, b):
    with np.load(a / "table.npz") as one, np.load(b / "table.npz") as two:
        assert one.files == two.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
    for name in FILES:
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_the_rows_are_what_the_plan_asks_for(plan, made):
    assert len(made) == plan.crops * (1 + 3 * 2 + 2) == 54
    assert made.images.shape == (54, 3, 96, 96) and made.images.dtype == np.uint8
    assert made.references.shape == (6, 3, 96, 96)
    assert Counter(made.reference.tolist()) == dict.fromkeys(range(6), 9)
    assert made.contents == ("people/astronaut.png", "food/coffee.png", "food/chelsea.png")
    assert [made.sources[s] for s in made.source[::18]] == ["people", "food", "food"]
    np.testing.assert_array_equal(made.content, made.reference // 2)
    assert Counter(made.name)["chain-real-world"] == Counter(made.name)["chain-mixed"] == 6
    assert np.isnan(made.level[made.family == "chain"]).all()


def test_a_group_is_one_degradation_and_seed_at_rising_levels_of_one_crop(made):
    singles = made.group >= 0
    assert set(made.group[singles].tolist()) == set(range(18))
    for group in range(18):
        rows = np.flatnonzero(made.group == group)
        levels = made.level[rows]
        assert len(rows) == 2 and 0.3 < levels[0] <= 2.65 <= levels[1] <= 5
        assert len(set(made.reference[rows])) == len(set(made.name[rows])) == 1
        assert len({text.split("#")[1] for text in made.recipe[rows].tolist()}) == 1
        assert made.family[rows[0]] == get_degradation(str(made.name[rows[0]])).family
    assert (made.name[~singles] == "clean").sum() == 6


def test_recipes_give_the_stored_images_again(made):
    for row in (0, 1, 2, 7, 8, 53):
        clean = torch.from_numpy(made.references[[made.reference[row]]]).float() / 255
        steps = []
        for text in filter(None, str(made.recipe[row]).split(" + ")):
            name, rest = text.split(":")
            level, seed = rest.split("#")
            steps.append(Step(name, float(level), int(seed)))
        expected = (apply_steps(clean, steps)[0] * 255).round().to(torch.uint8).numpy()
        np.testing.assert_array_equal(made.images[row], expected)


def test_scores_are_those_of_the_stored_images(made):
    pixels = (made.images[:9], made.references[made.reference[:9]])
    x, y = (torch.from_numpy(a.astype(np.float32)) / 255 for a in pixels)
    for column, name in enumerate(made.teachers):
        np.testing.assert_allclose(made.scores[:9, column], create_critic(name)(x, y).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made.clean_scores, made.scores[made.level == 0])


def test_an_interrupted_build_goes_on_to_the_same_bits(plan, folder, tmp_path, monkeypatch):
    place = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(MAKING, "pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(plan, place, processes=1, progress=False)
    with pytest.raises(ScoredSetError, match="no finished scored set"):
        ScoredSet.open(place)
    first, second, third = sorted((place / "shards").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:1000])
    kept = third.stat().st_mtime_ns
    asked = []
    monkeypatch.setattr(Worker, "shard", _noting(asked, Worker.shard))
    monkeypatch.setattr(MAKING, "rmtree", lambda *_, **__: None)
    build(plan, place, processes=1, progress=False)
    assert asked == [0, 1] and third.stat().st_mtime_ns == kept
    same(place, folder)
    (place / "set.json").unlink()
    build(plan, place, processes=2, progress=False)  # only the joining was left
    assert asked == [0, 1]
    same(place, folder)


def _noting(asked, original):
    def shard(self, index):
        asked.append(index)
        return original(self, index)

    return shard


def test_a_finished_folder_is_reused_with_other_weights_and_other_plans_are_refused(plan, folder, monkeypatch):
    monkeypatch.setattr(MAKING, "_make", lambda *_: pytest.fail("made again"))
    assert not (folder / "shards").exists()
    again = build(replace(plan, teachers={"gmsd": TeacherSpec(), "ssim": TeacherSpec(9)}), folder, progress=False)
    assert again.weights == {"gmsd": 1.0, "ssim": 9}
    with pytest.raises(ScoredSetError, match="another plan, which differs in chains, seed"):
        build(replace(plan, seed=4, chains=1), folder, progress=False)
    with pytest.raises(ScoredSetError, match="holds no scored set"):
        build(plan, plan.photos[0].parent, progress=False)


def test_the_hash_follows_contents_not_places(plan, photos, tmp_path):
    moved = tmp_path / "people" / "astronaut.png"
    moved.parent.mkdir()
    moved.write_bytes(photos[0].read_bytes())
    known = identity(facts(plan))
    assert identity(facts(replace(plan, photos=(moved, *photos[1:])))) == known
    Image.open(photos[0]).rotate(90).save(moved)
    assert identity(facts(replace(plan, photos=(moved, *photos[1:])))) != known


def test_problems_are_listed_at_once(plan, photos, tmp_path):
    small, glass = tmp_path / "small.png", tmp_path / "glass.png"
    Image.new("RGB", (95, 200)).save(small)
    Image.new("RGBA", (200, 200)).save(glass)
    bad = replace(
        plan,
        photos=(*photos, small, glass, tmp_path / "none.png"),
        exclude=("gausian-blur",),
        teachers={"gmsd": TeacherSpec(0.0), "brisque": TeacherSpec(), "simm": TeacherSpec(), "ms-ssim": TeacherSpec()},
    )
    with pytest.raises(ConfigError) as caught:
        build(bad, tmp_path / "set")
    text = str(caught.value)
    for part in (
        "smaller than a crop of 96x96",
        "has an alpha channel",
        "none.png: cannot be read",
        "did you mean 'gaussian-blur'",
        "gmsd: weight: expected a number above 0, got 0.0",
        "of kind 'nr'",
        "unknown critic 'simm'",
        "ms-ssim: needs sides of at least 161",
    ):
        assert part in text
    assert not (tmp_path / "set").exists()
    twin = tmp_path / "twin.png"
    twin.write_bytes(photos[0].read_bytes())
    assert "are the same file" in problems_in(replace(plan, photos=(*photos, twin)))[0]
    assert problems_in(replace(plan, chains=-1)) == ["chains: expected a whole number of at least 0, got -1"]


def test_a_score_that_is_not_finite_is_named(plan, tmp_path, monkeypatch):
    kind = type(create_critic("gmsd"))
    score = kind.score
    monkeypatch.setattr(kind, "score", lambda self, x, y=None: score(self, x, y) / (x != y).any((1, 2, 3)).float())
    with pytest.raises(ScoredSetError, match=r"gmsd gave nan for people/astronaut.png, crop 0, clean \(2 such"):
        build(plan, tmp_path / "set", processes=1, progress=False)


def test_a_plan_names_its_kinds_of_chains(plan):
    chosen = replace(plan, chain_kinds=("restoration", "phone", "restoration"), chains=3)
    names = [v.name for number in range(4) for v in versions(chosen, number) if v.family == "chain"]
    assert Counter(names) == {"chain-restoration": 8, "chain-phone": 4}
    assert facts(chosen) != facts(replace(chosen, chain_kinds=("phone",)))
    wrong = replace(plan, chain_kinds=("restauration",))
    assert problems_in(wrong) == ["chain_kinds: unknown 'restauration'; did you mean 'restoration'?"]
    assert problems_in(replace(plan, chain_kinds=()))[0].startswith("chain_kinds: expected some of real-world, mixed")


def test_each_crop_gets_a_group_of_one_of_the_networks(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(core, "_TABLE", dict(core._TABLE))
    paths = {}
    for scale in (2, 3):
        paths[f"tiny-x{scale}"] = tmp_path / f"x{scale}.pth"
        torch.save(RFDN(8, scale).state_dict(), paths[f"tiny-x{scale}"])
    plan = Plan(
        photos[:1], crop=96, crops_per_photo=4, singles=1, levels_each=2, chains=0, teachers=TEACHERS, networks=paths
    )
    made = build(plan, tmp_path / "set", processes=1, progress=False)
    rows = made.family == "network"
    names = ["tiny-x2", "tiny-x2-enlarged", "tiny-x3", "tiny-x3-enlarged"]
    assert made.name[rows].tolist() == [name for name in names for _ in range(2)]
    assert made.group[rows].tolist() == [1, 1, 3, 3, 5, 5, 7, 7] and len(made) == plan.crops * (1 + 2 * 2)
    assert (made.images[rows] != made.references[made.reference[rows]]).mean() > 0.5
    assert not {"tiny-x2", "tiny-x3"} & set(plan.names)
    clash = replace(plan, networks={"jpeg": paths["tiny-x2"], "none": tmp_path / "none.pth"})
    assert [text[:14] for text in problems_in(clash)] == ["networks.none:", "networks.jpeg:"]


def test_names_are_dealt_evenly_and_once_in_a_hand():
    names = tuple("abcdefg")
    dealt = deal(names, 40, 4, 1)
    assert all(len(set(hand)) == 4 for hand in dealt)
    counts = Counter(name for hand in dealt for name in hand)
    assert set(counts) == set(names) and max(counts.values()) - min(counts.values()) <= 1
    assert dealt == deal(names, 40, 4, 1) != deal(names, 40, 4, 2)
    assert Counter(deal(("a", "b"), 1, 5, 0)[0]) in ({"a": 3, "b": 2}, {"a": 2, "b": 3})


def test_excluded_names_and_families_are_not_drawn(plan):
    chosen = replace(plan, exclude=("blur", "jpeg"), singles=8)
    drawn = {step.name for number in range(6) for version in versions(chosen, number) for step in version.steps}
    assert len(drawn) > 8
    assert "jpeg" not in drawn and not any(get_degradation(name).family == "blur" for name in drawn)
    assert not {"jpeg", "gaussian-blur"} & set(chosen.names)


def test_crops_lie_apart_and_take_the_textured_half(tmp_path):
    generator = np.random.default_rng(0)
    pixels = np.full((200, 800, 3), 128, dtype=np.uint8)
    pixels[:, 400:] = generator.integers(0, 256, (200, 400, 3))
    path = tmp_path / "half.png"
    Image.fromarray(pixels).save(path)
    plan = Plan((path,), crop=64, crops_per_photo=4)
    crops = crops_of(plan, 0)
    assert min(crop.std() for crop in crops) > 40
    flat = [_find(pixels, crop) for crop in crops]
    shared = [np.prod(np.clip(64 - np.abs(a - b), 0, None)) / 64**2 for i, a in enumerate(flat) for b in flat[:i]]
    assert max(shared) <= 0.25


def _find(pixels, crop):
    window = crop.transpose(1, 2, 0)
    corners = np.argwhere((pixels == window[0, 0]).all(2)).tolist()
    found = [(y, x) for y, x in corners if np.array_equal(pixels[y : y + 64, x : x + 64], window)]
    assert len(found) == 1
    return np.array(found[0])


def test_big_photographs_are_also_seen_halved(tmp_path):
    checks = (np.indices((300, 1100)).sum(0) % 2 * 255).astype(np.uint8)
    path = tmp_path / "checks.png"
    Image.fromarray(checks).save(path)
    deviations = [crop.std() for crop in crops_of(Plan((path,), crop=96, crops_per_photo=4), 0)]
    assert sorted(round(float(d)) for d in deviations) == [0, 0, 128, 128]


def test_midranks():
    np.testing.assert_array_equal(midranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1, 3.5, 2])
    assert midranks(np.zeros(0)).shape == (0,)


# two clean images and four others; `up` is higher-better, `down` lower-better, `odd` likes one image more than clean
SCORES = {
    "up": np.array([1, 1, 0.9, 0.5, 0.5, 0.1], dtype=np.float32),
    "down": np.array([0, 0, 10, 20, 30, 40], dtype=np.float32),
    "odd": np.array([5, 5, 1, 2, 3, 6], dtype=np.float32),
}
CLEAN = {name: np.full(6, values[0]) for name, values in SCORES.items()}
HIGHER = {"up": True, "down": False, "odd": True}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"up": 1.0}, [1, 1, 7 / 8, 4 / 8, 4 / 8, 1 / 8]),
        ({"down": 3.0}, [1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8]),
        ({"up": 1.0, "down": 1.0, "odd": 0.0}, [1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8]),
        ({"odd": 1.0}, [1, 1, 1 / 6, 3 / 6, 5 / 6, 1]),
        ({"odd": 8.0, "down": 1.0}, [1, 1, 1 / 8, 3 / 8, 5 / 8, 7 / 8]),
    ],
)
def test_consensus_of_hand_made_scores(weights, expected):
    np.testing.assert_allclose(consensus(SCORES, CLEAN, HIGHER, weights), expected, atol=1e-12)


def test_consensus_refuses_unknown_teachers_and_weights_that_are_none():
    with pytest.raises(ConfigError, match="'upp' is not a teacher of this set") as caught:
        consensus(SCORES, CLEAN, HIGHER, {"upp": 1.0, "down": -1.0})
    assert "got -1.0" in str(caught.value)
    with pytest.raises(ConfigError, match="at least one teacher"):
        consensus(SCORES, CLEAN, HIGHER, {"up": 0.0})


def test_consensus_of_a_set(made):
    labels = made.consensus()
    assert set(np.flatnonzero(labels == 1)) >= set(np.flatnonzero(made.level == 0))
    rising = [labels[made.group == group] for group in range(18)]
    assert np.mean([first > second for first, second in rising]) > 0.8
    np.testing.assert_array_equal(made.consensus({"ssim": 1.0}), made.consensus({"ssim": 7.0, "gmsd": 0.0}))
