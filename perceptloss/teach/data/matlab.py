"""Variables of MATLAB files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perceptloss.errors import PerceptlossError
from perceptloss.teach.data.opinion import OpinionsError

__all__ = ["numbers", "read_mat", "texts"]


def read_mat(path: Path, variables: Sequence[str]) -> list[np.ndarray]:
    """Variables of a .mat file, in the order asked for.

    Raises:
        OpinionsError: if the file cannot be read, or lacks some.
        PerceptlossError: if SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise PerceptlossError("reading .mat files needs SciPy: pip install scipy") from error
    if path.exists() and not path.is_file():
        raise OpinionsError(["expected a file, got a folder, pipe or device"], str(path))
    try:
        found = loadmat(path)
    except Exception as error:  # damaged files raise ValueError, TypeError, zlib.error, ...
        raise OpinionsError([f"cannot be read as a MATLAB file up to version 7.2: {error}"], str(path)) from None
    absent = [name for name in variables if name not in found]
    if absent:
        there = ", ".join(name for name in found if not name.startswith("__"))
        raise OpinionsError([f"expected the variables {', '.join(variables)}; found {there or 'none'}"], str(path))
    sparse = [name for name in variables if hasattr(found[name], "toarray")]
    if sparse:
        raise OpinionsError([f"expected full arrays, got sparse ones: {', '.join(sparse)}; save full(...)"], str(path))
    return [np.asarray(found[name]) for name in variables]


def numbers(values: np.ndarray) -> list[float]:
    """A vector as floats, whatever its orientation.

    Raises:
        OpinionsError: if it holds something else.
    """
    if values.dtype.kind not in "biuf":
        raise OpinionsError([f"expected numbers, got an array of {values.dtype}"], "MATLAB variable")
    return [float(value) for value in values.ravel()]


def texts(cells: np.ndarray) -> list[str]:
    """A cell array of character vectors, whatever its orientation.

    Raises:
        OpinionsError: if a cell is empty.
    """
    found = [np.asarray(cell).ravel() for cell in cells.ravel()]
    if empty := sum(not cell.size for cell in found):
        raise OpinionsError([f"expected a text in every cell, got {empty} empty ones"], "MATLAB variable")
    return [str(cell[0]).strip() for cell in found]
