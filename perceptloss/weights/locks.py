"""Locks between processes, held on a file and released when the process ends, however it ends."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["exclusive"]

_POLL: Final = 0.2  # seconds

logger = logging.getLogger(__name__)

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, waiting for it if need be; the file is removed afterwards.

    Yields:
        True; False if this file system cannot lock, so that the caller is on its own.

    Raises:
        OSError: if the file cannot be made.
    """
    file = path.open("ab")
    try:
        held = _wait(file.fileno(), path)
        while held and not _is_current(file.fileno(), path):  # its last holder removed the file meanwhile
            file.close()
            file = path.open("ab")
            held = _wait(file.fileno(), path)
        try:
            yield held
        finally:
            with suppress(OSError):  # Windows does not remove open files
                path.unlink()
    finally:
        file.close()


def _wait(descriptor: int, path: Path) -> bool:
    try:
        if not _try_lock(descriptor):
            logger.warning("waiting for another process that holds %s", path)
            while not _try_lock(descriptor):
                time.sleep(_POLL)
    except OSError:
        return False
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
