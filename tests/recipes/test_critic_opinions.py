"""Teaching by opinions, and the configurations that come with the recipe."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import critic
import numpy as np
import pytest
import recipe_helpers
import torch
import yaml
from critic_helpers import CRITIC, setting, tiny

from perceptloss import get_card
from perceptloss.compare.images import read
from perceptloss.compare.pixels import as_tensor, write_png
from perceptloss.errors import ConfigError
from perceptloss.runs import config as configuration
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations import degrade
from perceptloss.teach.run import opinions
from perceptloss.teach.run.checks import option_problems
from perceptloss.teach.run.stream import Stream

CONFIGS = recipe_helpers.RECIPES / "configs"
CONTENTS, LEVELS = 6, 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs, blurred and noisy at three levels; opinions are loss of quality, 0 (none) to 9."""
    folder = tmp_path_factory.mktemp("opinions")
    rows: list[dict[str, Any]] = []
    for i in range(CONTENTS):
        recipe_helpers.photograph(folder / f"ref{i}.png", 100 + i, 44, 50 + i % 2)
        x = as_tensor(read(folder / f"ref{i}.png", TAUGHT))[None]
        for name in ("gaussian-blur", "white-noise"):
            for level in range(1, LEVELS + 1):
                file = f"img{i}_{name}_{level}.png"
                write_png(degrade(x, name, 1.5 * level, seed=i)[0], folder / file)
                mos = 2.5 * level + (1 if name == "white-noise" else 0)
                rows.append({"image": file, "reference": f"ref{i}.png", "mos": mos, "distortion": name, "level": level})
    with (folder / "dmos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def entry(dataset: Path, **changed: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": "opinions",
        "name": "people",
        "layout": "csv",
        "root": str(dataset / "dmos.csv"),
        "layout_options": {"higher_better": False, "range": [0, 9]},
        "hold_out": 0.34,
        "contents": 2,
        "versions": 3,
        "crops": [32, 40],
    }
    return base | changed


def options(dataset: Path, **changed: Any) -> opinions.Options:
    made = {key: tuple(v) if isinstance(v, list) else v for key, v in entry(dataset, **changed).items()}
    return opinions.Options(**made)


def test_targets_point_up_and_images_keep_to_their_references(dataset: Path) -> None:
    opened = opinions.open_source(options(dataset, clean=0.3), setting())
    assert opened.source is not None and opened.source.gives == {"target", "levels", "kinds", "clean", "references"}
    stream = Stream(opened.source, 0)
    cleans = 0
    for n in range(8):
        batch = stream[n]
        assert batch.y is not None and batch.target is not None
        assert batch.x.shape[-1] in (32, 40) and len(batch.x) == 6
        clean = batch.level == 0
        cleans += int(clean.sum())
        assert torch.equal(batch.x[clean], batch.y[clean])
        assert torch.isnan(batch.target[clean]).all()
        noisy = batch.kind == opened.source.kinds.index("white-noise")
        wanted = 1 - (2.5 * batch.level + noisy) / 9
        assert torch.allclose(batch.target[~clean].double(), wanted[~clean])
        error = (batch.x.float() - batch.y.float()).square().mean((1, 2, 3))
        assert (error[~clean] > 0).all()
        for group in set(batch.group.tolist()) - {-1}:
            order = batch.level[batch.group == group].argsort()
            assert (error[batch.group == group][order].diff() > 0).all()
    assert 5 <= cleans <= 25


def test_contents_are_held_out_whole_and_exams_are_whole_images(dataset: Path) -> None:
    opened = opinions.open_source(options(dataset), setting())
    assert isinstance(opened.source, opinions.Opinions)
    exam = opened.exams[0]
    assert len(opened.source) + len(exam.target) == CONTENTS * LEVELS * 2
    assert opened.taught_on is not None and opened.held_out is not None
    assert not set(opened.taught_on.names) & set(opened.held_out.names)
    assert len(opened.taught_on.names) + len(opened.held_out.names) == CONTENTS
    x, y = exam.images(np.array([0]))
    assert y is not None and x.shape == y.shape and x.shape[-2] == 44
    assert exam.fit == "logistic4"
    alone = opinions.open_source(options(dataset), setting("mini-nr"))
    assert alone.source is not None and Stream(alone.source, 0)[0].y is None


def test_wrong_datasets_are_explained(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images have different sizes"):
        opinions.open_source(options(dataset, crops=[]), setting())
    with pytest.raises(ConfigError, match="at least 48x48 are needed"):
        opinions.open_source(options(dataset, crops=[48]), setting())
    with pytest.raises(ConfigError, match="unknown layout 'tid'"):
        opinions.open_source(options(dataset, layout="tid"), setting())
    (tmp_path / "a.csv").write_text(f"image,mos\n{dataset / 'ref0.png'},1\n{dataset / 'ref1.png'},2\n")
    with pytest.raises(ConfigError, match="needs references, which this dataset does not have"):
        opinions.open_source(options(dataset, root=str(tmp_path / "a.csv"), layout_options={}), setting())


def test_two_datasets_teach_through_maps_of_their_own(dataset: Path, tmp_path: Path, in_process: None) -> None:
    second = entry(dataset, name="again", layout_options={"higher_better": False, "range": [0, 30]}, hold_out=0.0)
    content = tiny(
        tmp_path,
        data=[entry(dataset, hold_out=0.0), second],
        objectives={"heads": 1.0, "pearson": 1.0, "pairwise": {"within": "content"}},
        val={"sets": [entry(_other(tmp_path), name="exam", layout_options={}, root=str(tmp_path / "other.csv"))]},
        card={"write": False},
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    critic.main(["--config", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    names = {f"{source}/{name}" for source in ("people", "again") for name in ("heads", "pearson", "pairwise")}
    assert set(lines[0]["objectives"]) == names
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["exams"]["exam"]["images"] == 6
    heads = torch.load(tmp_path / "run" / "checkpoints" / "last" / "critics.pt", weights_only=True)
    gains = [heads[f"parts.{i}_heads.offset"] for i in range(2)]
    assert gains[0] != gains[1]


def _other(folder: Path) -> Path:
    lines = ["image,reference,mos"]
    for i in range(2):
        recipe_helpers.photograph(folder / f"new{i}.png", 300 + i, 48, 48)
        x = as_tensor(read(folder / f"new{i}.png", TAUGHT))[None]
        for level in (1, 2, 3):
            write_png(degrade(x, "jpeg", 1.5 * level, seed=i)[0], folder / f"new{i}_{level}.png")
            lines.append(f"new{i}_{level}.png,new{i}.png,{5 - level}")
    (folder / "other.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("critic_*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_are_valid_and_say_how_to_launch(path: Path) -> None:
    c = configuration.load(critic.Config, ["--config", str(path)])
    assert option_problems(c.critic.name, c.data, c.val.sets, c.objectives, c.train, c.card) == []
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("#") and f"--config recipes/configs/{path.name}" in header


def test_help_shows_every_option() -> None:
    text = configuration.help_text(critic.Config, "usage")
    for key in configuration.flatten(critic.Config()):
        assert f"--{key}  (" in text
    assert get_card(CRITIC).name == CRITIC
