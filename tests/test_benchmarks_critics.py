"""The rows per critic and the published scores: counts are right, pictures are compared as published."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from images import ladder, photographs
from PIL import Image
from skimage import data

from benchmarks import critics, reference
from benchmarks.__main__ import main
from benchmarks.flops import trunk_forward
from perceptloss import create_critic, get_card, list_critics

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent


def test_a_row_counts_parameters_operations_and_bytes():
    (row,) = critics.measure(["lpips-vgg"], CPU, 0, side=64)
    critic = create_critic("lpips-vgg", weights=None)
    forward = trunk_forward(critic.trunk, torch.Size((1, 3, 64, 64)))
    assert row.parameters == sum(p.numel() for p in critic.parameters()) > 14_714_688
    assert 2 * forward <= row.forward < 2.01 * forward, "both images, once each"
    assert 3 * forward <= row.step < 3.01 * forward, "and the gradient of one"
    image = 3 * 64 * 64 * 4
    assert image <= row.held < image + 100, "fused holds one tensor of the size of x"
    assert row.held_plain > 20 * image
    assert row.peak_lean < row.peak
    assert np.isnan(row.score_seconds) and np.isnan(row.step_seconds)


def test_every_critic_gets_a_legal_side():
    for card in list_critics():
        side = critics.side_for(card)
        assert side >= max(256, card.min_size) and side % card.multiple_of == 0
    assert critics.side_for(get_card("asna")) == 288


def test_the_command_prints_a_row_per_critic(capsys):
    assert main(["critics", "--quick", "--critic", "ssim", "--critic", "tv"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out if line.startswith(("ssim", "tv"))] == ["ssim", "tv"]
    assert any("(nr)" in line for line in out)


def test_the_document_has_a_row_for_every_critic():
    rows = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8").splitlines()
    named = {line.split()[0] for line in rows if line}
    assert {card.name for card in list_critics()} | {"package:cvvdp"} <= named


def test_published_rows_name_known_critics():
    rows = reference.published()
    assert len(rows) > 90
    for row in rows:
        assert get_card(row.critic.partition(":")[0])
        assert row.tolerance > 0 and row.source and row.distorted


def test_a_published_score_is_reproduced(tmp_path, capsys):
    (tmp_path / "skimage").mkdir()
    Image.fromarray(data.camera()).save(tmp_path / "skimage" / "camera.png")
    results = list(reference.run(tmp_path))
    (camera,) = [result for result in results if result.ours is not None]
    assert camera.agrees
    assert camera.row.value == pytest.approx(0.357959091663361)
    assert abs(camera.ours - camera.row.value) < 1e-4
    assert all(result.missing.startswith("no picture") for result in results if result is not camera)
    assert main(["reference", "--pictures", str(tmp_path)]) == 0
    assert "1 of 1 agree" in capsys.readouterr().out


def test_missing_weights_are_told_with_the_command(tmp_path):
    row = reference.Published("dists", "rgb", "a.png", "a.png", 0.0, 0.1, "none")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    (result,) = reference.run(tmp_path, [row])
    assert result.ours is None
    assert result.missing == "perceptloss weights fetch dists"


@pytest.mark.parametrize(
    ("prepare", "expected"), [("rgb", (10, 200, 30)), ("bgr", (30, 200, 10)), ("grey", (124,) * 3)]
)
def test_pictures_are_prepared_as_published(tmp_path, prepare, expected):
    picture = np.broadcast_to(np.array([10, 200, 30], np.uint8), (4, 4, 3))
    Image.fromarray(picture.copy()).save(tmp_path / "a.png")
    row = reference.Published("ssim", prepare, "a.png", "a.png", 1.0, 0.1, "none")
    for image in reference._prepared(row, tmp_path):
        assert (image[0, :, 0, 0] * 255).tolist() == pytest.approx(expected)


def test_no_published_score_agrees_by_a_wide_tolerance():
    """At most 1 % of what the scores of damaged photographs spread."""
    with (ROOT / "benchmarks" / "reference_scores.csv").open(encoding="utf-8") as file:
        widest: dict[str, float] = {}
        for row in csv.DictReader(file):
            name = row["critic"].partition(":")[0]
            widest[name] = max(widest.get(name, 0.0), float(row["tolerance"]))
    y = photographs(192)
    damaged = [x for kind in ("blur", "noise") for x in ladder(kind, y)[1:]]
    looked_at = 0
    for name, tolerance in widest.items():
        if get_card(name).weights:
            continue
        critic = create_critic(name)
        with torch.no_grad():
            scores = torch.cat([critic(x.clamp(0, 1), y) for x in damaged])
        assert tolerance <= 0.01 * (scores.max() - scores.min()).item(), name
        looked_at += 1
    assert looked_at > 12
