"""`perceptloss weights ...`: output, exit codes, and conversion to one file."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from machine import GOOD, PLACES, TABLE, make_machine
from safetensors import safe_open

from perceptloss import __version__, create_critic
from perceptloss.cli.main import main
from perceptloss.weights.manifest import manifest


def perceptloss(*words: object) -> int:
    """Exit code of `perceptloss weights ...`."""
    return main(["weights", *map(str, words)])


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A manifest of two files that stand for those of lpips-squeeze, and where they can be fetched."""
    (tmp_path / "origin").mkdir()
    tables = {}
    for name in ("squeezenet1_1", "lpips-squeeze"):
        origin = tmp_path / "origin" / name
        origin.write_bytes(GOOD)
        tables[name] = {**TABLE, "file": f"{name}.pth", "urls": [origin.as_uri()]}
    make_machine(tmp_path, monkeypatch, **tables)
    monkeypatch.delenv("PERCEPTLOSS_OFFLINE")
    return tmp_path


def test_usage(capsys):
    assert perceptloss() == 2
    assert perceptloss("pull") == 2
    assert perceptloss("convert", "lpips-squeeze", "x.pth") == 2
    assert capsys.readouterr().out == ""


# list


def test_list_tells_where_files_are(machine, capsys):
    (machine / "home" / "squeezenet1_1.pth").write_bytes(GOOD)
    assert perceptloss("list") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert [line.split() for line in shown.out.splitlines()] == [
        ["name", "size", "licence", "where"],
        ["squeezenet1_1", "12", "B", "MIT", "PERCEPTLOSS_HOME:", str(machine / "home" / "squeezenet1_1.pth")],
        ["lpips-squeeze", "12", "B", "MIT", "not", "here"],
    ]
    (machine / "home" / "squeezenet1_1.pth").write_bytes(GOOD[:5])
    assert perceptloss("list") == 0
    assert "(damaged: 5 bytes instead of 12)" in capsys.readouterr().out


def test_list_of_the_real_manifest(capsys):
    assert perceptloss("list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(manifest())


# fetch


def test_fetch_a_critic_fetches_all_its_files(machine, capsys):
    assert perceptloss("fetch", "lpips-squeeze") == 0
    files = {name: machine / "cache" / f"{name}.pth" for name in ("squeezenet1_1", "lpips-squeeze")}
    assert capsys.readouterr().out == "".join(f"{name}  {path}\n" for name, path in files.items())
    assert all(path.read_bytes() == GOOD for path in files.values())


def test_fetch_a_file_or_all(machine):
    assert perceptloss("fetch", "squeezenet1_1") == 0
    assert sorted(path.name for path in (machine / "cache").glob("[!.]*")) == ["squeezenet1_1.pth"]
    assert perceptloss("fetch", "--all") == 0
    assert len(list((machine / "cache").glob("[!.]*"))) == 2


def test_fetch_shows_progress_on_stderr_if_asked(machine, capsys):
    assert perceptloss("fetch", "squeezenet1_1", "--progress", "always") == 0
    shown = capsys.readouterr()
    assert "100%" in shown.err and "12.0/12.0" in shown.err
    assert "100%" not in shown.out


def test_fetch_goes_on_after_a_failure_and_reports_it(machine, capsys):
    (machine / "origin" / "squeezenet1_1").unlink()
    assert perceptloss("fetch", "--all") == 3
    shown = capsys.readouterr()
    assert "weights 'squeezenet1_1' are not on this machine" in shown.err
    assert shown.out.split() == ["lpips-squeeze", str(machine / "cache" / "lpips-squeeze.pth")]


def test_fetch_obeys_the_offline_switch(machine, capsys, monkeypatch):
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", "1")
    assert perceptloss("fetch", "--all") == 3
    assert "PERCEPTLOSS_OFFLINE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the files or critics to fetch, or give --all"),
        (["--all", "squeezenet1_1"], "not both"),
        (["sqeezenet1_1", "lpips-sqeeze"], "2 problems in names"),
        (["sqeezenet1_1"], "neither a weight file nor a critic; did you mean 'squeezenet1_1'"),
        (["dists"], "critic 'dists' needs 'vgg16', which is not in the manifest"),
    ],
)
def test_fetch_usage(machine, capsys, words, message):
    assert perceptloss("fetch", *words) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_a_critic_without_weights_is_fine(machine, capsys):
    assert perceptloss("fetch", "ssim") == 0
    assert "critic 'ssim' needs no weights" in capsys.readouterr().err


# verify


def test_verify(machine, capsys):
    path = machine / "home" / "squeezenet1_1.pth"
    path.write_bytes(GOOD)
    assert perceptloss("verify", "squeezenet1_1") == 0
    assert capsys.readouterr().out.split() == ["squeezenet1_1", "ok", str(path)]
    assert perceptloss("verify", "--here") == 0
    assert "lpips-squeeze" not in capsys.readouterr().out
    for words in ([], ["lpips-squeeze"]):
        assert perceptloss("verify", *words) == 3
        assert capsys.readouterr().out.split()[3:5] == ["lpips-squeeze", "missing"]
    path.write_bytes(b"bad weights!")
    assert perceptloss("verify", "--here") == 3
    shown = capsys.readouterr()
    assert shown.out.split() == ["squeezenet1_1", "wrong"]
    assert str(path) in shown.err


def test_verify_reads_a_file_of_ones_own(machine, capsys):
    own = machine / "home" / "squeezenet1_1.safetensors"
    own.write_bytes(b"not a safetensors file")
    assert perceptloss("verify", "squeezenet1_1") == 3
    assert "damaged" in capsys.readouterr().err


