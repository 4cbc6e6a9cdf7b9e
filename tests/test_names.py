"""Names of files and systems, whatever signs they hold, in every place where they are shown."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from perceptloss import registry
from perceptloss.cli.main import main
from perceptloss.compare import Pairing, load_results
from perceptloss.compare.pairing import ImageSet, match
from perceptloss.critic import Critic, Entry
from perceptloss.errors import ConfigError
from perceptloss.output.names import csv_cell, in_markdown, json_text, visible
from perceptloss.output.progress import bar
from perceptloss.registry import get_card

HOSTILE = {
    "=1+2": "=1+2",
    "a\x1b[31mred": "a\\x1b[31mred",
    "b\rc": "b\\rc",
    "d\nerror: forged": "d\\nerror: forged",
    "f|g": "f|g",
    "<b>h": "<b>h",
    'i"j,k': 'i"j,k',
    "\u202egnp": "\\u202egnp",
    "\x9b2J": "\\x9b2J",
    "_*x*_`y`[z]": "_*x*_`y`[z]",
    "no\u200bthing": "no\\u200bthing",
    os.fsdecode(b"\xff"): "\\udcff",
}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Folders gt, out and other with a picture of every hostile name; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)
    for seed, folder in enumerate(("gt", "out", "other")):
        os.mkdir(folder)
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for name in HOSTILE:
            Image.fromarray(pixels).save(f"{folder}/{name}.png")


def is_plain(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@pytest.mark.parametrize("form", ["table", "csv", "md", "latex"])
def test_no_name_leaves_its_place_in_a_table(pictures, capsys, form):
    assert main(["score", "out", "--ref", "gt", "-c", "psnr", "--format", form]) == 0
    out = capsys.readouterr().out
    assert is_plain(out)
    lines = out.splitlines()
    if form == "csv":
        cells = [row[1] for row in csv.reader(io.StringIO(out))][1:]
        assert sorted(cells) == sorted("'=1+2" if name == "=1+2" else name for name in HOSTILE.values())
    elif form == "md":
        rows = [line for line in lines if line.startswith("|")]
        assert len(rows) == 2 + len(HOSTILE) + 1
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
        assert "<b>" not in out
        assert r"| \_\*x\*\_\`y\`\[z\] |" in out
    elif form == "latex":
        assert len([line for line in lines if line.endswith(r"\\")]) == 1 + len(HOSTILE) + 1
        assert all(line.startswith(("%", "\\", "  ")) for line in lines)
        assert r"\textless{}b\textgreater{}h" in out
        assert r"{[}" in out
    else:
        assert {line.split("  ")[0] for line in lines[2:-2]} == set(HOSTILE.values())


def test_hostile_names_survive_the_files(pictures, capsys):
    command = ["score", "out", "--ref", "gt", "-c", "psnr", "--cache", "kept", "--output"]
    assert main([*command, "r.json"]) == 0
    assert main([*command, "r.csv", "--format", "json"]) == 0
    assert is_plain(Path("r.json").read_text(encoding="utf-8"))
    assert {image.key for image in load_results("r.json").images} == set(HOSTILE)
    out = capsys.readouterr().out
    printed = json.loads(out[out.index("\n{") :])
    assert {image["key"] for image in printed["images"]} == set(HOSTILE)
    assert main(["map", "out", "--ref", "gt", "-c", "ssim", "--output", "."]) == 0
    assert is_plain(capsys.readouterr().out)
    assert all(os.path.isfile(f"{name}.ssim.png") for name in HOSTILE)


def test_systems_and_critics_with_hostile_names(pictures, capsys, monkeypatch):
    card = replace(get_card("psnr"), name="p\x1b[2j\n<i>")

    class Loud(Critic):
        def score(self, x, y=None):
            return (x - y).abs().mean((1, 2, 3))

    monkeypatch.setitem(registry._registered, card.name, Entry(card, lambda card: Loud(card)))
    for form in ("table", "csv", "md", "latex"):
        systems = ["\x1b[2J\n|<b>=out", "+1=other"]
        assert main(["compare", *systems, "--ref", "gt", "-c", card.name, "--format", form, "--fail-if", "x > 1"]) == 2
        assert main(["compare", *systems, "--ref", "gt", "-c", card.name, "--format", form]) == 0
        out, err = capsys.readouterr()
        assert is_plain(out + err)
        assert "\\x1b" in out
        assert form != "md" or not re.search("<[bi]>", re.sub(r"(?<!\\)`[^`]*`", "", out))
        assert form != "csv" or "\n'+1," in out
    assert main(["map", "out", "--ref", "gt", "-c", card.name, "--output", "."]) == 0
    assert is_plain("".join(capsys.readouterr()))


@pytest.mark.parametrize(
    "command",
    [
        ["score", "out", "-c", "ps\x1b[31mnr\nerror: forged"],
        ["score", "nowhere\x1b[31m\nerror: forged", "-c", "tv"],
        ["score", "out", "-c", "tv", "--strip", "(\x1b[31m\nerror: forged"],
        ["score", "out", "-c", "tv", "--output", "no\x1b[31m\nerror: forged/x.json"],
        ["score", "out", "-c", "tv", "--cache", "gt/=1+2.png/\x1b[31m\nerror: forged"],
        ["score", "k.csv", "-c", "tv"],
        ["compare", "a\x1b[31m\nerror: forged", "-c", "tv"],
        ["\x1b[31m\nerror: forged"],
        ["show", "\x1b[31m\nerror: forged"],
        ["score", "--\x1b[31m\nerror:forged"],
        ["recipe", "show", "\x1b[31m\nerror: forged"],
    ],
)
def test_no_name_speaks_through_a_message(pictures, capsys, command):
    Path("k.csv").write_text('"k\x1b\nerror: forged","x\x1b\nerror: forged.png"\n')
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert is_plain(err)
    assert "\\x1b" in err
    assert sum(line.startswith("error") for line in err.splitlines()) == 1


def test_no_name_begins_a_line_of_warnings_or_of_what_is_left_out(pictures, capsys):
    systems = ["a\nerror: forged=out", "b\nnote: forged=other"]
    os.remove("other/f|g.png")
    os.rename("out/<b>h.png", "out/x\nleft out: forged.png")
    Path("out/sub\nerror: forged").mkdir()
    flags = ["--ref", "gt", "-c", "psnr", "--allow-missing", "--fail-if", "psnr > 0"]
    assert main(["compare", *systems, *flags]) == 4
    assert main(["compare", *systems, *flags, "--dry-run"]) == 0
    assert main(["map", "out", "--ref", "gt", "-c", "ssim", "--allow-missing", "--output", "."]) == 0
    out, err = capsys.readouterr()
    assert is_plain(out + err)
    assert "forged" in out and "forged" in err
    assert not [line for line in (out + err).splitlines() if re.match(r"\w+( out)?: forged", line)]


def test_progress_and_errors_are_plain(capsys):
    with bar("maps of \x1b[2J", 1, show=True) as shown:
        shown.update()
    assert "maps of \\x1b[2J" in capsys.readouterr().err
    text = str(ConfigError(["first\x1b[2J\nsecond"], "a\nb"))
    assert text == "1 problem in a\\nb:\n  - first\\x1b[2J\n    second"


def test_escapes():
    assert visible("Größe 日本語 é ↓") == "Größe 日本語 é ↓"
    assert visible("a\nb\t", keep="\n") == "a\nb\\t"
    assert [csv_cell(name) for name in ("=x", " =x", "+1", "-1", "@x", "x=1", "\t=x")] == [
        "'=x",
        "' =x",
        "'+1",
        "'-1",
        "'@x",
        "x=1",
        "'\\t=x",
    ]
    assert in_markdown("lr_0.1_x & <y>") == "lr_0.1_x &amp; &lt;y&gt;"
    odd = "é\x7f\u202e\udcff\U000e0001\n"
    assert is_plain(json_text([odd]))
    assert json.loads(json_text([odd])) == [odd]


def sets(*systems: str) -> list[ImageSet]:
    return [ImageSet(str(n), "", {key: Path(key)}) for n, key in enumerate(systems)]


@pytest.mark.parametrize(
    ("one", "two", "kind"),
    [
        ("IM1", "im1", "'IM1' and 'im1' differ only in capitals"),
        ("а", "a", r"'a' and '\u0430' differ only in signs that look alike"),
        ("a\u200b", "a", r"'a' and 'a\u200b' differ only in signs that look alike"),
        ("\uff41", "a", r"'a' and '\uff41' differ only in signs that look alike"),
    ],
)
def test_names_that_look_alike_are_explained(one, two, kind):
    found, problems = match(sets(one, two), Pairing())
    assert found.keys == ()
    assert any(problem.startswith(kind) for problem in problems), problems
    assert not any("differ only" in problem for problem in match(sets("x", "y"), Pairing())[1])


def test_composed_and_decomposed_letters_pair(pictures, capsys):
    for folder, form in (("new", "NFC"), ("ref", "NFD")):
        os.mkdir(folder)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(f"{folder}/{normalize(form, 'caféx4')}.png")
    assert main(["score", "new", "--ref", "ref", "-c", "psnr", "--strip", "x4"]) == 0
    assert normalize("NFC", "café  ") in capsys.readouterr().out
