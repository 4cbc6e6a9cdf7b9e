"""Model cards: the text, what they refuse, and the metadata of the file beside them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from perceptloss.compare.statistics.bootstrap import Interval
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.teach.cards.facts import DataSource, Figure, ModelCard, check_file, metadata
from perceptloss.teach.cards.markdown import render, write
from perceptloss.weights.checkpoints import read_facts
from perceptloss.weights.download import sha256_of
from perceptloss.weights.loading import direction_in

OPEN = ModelCard(
    name="mini-nr",
    summary="Judges a photograph alone.",
    kind="nr",
    better="higher",
    fidelity="after-paper",
    licence="Apache-2.0",
    data=(
        DataSource(name="Photos 2", licence="CC0-1.0", attribution="A. Person, example.org", use="photographs"),
        DataSource(name="Ratings", licence="MIT", attribution="B. Person", use="labels"),
    ),
    command="python recipes/critic.py --config mini-nr.yaml \\\n  --seed 3",
    configuration="c" * 64,
    seed=3,
    steps=20_000,
    seconds=5025.4,
    hardware="2 CPU cores",
    versions={"torch": "2.4.0", "perceptloss": "0.1.0"},
    parameters=92_451,
    gflops=0.41237,
    file="mini-nr.safetensors",
    held_out_families=("blur", "screen"),
    held_out_sources=(),
)
FIGURES = (
    Figure(
        data="Ratings, test",
        measure="SRCC",
        value=Interval(0.8123, 0.7901, 0.8333),
        count=1650,
        peers={"niqe": Interval(0.2, 0.15, 0.25), "paper's": 0.75},
    ),
    Figure(data="Ratings, blur|noise", measure="PLCC, poly3", value=Interval(-0.05, -0.31, 0.2), count=90),
)
DONE = replace(OPEN, sha256="a" * 64, figures=FIGURES, failures=("calls rain sharp",), notes=("see\nbelow",))


def section(text, title):
    """Lines under a heading, without empty ones."""
    part = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in part.splitlines() if line]


def saved(folder, card=OPEN, name="mini-nr.safetensors"):
    """A weight file with a card's metadata."""
    path = folder / name
    save_file({"w": torch.ones(3)}, path, metadata=metadata(card))
    return path


def test_text_shows_each_fact():
    text = render(DONE)
    assert text.startswith("# mini-nr\n\nJudges a photograph alone.\n\n| fact | value |\n|---|---|\n")
    facts = dict(re.findall(r"^\| (.+?) \| (.+) \|$", text.split("## Data")[0], re.MULTILINE))
    assert facts["kind"] == "nr: judges without a reference" and facts["direction"] == "higher is better"
    assert facts["parameters"] == "92,451" and facts["one score of 256x256"] == "0.412 GFLOPs"
    assert facts["sha256"] == f"`{'a' * 64}`" and facts["fidelity"] == "after-paper"
    assert section(text, "Data") == [
        "- Photos 2: photographs. CC0-1.0. A. Person, example.org",
        "- Ratings: labels. MIT. B. Person",
    ]
    assert section(text, "Training") == [
        "```sh",
        "python recipes/critic.py --config mini-nr.yaml \\",
        "  --seed 3",
        "```",
        f"- configuration: sha256 `{'c' * 64}`",
        "- seed: 3",
        "- steps: 20,000",
        "- time: 1 h 23 min on 2 CPU cores",
        "- versions: perceptloss 0.1.0, torch 2.4.0",
    ]
    assert section(text, "Held out") == [
        "- degradations: blur, screen",
        "- sources: none: nothing here says how it does on what it never saw",
    ]
    assert section(text, "Known failures") == ["- calls rain sharp"] and section(text, "Notes") == ["- see below"]
    assert text.endswith("- see below\n")


def test_figures_keep_their_intervals():
    assert section(render(DONE), "Agreement") == [
        "| set | measure | n | mini-nr | niqe | paper's |",
        "|---|---:|---:|---:|---:|---:|",
        "| Ratings, test | SRCC | 1650 | 0.812 [0.790, 0.833] | 0.200 [0.150, 0.250] | 0.750 |",
        "| Ratings, blur\\|noise | PLCC, poly3 | 90 | −0.050 [−0.310, 0.200] | — | — |",
        "In brackets: bootstrap intervals. A figure without brackets is quoted, not measured here.",
    ]
    measured = replace(DONE, figures=FIGURES[1:])
    assert "quoted" not in render(measured)


