"""What a run learns from, remembered in its folder, so that a change between two parts of it is said."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from perceptloss.errors import some
from perceptloss.output.files import write_atomically
from perceptloss.runs.state import checkpoints

__all__ = ["Item", "changes", "of_items", "remember"]

_FILE: Final = "data.json"
_END: Final = 1 << 16  # bytes of either end of a file that are looked at
_log = logging.getLogger("perceptloss.runs")

Inventory = Mapping[str, Mapping[str, str]]  # part of the data -> name of an item -> what it is


class Item(Protocol):
    """Something to learn from or to validate with."""

    @property
    def name(self) -> str:
        """Unique, as a relative path without suffix."""

    @property
    def files(self) -> Mapping[str, Path]:
        """What it is read from, by what each file is called in messages."""


def of_items(parts: Mapping[str, Iterable[Item]]) -> dict[str, dict[str, str]]:
    """Size and both ends of every file of some items, which tell nearly every change without reading all."""
    with ThreadPoolExecutor(16) as pool:
        found = {}
        for part, items in parts.items():
            files = {key: path for item in items for key, path in item.files.items()}
            found[part] = dict(zip(files, pool.map(_mark, files.values()), strict=True))
    return found


def _mark(path: Path) -> str:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        mark = zlib.crc32(file.read(_END))
        file.seek(max(0, size - _END))
        return f"{size}-{zlib.crc32(file.read(_END), mark):08x}"


def changes(before: Inventory, after: Inventory) -> list[str]:
    """What differs between two inventories, a line for each part and kind of change."""
    told = []
    for part in sorted({*before, *after}):
        old, new = before.get(part, {}), after.get(part, {})
        kinds = {
            "new": sorted(new.keys() - old.keys()),
            "gone": sorted(old.keys() - new.keys()),
            "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        }
        told += [f"{part}: {len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names]
    return told


def remember(folder: Path, now: Inventory) -> None:
    """Keep the inventory of a run, and say what is not as it was when the run was interrupted. Main process only."""
    path = folder / _FILE
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        told = (
            changes(before, now) if any(checkpoints(home / "checkpoints") for home in (folder, folder / "l1")) else []
        )
    except FileNotFoundError:
        told = []
    except (ValueError, AttributeError, OSError) as error:
        told = [f"{path} cannot be read, so changes are not known: {error}"]
    if told:
        lines = "".join(f"\n  - {line}" for line in told)
        _log.warning("%s: the data are not those that this run began with; it goes on with these:%s", folder, lines)
    write_atomically(path, json.dumps(now, indent=1, ensure_ascii=False))
