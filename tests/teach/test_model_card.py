"""Model cards: the text, and the metadata of the file beside them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from perceptloss.compare.statistics.bootstrap import Interval
from perceptloss.teach.cards.facts import Attacked, DataSource, Figure, ModelCard, metadata
from perceptloss.teach.cards.markdown import render
from perceptloss.weights.checkpoints import read_facts, write_state
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
        exam="Ratings",
        measure="SRCC",
        value=Interval(0.8123, 0.7901, 0.8333),
        count=1650,
        peers={"niqe": Interval(0.2, 0.15, 0.25)},
    ),
    Figure(exam="Ratings", measure="PLCC, poly3", value=Interval(0.7, 0.6, 0.8), count=1650),
    Figure(exam="Ratings", part="families trained on", measure="SRCC", value=Interval(0.9, 0.85, 0.95), count=900),
    Figure(
        exam="Ratings",
        part="blur|noise",
        measure="SRCC",
        value=Interval(-0.05, -0.31, 0.2),
        count=90,
        peers={"niqe": Interval(0.1, 0.05, 0.15)},
        is_detail=True,
    ),
    Figure(exam="Enlarged", measure="nearest below bilinear", value=Interval(0.5, 0.4, 0.6), count=200),
)
DONE = replace(OPEN, sha256="a" * 64, figures=FIGURES, failures=("calls rain sharp",), notes=("see\nbelow",))


def section(text, title):
    """Lines under a heading, without empty ones."""
    part = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in part.splitlines() if line]


def saved(folder, card=OPEN, name="mini-nr.safetensors"):
    """A weight file with a card's metadata."""
    path = folder / name
    write_state(path, {"w": torch.ones(3)}, metadata(card))
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
        "### Ratings",
        "| critic | part | n | SRCC | PLCC, poly3 |",
        "|---|---|---:|---:|---:|",
        "| mini-nr | all | 1650 | 0.812 [0.790, 0.833] | 0.700 [0.600, 0.800] |",
        "| mini-nr | families trained on | 900 | 0.900 [0.850, 0.950] | — |",
        "| niqe | all | 1650 | 0.200 [0.150, 0.250] | — |",
        "<details><summary>mini-nr by parts</summary>",
        "| part | n | SRCC |",
        "|---|---:|---:|",
        "| blur\\|noise | 90 | −0.050 [−0.310, 0.200] |",
        "</details>",
        "### Enlarged",
        "| critic | part | n | nearest below bilinear |",
        "|---|---|---:|---:|",
        "| mini-nr | all | 200 | 0.500 [0.400, 0.600] |",
    ]
    assert "Under attack" not in render(DONE)


def test_attacks_are_a_row_each():
    attacks = [
        Attacked(exam="Ratings", count=60, weights="mini-nr", attack=attack, srcc={0: 0.9, 1: low, 8: None})
        for attack, low in (("FGSM", 0.5), ("PGD-10", -0.25))
    ]
    lines = section(render(replace(DONE, attacks=attacks)), "Under attack")
    assert lines[0].startswith("SRCC on 60 images of Ratings")
    assert lines[1:] == [
        "| weights | attack | before | 1/255 | 8/255 |",
        "|---|---|---:|---:|---:|",
        "| mini-nr | FGSM | 0.900 | 0.500 | — |",
        "| mini-nr | PGD-10 | 0.900 | −0.250 | — |",
    ]


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


def test_the_library_reads_the_metadata(tmp_path):
    lower = replace(OPEN, better="lower")
    path = saved(tmp_path, lower)
    facts = read_facts(path)
    assert facts["critic"] == "mini-nr" and facts["seed"] == 3 and facts["data"][1]["licence"] == "MIT"
    assert direction_in([path]) == "lower"
    assert path.read_bytes() == saved(tmp_path, lower, "again.safetensors").read_bytes()