def test_text_is_deterministic():
    turned = replace(DONE, versions=dict(reversed(DONE.versions.items())))
    assert render(turned) == render(DONE) == render(replace(DONE))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "25 h 1 min")],
)
def test_durations(seconds, text):
    assert f"- time: {text} on" in render(replace(DONE, seconds=seconds))


def test_kinds_and_sizes():
    assert "| kind | stereo-fr: judges a stereo pair with a reference |" in render(replace(DONE, kind="stereo-fr"))
    assert "| 1,234 GFLOPs |" in render(replace(DONE, gflops=1234.4))
    assert "| 0.00123 GFLOPs |" in render(replace(DONE, gflops=0.001234))


def test_unfinished_cards_are_not_shown():
    with pytest.raises(ConfigError) as caught:
        render(OPEN)
    assert [problem.split()[0] for problem in caught.value.problems] == ["sha256", "figures", "failures"]


def test_all_problems_at_once():
    with pytest.raises(ConfigError) as caught:
        replace(
            DONE,
            command=" ",
            sha256="xyz",
            steps=0,
            gflops=float("nan"),
            file="weights/mini.pth",
            data=(DataSource(name="Photos", licence="", attribution="", use="photographs"),),
            versions={},
            figures=(Figure(data="d", measure="m", value=Interval(0.5, 0.6, float("nan")), count=0),),
        )
    text = str(caught.value)
    for problem in (
        "command is empty",
        "sha256 must be 64 hex digits, got 'xyz'",
        "steps must be a positive number, got 0",
        "gflops must be a positive number, got nan",
        "file must be the plain name of a .safetensors file, got 'weights/mini.pth'",
        "versions is empty",
        "data 'Photos' lacks licence",
        "data 'Photos' lacks attribution",
        "figure 'm' on 'd': count must be at least 1, got 0",
        "figure 'm' on 'd': its value is not finite",
    ):
        assert f"  - {problem}" in text
    assert len(caught.value.problems) == 10


def test_intervals_the_wrong_way_round():
    wrong = replace(FIGURES[0], peers={"niqe": Interval(0.2, 0.3, 0.1)})
    with pytest.raises(ConfigError, match="niqe has its interval the wrong way round"):
        replace(DONE, figures=(wrong,))


def test_write_checks_the_file_beside(tmp_path):
    weights = saved(tmp_path)
    card = replace(DONE, sha256=sha256_of(weights))
    path = write(card, weights)
    assert path == tmp_path / "mini-nr.md" and path.read_bytes() == render(card).encode()
    assert write(card, path) == path and {p.name for p in tmp_path.iterdir()} == {"mini-nr.md", weights.name}


def test_write_refuses_another_file(tmp_path):
    weights = saved(tmp_path, replace(OPEN, seed=4), name="other.safetensors")
    with pytest.raises(WeightsError) as caught:
        write(DONE, weights)
    text = str(caught.value)
    assert "seed: card 3, file 4" in text and "file: card 'mini-nr.safetensors', file 'other.safetensors'" in text
    assert f"sha256: card '{'a' * 64}', file '{sha256_of(weights)}'" in text and "steps" not in text
    assert not weights.with_suffix(".md").exists()


def test_write_says_what_it_cannot(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot write .*none.card\.md"):
        write(DONE, tmp_path / "none" / "card.md")
    with pytest.raises(WeightsError, match=r"cannot read .*absent\.safetensors"):
        write(DONE, tmp_path / "absent.safetensors")


def test_the_library_reads_the_metadata(tmp_path):
    lower = replace(OPEN, better="lower")
    path = saved(tmp_path, lower)
    facts = read_facts(path)
    assert facts["critic"] == "mini-nr" and facts["seed"] == 3 and facts["data"][1]["licence"] == "MIT"
    assert direction_in([path]) == "lower"
    assert path.read_bytes() == saved(tmp_path, lower, "again.safetensors").read_bytes()


def test_check_file_accepts_a_later_version_of_the_package(tmp_path, monkeypatch):
    path = saved(tmp_path)
    monkeypatch.setattr("perceptloss.teach.cards.facts.__version__", "9")
    check_file(replace(OPEN, sha256=sha256_of(path)), path)


def test_a_file_without_the_facts_of_a_card_is_refused(tmp_path):
    path = tmp_path / DONE.file
    save_file({"w": torch.ones(3)}, path)
    with pytest.raises(WeightsError, match=r"command: card '.*', file None"):
        check_file(replace(OPEN, sha256=sha256_of(path)), path)
