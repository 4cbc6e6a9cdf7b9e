"""The recipe of screen content: pages that know what they say, and the whole run at a tiny size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import recipe_helpers  # noqa: F401 - puts the recipes on the path
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")

import _lib.training
import screen_sr
from _lib.networks import build_network
from _lib.pages import font_files, lines_of, make_page, paint

from perceptloss.compare.legibility import Line
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.runs import config as options
from perceptloss.weights.search import find

RECIPES = Path(screen_sr.__file__).parent


def test_the_same_seed_paints_the_same_page():
    first, again, other = (make_page(320, 240, seed) for seed in (3, 3, 4))
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.lines == again.lines
    assert first.picture.tobytes() != other.picture.tobytes()


def test_lines_stand_where_they_say():
    """Within the box of a line there is ink; a page of one colour there would be a lie."""
    page = make_page(480, 360, 11)
    assert len(page.lines) >= 4
    for line in page.lines:
        top, left, bottom, right = line.box
        assert 0 <= left < right <= 480
        assert 0 <= top < bottom <= 360
        assert len(page.picture.crop((left, top, right, bottom)).getcolors(1 << 16)) > 2, line


def test_painted_pages_are_kept_with_what_they_say(tmp_path):
    paint(tmp_path / "pages", 2, 7, ())
    files = sorted((tmp_path / "pages").glob("*.png"))
    assert len(files) == 2
    assert lines_of(files[1]) == make_page(480, 360, 8).lines
    before = files[0].stat().st_mtime_ns
    paint(tmp_path / "pages", 2, 7, ())
    assert files[0].stat().st_mtime_ns == before
    assert lines_of(tmp_path / "screenshot.png") == []


def test_folders_without_fonts_are_named(tmp_path):
    (tmp_path / "broken.ttf").write_text("no font")
    with pytest.raises(ConfigError, match=r"cannot be opened as a font[\s\S]*") as caught:
        font_files([str(tmp_path), str(tmp_path / "empty")])
    assert "empty holds no .ttf or .otf" in str(caught.value)


TINY = """
output: {folder}
data: {{pages: 2, patch: 32, batch: 2}}
model: {{arch: Compact, options: {{num_feat: 4, num_conv: 1, upscale: 2}}, scale: 2, weights: null}}
loss: {{critics: {{gmsd: {{share: 0.3}}}}, budget: {{}}, shift: 0}}
train: {{steps: 4, warmup: 1}}
val: {{judges: [ssim-full], guests: [], best: ssim-full}}
log: {{every: 2}}
"""


def test_trains_tells_what_can_be_read_and_resumes_to_the_same_bits(tmp_path, monkeypatch):

    class Reader:
        name = "toy"

        def line(self, image: torch.Tensor) -> str:
            return "a" * round(10 * float(image.mean()))

        def lines(self, image: torch.Tensor) -> list[Line]:
            raise AssertionError("of painted pages the lines are known")

    monkeypatch.setattr(screen_sr, "readers", lambda: [Reader()])
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.format(folder=tmp_path / "run"))
    arguments = ["--config", str(config), "--log.checkpoint_every", "1"]
    screen_sr.main(arguments)

    real, calls = _lib.training.take_step, []

    def failing(*given: object) -> None:
        calls.append(given)
        if len(calls) in (3, 8):  # in l1, and in the main training
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(_lib.training, "take_step", failing)
    again = [*arguments, "--output", str(tmp_path / "cut")]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            screen_sr.main(again)
    screen_sr.main(again)
    one, other = (load_file(tmp_path / run / "models" / "net_g.safetensors") for run in ("run", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)

    text = (tmp_path / "run" / "results.md").read_text()
    assert "| misread characters | toy |" in text
    for system in ("bicubic", "l1", "critics", "ground truth"):
        assert f"\n| {system} |" in text
    assert json.loads((tmp_path / "run" / "results.json").read_text())


def test_the_configurations_are_valid():
    for name in ("screen_serious", "screen_start"):
        config = options.load(screen_sr.Config, ["--config", str(RECIPES / "configs" / f"{name}.yaml")])
        config = replace(config, data=replace(config.data, train=("here",), val=("there",)))
        assert screen_sr.TASK.problems(config) == []


def test_a_start_for_another_factor_gives_what_fits():
    model = replace(screen_sr.Config().model, weights="fitting:sr-start")
    network, start = build_network(model, 16).state_dict(), load_file(find("sr-start"))
    new = {name for name in network if network[name].shape != start[name].shape}
    assert new == {"body.26.weight", "body.26.bias"}
    for name in network.keys() - new:
        assert torch.equal(network[name], start[name].float())
    with pytest.raises(WeightsError, match="does not hold the weights of this network"):
        build_network(replace(model, weights="sr-start"), 16)
    with pytest.raises(WeightsError, match="does not hold the weights of this network"):
        build_network(
            replace(model, options={"num_feat": 5, "num_conv": 1, "upscale": 2}, weights="fitting:lpips-squeeze"), 16
        )


def test_without_a_reader_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(screen_sr, "readers", list)
    assert "Legibility was not measured" in screen_sr.told(screen_sr.Config(), tmp_path, {}, [])[0]
