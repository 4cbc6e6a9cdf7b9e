"""What commands write: found out before the first score, in one piece or not at all, and where it was asked for."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptloss.cli.main import main

COMMANDS = {
    "score": ["score", "out", "--ref", "gt", "-c", "psnr", "--output"],
    "compare": ["compare", "x=out", "y=other", "--ref", "gt", "-c", "psnr", "--output"],
    "cache": ["score", "out", "--ref", "gt", "-c", "psnr", "--cache"],
    "map": ["map", "out", "--ref", "gt", "-c", "ssim-full", "--output"],
}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Folders gt, out and other with a picture each; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("gt", "out", "other")):
        Path(name).mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}/a.png")
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.parametrize(
    ("command", "output", "reason"),
    [
        ("score", "gt.json", "is a folder, not a file"),
        ("compare", "gt.json", "is a folder, not a file"),
        ("score", "full.json", "is a pipe or device, not a file"),
        ("compare", "none/x.json", "there is no folder 'none'"),
        ("score", "afile/x.json", "there is no folder 'afile'"),
        ("score", "x" * 251 + ".json", "File name too long"),
        ("cache", "afile", "is a file, not a folder"),
        ("cache", "afile/deep/er", "cannot be written: Not a directory"),
        ("map", "afile", "is a file, not a folder"),
        ("map", "none/maps", "there is no folder 'none'"),
        ("map", "full.png", "is a pipe or device, not a file"),
        *(
            (command, "/proc/x.png" if command == "map" else "/proc/x.json", "cannot be written")
            for command in COMMANDS
        ),
    ],
)
def test_what_cannot_be_written_is_found_before_the_first_score(photos, capsys, monkeypatch, command, output, reason):
    Path("gt.json").mkdir()
    Path("afile").write_text("mine")
    for link in ("full.json", "full.png"):
        os.symlink("/dev/full", link)
    before = tree(photos)
    for place in ("panel", "run"):
        monkeypatch.setattr(f"perceptloss.compare.{place}.build", lambda *given, **more: pytest.fail("too late"))
    assert main([*COMMANDS[command], output]) == 2
    out, err = capsys.readouterr()
    assert reason in err
    assert len(err.splitlines()) == 2, "one sentence below its heading"
    assert out == ""
    assert tree(photos) == before


def test_an_input_is_no_output(photos, capsys):
    Path("list.csv").write_text("a,out/a.png\n")
    assert main(["score", "list.csv", "-c", "tv", "--output", "./list.csv"]) == 2
    assert "would overwrite an input" in capsys.readouterr().err
    assert Path("list.csv").read_text() == "a,out/a.png\n"


def test_a_disk_that_fills_later_costs_the_file_and_not_the_table(photos, capsys, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    Path("old.json").write_text("old")
    monkeypatch.setattr("perceptloss.compare.results.write_atomically", full)
    assert main([*COMMANDS["score"], "old.json"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("means over 1 image")
    assert err == "error: --output 'old.json' could not be written: No space left on device\n"
    assert Path("old.json").read_text() == "old"


def test_a_disk_that_fills_under_maps_is_a_sentence(photos, capsys, monkeypatch):
    def full(file, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    Path("a.ssim-full.npy").write_text("old")
    monkeypatch.setattr(np, "save", full)
    assert main([*COMMANDS["map"], ".", "--format", "npy", "--force"]) == 2
    assert capsys.readouterr().err == f"error: {photos / 'a.ssim-full.npy'}: No space left on device\n"
    assert {path.name for path in photos.iterdir()} == {"a.ssim-full.npy", "gt", "other", "out"}
    assert Path("a.ssim-full.npy").read_text() == "old"


def test_a_cache_that_fills_later_is_done_without(photos, capsys, monkeypatch):
    write = Path.open

    def full(path, mode="r", *given, **more):
        if path.suffix == ".jsonl" and mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, mode, *given, **more)

    monkeypatch.setattr(Path, "open", full)
    assert main([*COMMANDS["cache"], "kept"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("means over 1 image")
    assert "No space left on device; scores are not kept any more" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_a_sentence():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "perceptloss", "list"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert (run.returncode, run.stderr) == (2, "error: standard output: No space left on device\n")


def test_closed_streams(photos, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["score", "out", "-c", "tv"]) == 2
    assert capsys.readouterr().err == "error: standard output: it is closed\n"
    monkeypatch.setattr(sys, "stderr", None)
    for command in (["score", "out", "-c", "tv"], ["map", "out", "-c", "tv"]):
        assert main(command) == 0
        assert "tv" in capsys.readouterr().out
    assert main(["score", "nowhere", "-c", "tv"]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_warnings_that_cannot_be_written_stop_nothing(photos, capsys, monkeypatch):
    Path("out/sub").mkdir()
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", full)
    assert main(["score", "out", "-c", "tv"]) == 0
    assert capsys.readouterr().out.startswith("means over 1 image")
    assert main(["score", "nowhere", "-c", "tv"]) == 2
    with pytest.raises(OSError, match="No space left"):
        full.close()


@pytest.mark.parametrize("source", ["out", "out/self.png", "again"])
def test_a_link_to_itself_is_a_problem_like_others(photos, capsys, source):
    os.symlink("self.png", "out/self.png")
    os.symlink("again", "again")
    assert main(["score", source, "--ref", "gt", "-c", "psnr"]) == 2
    assert "cannot be read: Too many levels of symbolic links" in capsys.readouterr().err
    assert main(["map", "gt/a.png", "-c", "tv", "--output", "again/x.png"]) == 2
    assert main(["map", "gt/a.png", "-c", "tv", "--output", "out/self.png", "--force"]) == 2
    assert "cannot be written: Too many levels of symbolic links" in capsys.readouterr().err


def test_a_link_stays_one_and_what_it_leads_to_is_written(photos):
    Path("real.json").write_text("old")
    os.symlink("real.json", "link.json")
    assert main([*COMMANDS["score"], "link.json"]) == 0
    assert Path("link.json").is_symlink()
    assert json.loads(Path("real.json").read_text())["systems"] == ["out"]


def lists(keys: Sequence[str]) -> list[str]:
    for name in ("out", "gt"):
        Path(f"{name}.csv").write_text("".join(f'"{key}",{name}/a.png\n' for key in keys))
    return ["map", "out.csv", "--ref", "gt.csv", "-c", "ssim-full", "--force", "--output", "maps"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/tmp/x", "linked/x", "file"])
def test_no_key_of_a_list_leads_out_of_the_folder_of_maps(photos, capsys, key):
    Path("maps").mkdir()
    Path("elsewhere").mkdir()
    Path("precious.png").write_text("mine")
    os.symlink(photos / "elsewhere", "maps/linked")
    os.symlink(photos / "precious.png", "maps/file.ssim-full.png")
    command = lists(["good", key])
    before = tree(photos)
    assert main(command) == 2
    assert "ssim-full.png is outside of maps" in capsys.readouterr().err
    assert tree(photos) == before


def test_keys_that_meet_in_one_file_are_refused(photos, capsys):
    assert main(lists(["a/b", "a//b"])) == 2
    assert "is the file of two images or critics" in capsys.readouterr().err
    assert main(lists(["a/b", "..", "x/../c"])) == 0
    assert {p.name for p in Path("maps").rglob("*.png")} == {"b.ssim-full.png", "...ssim-full.png", "c.ssim-full.png"}


def test_an_existing_folder_wins_over_name_and_path(photos, capsys):
    for name in ("runs/lr=0.1,seed=1", "runs/lr=0.2,seed=1", "k=1", "1"):
        Path(name).mkdir(parents=True)
        Image.fromarray(np.full((24, 20, 3), 90, np.uint8)).save(f"{name}/a.png")

    def dry(*systems):
        assert main(["compare", *systems, "--ref", "gt", "-c", "psnr", "--dry-run"]) == 0
        out, err = capsys.readouterr()
        head, row, *_ = out.splitlines()
        return head.split()[1:-1], row.split()[1:-1], err

    names, files, err = dry("k=1", "other=runs/lr=0.1,seed=1")
    assert (names, files) == (["k=1", "other"], ["k=1/a.png", "runs/lr=0.1,seed=1/a.png"])
    assert "for a system k of 1 write k=./1" in err
    assert dry("k=./1", "a=b=other")[:2] == (["k", "a=b"], ["1/a.png", "other/a.png"])
    assert dry("runs/lr=0.1,seed=1", "runs/lr=0.2,seed=1")[0] == ["lr=0.1,seed=1", "lr=0.2,seed=1"]
    assert dry("out", "./runs/../other/")[0] == ["out", "other"]
    Path("copy/out").mkdir(parents=True)
    Image.fromarray(np.full((24, 20, 3), 91, np.uint8)).save("copy/out/a.png")
    names, _, _ = dry("out", "copy/out")
    assert names[1] == "copy/out"
    assert names[0].endswith("/out")


def test_a_run_folder_that_is_not_there_is_named_as_it_was_given(photos, capsys):
    assert main(["compare", "runs/lr=0.3,seed=1", "x=out", "--ref", "gt", "-c", "psnr"]) == 2
    assert "neither 'runs/lr=0.3,seed=1' is there nor, for a system called 'runs/lr', '0.3,seed=1'" in (
        capsys.readouterr().err
    )


def test_weight_files_may_have_commas_in_their_names(photos):
    from perceptloss.compare.panel import parse_critics

    Path("lr=1,seed=2").mkdir()
    for name in ("trunk", "heads"):
        Path(f"lr=1,seed=2/{name}.pth").touch()
    (asked,) = parse_critics(["lpips-vgg=lr=1,seed=2/trunk.pth, lr=1,seed=2/heads.pth,none.pth"])
    assert asked.weights == ("lr=1,seed=2/trunk.pth", "lr=1,seed=2/heads.pth", "none.pth")
