"""Folders that one process has to itself."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

__all__ = ["give_back", "hold"]

CANNOT_LOCK: Final = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
PATIENCE: Final = 10.0  # seconds in which workers of a run that was killed notice that, and let go of it
_held: dict[Path, FileLock] = {}


def hold(folder: Path) -> bool:
    """Take a folder until `give_back`, or until this process ends, however it ends; what it has it may take again.

    Returns:
        False if another process has it. True also where the file system cannot lock.

    Raises:
        OSError: if the folder cannot be written to.
    """
    path = folder.resolve() / ".lock"
    if path not in _held:
        lock = FileLock(path)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            return False
        except NotImplementedError:
            return True
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise
            return True
        _held[path] = lock
    return True


def give_back() -> None:
    """Let go of all folders."""
    while _held:
        _held.popitem()[1].release()
