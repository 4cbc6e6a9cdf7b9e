"""Reading checkpoint files: layouts that are understood, and files that are refused."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from perceptloss.errors import WeightsError
from perceptloss.weights.checkpoints import WRAPPERS, plain_tensors, read_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2])}


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.makedirs, (str(self.path),)


class Renamed:
    """Stands for the module pickle, and writes numpy's scalars as coming from this module."""

    def __init__(self, module: str) -> None:
        class Pickler(pickle._Pickler):
            def save_global(self, obj, name=None):
                if getattr(obj, "__name__", "") == "scalar":
                    self.write(pickle.GLOBAL + f"{module}\nscalar\n".encode())
                else:
                    super().save_global(obj, name)

        self.Pickler = Pickler

    def __getattr__(self, name):
        return getattr(pickle, name)

    def dump(self, obj, file, protocol=2):
        self.Pickler(file, protocol).dump(obj)


def same(state: dict, other: dict = STATE) -> bool:
    return list(state) == list(other) and all(torch.equal(state[key], other[key]) for key in other)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pth.tar", ".PTH"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_torch(tmp_path, suffix, is_zip):
    path = tmp_path / f"net{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=is_zip)
    assert same(read_state(path))
    assert same(read_state(str(path)))


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "net.safetensors")
    state = read_state(tmp_path / "net.safetensors")
    assert same({key: state[key] for key in STATE})


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(tmp_path, wrapper):
    torch.save({"epoch": 3, wrapper: STATE, "optimizer": {"lr": [0.1]}}, tmp_path / "net.pth")
    assert same(read_state(tmp_path / "net.pth"))


def test_wrappers_nest_twice_but_not_thrice():
    assert same(plain_tensors({"model": {"state_dict": STATE}}, "x"))
    with pytest.raises(WeightsError, match="'model': a mapping of 2 entries"):
        plain_tensors({"model": {"state_dict": {"model": STATE}}}, "x")


PARTS = {"a_model_state_dict": {"weight": STATE["a.weight"]}, "b_model_state_dict": {"bias": STATE["a.bias"]}}
JOINED = {"a.weight": STATE["a.weight"], "b.bias": STATE["a.bias"]}


def test_networks_saved_beside_each_other_are_joined(tmp_path):
    beside = {"epoch": 3, "optimizer_state_dict": {"lr": [0.1]}, "scheduler_state_dict": {"T_max": 50}}
    torch.save({**beside, **PARTS}, tmp_path / "net.pth")
    assert same(read_state(tmp_path / "net.pth"), JOINED)


def test_each_of_them_may_have_its_own_wrapper_and_prefix():
    wrapped = {"module.weight": STATE["a.weight"]}
    assert same(plain_tensors({**PARTS, "a_model_state_dict": wrapped}, "x"), JOINED)
    assert same(plain_tensors({"model": {**PARTS, "a_model_state_dict": {"params": wrapped}}}, "x"), JOINED)


def test_what_is_wrong_in_one_of_them_is_told_with_its_name():
    with pytest.raises(WeightsError, match=r"net.pth, 'b_model_state_dict', holds entries.*\n.*'bias': an obj"):
        plain_tensors({**PARTS, "b_model_state_dict": {"bias": [1]}}, "net.pth")


