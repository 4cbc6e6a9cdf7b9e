"""Model parameters in files that are not torch's: `.npz` of numpy, `.mat` of Matlab, text of libsvm."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from perceptloss.errors import WeightsError

_WIDEST: Final = 8  # bytes of a number; long doubles have no type in torch
_MOST_UNPACKED: Final = 1 << 26  # bytes of an array from which on it may not be a bomb
_MOST_SHRUNK: Final = 100
_MOST_FEATURES: Final = 100_000
__all__ = ["READERS", "read_libsvm", "read_mat", "read_npz"]


def _tensors(file: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Arrays as tensors of their own type.

    Raises:
        WeightsError: naming the entries that are no arrays of numbers.
    """
    import numpy as np

    wrong = {key: _kind(value) for key, value in content.items() if _kind(value)}
    if wrong:
        told = ", ".join(f"{key} ({what})" for key, what in sorted(wrong.items()))
        raise WeightsError(f"{file} holds entries that are not full arrays of real numbers: {told}. Save them as such.")
    return {
        key: torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))
        for key, value in content.items()
    }


def _kind(value: object) -> str:
    """What an entry is, if it is no array that torch has a type for."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return "a sparse array" if hasattr(value, "toarray") else f"a {type(value).__name__}"
    if value.dtype.kind not in "biuf":
        return {"O": "cells or objects", "U": "text", "S": "text", "V": "a structure", "c": "complex"}.get(
            value.dtype.kind, f"of type {value.dtype}"
        )
    return f"of type {value.dtype}" if value.dtype.itemsize > _WIDEST else ""


def read_npz(file: Path) -> dict[str, Tensor]:
    """Arrays of a numpy archive; nothing in it is run.

    Raises:
        WeightsError: if it is damaged or holds something else.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                _check_member(archive, member)
        with np.load(file, allow_pickle=False) as arrays:
            content = dict(arrays)
    except Exception as error:  # hostile headers raise nearly anything
        raise WeightsError(f"{file} is damaged or not a numpy archive of plain arrays: {error}.") from error
    return _tensors(file, content)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compare the shape that a header claims with the bytes that are there, before memory is set aside for it."""
    from numpy.lib import format as npy

    if member.file_size > _MOST_UNPACKED and member.file_size > _MOST_SHRUNK * member.compress_size:
        raise ValueError(f"{member.filename} grows from {member.compress_size} to {member.file_size} bytes")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
        claimed, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if not dtype.hasobject and claimed != there:
        raise ValueError(f"{member.filename} claims the shape {shape} of {claimed} bytes, but has {there}")


def read_mat(file: Path) -> dict[str, Tensor]:
    """Arrays of a Matlab file of version 4 to 7.2; those in a row of cells are called `name.0`, `name.1` and so on.

    Raises:
        WeightsError: if scipy is not installed, or the file is damaged, newer, or holds something else.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise WeightsError(f"{file}: reading Matlab files needs scipy (pip install scipy).") from error
    try:
        content = loadmat(file)
    except Exception as error:  # damaged bytes raise nearly anything
        raise WeightsError(f"{file} is damaged, or not a Matlab file of version 4 to 7.2: {error}.") from error
    return _tensors(file, _unpacked({key: value for key, value in content.items() if not key.startswith("__")}))


def _unpacked(content: Mapping[str, Any]) -> dict[str, Any]:
    """Cells that hold arrays of numbers, each under the name of its row of cells and its place, from 0."""
    import numpy as np

    found: dict[str, Any] = {}
    for key, value in content.items():
        cells = list(value.flat) if isinstance(value, np.ndarray) and value.dtype == object else []
        if cells and not any(map(_kind, cells)):
            found.update({f"{key}.{place}": cell for place, cell in enumerate(cells)})
        else:
            found[key] = value
    return found


def read_libsvm(file: Path) -> dict[str, Tensor]:
    """A support vector regression in libsvm's text form, as `svm-train` writes it.

    Returns:
        `coefficients`, (K,), `vectors`, (K, features), `gamma` and `rho`, scalars, all float64.

    Raises:
        WeightsError: if it is damaged, or not a regression with a Gaussian kernel.
    """
    try:
        head, _, body = file.read_text(encoding="ascii").partition("\nSV\n")
        facts = dict(line.split(maxsplit=1) for line in head.splitlines())
        if not (facts["svm_type"].endswith("_svr") and facts["kernel_type"] == "rbf"):
            raise WeightsError(
                f"{file} holds {facts['svm_type']} with kernel {facts['kernel_type']}; expected a regression with rbf."
            )
        rows = [line.split() for line in body.splitlines()]
        places = [[(int(at), float(v)) for at, _, v in (cell.partition(":") for cell in row[1:])] for row in rows]
        if len(rows) != int(facts["total_sv"]):
            raise ValueError(f"{len(rows)} support vectors instead of {facts['total_sv']}")
        features = max(at for row in places for at, _ in row)
        if min(at for row in places for at, _ in row) < 1 or features > _MOST_FEATURES:
            raise ValueError(f"expected features numbered 1 to at most {_MOST_FEATURES}")
        if any(len({at for at, _ in row}) < len(row) for row in places):
            raise ValueError("a vector names a feature twice")
        vectors = torch.zeros(len(rows), features, dtype=torch.float64)
        for vector, row in zip(vectors, places, strict=True):
            for at, value in row:
                vector[at - 1] = value
        numbers = {key: torch.tensor(float(facts[key]), dtype=torch.float64) for key in ("gamma", "rho")}
        coefficients = torch.tensor([float(row[0]) for row in rows], dtype=torch.float64)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file} is damaged, or not a model in libsvm's text form: {error}.") from error
    return {"coefficients": coefficients, "vectors": vectors, **numbers}


READERS: Final[Mapping[str, Callable[[Path], dict[str, Tensor]]]] = {
    ".npz": read_npz,
    ".mat": read_mat,
    ".txt": read_libsvm,
}
