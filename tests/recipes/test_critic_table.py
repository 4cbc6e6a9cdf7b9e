"""Teaching from a table of one's own, with nothing given but its path."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import critic
import numpy as np
import pytest
import torch
from PIL import Image

from perceptloss import create_critic
from perceptloss.errors import ConfigError
from perceptloss.runs import config as configuration
from perceptloss.runs.images import bundled
from perceptloss.teach.data import read_opinions
from perceptloss.teach.degradations import degrade
from perceptloss.teach.run.export import verdict
from perceptloss.teach.run.table import Table, plan

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
PHOTOS += ("hubble_deep_field.jpg", "ihc.png", "retina.jpg", "camera.png", "coins.png")
LEVELS = 4
Row = dict[str, Any]


def save(image: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs of unlike sizes, four cuts of each, the n-th blurred n times as much as the first."""
    folder = tmp_path_factory.mktemp("table")
    for n, pair in enumerate(bundled(PHOTOS)):
        photo = torch.from_numpy(np.array(Image.open(pair.gt).convert("RGB").resize((200, 180)))).permute(2, 0, 1) / 255
        whole = photo[:, : 60 + n, : 90 - n]
        save(whole, folder / "ref" / f"{n}.png")
        for level in range(LEVELS):
            top, left = 90 * (level // 2), 100 * (level % 2)
            amount = 1.2 * level + 0.5
            save(degrade(whole[None], "gaussian-blur", amount, seed=n)[0], folder / "img" / f"{n}_{level}.png")
            cut = photo[:, top : top + 60 + n, left : left + 90 - n]
            save(degrade(cut[None], "gaussian-blur", amount, seed=n)[0], folder / "cut" / f"{n}_{level}.png")
    return folder


def rows_of(kind: str, score: str = "mos") -> list[Row]:
    rows = []
    for n in range(len(PHOTOS)):
        for level in range(LEVELS):
            row: Row = {"image": f"{'cut' if kind == 'distinct' else 'img'}/{n}_{level}.png"}
            row |= {"reference": f"ref/{n}.png"} if kind == "reference" else {}
            row[score] = 5 - level - n / 20
            row |= {"content": f"photo {n}"} if kind == "content" else {}
            rows.append(row)
    return rows


def write(path: Path, rows: Sequence[Row], *, sign: str = ",", bom: bool = False) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=sign)
        writer.writeheader()
        writer.writerows(rows)
    return path