# where


def test_where(machine, capsys):
    assert perceptloss("where", "squeezenet1_1") == 3
    assert "->" not in capsys.readouterr().out
    (machine / "weights" / "squeezenet1_1.pth").write_bytes(GOOD)
    (machine / "home" / "squeezenet1_1.pth").write_bytes(GOOD)
    assert perceptloss("where", "squeezenet1_1") == 0
    lines = capsys.readouterr().out.splitlines()
    hits = [line for line in lines if "->" in line]
    assert len(hits) == 1
    assert hits[0].split() == ["->", "PERCEPTLOSS_HOME", str(machine / "home" / "squeezenet1_1.pth")]
    folders = ("home", *PLACES)  # home twice: under the file's name, and as .safetensors
    assert [line.split()[-1].rsplit("/", 1)[0] for line in lines[1:-1]] == [str(machine / folder) for folder in folders]


def test_a_broken_manifest_is_a_usage_error(machine, capsys):
    (machine / "home" / "manifest.toml").write_text("[x]\nfile = 3\n")
    assert perceptloss("list") == 2
    assert "x.file: expected some text, got 3" in capsys.readouterr().err


# convert


def sources(folder, name: str) -> list:
    """Two files in the layout of torchvision and of the authors, with their own values."""
    state = {key: 0.9 * tensor + 0.01 for key, tensor in create_critic(name, weights=None).state_dict().items()}
    trunk = {key.removeprefix("trunk."): tensor for key, tensor in state.items() if key.startswith("trunk.")}
    rest = {key: tensor for key, tensor in state.items() if not key.startswith("trunk.")}
    if name.startswith("lpips"):
        rest = {f"lin{k}.model.1.weight": tensor.view(1, -1, 1, 1) for k, tensor in enumerate(rest.values())}
    paths = [folder / f"{name}-trunk.pth", folder / f"{name}-rest.pth"]
    for path, content in zip(paths, ({"state_dict": trunk}, rest), strict=True):
        torch.save(content, path)
    return paths


@pytest.mark.parametrize("name", ["lpips-squeeze", "dists"])
def test_a_converted_file_gives_identical_scores(tmp_path, capsys, name):
    files = sources(tmp_path, name)
    out = tmp_path / "out.safetensors"
    assert perceptloss("convert", name, *files, "-o", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    original, converted = create_critic(name, weights=files), create_critic(name, weights=str(out))
    x, y = torch.rand(2, 2, 3, 48, 48)
    assert torch.equal(original(x, y), converted(x, y))
    assert original.weights_id == converted.weights_id
    assert not torch.equal(converted(x, y), create_critic(name, weights=None)(x, y))

    with safe_open(out, "pt") as content:
        facts = json.loads(content.metadata()["perceptloss"])
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert facts == {
        "critic": name,
        "version": __version__,
        "weights_id": original.weights_id,
        "sources": [{"file": path.name, "sha256": digest} for path, digest in zip(files, digests, strict=True)],
    }


def test_conversion_is_repeatable_to_the_byte(tmp_path):
    files = sources(tmp_path, "lpips-squeeze")
    outputs = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for out in outputs:
        assert perceptloss("convert", "lpips-squeeze", *files, "-o", out) == 0
    assert len({out.read_bytes() for out in outputs}) == 1


def test_conversion_must_be_complete(tmp_path, capsys):
    trunk, heads = sources(tmp_path, "lpips-squeeze")
    out = tmp_path / "out.safetensors"
    assert perceptloss("convert", "lpips-squeeze", trunk, "-o", out) == 3
    assert "heads.0: in no file" in capsys.readouterr().err
    assert perceptloss("convert", "lpips-squeeze", trunk, tmp_path / "none.pth", "-o", out) == 3
    assert "no such checkpoint file" in capsys.readouterr().err
    assert perceptloss("convert", "lpips-squeeze", trunk, heads, "-o", tmp_path / "no" / "out.safetensors") == 2
    assert "cannot write" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([trunk.name, heads.name])


def test_conversion_takes_names_of_the_manifest(machine):
    trunk, heads = sources(machine, "lpips-squeeze")
    create = perceptloss("convert", "lpips-squeeze", trunk, heads, "-o", machine / "home" / "squeezenet1_1.safetensors")
    assert create == 0
    out = machine / "out.safetensors"
    assert perceptloss("convert", "lpips-squeeze", "squeezenet1_1", "-o", out) == 0
    assert out.exists()


def test_conversion_usage(tmp_path, capsys):
    files = sources(tmp_path, "lpips-squeeze")
    (tmp_path / "taken.safetensors").write_bytes(b"precious")
    for words, message in [
        (["lpips-squeeze", *files, "-o", tmp_path / "out.pth"], "must end in .safetensors"),
        (["lpips-squeeze", *files, "-o", tmp_path / "taken.safetensors"], "exists; choose another name or add --force"),
        (["lpips-sqeeze", *files, "-o", tmp_path / "out.safetensors"], "did you mean 'lpips-squeeze'"),
        (["ssim", *files, "-o", tmp_path / "out.safetensors"], "has no weights to convert"),
    ]:
        assert perceptloss("convert", *words) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "taken.safetensors").read_bytes() == b"precious"
    assert perceptloss("convert", "lpips-squeeze", *files, "-o", tmp_path / "taken.safetensors", "--force") == 0
    assert (tmp_path / "taken.safetensors").read_bytes() != b"precious"
