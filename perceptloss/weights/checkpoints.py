"""Reading checkpoint files as plain tensors, without ever running code from them."""

from __future__ import annotations

import json
import logging
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from perceptloss.errors import WeightsError, points
from perceptloss.output.files import replacing
from perceptloss.weights.model_files import READERS

__all__ = ["SUFFIXES", "WRAPPERS", "plain_tensors", "read_facts", "read_state", "write_state"]

SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".pkl", ".ckpt", ".tar", *READERS)
# what training frameworks call the weights beside optimiser and counters; the first one present is taken
WRAPPERS: Final = ("params_ema", "state_dict", "model_state_dict", "params", "model", "net")
_PART: Final = "_model_state_dict"  # of networks that were saved beside each other, `NAME_model_state_dict`
_PREFIXES: Final = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_SAFE: Final = "Ask its authors for a state dict or a .safetensors file, or save one yourself from code that you trust."

logger = logging.getLogger(__name__)


class _Number:
    """Stands in for a number of numpy, such as a training loss beside the weights: nothing of numpy is run."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_STAND_INS: Final = [
    type(name, (_Number,), {"__module__": module})
    for module, name in (
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
    )
]
_NOTES: Final = (bool, int, float, str, type(None), _Number)


def read_state(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a checkpoint file, on the CPU.

    Files ending in `.pth`, `.pt`, `.ckpt` and `.tar` are read by torch's restricted unpickler only,
    then reduced to tensors as `plain_tensors` describes; tensors without names are called `0`, `1` and so
    on. The other kinds are described in `perceptloss.weights.model_files`.

    Raises:
        WeightsError: if the file is missing, empty, damaged, of an unknown kind, holds something
            other than tensors, or asks to run code.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise WeightsError(f"{file} is a directory; expected a checkpoint file ({', '.join(SUFFIXES)}).")
    if not file.exists():
        raise WeightsError(f"no such checkpoint file: {file} (working directory {Path.cwd()}).")
    if not file.is_file():
        raise WeightsError(f"{file} is a pipe or device; expected a checkpoint file ({', '.join(SUFFIXES)}).")
    if file.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{file}: unknown kind of file {file.suffix!r}; expected {', '.join(SUFFIXES)}.")
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    _check_head(file, head)
    suffix = file.suffix.lower()
    if suffix in READERS:
        return plain_tensors(READERS[suffix](file), str(file))
    content = _read_safetensors(file) if suffix == ".safetensors" else _read_pickle(file, head)
    if isinstance(content, (list, tuple)) and content and all(isinstance(value, Tensor) for value in content):
        content = {str(position): value for position, value in enumerate(content)}
    return plain_tensors(content, str(file))


def read_facts(path: str | PathLike[str]) -> dict[str, object]:
    """What perceptloss wrote into the metadata of a .safetensors file; empty for any other file."""
    file = Path(path).expanduser()
    if file.suffix.lower() != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("perceptloss", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}  # read_state says what is wrong with the file
    return facts if isinstance(facts, dict) else {}


def write_state(path: Path, state: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write a .safetensors file in one piece; `read_facts` gives the facts back.

    They are one entry of the metadata, as JSON, because safetensors writes several in random order.

    Raises:
        WeightsError: if it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    try:
        with replacing(path) as draft:
            save_file(tensors, draft, {"perceptloss": json.dumps(facts, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {error}") from error


def _check_head(file: Path, head: bytes) -> None:
    """Name the three things that are most often found in place of a checkpoint."""
    start = head.lstrip().lower()
    if not head:
        found = "is empty"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml")):
        found = "is a web page, not a checkpoint"
    elif start.startswith(b"version https://git-lfs"):
        found = "is a Git LFS pointer, not the checkpoint itself (git lfs pull fetches it)"
    else:
        return
    raise WeightsError(f"{file} {found}. Fetch it again.")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} is damaged or not a safetensors file: {error}. Fetch it again.") from error


def _read_pickle(file: Path, head: bytes) -> object:
    if tarfile.is_tarfile(file):  # its reader in torch before 2.6 ignores weights_only (CVE-2025-32434)
        raise WeightsError(f"{file} was refused: it is in the tar format of torch 0.1, which may run code. {_SAFE}")
    if _is_program(file):
        raise WeightsError(f"{file} was refused: it is a TorchScript program, not a set of tensors. {_SAFE}")
    try:
        with _numbers_stood_in_for():
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise nearly anything
        problem = _refusal(file, head, str(error))
    raise WeightsError(problem)  # outside the handler: torch's own message advises to switch the protection off


@contextmanager
def _numbers_stood_in_for() -> Iterator[None]:
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([*before, *_STAND_INS])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _is_program(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # of the older format, or damaged; torch will say


def _refusal(file: Path, head: bytes, message: str) -> str:
    name = re.search(r"GLOBAL (\S+)", message)
    if name:
        return (
            f"{file} was refused: besides tensors it holds {name[1]!r}, an object whose loading could run code. "
            f"Nothing was run. {_SAFE}"
        )
    if head.startswith(b"\x80") and "Unsupported" in message:
        return f"{file} was refused: it is a pickle that torch.save did not write, and could run code. {_SAFE}"
    return f"{file} is truncated, damaged, or not a checkpoint of torch. Fetch it again."


def plain_tensors(content: object, where: str) -> dict[str, Tensor]:
    """Reduce what a checkpoint holds to a flat dict of tensors.

    A wrapper (`WRAPPERS`, in this order, at most two deep, e.g. `{"model": {"state_dict": ...}}`) is
    opened, and what lies beside it, optimiser and counters, is left out. Networks that were saved
    beside each other as `{"a_model_state_dict": ..., "b_model_state_dict": ...}` are joined, their keys
    as `a.key` and `b.key`. Lists of tensors or of layers are counted: `{"net": [{"weight": ...}, ...]}` gives
    `net.0.weight`. A prefix `module.` or `_orig_mod.` that all keys share is removed. Numbers and strings
    among the tensors are notes and are left out as well; anything else is an error.

    Args:
        content: What was loaded, or a state dict in memory.
        where: Name of the source, for messages.

    Raises:
        WeightsError: listing every entry that is not a plain tensor.
    """
    for _ in range(2):
        if not isinstance(content, Mapping):
            break
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        _tell(where, [wrapper], content)
        content = content[wrapper]
    if isinstance(content, Mapping):
        content = _counted(_joined(content, where))
    if not isinstance(content, Mapping):
        raise WeightsError(f"{where} holds {_kind(content)}; expected names with tensors (a state dict).")
    problems = [f"{key!r}: {_kind(value)}" for key, value in content.items() if not _is_entry(key, value)]
    if problems:
        raise WeightsError(
            f"{where} holds entries that are not plain tensors:\n{points(problems)}\n"
            f"Expected names with tensors, alone or under one of {', '.join(WRAPPERS)}."
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{where} holds no tensors.")
    return _without_prefix(state)


def _joined(content: Mapping[object, object], where: str) -> Mapping[object, object]:
    """Networks saved beside each other as one state; the content itself if it holds none."""
    parts = [
        key for key in content if isinstance(key, str) and key.endswith(_PART) and isinstance(content[key], Mapping)
    ]
    if not parts:
        return content
    _tell(where, parts, content)
    states = {part.removesuffix(_PART): plain_tensors(content[part], f"{where}, {part!r},") for part in parts}
    return {f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.items()}


def _counted(content: Mapping[object, object]) -> Mapping[object, object]:
    """Lists of tensors or of layers opened, with lists and mappings of notes beside them left out."""
    lists = {key: value for key, value in content.items() if isinstance(value, (list, tuple)) and _has_tensors(value)}
    if not lists:
        return content
    found = {key: value for key, value in content.items() if key not in lists and not _is_note(value)}
    for key, items in lists.items():
        for number, item in enumerate(items):
            layer = {f".{name}": part for name, part in item.items()} if isinstance(item, Mapping) else {"": item}
            found |= {f"{key}.{number}{name}": part for name, part in layer.items()}
    return found


def _has_tensors(value: object) -> bool:
    if isinstance(value, (list, tuple, Mapping)):
        return any(map(_has_tensors, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, Tensor)


def _is_note(value: object) -> bool:
    if isinstance(value, (list, tuple, Mapping)):
        return all(map(_is_note, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, _NOTES)


def _tell(where: str, read: list[str], content: Mapping[object, object]) -> None:
    beside = ", ".join(repr(key) for key in content if key not in read)
    logger.info("%s: reading %s%s", where, " and ".join(map(repr, read)), f", leaving out {beside}" if beside else "")


def _is_entry(key: object, value: object) -> bool:
    if isinstance(value, Tensor):
        return isinstance(key, str) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)
    return isinstance(value, _NOTES)


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of layout {value.layout}, type {value.dtype}, on {value.device}"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} entries"
    return f"an object of type {type(value).__name__}"


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while True:
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            return state
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
