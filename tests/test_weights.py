"""The search order, hash checks, downloads into the cache, and what is said when a file is nowhere."""

from __future__ import annotations

import hashlib
import os

import pytest
from machine import GOOD, PLACES, SHA, TABLE, make_machine, toml

import perceptloss.weights.search as weights
from perceptloss.errors import MissingWeights, WeightsError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose manifest has the one entry `net`."""
    weights._tell_unchecked.cache_clear()
    return make_machine(tmp_path, monkeypatch, net=TABLE)


# the search order


def test_search_order(machine):
    paths = [machine / folder / "net.pth" for folder in PLACES]
    for path in paths:
        path.write_bytes(GOOD)
    for path in paths:
        assert weights.find("net") == path
        path.unlink()
    with pytest.raises(MissingWeights):
        weights.find("net")


def test_a_file_of_the_users_own_is_taken_after_the_known_one_and_said_to_be_unchecked(machine, caplog):
    own = machine / "home" / "net.safetensors"
    own.write_bytes(b"anything")
    (machine / "cache" / "net.pth").write_bytes(GOOD)
    assert [weights.find("net"), weights.find("net")] == [own, own]
    assert caplog.text.count("no hash to check it against") == 1
    (machine / "home" / "net.pth").write_bytes(GOOD)
    assert weights.find("net") == machine / "home" / "net.pth"


def test_caches_follow_the_environment(machine, monkeypatch):
    monkeypatch.delenv("PERCEPTLOSS_CACHE")
    monkeypatch.delenv("PERCEPTLOSS_HOME")
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "xdg"))
    paths = [place.path for place in weights.places(weights.get_file("net"))]
    assert paths[-2:] == [machine / "xdg/perceptloss/net.pth", machine / "xdg/torch/hub/checkpoints/net.pth"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(machine))
    assert weights.cache_folder() == machine / ".cache" / "perceptloss"


def test_a_home_that_does_not_exist_is_an_error(machine, monkeypatch):
    monkeypatch.setenv("PERCEPTLOSS_HOME", str(machine / "typo"))
    with pytest.raises(WeightsError, match="typo', which is not a folder"):
        weights.find("net")


def test_unknown_names_get_a_hint(machine):
    with pytest.raises(WeightsError, match="no weights are called 'nett'; did you mean 'net'"):
        weights.find("nett")


# hashes


@pytest.mark.parametrize(
    ("folder", "advice"),
    [
        ("home", "give its hash in PERCEPTLOSS_HOME/manifest.toml"),
        ("weights", "Install perceptloss again"),
        ("cache", "`perceptloss weights fetch net` replaces it"),
        ("torch/hub/checkpoints", "Delete it, or run `perceptloss weights fetch net`"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_what_to_do(machine, folder, advice):
    path = machine / folder / "net.pth"
    path.write_bytes(b"bad weights!")
    with pytest.raises(WeightsError) as caught:
        weights.find("net")
    message = str(caught.value)
    assert not isinstance(caught.value, MissingWeights)
    found = hashlib.sha256(b"bad weights!").hexdigest()
    assert all(part in message for part in (str(path), f"sha256 {SHA}, 12 bytes", f"sha256 {found}, 12 bytes", advice))


@pytest.fixture
def big(machine, monkeypatch):
    """A file large enough for its hash to be remembered; counts how often it is read."""
    content = os.urandom(weights._REMEMBERED)
    table = {**TABLE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (machine / "weights" / "manifest.toml").write_text(toml(net=table))
    path = machine / "home" / "net.pth"
    path.write_bytes(content)
    reads = []
    real = weights.sha256_of
    monkeypatch.setattr(weights, "sha256_of", lambda file: (reads.append(file), real(file))[1])
    return path, reads


def test_big_files_are_hashed_once_until_they_change(big):
    path, reads = big
    weights.find("net")
    weights.find("net")
    assert len(reads) == 1
    assert weights.locate(weights.get_file("net"), rehash=True).path == path
    assert len(reads) == 2
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    weights.find("net")
    assert len(reads) == 3
    path.write_bytes(b"x" * stat.st_size)
    with pytest.raises(WeightsError, match="is not the file 'net'"):
        weights.find("net")


@pytest.mark.parametrize("memory", ["not json", "[]", '{"PATH": 3}', '{"PATH": [1]}'])
def test_a_spoilt_memory_of_hashes_only_costs_time(big, machine, memory):
    path, reads = big
    (machine / "cache" / "hashes.json").write_text(memory.replace("PATH", str(path)))
    assert weights.find("net") == path
    assert len(reads) == 1


def test_hashes_need_no_writable_cache(big, machine, monkeypatch):
    path, reads = big
    (machine / "file").write_text("")
    monkeypatch.setenv("PERCEPTLOSS_CACHE", str(machine / "file"))
    assert [weights.find("net"), weights.find("net")] == [path, path]
    assert len(reads) == 2


# fetching


@pytest.fixture
def online(machine, monkeypatch):
    monkeypatch.delenv("PERCEPTLOSS_OFFLINE")
    monkeypatch.setattr("perceptloss.weights.download.time.sleep", lambda seconds: None)
    url = (machine / "origin.pth").as_uri()
    (machine / "mirror").mkdir()
    (machine / "origin.pth").write_bytes(GOOD)
    (machine / "weights" / "manifest.toml").write_text(toml(net={**TABLE, "urls": [url]}))
    return machine


def test_find_downloads_into_the_cache_and_says_so(online, caplog):
    assert weights.find("net") == online / "cache" / "net.pth"
    assert (online / "cache" / "net.pth").read_bytes() == GOOD
    assert "fetching weights 'net', 12 B, licence MIT" in caplog.text


def test_the_mirror_is_asked_first_and_the_origin_after_it(online, monkeypatch, caplog):
    monkeypatch.setenv("PERCEPTLOSS_MIRROR", (online / "mirror").as_uri() + "/")
    assert weights.find("net").read_bytes() == GOOD
    assert "mirror/net.pth: [Errno 2] No such file" in caplog.text
    (online / "cache" / "net.pth").unlink()
    (online / "mirror" / "net.pth").write_bytes(GOOD)
    (online / "origin.pth").unlink()
    assert weights.find("net").read_bytes() == GOOD


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_forbids_downloads_and_says_everything(online, monkeypatch, value):
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", value)
    with pytest.raises(MissingWeights) as caught:
        weights.find("net")
    message = str(caught.value)
    for part in (
        "weights 'net' are not on this machine, and PERCEPTLOSS_OFFLINE forbids downloads",
        f"sha256     {SHA}",
        "perceptloss weights fetch net",
        (online / "origin.pth").as_uri(),
        *(str(online / folder / "net.pth") for folder in PLACES),
    ):
        assert part in message
    assert not (online / "cache" / "net.pth").exists()


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_offline_can_be_switched_off(online, monkeypatch, value):
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", value)
    assert weights.find("net").read_bytes() == GOOD


def test_a_failed_download_says_why_and_how_to_help_oneself(online, monkeypatch):
    monkeypatch.delenv("PERCEPTLOSS_HOME")
    (online / "origin.pth").write_bytes(b"bad weights!")
    with pytest.raises(MissingWeights, match=r"(?s)the download failed.*wrong hash.*HOME: not set.*by hand .*origin"):
        weights.find("net")
    assert [path.name for path in (online / "cache").iterdir()] == [".net.pth.lock"]


def test_a_file_without_an_address(machine, monkeypatch):
    monkeypatch.delenv("PERCEPTLOSS_OFFLINE")
    with pytest.raises(MissingWeights, match="no address to download them from"):
        weights.find("net")


@pytest.mark.parametrize("folder", ["cache", "torch/hub/checkpoints"])
def test_fetch_replaces_what_is_damaged_in_a_cache(online, folder):
    (online / folder / "net.pth").write_bytes(b"bad weights!")
    assert weights.fetch("net") == online / "cache" / "net.pth"
    assert weights.find("net").read_bytes() == GOOD


def test_fetch_does_not_hide_a_damaged_file_of_the_user(online):
    (online / "home" / "net.pth").write_bytes(b"bad weights!")
    with pytest.raises(WeightsError, match="PERCEPTLOSS_HOME"):
        weights.fetch("net")


# what users name


def test_resolve_prefers_files_and_falls_back_to_names(machine, monkeypatch):
    monkeypatch.chdir(machine)
    (machine / "home" / "net.pth").write_bytes(GOOD)
    assert weights.resolve("net") == machine / "home" / "net.pth"
    (machine / "net").write_bytes(b"mine")
    assert weights.resolve("net").read_bytes() == b"mine"
    monkeypatch.setenv("HOME", str(machine))
    assert weights.resolve("~/home/net.pth") == machine / "home" / "net.pth"


def test_resolve_says_what_is_wrong(machine):
    with pytest.raises(WeightsError, match=r"'nett' is neither a file in .* nor a name .*; did you mean 'net'"):
        weights.resolve("nett")
    with pytest.raises(WeightsError, match="no such checkpoint file: weights/nett"):
        weights.resolve("weights/nett.pth")
