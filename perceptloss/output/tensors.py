"""Files of safetensors that are equal for equal content."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["sort_metadata"]


def sort_metadata(path: Path) -> None:
    """Bring the metadata of a .safetensors file into the order of their names; the library writes them in any."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(length))
        if len(notes := head.get("__metadata__", {})) < 2:
            return
        head["__metadata__"] = dict(sorted(notes.items()))
        text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # else it spells a sign in another way than ours, and stays
            file.seek(8)
            file.write(text.ljust(length))
