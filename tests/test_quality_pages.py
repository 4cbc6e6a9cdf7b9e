"""What `python -m benchmarks quality` leaves for a page: a part of a comparison, the plane, the crops."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from images import photographs
from PIL import Image

from benchmarks import quality_pages
from benchmarks.quality_pages import content_table, drawn, only, pages
from perceptloss import create_critic
from perceptloss.compare import Analysis, Results, Settings, compare
from perceptloss.compare.table import render
from perceptloss.errors import InputError

SYSTEMS = ("l1", "frozen", "joint, 0.25 dB")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two photographs by two seeds; each system takes more of them away than the one before."""
    home = tmp_path_factory.mktemp("proof")
    for name, shift in (("gt", 0), *zip(SYSTEMS, (8, 16, 32), strict=True)):
        (home / name).mkdir()
        for i, photo in enumerate(photographs(96)[:2]):
            pixels = (photo.permute(1, 2, 0) * 191 + shift * (i + 1)).round().byte().numpy()
            for seed in (0, 1):
                Image.fromarray(pixels).save(home / name / f"{i}@{seed}.png")
    settings, judges = Settings(crop_border=4), ("psnr-y", "ms-gmsd")
    made = compare({name: home / name for name in SYSTEMS}, home / "gt", judges, baseline="l1", settings=settings)
    renamed = tuple(replace(c, label={"ms-gmsd": "lpips-alex"}.get(c.label, c.label)) for c in made.critics)
    return replace(made, critics=renamed, analysis=Analysis(groups={i.key: i.key[0] for i in made.images}))


def test_a_part_keeps_the_scores_of_what_it_names(results: Results) -> None:
    part = only(results, ("joint, 0.25 dB", "l1"), ("lpips-alex",), (3, 1))
    assert part.systems == ("joint, 0.25 dB", "l1") and [r.key for r in part.images] == ["1@1", "0@1"]
    whole = results.scores("joint, 0.25 dB", "lpips-alex")
    assert part.scores("joint, 0.25 dB", "lpips-alex") == (whole[3], whole[1])
    assert part.images[0].outputs[0] == results.images[3].outputs[2]
    assert part.analysis.groups == {"1@1": "1", "0@1": "0"}


def test_what_costs_more_fidelity_stands_further_left(results: Results) -> None:
    svg = drawn(results)
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    names = re.findall(r">([^<]+)</text>", svg)[-3:]
    assert names == list(SYSTEMS) and places == sorted(places, reverse=True) and len(set(places)) == 3


def test_pages_hold_the_table_the_plane_and_one_crop_of_each_photograph(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_pages, "create_critic", lambda name: create_critic("gmsd"))
    pages(results, tmp_path)
    assert (tmp_path / "quality.md").read_text() == f"{render(results, 'md')}\n{content_table(results)}"
    assert (tmp_path / "quality-plane.svg").read_text() == drawn(results)
    with Image.open(tmp_path / "quality-crops.png") as crops:
        head, tile, foot = 34, 2 * 96, 28
        assert crops.height == head + 2 * (tile + foot)


def test_the_content_of_what_restored_nothing_is_the_ground_truths(results: Results) -> None:
    head, _, *rows = content_table(results).splitlines()
    assert head.startswith("| loss | edge_density |") and [row.split(" | ")[0] for row in rows] == [
        f"| {name}" for name in SYSTEMS
    ]
    same = replace(results, images=tuple(replace(r, outputs=(r.reference,) * 3) for r in results.images))
    assert {row.split(" | ", 1)[1] for row in content_table(same).splitlines()[2:]} == {
        "1.00 | 0.00 | 1.00 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | nothing |"
    }
    unknown = replace(results, images=tuple(replace(r, reference=None) for r in results.images))
    with pytest.raises(InputError, match="needs their files and those of their references"):
        content_table(unknown)
