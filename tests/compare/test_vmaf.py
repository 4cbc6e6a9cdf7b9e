"""VMAF by ffmpeg: what is said without it, its numbers, and the file that `compare` reads."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from images import ladder, photographs
from PIL import Image

from perceptloss.cli.main import main
from perceptloss.compare.vmaf import find_ffmpeg, vmaf
from perceptloss.errors import PerceptlossError


def script(path: Path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folders(tmp_path):
    y = photographs(96)
    for name, images in (("gt", y), ("near", ladder("blur", y)[1]), ("far", ladder("blur", y)[3])):
        (tmp_path / name).mkdir()
        for n, image in enumerate(images):
            Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / name / f"{n}.png")
    return tmp_path


def test_without_ffmpeg_it_says_what_to_install(monkeypatch, folders, capsys):
    monkeypatch.setenv("PATH", str(folders))
    assert main(["vmaf", str(folders / "near"), "--ref", str(folders / "gt")]) != 0
    said = capsys.readouterr().err
    assert "'ffmpeg' is not on this machine" in said and "imageio-ffmpeg" in said


def test_an_ffmpeg_without_the_filter_is_refused(tmp_path):
    with pytest.raises(PerceptlossError, match="built without libvmaf"):
        find_ffmpeg(script(tmp_path / "ffmpeg", "print(' .. scale  V->V')"))


def test_a_file_that_does_not_run_is_named(tmp_path):
    (tmp_path / "ffmpeg").write_bytes(b"\x7fnothing")
    (tmp_path / "ffmpeg").chmod(0o755)
    with pytest.raises(PerceptlossError, match=r"ffmpeg does not run here: .*; give another as --ffmpeg"):
        find_ffmpeg(str(tmp_path / "ffmpeg"))


def test_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    script(tmp_path / "ffmpeg", "print(' .. libvmaf  VV->V')")
    monkeypatch.chdir(tmp_path)
    assert find_ffmpeg("./ffmpeg") == str(tmp_path / "ffmpeg")


@pytest.mark.parametrize("log", ["no json", '{"frames": []}', '{"pooled_metrics": {"vmaf": {"mean": null}}}'])
def test_an_unreadable_log_is_named(tmp_path, log):
    ffmpeg = script(tmp_path / "ffmpeg", f"open('vmaf.json', 'w').write({log!r})")
    x = photographs(32)[0]
    with pytest.raises(PerceptlossError, match=r"wrote a log that does not say pooled_metrics\.vmaf\.mean"):
        vmaf(x, x, ffmpeg)


def test_what_ffmpeg_complains_of_is_passed_on(tmp_path):
    ffmpeg = script(tmp_path / "ffmpeg", "import sys; print('no such model', file=sys.stderr); sys.exit(3)")
    x = photographs(32)[0]
    with pytest.raises(PerceptlossError, match="no such model"):
        vmaf(x, x, ffmpeg)


class TestWithFfmpeg:
    @pytest.fixture(scope="class")
    def ffmpeg(self) -> str:
        return find_ffmpeg(pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe())

    def test_falls_with_blur_and_is_high_for_equal_images(self, ffmpeg):
        y = photographs(96)
        same, *blurred = [vmaf(x[0], y[0], ffmpeg) for x in ladder("blur", y)]
        assert same > 95
        assert same > blurred[0] > blurred[1] > blurred[2]

    def test_the_file_joins_a_comparison(self, ffmpeg, folders, capsys):
        systems = [f"{name}={folders / name}" for name in ("near", "far")]
        written = folders / "vmaf.csv"
        reference = ["--ref", str(folders / "gt"), "--quiet"]
        assert main(["vmaf", *systems, *reference, "--ffmpeg", ffmpeg, "--output", str(written)]) == 0
        rows = list(csv.DictReader(written.open(encoding="utf-8")))
        assert [(row["image"], row["system"]) for row in rows] == [
            (str(n), s) for n in range(3) for s in ("near", "far")
        ]
        assert main(["compare", *systems, *reference, "-c", "psnr", "--scores-from", str(written)]) == 0
        assert "vmaf ↑" in capsys.readouterr().out
