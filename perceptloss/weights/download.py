"""Fetching a file over HTTP: resumed, verified, atomic, and safe beside other processes.

Bytes go to a `.part` file beside the target, which only becomes the target once its sha256 is the
expected one. An interrupted transfer leaves the `.part` file, and the next one continues there.
Proxies are taken from the environment, as everywhere in `urllib`.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from perceptloss.errors import MissingWeights, WeightsError
from perceptloss.output.files import exclusive
from perceptloss.output.progress import bar
from perceptloss.output.tables import human

__all__ = ["Wanted", "alone", "download", "sha256_of", "writing"]

_CHUNK: Final = 1 << 18
_STEP: Final = 0.01  # share of the file by which a request must bring it forward not to count as failed
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}  # HTTP states that may be gone a moment later
Tell = Callable[[float], object]  # is called with the number of bytes that have come
_threads = threading.Lock()  # file locks do not separate the threads of a process on every system

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a download must be, and how patiently it is tried.

    Attributes:
        target: Path of the finished file.
        size: Expected size in bytes.
        sha256: Expected hash, or its first digits.
        attempts: Fruitless requests in a row before the next URL is tried.
        timeout: Seconds without a sign from the server before a request is given up, and over which `slowest` is taken.
        slowest: Bytes per second below which it is given up too, so that others who wait for the file get their turn.
        pause: Seconds before the second request; doubles each time.
    """

    target: Path
    size: int
    sha256: str
    attempts: int = 4
    timeout: float = 20.0
    slowest: float = 1024.0
    pause: float = 0.5


class _RetryError(Exception):
    """This request failed; the same one may succeed later."""


class _SlowError(_RetryError):
    """This request brings next to nothing."""


class _UrlError(Exception):
    """This URL will not do."""


