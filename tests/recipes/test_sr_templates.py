"""The configurations for networks: what they offer is valid, and each network trains with critics in the recipe."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import recipe_helpers
import sr
import torch
import yaml
from _lib.networks import build_network

from perceptloss.loss.parsing import parse_terms
from perceptloss.runs.options import Model

CONFIGS = recipe_helpers.RECIPES / "configs"
SMALL = {
    "msrresnet": {"num_feat": 8, "num_block": 1},
    "realesrgan": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "swinir": {"img_size": 8, "window_size": 4, "depths": [2], "embed_dim": 12, "num_heads": [2]},
    "hat": {"img_size": 8, "window_size": 4, "depths": [1], "embed_dim": 12, "num_heads": [2], "squeeze_factor": 4},
    "span": {"feature_channels": 8},
    "nafnet": {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    "restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]},
}
NEEDS = {"hat": "spandrel", "span": "spandrel", "nafnet": "spandrel", "restormer": "spandrel_extra_arches"}


@pytest.mark.parametrize("name", SMALL)
def test_what_a_configuration_offers_is_valid_when_it_is_uncommented(name: str) -> None:
    text = (CONFIGS / f"sr_{name}.yaml").read_text()
    offers = re.findall(r"^    # [^{]*:\n    # ([\w-]+: \{.*\})$", text, re.MULTILINE)
    assert len(offers) == 7
    for offer in offers:
        before, after = (
            yaml.safe_load(t)["loss"]["critics"] for t in (text, text.replace(f"    # {offer}", f"    {offer}"))
        )
        assert len(parse_terms(after)) == len(before) + 1


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.thorough) if n == "hat" else n for n in SMALL])
def test_a_network_trains_with_critics_frozen_and_joint_within_a_budget(
    name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = NEEDS.get(name, "basicsr")
    if find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    config = yaml.safe_load((CONFIGS / f"sr_{name}.yaml").read_text())
    config["model"]["options"] |= SMALL[name]
    start = Model(**config["model"] | {"weights": None})
    torch.manual_seed(0)
    torch.save({"params": build_network(start, 48 // start.scale).state_dict()}, tmp_path / "start.pth")
    config["model"]["weights"] = str(tmp_path / "start.pth")
    folders = {"train": [str(photos / "train")], "val": [str(photos / "val")]}
    folders |= {f"{part}_lq": folders[part] for part in folders if start.scale == 1}  # images against themselves
    config["data"] = {"patch": 48, "batch": 2, **folders}
    for term in config["loss"]["critics"].values():
        term |= {"weights": None, "start": 1, "ramp": 1}
    config["train"] |= {"steps": 3, "warmup": 1, "lr": 1e-2, "ema": 0.5}
    config |= {
        "threads": 1,
        "val": {"every": 0, "judges": ["haarpsi"], "guests": [], "best": "haarpsi"},
        "log": {"every": 1},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    sr.main(["--config", str(tmp_path / "small.yaml"), "--output", str(tmp_path / "run")])
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert set(last["terms"]) == set(config["loss"]["critics"])
    assert all(term["weight"] > 0 for term in last["terms"].values())
    assert next(row for row in rows if row["kind"] == "budget")["spent"] != 0
