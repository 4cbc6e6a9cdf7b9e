"""Files that are whole or not there, and locks between the processes that write them."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

__all__ = ["exclusive", "replacing", "unwritable", "write_atomically"]

_CANNOT_LOCK: Final = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_LONGEST: Final = 255  # bytes of a name on every usual file system
_SHOWN: Final = 40
_TRIAL: Final = 4096  # bytes; a full disk still takes empty files

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another path beside `path`, with the same ending; what is written there takes the place of `path` in one piece.

    If something fails, `path` stays as it was and nothing is left beside it. Where `path` is a link, it stays one, and
    what it leads to is replaced.

    Raises:
        OSError: if nothing can be written there, such as in a folder that does not exist.
    """
    path = Path(os.path.realpath(path))
    draft = _beside(path)
    try:
        draft.touch()
        mode = draft.stat().st_mode
        yield draft
        draft.chmod(mode)  # safetensors lets the owner alone read what it writes
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        if error.filename in (None, str(draft)):  # a write that fails names no file
            error.filename = str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # the name of the file may be as long as names can be
    return path.with_name(f".{path.stem[:32]}.{os.getpid()}-{threading.get_ident()}.partial{path.suffix}")


def unwritable(path: Path, *, is_folder: bool = False) -> str:
    """Why a file could not be put at a path, or files into a folder of that path; empty if they could.

    A file is written and removed to find out. What is there stays, and folders that are missing are not made.

    Returns:
        The end of a sentence that begins with the path.
    """
    try:
        place = Path(os.path.realpath(path))
        kind = _kind(place)
        wanted = "folder" if is_folder else "file"
        if kind not in ("", wanted):
            return f"is a {kind}, not a {wanted}"
        if kind == "file" and not os.access(place, os.W_OK):
            return "cannot be written: it is read-only"
        if too_long := [part for part in place.parts if len(os.fsencode(part)) > _LONGEST]:
            return f"cannot be written: {too_long[0][:_SHOWN]}... is longer than a name can be"
        home = place if kind == "folder" else next(folder for folder in place.parents if _kind(folder))
        if _kind(home) != "folder":
            return f"cannot be written: {home} is a {_kind(home)}, not a folder"
        draft = _beside(home / "trial")
        try:
            draft.write_bytes(bytes(_TRIAL))
        finally:
            draft.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # a name may hold a null byte
        return f"cannot be written: {getattr(error, 'strerror', None) or error}"
    return ""


def _kind(path: Path) -> str:
    """What is at a path: `file`, `folder`, `pipe or device`, or nothing."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return ""
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "pipe or device"


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one piece: UTF-8, lines ended as they are in the text.

    What stands for bytes of file names that are no UTF-8 is escaped.
    """
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


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
