"""The manifest: what ships is pinned, what a user adds is checked."""

from __future__ import annotations

import re
from urllib.parse import urlparse

import pytest
from machine import SHA, TABLE, make_machine, toml

from perceptloss import list_critics
from perceptloss.errors import ConfigError
from perceptloss.manifest import manifest


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return make_machine(tmp_path, monkeypatch, net=TABLE)


def test_shipped_urls_are_pinned_and_names_unique():
    entries = manifest()
    for entry in entries.values():
        for url in entry.urls:
            is_commit = re.search(r"/[0-9a-f]{40}/", url)
            assert urlparse(url).scheme == "https"
            assert is_commit or entry.sha256[:8] in url, f"{url} may change"
    assert len({entry.file for entry in entries.values()}) == len(entries)
    assert len({entry.sha256 for entry in entries.values()}) == len(entries)


def test_every_card_names_files_of_the_manifest():
    known = manifest()
    unknown = {(card.name, file) for card in list_critics() for file in card.weights if file not in known}
    assert not unknown


def test_the_wheel_layout_comes_before_the_repository(machine):
    (machine / "package" / "_weights").mkdir()
    (machine / "package" / "_weights" / "manifest.toml").write_text(toml(other=TABLE))
    assert list(manifest()) == ["other"]


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


@pytest.mark.parametrize(("text", "problem"), [("[net", "not valid TOML"), ("net = 1", "net: expected a table, got 1")])
def test_a_manifest_that_is_none(machine, text, problem):
    (machine / "home" / "manifest.toml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        manifest()
