"""Whether the files of a checkpoint are those that were written: disks fill, machines lose power, copies break off."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

__all__ = ["damage", "seal"]

_SEAL: Final = "files.json"
_CHUNK: Final = 1 << 20


def seal(folder: Path) -> None:
    """Note the size and sha256 of every file of a folder in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)
    facts = {path.relative_to(folder).as_posix(): [path.stat().st_size, _sha256(path)] for path in paths}
    (folder / _SEAL).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder; empty if nothing is, or if it was never sealed."""
    try:
        if not (folder / _SEAL).exists():
            return ""
        facts = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        for name, (size, digest) in facts.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if _sha256(path) != digest:
                return f"{name} holds other bytes than were written"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{_SEAL} cannot be read: {error}"
    return ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
