"""Pictures that are a few pixels apart, and those larger than a decoder takes by itself."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptloss.compare import Pairing, Settings, compare, score
from perceptloss.compare.plan import make_plan
from perceptloss.errors import ConfigError, PairingError


@pytest.fixture
def truth() -> np.ndarray:
    """A picture of 100x102 with structure, of which others are cut."""
    coarse = np.random.default_rng(0).integers(0, 256, (26, 26, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((102, 100), Image.Resampling.BICUBIC))


@pytest.fixture
def save(tmp_path: Path):
    """Write a picture `a.png` into a folder of its own."""

    def write(name: str, picture: np.ndarray) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / name / "a.png")
        return tmp_path / name

    return write


def noisy(picture: np.ndarray) -> np.ndarray:
    shift = np.random.default_rng(1).integers(-5, 6, picture.shape)
    return (picture.astype(int) + shift).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("crop", "size"), [("to-ref", (99, 101)), ("modcrop:3", (99, 102)), ("to-ref", (98, 99))])
def test_a_cut_gives_the_score_of_pictures_that_were_cut_before(truth, save, crop, size):
    height, width = size
    out, gt = noisy(truth)[:height, :width], save("gt", truth)
    sr = save("sr", out)
    before = score(sr, save("cut", truth[:height, :width]), ["psnr"])
    found = score(sr, gt, ["psnr"], settings=Settings(crop=crop))
    assert found.values == before.values
    assert f"|cut:{crop.replace(':', '')}|" in found.critics[0].signature
    assert [flag.kind for flag in found.flags] == ["cut"]
    assert f"judged on {height}x{width}" in found.flags[0].text


def test_a_result_that_is_larger_is_cut_and_a_border_comes_after(truth, save):
    larger = np.pad(noisy(truth), ((0, 3), (0, 2), (0, 0)))
    settings = Settings(crop="to-ref", crop_border=4)
    found = score(save("padded", larger), save("gt", truth), ["psnr"], settings=settings)
    assert found.values == score(save("sr", noisy(truth)), save("gt", truth), ["psnr"], settings=settings).values


def test_systems_are_judged_on_the_same_pixels_and_such_scores_are_not_kept_for_others(truth, save, tmp_path):
    gt, small, whole = save("gt", truth), save("small", noisy(truth)[:97]), save("whole", noisy(truth))
    settings, cache = Settings(crop="to-ref"), tmp_path / "cache"
    both = compare({"small": small, "whole": whole}, gt, ["psnr"], settings=settings, cache=cache)
    assert both.values[0] == both.values[1]
    alone = score(whole, gt, ["psnr"], settings=settings, cache=cache)
    assert alone.values == score(whole, gt, ["psnr"]).values != both.values[1:]


@pytest.mark.parametrize(
    ("part", "offered", "not_offered"),
    [
        (np.s_[:99, :102], ("--crop modcrop:3", "--crop to-ref"), "--resize"),
        (np.s_[:99, :101], ("--crop to-ref cuts both to 99x101",), "--resize"),
        (np.s_[:50, :51], ("--resize to-ref would resize it",), "--crop"),
    ],
)
def test_the_message_offers_what_fits_the_difference(truth, save, part, offered, not_offered):
    with pytest.raises(PairingError) as error:
        score(save("sr", truth[part]), save("gt", truth), ["psnr"])
    assert all(text in str(error.value) for text in offered)
    assert not_offered not in str(error.value)


def test_another_scale_is_not_cut(truth, save):
    with pytest.raises(PairingError, match="more than a border"):
        score(save("half", truth[::2, ::2]), save("gt", truth), ["psnr"], settings=Settings(crop="to-ref"))
    with pytest.raises(PairingError, match="modcrop:4 leaves 96x100 and 100x100"):
        score(save("sr", truth[:99]), save("gt", truth), ["psnr"], settings=Settings(crop="modcrop:4"))


def test_a_picture_cut_elsewhere_is_told_apart_from_one_cut_at_the_top_left(truth, save, caplog):
    gt, middle, odd = save("gt", truth), save("middle", noisy(truth)[2:98, 2:100]), save("odd", noisy(truth)[1:99])
    with caplog.at_level(logging.WARNING):
        shifted = score(middle, gt, ["psnr"], settings=Settings(crop="to-ref")).values[0][0][0]
        assert "better at row 2, column 2 than at 0, 0: --crop to-ref-centre cuts there" in caplog.text
        caplog.clear()
        right = score(middle, gt, ["psnr"], settings=Settings(crop="to-ref-centre")).values[0][0][0]
        score(odd, gt, ["psnr"], settings=Settings(crop="to-ref-centre"))
        score(save("sr", noisy(truth)[:97]), gt, ["psnr"], settings=Settings(crop="to-ref"))
        assert caplog.text == ""
    assert right > shifted + 10


def test_what_contradicts_is_refused():
    with pytest.raises(ConfigError, match="3 problems"):
        Settings(crop="modcrop", resize="to-ref", max_pixels=0, colour="bgr")
    with pytest.raises(ConfigError, match="two answers to one question"):
        Settings(crop="modcrop:4", resize="to-ref")
    with pytest.raises(ConfigError, match="--crop to-ref needs --ref"):
        make_plan({"a": "."}, None, ["tv"], rules=Pairing(), settings=Settings(crop="to-ref"))


def test_a_picture_of_any_size_is_read_if_the_number_of_pixels_allows(truth, save, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    out = save("sr", truth)
    assert score(out, None, ["tv"]).values[0][0][0] > 0
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(
        PairingError, match="is 100x102, more than the 5000 pixels allowed; --max-pixels 10200 allows it"
    ):
        score(out, None, ["tv"], settings=Settings(max_pixels=5000))
