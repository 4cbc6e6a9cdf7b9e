"""Files that are whole or not there, and locks between the processes that write them."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

__all__ = ["exclusive", "replacing", "write_atomically"]

_CANNOT_LOCK: Final = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another path beside `path`, with the same ending; what is written there takes the place of `path` in one piece.

    If something fails, `path` stays as it was and nothing is left beside it.

    Raises:
        OSError: if nothing can be written there, such as in a folder that does not exist.
    """
    draft = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.partial{path.suffix}")
    try:
        draft.touch()
        mode = draft.stat().st_mode
        yield draft
        draft.chmod(mode)  # safetensors lets the owner alone read what it writes
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one piece: UTF-8, lines ended as they are in the text."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, waiting for it if need be; the system frees it when the process ends, however it ends.

    The file stays, so that all who wait for it wait for the same one.

    Yields:
        True; False if this file system cannot lock, so that the caller is on its own.

    Raises:
        OSError: if the file cannot be made.
    """
    lock = FileLock(path)
    try:
        yield _acquired(lock, path)
    finally:
        lock.release()


def _acquired(lock: FileLock, path: Path) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("waiting for another process that holds %s", path)
        lock.acquire()
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        return False
    return True
