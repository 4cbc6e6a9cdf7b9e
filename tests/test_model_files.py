"""Model parameters in files of numpy, Matlab and libsvm: what is read, and what is refused."""

from __future__ import annotations

import os
import sys
import zipfile

import numpy as np
import pytest
import torch

from perceptloss.errors import WeightsError
from perceptloss.weights.checkpoints import read_state

ARRAYS = {"mean": np.arange(3.0)[None], "cov": np.eye(3), "count": np.array([7], dtype=np.int32)}
LIBSVM = """svm_type epsilon_svr
kernel_type rbf
gamma 0.05
nr_class 2
total_sv 3
rho -153.591
SV
-1024 1:-0.5 2:0.25 4:1
12.5 2:-1e-3
0.125 1:1 3:2 4:-0.75
"""


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == ARRAYS.keys() and all(
        np.array_equal(state[key].numpy(), value) and state[key].numpy().dtype == value.dtype
        for key, value in ARRAYS.items()
    )


def refused(path, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        read_state(path)
    assert str(path) in str(caught.value)


def test_numpy(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    assert same(read_state(tmp_path / "a.npz"))
    np.savez_compressed(
        tmp_path / "b.NPZ", **{key: value.astype(value.dtype.newbyteorder()) for key, value in ARRAYS.items()}
    )
    (tmp_path / "b.NPZ.npz").rename(tmp_path / "b.NPZ")
    assert same(read_state(tmp_path / "b.NPZ"))


class Hostile:
    def __reduce__(self):
        return sys.exit, (3,)


def test_objects_in_numpy_archives_are_refused_and_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", mean=np.array([Hostile()], dtype=object))
    refused(tmp_path / "a.npz", "not a numpy archive of plain arrays")
    np.savez(tmp_path / "a.npz", mean=np.eye(2), name=np.array(["text"]))
    refused(tmp_path / "a.npz", "not full arrays of real numbers: name")


@pytest.mark.parametrize("compress", [True, False])
def test_matlab(tmp_path, compress):
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(tmp_path / "a.mat", ARRAYS | {"count": ARRAYS["count"][None]}, do_compression=compress)
    state = read_state(tmp_path / "a.mat")
    assert state["count"].shape == (1, 1)
    assert same({**state, "count": state["count"][0]})


def test_matlab_files_of_something_else(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(tmp_path / "a.mat", {"cells": np.array([{"a": 1}], dtype=object), "mean": np.eye(2)})
    refused(tmp_path / "a.mat", "not full arrays of real numbers: cells")


def test_matlab_without_scipy(tmp_path, monkeypatch):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(tmp_path / "a.mat", "needs scipy")


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".txt"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"hello, this is no model", "damaged"),
        (b"PK\3\4\0\0", "damaged"),
    ],
)
def test_damaged_files(tmp_path, suffix, content, problem):
    if suffix == ".mat":
        pytest.importorskip("scipy.io")
    (tmp_path / f"a{suffix}").write_bytes(content)
    refused(tmp_path / f"a{suffix}", problem)


def test_libsvm(tmp_path):
    (tmp_path / "model.txt").write_text(LIBSVM)
    state = read_state(tmp_path / "model.txt")
    assert state["coefficients"].tolist() == [-1024, 12.5, 0.125]
    assert state["vectors"].tolist() == [[-0.5, 0.25, 0, 1], [0, -1e-3, 0, 0], [1, 0, 2, -0.75]]
    assert (state["gamma"].item(), state["rho"].item()) == (0.05, -153.591)
    assert all(tensor.dtype == torch.float64 for tensor in state.values())


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("total_sv 3", "total_sv 4", "3 support vectors instead of 4"),
        ("epsilon_svr", "c_svc", "holds c_svc with kernel rbf; expected a regression"),
        ("rbf", "linear", "expected a regression with rbf"),
        ("rho -153.591\n", "", "damaged.*rho"),
        ("2:0.25", "2:much", "damaged"),
        ("1:-0.5", "0:-0.5", "features numbered 1 to"),
        ("1:-0.5", "-1:-0.5", "features numbered 1 to"),
        ("4:1", "99999999999:1", "features numbered 1 to"),
        ("2:0.25", "1:0.25", "names a feature twice"),
    ],
)
def test_other_models_are_refused(tmp_path, old, new, problem):
    (tmp_path / "model.txt").write_text(LIBSVM.replace(old, new))
    refused(tmp_path / "model.txt", problem)


def test_tensors_saved_in_a_row_are_numbered(tmp_path):
    torch.save((torch.ones(2), torch.zeros(3)), tmp_path / "a.pt")
    state = read_state(tmp_path / "a.pt")
    assert {key: tensor.tolist() for key, tensor in state.items()} == {"0": [1, 1], "1": [0, 0, 0]}


def claimed(shape: str, data: bytes = bytes(8)) -> bytes:
    """An array of numpy whose header says what it likes."""
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = head.ljust(-(len(head) + 11) % 64 + len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.npy", claimed("(10000000000000,)"), "claims the shape"),
        ("a.npy", claimed("(-1,)"), "claims the shape"),
        ("a.npy", claimed("(" * 200 + ")" * 200), "damaged"),
        ("a.npy", claimed("(2,)"), "of 16 bytes, but has 8"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{", "damaged"),
        ("readme.txt", b"hello", "damaged"),
        ("a.npy", claimed("(10000000,)", bytes(80_000_000)), "grows from"),
    ],
)
def test_headers_that_claim_what_is_not_there(tmp_path, name, content, problem):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    refused(tmp_path / "a.npz", problem)


def test_numbers_that_torch_has_no_type_for(tmp_path):
    np.savez(tmp_path / "a.npz", wide=np.ones(2, np.longdouble), fine=np.ones(2))
    refused(tmp_path / "a.npz", r"wide \(of type ")


def test_sparse_arrays_are_named(tmp_path):
    io, sparse = pytest.importorskip("scipy.io"), pytest.importorskip("scipy.sparse")
    io.savemat(tmp_path / "a.mat", {"mean": sparse.eye(3).tocsc(), "cov": np.eye(3)})
    refused(tmp_path / "a.mat", r"mean \(a sparse array\). Save them as such")


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".txt", ".pth", ".safetensors"])
def test_pipes_and_devices_are_not_read(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    refused(tmp_path / f"pipe{suffix}", "is a pipe or device; expected a checkpoint file")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    refused(tmp_path / f"zero{suffix}", "is a pipe or device")
