"""Where weight files may lie, and how one that is nowhere can be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from perceptloss.errors import WeightsError, near
from perceptloss.weights.manifest import WeightFile, home, manifest, shipped

__all__ = ["Kind", "Place", "cache_folder", "get_file", "how_to_fetch", "in_wheel", "places"]

Kind = Literal["PERCEPTLOSS_HOME", "shipped", "cache", "torch hub", "package"]


@dataclass(frozen=True)
class Place:
    """A path where a file may lie.

    Attributes:
        kind: Which step of the search order.
        path: The path looked at.
        entry: The file that it must be.
        is_checked: False for a file of the user's own, of which no hash is known.
    """

    kind: Kind
    path: Path
    entry: WeightFile
    is_checked: bool = True


def cache_folder() -> Path:
    """Where downloads go: `PERCEPTLOSS_CACHE`, else `XDG_CACHE_HOME/perceptloss`, else `~/.cache/perceptloss`."""
    own = os.environ.get("PERCEPTLOSS_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "perceptloss"


def get_file(name: str) -> WeightFile:
    """The manifest's entry of a name.

    Raises:
        WeightsError: if there is none, with the nearest names.
    """
    known = manifest()
    if name not in known:
        raise WeightsError(f"no weights are called {name!r}{near(name, known)} `perceptloss weights list` shows all.")
    return known[name]


def places(entry: WeightFile) -> list[Place]:
    """Every path where a file is looked for, in order; last those of the file that holds the same tensors too."""
    found: list[Place] = []

    def add(kind: Kind, path: Path, *, is_checked: bool = True) -> None:
        found.append(Place(kind, path, entry, is_checked))

    own = home()
    if own is not None:
        add("PERCEPTLOSS_HOME", own / entry.file)
        if entry.file != f"{entry.name}.safetensors":
            add("PERCEPTLOSS_HOME", own / f"{entry.name}.safetensors", is_checked=False)
    add("shipped", shipped() / entry.file)
    add("cache", cache_folder() / entry.file)
    add("torch hub", _hub() / "checkpoints" / entry.file)
    if entry.package:
        package, _, inside = entry.package.partition("/")
        spec = find_spec(package)  # does not import it
        for folder in (spec and spec.submodule_search_locations) or ():
            add("package", Path(folder) / inside)
    return found + (places(get_file(entry.within)) if entry.within else [])


def _hub() -> Path:
    """As `torch.hub.get_dir`, which knows more once torch is loaded; looking for files alone does not load it."""
    if "torch" in sys.modules:
        return Path(sys.modules["torch"].hub.get_dir())
    home = os.environ.get("TORCH_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/torch"
    return Path(home).expanduser() / "hub"


def in_wheel(entry: WeightFile) -> WeightFile | None:
    """The file that a wheel holds: this one, or the one that holds the same tensors too; None if no wheel does."""
    holder = get_file(entry.within) if entry.within and not entry.wheel else entry
    return holder if holder.wheel else None


def how_to_fetch(name: str, files: Collection[str]) -> str:
    """The command that brings files, with `--from pip` where that is the only way, in brackets where it is another.

    Args:
        name: What the command is given.
        files: Names of the manifest.
    """
    entries = [get_file(file) for file in files]
    command = f"perceptloss weights fetch {name}"
    if not entries or not all(in_wheel(entry) for entry in entries):
        return command
    return f"{command} --from pip" if not any(entry.urls for entry in entries) else f"{command} [--from pip]"
