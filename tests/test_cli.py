"""The command line: what it prints where, how it exits, and that it refuses what it does not know."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from perceptloss import __version__, get_card, list_critics
from perceptloss.card import shipped_cards
from perceptloss.cli.env import _DRIVERS
from perceptloss.cli.main import main
from perceptloss.cli.terminal import paint, write
from perceptloss.compare import Pairing, Settings
from perceptloss.weights.places import _hub

ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Folders gt, good and bad of three small images; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)
    for name, spread in (("gt", 0), ("good", 10), ("bad", 80)):
        Path(name).mkdir()
        for n in range(3):
            pixels = np.random.default_rng(n).integers(0, 256, (24, 20, 3))
            change = np.random.default_rng(n + 9).integers(-spread, spread + 1, pixels.shape)
            Image.fromarray(np.clip(pixels + change, 0, 255).astype(np.uint8)).save(f"{name}/im{n}.png")
    return tmp_path


COMPARE = ["compare", "bad=bad", "good=good", "--ref", "gt", "-c", "ssim", "-c", "gmsd"]


def test_version_and_help_do_not_need_torch():
    code = (
        "from perceptloss.cli.main import main as m; m(['--help']); m(['--version']); sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", f"import sys; {code}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0
    assert f"perceptloss {__version__}" in run.stdout
    for command in ("list", "show", "score", "compare", "weights", "doctor", "env"):
        assert command in run.stdout


def test_module_runs_as_a_process():
    run = subprocess.run(
        [sys.executable, "-m", "perceptloss", "list", "--json"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0
    assert run.stderr == ""
    assert [card["name"] for card in json.loads(run.stdout)] == [card.name for card in list_critics()]


def test_a_closed_pipe_is_no_error():
    code = "import sys; from perceptloss.cli.main import main; sys.exit(main(['list']))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.smoke
def test_list_filters_by_cards(capsys):
    def names(*flags):
        assert main(["list", "--json", *flags]) == 0
        return [card["name"] for card in json.loads(capsys.readouterr().out)]

    everything = names()
    assert "ssim" in names("--kind", "fr")
    assert names("--kind", "nr") == [card.name for card in list_critics(kind="nr")]
    assert names("--licence", "commercial") == [name for name in everything if get_card(name).is_commercial]
    assert names("--domain", "natural") == [card.name for card in list_critics(domain="natural")]
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == everything
    assert main(["list", "--domain", "naturel"]) == 2
    assert "did you mean 'natural'" in capsys.readouterr().err


def test_the_cards_as_data_are_those_of_the_code():
    assert list(shipped_cards().values()) == list_critics(), "run `perceptloss list --refresh`"


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "ssim"], ["show", "lpips-vgg"], ["env"]])
def test_what_only_reads_cards_does_not_load_torch(command, tmp_path):
    code = f"import sys; from perceptloss.cli.main import main; main({command}); sys.exit('torch' in sys.modules)"
    if command == ["env"] and any(map(os.path.exists, _DRIVERS)):
        pytest.skip("asks torch for the GPUs")
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_files_are_looked_for_where_torch_keeps_them(monkeypatch, tmp_path):
    for variables in ({}, {"XDG_CACHE_HOME": str(tmp_path)}, {"TORCH_HOME": str(tmp_path / "torch")}):
        for name in ("XDG_CACHE_HOME", "TORCH_HOME", "TORCH_HUB"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        expected = Path(torch.hub.get_dir())
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "torch")
            assert _hub() == expected


@pytest.mark.parametrize("columns", [80, 100, 132, 200])
def test_the_table_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert ("score" in lines[0]) == (columns > 80)
    assert main(["list", "--wide"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["critic", "kind", "score", "from", "domains", "licence", "weights", "measures"]
    assert all(row.endswith(card.summary) for row, card in zip(rows, list_critics(), strict=True))


@pytest.mark.smoke
def test_show_tells_the_whole_card(capsys):
    card = get_card("lpips-squeeze")
    assert main(["show", "lpips-squeeze"]) == 0
    text = capsys.readouterr().out
    for fact in (
        card.summary,
        card.paper,
        card.source,
        card.licence_code,
        card.licence_weights,
        *card.notes,
        *card.weights,
    ):
        assert fact in text
    assert "lower ↓" in text
    assert "0 to 11.32" in text
    assert "at least 32x32" in text
    assert main(["show", "lpips-squeeze", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bounds"] == [0.0, 11.32]
    assert set(facts["files"]) == set(card.weights)
    assert facts["signature"].startswith("lpips-squeeze|weights:")
    assert main(["show", "lpips-squeez"]) == 2
    assert "did you mean 'lpips-squeeze'" in capsys.readouterr().err


def test_show_and_env_say_where_weights_are(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEPTLOSS_HOME", str(tmp_path))
    for name in ("squeezenet1_1", "lpips-squeeze"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"own")
    assert main(["show", "lpips-squeeze"]) == 0
    assert str(tmp_path / "squeezenet1_1.safetensors") in capsys.readouterr().out
    assert main(["env", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["critics"]["lpips-squeeze"] == "ready"
    assert findings["critics"]["ssim"] == "ready"
    assert "lpips-alex" in findings["critics"]["lpips-alex"]
    assert findings["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "cpu" in findings["devices"]
    assert findings["weights"]["PERCEPTLOSS_HOME"] == str(tmp_path)


def test_a_broken_critic_of_another_package_breaks_no_other(capsys, monkeypatch):
    class Point:
        name = "theirs"

        def load(self):
            raise RuntimeError("no such library")

    monkeypatch.setattr("perceptloss.cli.list.entry_points", lambda group: [Point()])
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert "broken: RuntimeError: no such library" in out
    assert "ready" in out
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert "'theirs' of another package is broken: RuntimeError: no such library" in err
    assert "ssim-full" in out


def test_a_critic_of_another_package_is_listed(capsys, monkeypatch):
    entry = SimpleNamespace(card=replace(get_card("ssim"), name="theirs"))
    point = SimpleNamespace(name="theirs", load=lambda: entry)
    monkeypatch.setattr("perceptloss.cli.list.entry_points", lambda group: [point])
    assert main(["list", "--json"]) == 0
    assert "theirs" in [card["name"] for card in json.loads(capsys.readouterr().out)]


def test_env_tries_basicsr_only_if_asked(capsys):
    assert main(["env", "--json"]) == 0
    quick = json.loads(capsys.readouterr().out)["basicsr integration"]
    assert main(["env", "--json", "--imports"]) == 0
    tried = json.loads(capsys.readouterr().out)["basicsr integration"]
    if find_spec("basicsr"):
        assert (quick, tried) == ({"import": "not tried; --imports does"}, {"import": "works"})
    else:
        assert "not installed" in quick["basicsr"]


@pytest.mark.smoke
def test_compare_prints_the_table_to_stdout_only(photos, capsys):
    assert main([*COMPARE, "--baseline", "good"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "means over 3 images · baseline good"
    assert lines[1].split() == ["system", "ssim", "↑", "gmsd", "↓", "rank", "wins"]
    assert lines[2].startswith("bad ")
    assert "−" in lines[2]
    assert lines[2].split()[-2:] == ["2.00", "0/3"]
    assert lines[3].split()[-2:] == ["1.00", "—"]
    assert err == ""


@pytest.mark.parametrize("form", ["csv", "json", "md", "latex"])
def test_formats(photos, capsys, form):
    assert main([*COMPARE, "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        assert json.loads(out)["systems"] == ["bad", "good"]
        assert json.loads(out)["provenance"]["command"] == ["perceptloss", *COMPARE, "--format", "json"]
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert len(rows) == 6
        assert 0 < float(rows[0]["ssim"]) < 1
    else:
        assert {"md": "| system | ssim ↑ |", "latex": "\\begin{tabular}{lrrrr}"}[form] in out


@pytest.mark.smoke
def test_score_lists_images_and_writes_a_file(photos, capsys):
    assert main(["score", "good", "--ref", "gt", "-c", "ssim", "--output", "scores.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "means over 3 images · good"
    assert [line.split()[0] for line in lines[2:6]] == ["im0", "im1", "im2", "mean"]
    assert (photos / "scores.csv").read_text().startswith("system,image,ssim,signatures\ngood,im0,0.")
    assert main(["score", "good/im0.png", "good/im1.png", "--ref", "gt", "-c", "ssim", "--allow-missing"]) == 0
    out, err = capsys.readouterr()
    assert "means over 2 images of 3 (those in all sets)" in out
    assert "images:2of3" in out
    assert "warning: 1 of 3 images were left out" in err
    assert main(["score", "good", "--ref", "gt", "-c", "ssim", "--output", "nowhere/scores.xlsx"]) == 2
    err = capsys.readouterr().err
    assert "must end in .json or .csv" in err
    assert "no folder 'nowhere'" in err


def test_quiet_leaves_errors_only(photos, capsys):
    (photos / "good" / "im0.png").write_bytes((photos / "gt" / "im0.png").read_bytes())
    command = ["score", "good", "--ref", "gt", "-c", "ssim"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "judged a copy of the reference: good/im0" in err
    assert "judged a copy of the reference: good/im0" in out
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == (out, "")
    assert main(["score", "good", "-c", "ssim", "--quiet"]) == 2
    assert "give --ref" in capsys.readouterr().err


def test_dry_run_prints_pairs_and_builds_nothing(photos, capsys, monkeypatch):
    from perceptloss.compare import panel

    monkeypatch.setattr(panel, "create_critic", None)
    assert main([*COMPARE, "-c", "lpips-vgg", "--dry-run"]) == 2  # too small
    assert "at least 32x32: 'im0' is 24x20, 'im1'" in capsys.readouterr().err
    assert main([*COMPARE, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["im0", "bad/im0.png", "good/im0.png", "gt/im0.png"]
    assert lines[-1] == "3 images x 2 systems x 2 critics = 12 scores of 0.00576 megapixels together"


@pytest.mark.smoke
def test_thresholds_decide_the_exit_code(photos, capsys):
    assert main([*COMPARE, "--fail-if", "ssim > 2", "--fail-if", "gmsd > +0.005"]) == 0
    assert main([*COMPARE, "--baseline", "good", "--fail-if", "gmsd > +0.005"]) == 4
    out, err = capsys.readouterr()
    assert "error: bad: difference to the baseline of gmsd is 0." in err
    assert "system" in out
    assert main([*COMPARE, "--fail-if", "ssin > 2"]) == 2
    assert "did you mean 'ssim'" in capsys.readouterr().err


@pytest.mark.smoke
def test_wrong_pairs_exit_with_2(photos, capsys):
    (photos / "good" / "im1.png").rename(photos / "good" / "im9.png")
    (photos / "bad" / "im2.png").write_bytes(b"")
    assert main(COMPARE) == 2
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("good: 'im1' is missing", "good: 'im9' is extra", "im2.png: cannot be read"):
        assert part in err
    assert main(["compare", "nowhere", "x=bad", "x=gt", "-c", "ssim"]) == 2
    err = capsys.readouterr().err
    assert "expected NAME=PATH, or a path that exists, got 'nowhere'" in err
    assert "two systems are called 'x'" in err


@pytest.mark.smoke
def test_missing_weights_exit_with_3(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", "1")
    monkeypatch.delenv("PERCEPTLOSS_HOME", raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40), (9 if name == "a" else 8,) * 3).save(tmp_path / name / "x.png")
    monkeypatch.setenv("PERCEPTLOSS_CACHE", str(tmp_path / "empty"))
    assert main(["score", "a", "--ref", "b", "-c", "lpips-alex"]) == 3
    err = capsys.readouterr().err
    assert "alexnet" in err
    assert "Traceback" not in err
    assert main(["score", "a", "--ref", "b", "-c", "lpips-alex=none.pth"]) == 3
    assert "none.pth" in capsys.readouterr().err
    assert main(["score", "a", "--ref", "b", "-c", "lpips-alex", "--random-weights"]) == 0
    out, err = capsys.readouterr()
    assert "weights:random-" in out
    assert "random weights" in err


def test_scores_that_are_not_finite_exit_with_1(photos, capsys, monkeypatch):
    import torch

    from perceptloss.critics.ssim import SSIM

    score = SSIM.score
    bad = iter([True, False, False])
    monkeypatch.setattr(SSIM, "score", lambda self, x, y=None: score(self, x, y) * (torch.nan if next(bad) else 1))
    assert main(["score", "good", "--ref", "gt", "-c", "ssim", "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["values"][0][0][0] is None
    assert "without a finite score" in err
    assert "good/im0 (ssim)" in err


def test_a_missing_pillow_is_named(photos, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["score", "good", "--ref", "gt", "-c", "ssim"]) == 1
    assert "pip install 'perceptloss[compare]'" in capsys.readouterr().err


def test_unexpected_errors_exit_with_1_and_a_trace(photos, capsys, monkeypatch):
    monkeypatch.setattr("perceptloss.compare.jobs.read_hashed", lambda *file, **rules: 1 / 0)
    assert main(["score", "good", "--ref", "gt", "-c", "ssim"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "internal error" in err
    assert "ZeroDivisionError" in err


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["score", "a", "--crop-boarder", "4"], ["unknown flag --crop-boarder; did you mean '--crop-border'"]),
        (["compare", "--outptu=x", "--basline", "y"], ["did you mean '--output'", "did you mean '--baseline'"]),
        (["score", "a", "-c", "ssim", "--rec"], ["unknown flag --rec"]),
        (["compair", "a=b"], ["unknown command 'compair'; did you mean 'compare'"]),
        (["score", "a", "-c", "ssin"], ["unknown critic 'ssin'; did you mean 'ssim'"]),
        (["score", "a", "-c", "ssim", "--batch", "many"], ["expected auto or a number, got 'many'"]),
        (["score", "a", "-c", "ssim", "--tile", "0", "--crop-border", "-1"], ["tile must be", "crop_border must be"]),
        (["score", "a", "-c", "ssim", "--device", "warp"], ["device 'warp' cannot be used"]),
        (["weights", "ftech"], ["invalid choice: 'ftech'"]),
        ([], ["required: COMMAND"]),
    ],
)
def test_what_is_not_known_is_refused_with_a_hint(given, parts, capsys):
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    for part in parts:
        assert part in err


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_and_without_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("x", "red", Terminal()) == "x"


def test_progress_is_for_terminals(photos, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["score", "good", "--ref", "gt", "-c", "ssim"]) == 0
    *drawn, last, end = terminal.getvalue().split("\r")
    assert drawn[1].startswith("scores:") and "0/3" in drawn[1]
    assert not last.strip() and not end, "the bar is gone when the table comes"
    monkeypatch.setattr(sys, "stderr", quiet := Terminal())
    assert main(["score", "good", "--ref", "gt", "-c", "ssim", "--quiet"]) == 0
    assert quiet.getvalue() == ""


def test_arrows_do_not_break_a_plain_terminal():
    raw = io.BytesIO()
    plain = io.TextIOWrapper(raw, encoding="ascii")
    write(plain, "ssim ↑ −0.1 ü\n")
    plain.flush()
    assert raw.getvalue() == b"ssim ^ -0.1 \\xfc\n"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = subprocess.run(
        [sys.executable, "-m", "perceptloss", "show", "ssim"], cwd=ROOT, capture_output=True, env=environment
    )
    assert run.returncode == 0
    assert b"higher ^" in run.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["score", ""],
        ["score", "good", "--ref", " "],
        ["score", "good", "--output", ""],
        ["compare", "a=good", "--cache", ""],
        ["map", "good", ""],
    ],
)
def test_an_empty_path_is_not_the_working_directory(photos, capsys, words):
    assert main([*words, "-c", "tv"]) == 2
    assert "expected a path, got an empty text" in capsys.readouterr().err


def test_flags_have_the_defaults_of_the_settings():
    from perceptloss.cli.options import add_common

    parser = argparse.ArgumentParser()
    add_common(parser)
    given = vars(parser.parse_args(["-c", "tv"]))
    defaults = {**asdict(Settings()), **asdict(Pairing())}
    assert {name: given[name] for name in defaults} == {**defaults, "strip": []}
