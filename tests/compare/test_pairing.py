"""Matching files by stem: every problem in one message."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
from png16 import png16

from perceptloss.compare import Pairing, Settings, compare, score
from perceptloss.compare.pairing import find_images
from perceptloss.compare.plan import make_plan
from perceptloss.errors import ConfigError, PairingError


def plan(systems, reference, critics=("toy-error",), rules=Pairing(), **settings):  # noqa: B008
    return make_plan(systems, reference, list(critics), rules=rules, settings=Settings(**settings))


def keys(source, **rules):
    found, problems = find_images("s", source, Pairing(**rules))
    return list(found.files), problems


def test_all_kinds_of_problems_are_listed_at_once(toys, folder):
    gt = folder("gt", a=1, b=1, c=1)
    one = folder("one", a=1, b=1, e=1)
    folder("one", size=(20, 20), b=1)
    two = folder("two", a=1, b=1, c=1)
    folder("two", ending=".jpg", b=1)
    with pytest.raises(PairingError) as error:
        plan({"one": one, "two": two}, gt)
    text = str(error.value)
    assert "4 problems" in text
    assert "one: 'b' is 20x20, but the reference is 12x16" in text
    assert "two: 2 files are called 'b': b.jpg, b.png" in text
    assert "one: 'c' is missing (in two, the reference)" in text
    assert "one: 'e' is extra" in text


def test_pairing_and_image_problems_come_together(toys, folder):
    gt, out = folder("gt", a=1, b=1), folder("out", a=1)
    (out / "extra.png").write_bytes(b"broken")
    (gt / "a.png").write_bytes(b"broken")
    with pytest.raises(PairingError) as error:
        plan({"out": out}, gt)
    for part in (
        "out: 'b' is missing",
        "out: 'extra' is extra",
        "gt/a.png: cannot be read",
        "extra.png: cannot be read",
    ):
        assert part in str(error.value)


def test_all_unusable_images_are_listed_at_once(toys, folder):
    gt = folder("gt", a=1, b=1, c=1)
    out = folder("out", a=1)
    folder("out", size=(12, 20), b=1)
    (out / "c.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(PairingError) as error:
        plan({"out": out}, gt)
    assert "c.png: cannot be read" in str(error.value)
    assert "out: 'b' is 12x20, but the reference is 12x16 (height x width)" in str(error.value)


def test_different_depth_is_a_problem(toys, folder, tmp_path):
    gt = folder("gt", a=1)
    (tmp_path / "deep").mkdir()
    png16(tmp_path / "deep" / "a.png", np.zeros((12, 16, 3), np.uint16))
    with pytest.raises(PairingError, match="16 bits, but the reference has 8"):
        plan({"deep": tmp_path / "deep"}, gt)


def test_endings_are_stripped_in_any_order(folder):
    out = folder("out", babyx4_SwinIR=1, bird_SwinIRx4=1, head=1)
    assert keys(out, strip=("x4", "_SwinIR")) == (["baby", "bird", "head"], [])
    assert keys(out, strip=("x4",))[0] == ["babyx4_SwinIR", "bird_SwinIR", "head"]
    assert keys(out, strip=(".*",))[1][0].startswith("s: 3 files are called ''")
    with pytest.raises(ConfigError, match="not a regular expression"):
        Pairing(strip=("(",))


def test_an_ending_that_would_pair_everything_is_proposed(toys, folder):
    gt, out = folder("gt", a=1, b=1), folder("out", ax4=1, bx4=1)
    with pytest.raises(PairingError, match="out: --strip x4 would pair all of these"):
        plan({"out": out}, gt)
    assert [image.key for image in plan({"out": out}, gt, rules=Pairing(strip=("x4",))).images] == ["a", "b"]


def test_intersection_is_allowed_and_said(toys, folder):
    gt, out = folder("gt", a=0, b=0, c=0), folder("out", a=51, b=51, d=51)
    results = score(out, gt, ["toy-error"], rules=Pairing(allow_missing=True))
    assert [image.key for image in results.images] == ["a", "b"]
    assert results.left_out == {"c": ("images",), "d": ("the reference",)}
    assert "|images:2of4|" in results.critics[0].signature
    assert results.settings["allow_missing"] is True
    with pytest.raises(PairingError, match="no image is in all sets"):
        plan({"out": out}, folder("other", z=1), rules=Pairing(allow_missing=True))


def test_one_folder_twice_is_refused(toys, folder, tmp_path):
    gt, out = folder("gt", a=1), folder("out", a=2)
    with pytest.raises(PairingError, match="one and two are the same files"):
        plan({"one": out, "two": tmp_path / "gt" / ".." / "out"}, gt)
    with pytest.raises(PairingError, match="one and the reference are the same files"):
        plan({"one": gt}, gt)


def test_copies_of_the_reference_and_of_a_system_are_flagged(toys, folder):
    gt, one, two = folder("gt", a=1, b=2), folder("one", a=1, b=3), folder("two", a=1, b=3)
    flags = compare({"one": one, "two": two}, gt, ["toy-error"]).flags
    assert [(f.kind, f.system, f.image) for f in flags] == [
        ("identical", "one", "a"),
        ("identical", "two", "a"),
        ("same-system", "one", None),
    ]


def test_folders_below_keep_their_path(toys, folder, caplog):
    folder("gt/x", a=1)
    folder("gt/y", a=1)
    gt = folder("gt", a=1)
    with caplog.at_level(logging.WARNING):
        assert keys(gt) == (["a"], [])
    assert "not searched without --recursive: x, y" in caplog.text
    assert keys(gt, recursive=True) == (["a", "x/a", "y/a"], [])
    empty = folder("top")
    folder("top/below", a=1)
    assert keys(empty)[1] == [
        f"s: no images in {empty.as_posix()}; it has the folders below (--recursive searches them)"
    ]


def test_files_that_are_no_images_are_named(folder, caplog):
    gt = folder("gt", a=1)
    (gt / "notes.md").write_text("x")
    (gt / ".hidden").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert keys(gt) == (["a"], [])
    assert "notes.md" in caplog.text
    assert ".hidden" not in caplog.text


def test_lists_and_tables_name_files(folder, tmp_path):
    folder("gt", a=1, b=1)
    (tmp_path / "list.txt").write_text("gt/a.png\n\ngt/b.png\n")
    (tmp_path / "table.csv").write_text("image,path\nfirst,gt/a.png\nsecond,gt/b.png\n")
    (tmp_path / "bad.csv").write_text("first,gt/a.png,more\nfirst,gt/none.png\nfirst,gt/b.png\n")
    assert keys(tmp_path / "list.txt") == (["a", "b"], [])
    assert keys(tmp_path / "table.csv") == (["first", "second"], [])
    problems = "\n".join(keys(tmp_path / "bad.csv")[1])
    assert "line 1: expected two columns" in problems
    assert "none.png is not there" in problems
    assert "2 files are called 'first'" in problems


def test_single_files_pair_whatever_they_are_called(toys, folder):
    gt, out = folder("gt", a=0), folder("out", b=51)
    results = score(out / "b.png", gt / "a.png", ["toy-error"])
    assert results.images[0].key == "a"
    assert results.values[0][0][0] == pytest.approx(0.2)
    with pytest.raises(PairingError, match=r"nowhere.png is not there"):
        score("nowhere.png", gt / "a.png", ["toy-error"])


def test_images_too_small_are_all_listed(toys, folder):
    out = folder("out", a=1, b=1)
    folder("out", size=(8, 8), c=1)
    with pytest.raises(PairingError, match="needs images of at least 8x8: 'a' is 4x8, 'b' is 4x8, 'c' is 0x0"):
        plan({"out": out}, None, ["toy-light"], crop_border=4)
    folder("out", size=(9, 40), c=1)
    assert plan({"out": out}, None, ["toy-light"], crop_border=0).sizes == (((12, 16),), ((12, 16),), ((9, 40),))


def test_wrong_names_critics_and_settings_are_listed_at_once(toys, folder):
    gt, out = folder("gt", a=1), folder("out", a=1)
    with pytest.raises(ConfigError) as error:
        make_plan(
            {"out": out},
            None,
            ["toy-error", "toy-light"],
            baseline="outt",
            rules=Pairing(),
            settings=Settings(tile=8, colour="y", resize="to-ref"),
        )
    text = str(error.value)
    assert "5 problems" in text
    for part in (
        "baseline 'outt' is not a system; did you mean 'out'?",
        "'toy-error' compares with a reference: give --ref",
        "'toy-light' judges colour",
        "'toy-light' must see whole images",
        "--resize to-ref needs --ref",
    ):
        assert part in text
    with pytest.raises(ConfigError, match=r"unknown critic 'toy-eror'; did you mean 'toy-error'"):
        make_plan({"out": out}, gt, ["toy-eror"], rules=Pairing(), settings=Settings())
    with pytest.raises(ConfigError, match="4 problems"):
        Settings(crop_border=-1, colour="bgr", tile=0, batch="many")


@pytest.mark.parametrize("kind", ["folder", "list", "files"])
def test_an_expression_that_would_never_end_is_stopped(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("perceptloss.compare.strip.SECONDS", 0.5)
    out = folder("out", **{"a" * 40 + "c": 1})
    (tmp_path / "list.txt").write_text(f"out/{'a' * 40}c.png\n")
    source = {"folder": out, "list": tmp_path / "list.txt", "files": [*out.iterdir(), *out.iterdir()]}[kind]
    found, problems = keys(source, strip=("_x4", "(a+)+b"))
    assert found == []
    assert "--strip '(a+)+b' is not done with 1 names in 0.5 s; repeat nothing inside of a repetition" in problems[0]
    assert keys(out, strip=(r"(a+)+c", r"_.*_\d+"))[1][0].startswith("s: --strip leaves nothing")


def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    assert "is a pipe or device, expected a file" in keys(tmp_path / "list.csv")[1][0]