def parts(made: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Pictures that would be taught and examined."""
    from perceptloss.teach.run import opinions

    entry = made["data"][0]
    everything = read_opinions("csv", entry["root"], **entry["layout_options"])
    if entry["look_alikes"] == "together":
        everything = opinions.held_apart(everything)
    share = entry["hold_out"]
    split = everything.split({"taught": 1 - share, "exam": share}).values()
    taught, exam = ({str(o.image.name) for o in part} for part in split)
    return taught, exam


@pytest.mark.parametrize(("kind", "name"), [("distinct", "mini-nr"), ("content", "mini-nr"), ("reference", "mini-fr")])
def test_a_path_is_all_that_is_needed(
    kind: str, name: str, folder: Path, tmp_path: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(folder / f"{kind}.csv", rows_of(kind))
    options = ["--table.path", str(table), "--output", str(tmp_path / "run")]
    critic.main([*options, "--train.steps", "2", "--table.batch", "4", "--val.rounds", "20"])
    said = capsys.readouterr().out
    plan_at, before_at = said.index(f"{table}: 40 images"), said.index("Before training:")
    assert plan_at < before_at < said.index(f"| exam | figure | starting weights | {name} |")
    for option in ("--table.hold_out", "--train.steps", f"{name} starts from the weights that come with it", "2 steps"):
        assert option in said[plan_at:before_at]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    exam = results["exams"][kind]
    before, after = (exam["figures"][system]["all"]["srcc"] for system in ("starting weights", name))
    assert before["count"] == after["count"] == exam["images"] and 9 <= exam["images"] <= 16
    assert f"{before['value']:.3f} [" in said[before_at:].replace("−", "-").split("\n\n")[1]
    assert "| starting weights |" in (tmp_path / "run" / "models" / f"{name}.md").read_text()
    file = tmp_path / "run" / "models" / f"{name}.safetensors"
    taught, shipped = create_critic(name, weights=file).state_dict(), create_critic(name).state_dict()
    assert any(not torch.equal(taught[key], shipped[key]) for key in shipped)

    again = configuration.load(critic.Config, ["--config", str(tmp_path / "run" / "config.yaml")])
    assert (again.table, again.train.steps, again.critic.name) == (Table(), 2, name)
    names = parts({"data": again.data})
    photographs = [{picture.partition("_")[0] for picture in part} for part in names]
    assert kind == "distinct" or not photographs[0] & photographs[1]
    assert not names[0] & names[1] and len(names[1]) == exam["images"]


@pytest.mark.parametrize("change", ["nothing", "absolute", "bom", "percent", "thirty", "no content", "quoted"])
def test_plans_follow_from_what_is_in_a_table(change: str, folder: Path) -> None:
    rows = rows_of("content")
    if change == "absolute":
        rows = [{**row, "image": str(folder / row["image"])} for row in rows]
    if change == "percent":
        rows = [{**row, "mos": 20 * row["mos"]} for row in rows]
    if change == "thirty":
        rows = rows[:30]
    if change == "no content":
        rows = [{key: row[key] for key in ("image", "mos")} for row in rows]
    if change == "quoted":
        rows = [{**row, "content": 'a "b", c' + row["content"]} for row in rows]
    made = plan(Table(path=str(write(folder / f"{change}.csv", rows, bom=change == "bom"))), "", 0)
    entry = made.defaults["data"][0]
    assert entry["crops"] == [60] and "(the smallest side is 60" in made.squares
    assert (made.defaults["critic.name"], entry["layout_options"]) == ("mini-nr", {"higher_better": True})
    assert 60 <= made.defaults["train.steps"] <= 120 and entry["contents"] == 16
    taught, exam = parts(made.defaults)
    assert len(taught | exam) == len(rows) and len(exam) >= 8
    assert not {name.partition("_")[0] for name in taught} & {name.partition("_")[0] for name in exam}


def test_a_column_dmos_and_an_option_say_that_lower_is_better(folder: Path) -> None:
    lower = write(folder / "dmos.csv", rows_of("reference", score="dmos"))
    made = plan(Table(path=str(lower)), "", 0)
    assert made.defaults["data"][0]["layout_options"] == {"higher_better": False} and "lower is better" in made.about
    given = plan(Table(path=str(lower), better="higher"), "mini-nr", 7)
    assert given.is_sure and given.defaults["data"][0]["layout_options"] == {"higher_better": True}
    assert (given.defaults["critic.name"], given.defaults["train.steps"]) == ("mini-nr", 7)


def test_scores_that_are_upside_down_stop_before_the_first_step(folder: Path, tmp_path: Path, in_process: None) -> None:
    rows = [{**row, "mos": 5 - row["mos"]} for row in rows_of("reference")]
    options = ["--table.path", str(write(folder / "down.csv", rows)), "--output", str(tmp_path / "run")]
    with pytest.raises(
        ConfigError, match=r"the other way round \(SRCC -0\.\d+ on \d+ images\): give --table.better low"
    ):
        critic.main(options)
    assert not (tmp_path / "run" / "log.jsonl").exists()
    critic.main([*options, "--table.better", "lower", "--train.steps", "1", "--table.batch", "4", "--val.rounds", "10"])
    found = json.loads((tmp_path / "run" / "results.json").read_text())["exams"]["down"]["figures"]
    assert found["starting weights"]["all"]["srcc"]["value"] > 0.5


WRONG: dict[str, tuple[Row, str]] = {
    "missing": ({"image": "img/none.png"}, r"line 3: .*none\.png is missing"),
    "nan": ({"mos": "nan"}, r"line 3: mos is 'nan', expected a number"),
    "empty": ({"mos": ""}, r"line 3: mos is empty"),
    "twice": ({"image": "img/0_0.png"}, r"line 3: img/0_0\.png was already in line 2; give each picture one row"),
    "small": (
        {"image": "small.png"},
        r"for 'mini-nr' \(no row.* --critic\.name[\s\S]*small\.png: 31x40; at least 32x32",
    ),
    "damaged": ({"image": "damaged.png"}, r"damaged\.png: cannot be read"),
    "no picture": ({"image": "notes.png"}, r"notes\.png: cannot be read"),
    "unequal": ({"reference": "ref/5.png"}, r"ref/5\.png: 65x85, but .*0_1\.png is 60x90"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_row_is_named(what: str, folder: Path) -> None:
    change, message = WRONG[what]
    save(torch.rand(3, 31, 40), folder / "small.png")
    (folder / "damaged.png").write_bytes((folder / "img" / "3_0.png").read_bytes()[:-400])
    (folder / "notes.png").write_text("not a picture")
    rows = rows_of("reference" if what == "unequal" else "content")
    rows[1] = rows[1] | change
    with pytest.raises(ConfigError, match=message):
        plan(Table(path=str(write(folder / "wrong.csv", rows))), "", 0)


def test_tables_that_cannot_do_say_why_in_options_of_the_command_line(folder: Path, tmp_path: Path) -> None:
    rows = rows_of("content")
    good = write(folder / "good.csv", rows)

    def refused(message: str, made: Path = good, name: str = "", **given: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            plan(Table(path=str(made), **given), name, 0)

    refused(r"cells are separated by ';', expected commas", write(folder / "semi.csv", rows, sign=";"))
    refused(r"--table\.path: .*none\.csv is not a file", folder / "none.csv")
    refused(r"29 rows; at least 30 are needed", write(folder / "few.csv", rows[:29]))
    refused(r"all scores are 3", write(folder / "flat.csv", [{**row, "mos": 3} for row in rows]))
    refused(r"--table\.crop: expected a side from 32 to 60, got 61", crop=61)
    refused(r"--critic\.name: unknown critic 'mini-rn'", name="mini-rn")
    refused(r"'mini-fr' needs the column reference filled in all rows, and 40 lack it", name="mini-fr")
    one = [{**row, "content": "all one"} for row in rows]
    refused(r"1 contents cannot be divided[\s\S]*--table\.hold_out", write(folder / "one.csv", one))
    with pytest.raises(ConfigError, match=r"--table\.path: .* drop data"):
        critic.main(["--table.path", str(good), "--data", "[{kind: opinions}]"])
    whole = f"[{{kind: opinions, root: {good}, hold_out: 0.3, crops: [60], contents: 8, versions: 5}}]"
    options = ["--critic.name", "mini-nr", "--objectives", "{pearson: 1}", "--card.write", "false", "--data", whole]
    with pytest.raises(ConfigError, match=r"contents: 8 in a batch, but 7 .*`contents: 7`\n.*`versions: 4`") as caught:
        critic.main([*options, "--output", str(tmp_path / "run")])
    assert caught.value.where == "--data"


def test_teaching_that_did_not_help_is_said() -> None:
    def exam(value: float | None) -> dict[str, Any]:
        return {"mine": {"all": {"srcc": {"value": value}}}}

    assert verdict(exam(0.6), exam(0.6)) == verdict(exam(None), exam(0.1)) == ""
    for worse in (exam(0.5), exam(None)):
        assert verdict(exam(0.6), worse).startswith("\nOn mine the taught weights agree less")