def test_a_wrapper_comes_before_them():
    assert same(plain_tensors({**PARTS, "state_dict": STATE}, "x"))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_numpy_are_notes_too(tmp_path, is_zip, module):
    """As a training loop leaves them beside the weights, written by numpy 1 or 2."""
    path = tmp_path / "net.pth"
    numbers = {"loss": np.float64(0.5), "best": np.float32(0.1), "step": np.int64(7)}
    torch.save({**STATE, **numbers}, path, _use_new_zipfile_serialization=is_zip, pickle_module=Renamed(module))
    assert module.encode() in path.read_bytes()
    before = torch.serialization.get_safe_globals()
    assert same(read_state(path))
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_an_array_of_numpy_is_refused(tmp_path):
    torch.save({**STATE, "history": np.ones(3)}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", r"'numpy.*_reconstruct'")


def test_the_averaged_weights_come_first():
    assert same(plain_tensors({"params": {"b": torch.ones(1)}, "params_ema": STATE}, "x"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_that_all_keys_share_go(prefix):
    assert same(plain_tensors({f"{prefix}{key}": tensor for key, tensor in STATE.items()}, "x"))


def test_a_prefix_of_some_keys_stays():
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert same(plain_tensors(state, "x"), state)


def test_notes_are_left_out():
    notes = {"arch": "vgg", "epoch": 3, "lr": 0.1, "ema": True, "comment": None}
    assert same(plain_tensors({**notes, **STATE}, "x"))


def test_everything_that_is_not_a_tensor_is_listed():
    odd = {"shape": [1, 2], 5: torch.ones(1), "sparse": torch.eye(2).to_sparse(), "meta": torch.ones(1, device="meta")}
    with pytest.raises(WeightsError) as caught:
        plain_tensors({**STATE, **odd}, "net.pth")
    message = str(caught.value)
    assert message.startswith("net.pth holds entries that are not plain tensors")
    assert all(repr(key) in message for key in odd)
    assert "'a.weight'" not in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1], "an object of type list"),
        (torch.ones(2), "a tensor of layout"),
        ({}, "no tensors"),
        ({"a": 1}, "no tensors"),
    ],
)
def test_content_that_is_no_state(content, problem, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=f"net.pth holds {problem}"):
        read_state(tmp_path / "net.pth")


# refused


def refused(path: Path, match: str) -> str:
    with pytest.raises(WeightsError, match=match) as caught:
        read_state(path)
    message = str(caught.value)
    assert str(path) in message
    assert "weights_only" not in message
    assert caught.value.__cause__ is None or "weights_only" not in str(caught.value.__cause__)
    assert caught.value.__context__ is None or "weights_only" not in str(caught.value.__context__)
    return message


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_that_wants_to_run_code_is_refused_and_does_not(tmp_path, is_zip):
    trace = tmp_path / "it-ran"
    torch.save({**STATE, "x": Hostile(trace)}, tmp_path / "net.pth", _use_new_zipfile_serialization=is_zip)
    message = refused(tmp_path / "net.pth", "was refused: besides tensors it holds 'os.makedirs'")
    assert "Nothing was run" in message
    assert not trace.exists()
    torch.load(tmp_path / "net.pth", weights_only=False)
    assert trace.exists(), "the file was harmless, this test proves nothing"


@pytest.mark.parametrize(("protocol", "match"), [(2, "'os.makedirs'"), (4, "a pickle that torch.save did not write")])
def test_a_plain_pickle_is_refused(tmp_path, protocol, match):
    trace = tmp_path / "it-ran"
    (tmp_path / "net.pth").write_bytes(pickle.dumps({"x": Hostile(trace)}, protocol=protocol))
    refused(tmp_path / "net.pth", match)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        ({"window": collections.deque([1])}, "collections.deque"),
    ],
)
def test_objects_are_refused_by_name(tmp_path, content, name):
    torch.save(content, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", f"holds '{name}'")


def test_the_oldest_tar_format_is_refused(tmp_path):
    trace = tmp_path / "it-ran"
    with tarfile.open(tmp_path / "net.tar", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Hostile(trace), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    refused(tmp_path / "net.tar", "tar format of torch 0.1")
    assert not trace.exists()


def test_programs_are_refused(tmp_path):
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    module.save(tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "a TorchScript program")


# damaged


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_files(tmp_path, is_zip, share):
    path = tmp_path / "net.pth"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "truncated, damaged, or not a checkpoint")


@pytest.mark.parametrize("length", [4, 40, 200])
def test_truncated_safetensors(tmp_path, length):
    save_file({"a": torch.ones(100)}, tmp_path / "whole.safetensors")
    path = tmp_path / "net.safetensors"
    path.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:length])
    refused(path, "is damaged or not a safetensors file")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"hello, this is no checkpoint at all", "damaged"),
    ],
)
def test_what_is_found_in_place_of_a_checkpoint(tmp_path, suffix, content, problem):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    refused(path, problem)


def test_paths_that_are_none(tmp_path):
    refused(tmp_path / "net.pth", "no such checkpoint file")
    refused(tmp_path, "is a directory")
    (tmp_path / "net.onnx").write_bytes(b"x")
    refused(tmp_path / "net.onnx", "unknown kind of file '.onnx'; expected .safetensors, .pth")
