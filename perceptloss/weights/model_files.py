"""Model parameters in files that are not torch's: `.npz` of numpy, `.mat` of Matlab, text of libsvm."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from perceptloss.errors import WeightsError

__all__ = ["READERS", "read_libsvm", "read_mat", "read_npz"]


def _tensors(file: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Arrays as tensors of their own type.

    Raises:
        WeightsError: naming the entries that are no arrays of numbers.
    """
    wrong = [key for key, value in content.items() if value.dtype.kind not in "biuf"]
    if wrong:
        raise WeightsError(f"{file} holds entries that are not arrays of real numbers: {', '.join(sorted(wrong))}.")
    return {
        key: torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C")) for key, value in content.items()
    }


def read_npz(file: Path) -> dict[str, Tensor]:
    """Arrays of a numpy archive; nothing in it is run.

    Raises:
        WeightsError: if it is damaged or holds something else.
    """
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as archive:
            content = dict(archive)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise WeightsError(f"{file} is damaged or not a numpy archive of plain arrays: {error}.") from error
    return _tensors(file, content)


def read_mat(file: Path) -> dict[str, Tensor]:
    """Arrays of a Matlab file of version 4 to 7.2.

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
    return _tensors(file, {key: value for key, value in content.items() if not key.startswith("__")})


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
        vectors = torch.zeros(len(rows), max(at for row in places for at, _ in row), dtype=torch.float64)
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
