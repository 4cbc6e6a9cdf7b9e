"""The manifest: what ships is pinned, what a user adds is checked."""

from __future__ import annotations

import re
from urllib.parse import urlparse

import pytest
from machine import GOOD, SHA, TABLE, make_machine, toml

from perceptloss import list_critics
from perceptloss.cli.main import main
from perceptloss.errors import ConfigError, MissingWeights, WeightsError
from perceptloss.weights.download import sha256_of
from perceptloss.weights.manifest import manifest, shipped
from perceptloss.weights.search import find


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return make_machine(tmp_path, monkeypatch, net=TABLE)


def test_shipped_urls_are_pinned_and_names_unique():
    entries = manifest()
    for entry in entries.values():
        for url in entry.urls:
            is_commit = re.search(r"/[0-9a-f]{40}/|/releases/download/", url)
            assert urlparse(url).scheme == "https"
            assert is_commit or entry.sha256[:8] in url, f"{url} may change"
    assert len({entry.file for entry in entries.values()}) == len(entries)
    hashes = [entry.sha256 for entry in entries.values() if entry.sha256]
    assert len(set(hashes)) == len(hashes)
    for entry in entries.values():
        ways = [bool(entry.obtain), bool(entry.urls), bool(entry.wheel), (shipped() / entry.file).is_file()]
        assert sum(ways) == 1, f"{entry.name}: either addresses, a wheel, how a person gets it, or the file itself"
        assert not entry.within or set(entries[entry.within].holds) >= set(entry.holds)


def test_every_card_names_files_of_the_manifest():
    known = manifest()
    unknown = {(card.name, file) for card in list_critics() for file in card.weights if file not in known}
    assert not unknown


def test_the_wheel_layout_comes_before_the_repository(machine):
    (machine / "package" / "_weights").mkdir()
    (machine / "package" / "_weights" / "manifest.toml").write_text(toml(other=TABLE))
    assert list(manifest()) == ["other"]


def test_what_ships_is_the_pinned_bytes_with_its_notice():
    notices = (shipped() / "THIRD-PARTY.txt").read_text(encoding="utf-8")
    files = [entry for entry in manifest().values() if (shipped() / entry.file).is_file()]
    for entry in files:
        assert sha256_of(shipped() / entry.file) == entry.sha256
        assert entry.licence == "Apache-2.0" or entry.file in notices
    assert sum(path.stat().st_size for path in shipped().iterdir()) < 24e6


def test_a_user_manifest_adds_and_overrides(machine):
    own = toml(net={"urls": ["https://mirror/net.pth"]}, mine={**TABLE, "file": "mine.pth", "holds": ["heads"]})
    (machine / "home" / "manifest.toml").write_text(own)
    known = manifest()
    assert known["net"].urls == ("https://mirror/net.pth",)
    assert known["net"].sha256 == SHA
    assert known["mine"].holds == ("heads",)


def test_all_problems_of_a_manifest_are_listed(machine):
    broken = {**TABLE, "file": "../net.pth", "urls": ["ftp://x"], "bytes": True, "sha256": "A" * 64, "licens": "MIT"}
    del broken["about"]
    (machine / "home" / "manifest.toml").write_text(toml(broken=broken))
    with pytest.raises(ConfigError) as caught:
        manifest()
    assert len(caught.value.problems) == 6
    assert caught.value.where == str(machine / "home" / "manifest.toml")
    assert "broken.licens: unknown key; did you mean 'licence'?" in str(caught.value)
    assert "broken.about: missing" in str(caught.value)
    assert "without folders, got '../net.pth'" in str(caught.value)


def test_a_wheel_needs_a_name_a_hash_and_a_place_in_it(machine):
    (machine / "home" / "manifest.toml").write_text(toml(mine={**TABLE, "wheel": "net-1.0.whl", "wheel_sha256": "ab"}))
    with pytest.raises(ConfigError, match=r"(?s)name-1.0-py3-none-any.whl, got.*64 lower.*package: missing") as caught:
        manifest()
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(("text", "problem"), [("[net", "not valid TOML"), ("net = 1", "net: expected a table, got 1")])
def test_a_manifest_that_is_none(machine, text, problem):
    (machine / "home" / "manifest.toml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        manifest()


def test_a_file_without_an_address_tells_how_to_get_it(tmp_path, monkeypatch):
    table = {"file": "net.pth", "urls": [], "licence": "MIT", "about": "a net"}
    table |= {"origin": "https://example.org/net", "obtain": "the README links it"}
    make_machine(tmp_path, monkeypatch, net=table)
    wanted = r"(?s)size unknown.*sha256     unknown.*by hand    the README links it \(https://example\.org/net\)"
    with pytest.raises(MissingWeights, match=wanted) as caught:
        find("net")
    assert "to fetch" not in str(caught.value)
    (tmp_path / "home" / "net.pth").write_bytes(b"anything")
    assert find("net") == tmp_path / "home" / "net.pth"


def test_a_short_hash_is_checked_as_far_as_it_goes(tmp_path, monkeypatch):
    make_machine(tmp_path, monkeypatch, net=TABLE | {"sha256": SHA[:8]})
    file = tmp_path / "home" / "net.pth"
    file.write_bytes(GOOD)
    assert find("net") == file
    file.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match=f"expected  sha256 {SHA[:8]}"):
        find("net")


def test_a_file_of_another_package_is_found_there_without_importing_it(tmp_path, monkeypatch):
    table = TABLE | {"package": "neighbour/data/net.pth"}
    make_machine(tmp_path, monkeypatch, net=table)
    (tmp_path / "site" / "neighbour" / "data").mkdir(parents=True)
    (tmp_path / "site" / "neighbour" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "site" / "neighbour" / "data" / "net.pth").write_bytes(GOOD)
    with pytest.raises(MissingWeights):
        find("net")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find("net") == tmp_path / "site" / "neighbour" / "data" / "net.pth"
    (tmp_path / "site" / "neighbour" / "data" / "net.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match="Install that package again"):
        find("net")


def test_show_and_where_tell_how_to_get_a_file_by_hand(capsys):
    assert main(["show", "ahiq"]) == 0
    assert "not here; by hand: the authors' README links it" in capsys.readouterr().out
    main(["weights", "where", "ahiq"])
    assert "by hand           the authors' README links it" in capsys.readouterr().out
