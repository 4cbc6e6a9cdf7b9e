"""Each kind of bad input through the command: what is said, with which exit code; nothing is averaged in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from png16 import png16

from perceptloss.cli.main import main
from perceptloss.compare import load_results

COMPARE = ["compare", "one=one", "two=two", "--ref", "gt", "-c", "toy-error", "-c", "toy-light"]
HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture
def home(tmp_path, monkeypatch, folder, toys):
    """Folders gt, one and two of three pictures, 12x16; the working directory is theirs."""
    for name, level in (("gt", 100), ("one", 110), ("two", 130)):
        folder(name, a=level, b=level + 1, c=level + 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(level: int = 110) -> Image.Image:
    return Image.fromarray(np.full((12, 16, 3), level, np.uint8))


def truncated() -> None:
    whole = Path("one/b.png").read_bytes()
    Path("one/b.png").write_bytes(whole[: len(whole) // 2])


def turned() -> None:
    exif = Image.Exif()
    exif[274] = 6
    pixels().save("one/b.png", exif=exif)


REFUSED = {
    "unreadable": (lambda: Path("one/b.png").write_text("no picture"), "b.png: cannot be read"),
    "truncated": (truncated, "b.png: "),
    "16 bits": (lambda: png16(Path("one/b.png"), np.zeros((12, 16, 3), np.uint16)), "16 bits, but the reference has 8"),
    "alpha": (lambda: pixels().convert("RGBA").save("one/b.png"), "alpha"),
    "palette": (lambda: pixels().convert("P").save("one/b.png"), "palette"),
    "grey": (lambda: pixels().convert("L").save("one/b.png"), "--grey replicate"),
    "turned by EXIF": (turned, "--exif apply"),
    "another size": (
        lambda: pixels().resize((20, 20)).save("one/b.png"),
        "one: 'b' is 20x20, but",
    ),
    "missing": (lambda: Path("one/b.png").unlink(), "one: 'b' is missing"),
    "empty folder": (lambda: [file.unlink() for file in Path("one").iterdir()], "one: no images in one"),
    "bomb": (
        lambda: pixels().resize((4000, 3000)).save("one/b.png"),
        "3000x4000, more than the 1000000 pixels allowed",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_compared_is_refused_before_the_first_score(home, capsys, toys, kind):
    spoil, said = REFUSED[kind]
    spoil()
    assert main([*COMPARE, "--max-pixels", "1000000", "--output", "out.json", "--report", "out.html"]) == 2
    out, err = capsys.readouterr()
    assert said in err and "Traceback" not in err
    assert (out, toys.scored, Path("out.json").exists(), Path("out.html").exists()) == ("", 0, False, False)


def run(capsys, *more: str, code: int = 0):
    """Table and warnings of a comparison that is made, its results, and its page."""
    assert main([*COMPARE, *more, "--output", "out.json", "--report", "out.html"]) == code
    out, err = capsys.readouterr()
    return out, err, load_results("out.json"), Path("out.html").read_text("utf-8")


def test_swapped_folders_are_asked_about(home, capsys):
    Path("gt").rename("elsewhere")
    Path("one").rename("GTmod12")
    Path("elsewhere").rename("one")
    swapped = ["compare", "one=GTmod12", "two=two", "--ref", "one", "-c", "toy-error", "--output", "out.json"]
    assert main(swapped) == 0
    said = "one is read from 'GTmod12' and the reference from 'one': are they swapped?"
    out, err = capsys.readouterr()
    assert said in out and said in err
    assert [flag.kind for flag in load_results("out.json").flags] == ["swapped"]
    Path("one").rename("gt")
    assert main(["compare", "one=GTmod12", "two=two", "--ref", "gt", "-c", "toy-error"]) == 0
    assert "swapped" not in capsys.readouterr().err


def test_identical_files_are_named(home, capsys):
    Path("one/b.png").write_bytes(Path("gt/b.png").read_bytes())
    for file in Path("one").iterdir():
        Path("two", file.name).write_bytes(file.read_bytes())
    out, _, results, page = run(capsys)
    assert {flag.kind for flag in results.flags} == {"identical", "same-system"}
    for text in (out, page):
        assert "one and two have equal files for every image" in text and "judged a copy of the reference" in text


@pytest.mark.parametrize(("count", "said"), [(1, "1 image: no interval and no test"), (2, "2 images can give no star")])
def test_few_images_show_no_difference(home, capsys, count, said):
    for name in "abc"[count:]:
        for where in ("gt", "one", "two"):
            Path(where, f"{name}.png").unlink()
    out, _, results, page = run(capsys)
    effects = [effect for row in results.inference.effects for effect in row if effect is not None]
    assert len(effects) == 2 and not any(effect.is_starred for effect in effects)
    assert (effects[0].bounds.low is None) == (count == 1)
    assert "No critic shows a difference between two and one" in page and "NaN" not in page
    assert said in out


def test_equal_scores_are_no_difference(home, capsys):
    for name in "abc":
        pixels(110).save(f"one/{name}.png")
        pixels(110).save(f"two/{name}.png")
    _, _, results, page = run(capsys)
    (error, light) = results.inference.effects[1]
    for effect in (error, light):
        assert (effect.difference, effect.bounds.low, effect.bounds.high, effect.p) == (0, 0, 0, 1)
    assert "nan" not in json.dumps(results.to_dict()["inference"]).lower() and "NaN" not in page


def test_scores_that_are_no_numbers_are_left_out_and_said(home, capsys):
    pixels(255).save("one/b.png")
    out, err, results, page = run(capsys, code=1)
    assert results.scores("one", "toy-light")[1] is None
    cells = [standing.cells[1] for standing in results.summary().standings]
    assert [cell.count for cell in cells] == [2, 2]
    for text in (out, err, page):
        assert "without a finite score, left out of that critic" in text and "one/b (toy-light)" in text


def test_names_are_text(home, capsys):
    for where in ("gt", "one", "two"):
        Path(where, "a.png").rename(Path(where, f"{HTML.replace('/', '')}.png"))
        Path(where, "b.png").rename(Path(where, "Ünïcødé 図.png"))
    _, _, results, page = run(capsys)
    assert {"Ünïcødé 図", HTML, "c"} == {image.key for image in results.images}
    assert "onerror=alert" in page and "<img src=x" not in page and "Ünïcødé 図" in page
