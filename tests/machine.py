"""A machine of its own for tests of weight files: all places that are searched, empty, under one folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

GOOD = b"good weights"
SHA = hashlib.sha256(GOOD).hexdigest()
TABLE = {
    "file": "net.pth",
    "urls": [],
    "bytes": len(GOOD),
    "sha256": SHA,
    "licence": "MIT",
    "origin": "us",
    "about": "a net",
}
PLACES = ("home", "weights", "cache", "torch/hub/checkpoints")


def toml(**tables: dict) -> str:
    """A manifest with these tables."""
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in tables.items()
    )


def make_machine(folder: Path, monkeypatch, **tables: dict) -> Path:
    """Folders home, weights (shipped), cache, torch and package, a manifest of these tables, and no network."""
    for name in (*PLACES, "package"):
        (folder / name).mkdir(parents=True)
    (folder / "weights" / "manifest.toml").write_text(toml(**tables))
    monkeypatch.setattr("perceptloss.weights.manifest._PACKAGE", folder / "package")
    monkeypatch.setenv("PERCEPTLOSS_HOME", str(folder / "home"))
    monkeypatch.setenv("PERCEPTLOSS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", "1")
    monkeypatch.delenv("PERCEPTLOSS_MIRROR", raising=False)
    return folder
