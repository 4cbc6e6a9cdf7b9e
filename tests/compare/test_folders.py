"""Every entry of a folder is used or named, whoever lists pictures: scoring, recipes, and sets of opinions."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from unicodedata import normalize

import pytest

from perceptloss.compare import Pairing
from perceptloss.compare.folders import list_folder, spelt, trouble
from perceptloss.compare.pairing import find_images
from perceptloss.errors import ConfigError
from perceptloss.runs.images import find_pairs
from perceptloss.teach.data import OpinionsError
from perceptloss.teach.data.csv_file import read_csv
from perceptloss.teach.data.ranks import read_ranks
from perceptloss.teach.data.release import Release


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_folder(folder, deep=True).files]


def test_linked_folders_are_searched_and_loops_end(tmp_path, caplog):
    out = touch(tmp_path / "out" / "a.png").parent
    touch(out / "sub" / "b.png")
    touch(tmp_path / "store" / "c.png")
    (out / "clip").symlink_to(tmp_path / "store")
    (out / "loop").symlink_to(".")
    (out / "sub" / "up").symlink_to("..")
    (tmp_path / "store" / "back").symlink_to(out)
    assert below(out) == ["a.png", "clip/c.png", "sub/b.png"]
    named = [record.getMessage() for record in caplog.records]
    assert len(named) == 3
    assert all("leads back to a folder that it is in" in text for text in named)
    for link in ("out/loop", "out/sub/up", "out/clip/back"):
        assert any(link in text for text in named)


def test_two_links_to_one_folder_are_two_names_and_said(tmp_path, caplog):
    touch(tmp_path / "frames" / "deep" / "a.png")
    (tmp_path / "gt").mkdir()
    for noise in ("noise15", "noise25"):
        (tmp_path / "gt" / noise).symlink_to(tmp_path / "frames")
    assert below(tmp_path / "gt") == ["noise15/deep/a.png", "noise25/deep/a.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/gt/noise25 and {tmp_path}/gt/noise15 are one folder: its files are there under both names"
    ]


def test_folders_that_all_lead_to_each_other_take_no_time(tmp_path):
    for here in range(9):
        touch(tmp_path / str(here) / "a.png")
        for there in range(9):
            (tmp_path / str(here) / f"to{there}").symlink_to(tmp_path / str(there))
    found = below(tmp_path)
    assert {f"{n}/a.png" for n in range(9)} <= set(found)
    assert len(found) < 9**3


def test_what_cannot_be_used_is_a_problem(tmp_path, monkeypatch):
    out = touch(tmp_path / "out" / "a.png").parent
    (out / "gone.png").symlink_to("/nowhere/gone.png")
    (out / "clip").symlink_to("/nowhere/clip")
    (out / "self.png").symlink_to("self.png")
    os.mkfifo(out / "pipe.png")
    (out / "locked").mkdir()
    listdir = os.listdir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    _, problems = find_images("sys", out, Pairing(recursive=True))
    assert sorted(problem.removeprefix(f"sys: {out}/") for problem in problems) == [
        "clip is a link to /nowhere/clip, which is not there",
        "gone.png is a link to /nowhere/gone.png, which is not there",
        "locked cannot be searched: Permission denied",
        "pipe.png is a pipe or a device, not a file",
        "self.png cannot be read: Too many levels of symbolic links",
    ]
    found, problems = find_images("sys", out / "locked", Pairing())
    assert not found.files
    assert problems[0] == f"sys: {out}/locked cannot be searched: Permission denied"


def test_a_dangling_picture_still_has_its_name(tmp_path):
    touch(tmp_path / "out" / "a.png")
    (tmp_path / "out" / "b.png").symlink_to("/nowhere/b.png")
    found, problems = find_images("sys", tmp_path / "out", Pairing())
    assert list(found.files) == ["a", "b"], "or it would be missing elsewhere too"
    assert len(problems) == 1


def test_folders_that_are_links_are_named_where_none_is_searched(tmp_path, caplog):
    out = touch(tmp_path / "out" / "a.png").parent
    (out / "clip2").symlink_to(touch(tmp_path / "store" / "b.png").parent)
    with caplog.at_level(logging.WARNING):
        assert list(find_images("sys", out, Pairing())[0].files) == ["a"]
    assert "not searched without --recursive: clip2" in caplog.text


def test_recipes_follow_links_and_name_what_dangles(tmp_path):
    for part in ("gt", "lq"):
        touch(tmp_path / "store" / part / "a.png")
        (tmp_path / part).mkdir()
        (tmp_path / part / "scene").symlink_to(tmp_path / "store" / part)
    (pair,) = find_pairs([str(tmp_path / "gt")], [str(tmp_path / "lq")], 4, "data.train")
    assert (pair.name, pair.lq) == ("scene/a", tmp_path / "lq" / "scene" / "a.png")
    (tmp_path / "gt" / "more").symlink_to("/nowhere")
    (tmp_path / "lq" / "b.png").symlink_to("/nowhere/b.png")
    with pytest.raises(ConfigError) as error:
        find_pairs([str(tmp_path / "gt")], [str(tmp_path / "lq")], 4, "data.train")
    assert "gt/more is a link to /nowhere, which is not there" in str(error.value)
    assert "lq/b.png is a link to /nowhere/b.png, which is not there" in str(error.value)


def test_sets_of_opinions_follow_links_and_name_what_dangles(tmp_path):
    for rank in (1, 2):
        touch(tmp_path / "store" / f"fusion_{rank}.png")
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "scene").symlink_to(tmp_path / "store")
    assert len(read_ranks(tmp_path / "ranks")) == 2
    (tmp_path / "ranks" / "other").symlink_to("/nowhere")
    with pytest.raises(OpinionsError, match="other is a link to /nowhere, which is not there"):
        read_ranks(tmp_path / "ranks")
    release = Release("toy", tmp_path)
    assert release.folder("RANKS", deep=True).get("FUSION_1.png").is_file()
    with pytest.raises(OpinionsError, match="other is a link to"):
        release.stop()


def test_letters_are_found_however_they_are_composed(tmp_path):
    written, asked = normalize("NFD", "café"), normalize("NFC", "café")
    there = touch(tmp_path / written / f"{written}.png")
    assert spelt(tmp_path / asked / f"{asked}.png") == there
    assert not trouble(spelt(tmp_path / asked / f"{asked}.png"))
    assert trouble(spelt(tmp_path / asked / "thé.png")) == "is not there"
    assert list(find_images("sys", tmp_path / asked, Pairing())[0].files) == [asked]
    (tmp_path / "list.csv").write_text(f"first,{asked}/{asked}.png\n", encoding="utf-8")
    assert find_images("sys", tmp_path / "list.csv", Pairing())[1] == []
    rows = f"image,mos\n{asked}/{asked}.png,1\n"
    (tmp_path / "opinions.csv").write_text(rows, encoding="utf-8")
    assert [o.image for o in read_csv(tmp_path / "opinions.csv")] == [there]
    touch(tmp_path / written / f"{asked}.png")
    (problem,) = find_images("sys", tmp_path / written, Pairing())[1]
    assert r"'cafe\u0301.png', 'caf\xe9.png' (letters that are composed in one and decomposed in another)" in problem
