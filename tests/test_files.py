"""Files that are whole or not there, and locks between those who write them."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from perceptloss.output.files import exclusive, replacing, unwritable, write_atomically
from perceptloss.output.tensors import sort_metadata


def test_a_file_is_replaced_in_one_piece(tmp_path):
    path = tmp_path / "x.md"
    write_atomically(path, "one\n")
    with replacing(path) as draft:
        draft.write_text("two\n")
        assert draft.suffix == ".md"
        assert path.read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"
    assert [p.name for p in path.parent.iterdir()] == ["x.md"]


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    write_atomically(tmp_path / "x.txt", "old")
    with pytest.raises(OSError, match="none"):
        write_atomically(tmp_path / "none" / "x.txt", "new")
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "x.txt") as draft:
        draft.write_text("half\ud800", encoding="utf-8")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x.txt", "old")]


def test_a_writer_that_hides_its_file_does_not_hide_the_result(tmp_path):
    with replacing(tmp_path / "x") as draft:
        draft.unlink()
        os.close(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600))
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.txt").symlink_to("deep/x.txt")
    for text in ("one", "two"):
        write_atomically(tmp_path / "link.txt", text)
        assert (tmp_path / "deep" / "x.txt").read_text() == text
    assert (tmp_path / "link.txt").is_symlink()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.txt"]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / f"{'x' * 251}.txt"
    assert unwritable(path) == ""
    write_atomically(path, "text")
    assert path.read_text() == "text"


def test_trying_out_changes_nothing(tmp_path):
    (tmp_path / "x.txt").write_text("old")
    (tmp_path / "here").mkdir()
    (tmp_path / "gone").symlink_to("/proc/nowhere/x")
    os.mkfifo(tmp_path / "pipe")
    for path, is_folder, why in (
        ("x.txt", False, ""),
        ("new.txt", False, ""),
        ("far/off/new.txt", False, ""),
        ("here", True, ""),
        ("far/off", True, ""),
        ("here", False, "is a folder, not a file"),
        ("x.txt", True, "is a file, not a folder"),
        ("pipe", False, "is a pipe or device, not a file"),
        ("x.txt/new", False, "cannot be written: Not a directory"),
        ("gone", False, "cannot be written: No such file or directory"),
        ("nu\0l", False, "cannot be written: embedded null byte"),
        ("far/" + "x" * 256, False, f"cannot be written: {'x' * 40}... is longer than a name can be"),
    ):
        assert unwritable(tmp_path / path, is_folder=is_folder).replace("lstat: ", "") == why, path
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["gone", "here", "pipe", "x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_threads_that_write_one_file_do_not_mix_it(tmp_path):
    texts = [letter * 100_000 for letter in "abcd"]
    threads = [threading.Thread(target=write_atomically, args=(tmp_path / "x", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_text() in texts


def test_only_one_thread_is_inside(tmp_path):
    inside, seen = [], []

    def work() -> None:
        for _ in range(3):
            with exclusive(tmp_path / "x.lock") as held:
                inside.append(held)
                time.sleep(0.001)
                seen.append(list(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[True]] * 9


def _die_inside(path: str) -> None:
    with exclusive(Path(path)):
        os._exit(1)


def test_a_holder_that_died_is_not_waited_for(tmp_path):
    holder = multiprocessing.get_context("spawn").Process(target=_die_inside, args=(str(tmp_path / "x.lock"),))
    holder.start()
    holder.join()
    assert (tmp_path / "x.lock").exists()
    with exclusive(tmp_path / "x.lock") as held:
        assert held


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def unsupported(descriptor: int, what: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with exclusive(tmp_path / "x.lock") as held:
        assert not held


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"), exclusive(tmp_path / "taken" / "x.lock"):
        pass


def test_equal_tensors_and_notes_are_equal_files(tmp_path):
    notes = {name: json.dumps({"ü": [name]}) for name in "hgfedcba"}
    files = set()
    for n in range(8):
        save_file({"b": torch.ones(3), "a": torch.zeros(2)}, tmp_path / f"{n}", notes)
        sort_metadata(tmp_path / f"{n}")
        files.add((tmp_path / f"{n}").read_bytes())
    assert len(files) == 1
    with safe_open(tmp_path / "0", "pt") as opened:
        assert opened.metadata() == notes
        assert torch.equal(opened.get_tensor("b"), torch.ones(3))