def sha256_of(path: Path) -> str:
    """Hex digits of a file's sha256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(urls: Sequence[str], wanted: Wanted, *, progress: bool | None = None) -> Path:
    """Fetch a file from the first URL that gives the right one.

    Several processes (the ranks of one job) may ask for the same file at once: one fetches, the
    others wait and then find it there.

    Args:
        urls: Addresses of the same bytes, tried in order.
        wanted: Target, size and hash.
        progress: A progress bar on stderr; None shows it on a terminal only.

    Returns:
        The target.

    Raises:
        MissingWeights: naming what went wrong at each URL.
        WeightsError: if the folder or the file cannot be written.
    """
    target = wanted.target
    problems: list[str] = []
    with alone(target) as shared:
        if target.is_file() and sha256_of(target).startswith(wanted.sha256):
            return target  # another process was faster
        private = "" if shared else f".{os.getpid()}"
        part = target.with_name(f"{target.name}.{wanted.sha256[:8]}{private}.part")
        for url in urls:
            try:
                _from_url(url, part, wanted, progress)
            except _UrlError as problem:
                problems.append(f"{url}: {problem}")
                logger.warning("%s", problems[-1])
                continue
            with writing(target):
                part.replace(target)
            return target
    raise MissingWeights("\n".join(problems) or "no URL is known")


def _from_url(url: str, part: Path, wanted: Wanted, progress: bool | None) -> None:
    """Bring the part file to the wanted bytes, or raise `_UrlError`."""
    problem, requests, failures, most = "", 0, 0, _size(part)
    while failures < wanted.attempts:
        if failures:
            wait = wanted.pause * 2 ** (failures - 1)
            logger.warning("%s: %s; trying again in %.1f s", url, problem, wait)
            time.sleep(wait)
        resumed = _size(part) > 0
        requests += 1
        try:
            with bar(wanted.target.name, wanted.size, show=progress, unit="B") as shown:
                _transfer(url, part, wanted, shown.update)
        except _RetryError as error:
            has_grown = _size(part) - most >= wanted.size * _STEP and not isinstance(error, _SlowError)
            problem, failures, most = str(error), 1 if has_grown else failures + 1, max(most, _size(part))
            continue
        found = sha256_of(part)
        if found.startswith(wanted.sha256):
            return
        part.unlink()
        problem = f"wrong hash: expected sha256 {wanted.sha256}, got {found}; the partial file was deleted"
        if not resumed:  # else the earlier part may have been the wrong one
            raise _UrlError(problem)
        failures += 1
    kept = f"; {human(_size(part))} are kept in {part} and the next run continues there" if _size(part) else ""
    raise _UrlError(f"{problem} ({requests} attempts{kept})")


def _transfer(url: str, part: Path, wanted: Wanted, tell: Tell) -> None:
    """One request for the bytes that the part file still lacks."""
    have = _size(part)
    if have == wanted.size:
        return
    if have > wanted.size:
        part.unlink()
        have = 0
    headers = {"User-Agent": "perceptloss", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urlopen(Request(url, headers=headers), timeout=wanted.timeout) as response:
            _copy(response, part, _start(response, part, have, wanted.size), wanted, tell)
    except HTTPError as error:
        error.close()
        state = f"HTTP {error.code} {error.reason}".rstrip()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise _RetryError(f"{state}; starting again from the first byte") from error
        raise (_RetryError if error.code in _PASSING else _UrlError)(state) from error
    except URLError as error:
        if isinstance(error.reason, (ssl.SSLCertVerificationError, FileNotFoundError)):
            raise _UrlError(_text(error.reason)) from error
        raise _RetryError(f"no connection: {_text(error.reason)}") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise _UrlError(f"not a usable URL: {error}") from error
    except (http.client.HTTPException, OSError) as error:
        raise _RetryError(f"connection lost after {_size(part)} of {wanted.size} bytes: {_text(error)}") from error


def _start(response: HTTPResponse, part: Path, have: int, size: int) -> int:
    """First byte that the server sends; refuses a file of another size."""
    if response.status == http.client.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != have:
            part.unlink(missing_ok=True)
            raise _RetryError("the server answered with another range; starting again from the first byte")
        total = size if span[2] == "*" else int(span[2])
    else:  # the server sends everything, also if a range was asked for
        have = 0
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else size
    if total != size:
        raise _UrlError(f"wrong size: expected {size} bytes, the server has {total}")
    return have


def _copy(response: HTTPResponse, part: Path, start: int, wanted: Wanted, tell: Tell) -> None:
    position, size = start, wanted.size
    since, before = time.monotonic(), start
    with writing(part), part.open("r+b" if start else "wb") as file:
        file.seek(start)
        tell(start)
        while chunk := _read(response):
            position += len(chunk)
            if position > size:
                break
            file.write(chunk)
            tell(len(chunk))
            if (seconds := time.monotonic() - since) > wanted.timeout:
                if position - before < wanted.slowest * seconds:
                    speed = f"{human((position - before) / seconds)}/s, below {human(wanted.slowest)}/s"
                    raise _SlowError(f"too slow: {speed} over {seconds:.0f} s")
                since, before = time.monotonic(), position
    if position > size:
        part.unlink()
        raise _UrlError(f"wrong size: expected {size} bytes, the server sends more; the partial file was deleted")
    if position < size:
        raise _RetryError(f"connection closed after {position} of {size} bytes")


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)  # what has come; a whole chunk may take for ever
    except OSError as error:  # kept apart from errors of writing
        raise _RetryError(f"connection lost: {_text(error)}") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _text(error: object) -> str:
    return str(error) or type(error).__name__


@contextmanager
def alone(target: Path) -> Iterator[bool]:
    """One thread of one process at a time makes this file; False if the file system cannot keep processes apart.

    Raises:
        WeightsError: if nothing can be written there.
    """
    with _threads, ExitStack() as stack:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shared = stack.enter_context(exclusive(target.with_name(f".{target.name}.lock")))
        yield shared


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the file system as `WeightsError`."""
    try:
        yield
    except OSError as error:
        hint = "Free some space, or set PERCEPTLOSS_CACHE to a folder that you may write to."
        raise WeightsError(f"cannot write {path}: {error.strerror or error}. {hint}") from error
