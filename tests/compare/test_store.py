"""Scores kept on disk: those of the bytes that were decoded, and nothing that cannot have been written there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from perceptloss.compare import Pairing, Settings, score
from perceptloss.compare.plan import make_plan
from perceptloss.compare.run import run_plan
from perceptloss.compare.store import Store
from perceptloss.compare.table import sentences
from perceptloss.errors import ConfigError, InputError

X, Y = "a" * 64, "b" * 64


@pytest.mark.parametrize("changed", ["out", "gt"])
def test_a_picture_that_changes_meanwhile_spoils_no_score(toys, folder, changed, tmp_path):
    gt, out = folder("gt", a=0, b=0), folder("out", a=51, b=51)

    def plan():
        return make_plan({"out": out}, gt, ["toy-error"], rules=Pairing(), settings=Settings())

    def value():
        return [v for row in run_plan(plan(), cache=tmp_path / "kept").values[0] for v in row]

    planned = plan()
    folder(changed, a=153)
    results = run_plan(planned, cache=tmp_path / "kept")
    now = 0.6 if changed == "out" else 0.4
    assert results.values[0][0] == (pytest.approx(now), pytest.approx(0.2))
    assert results.images == plan().images, "the hashes are those of what was scored"
    assert results.provenance["inputs"] == run_plan(plan()).provenance["inputs"]
    assert [(flag.kind, flag.image) for flag in results.flags] == [("changed", "a")]
    assert "changed after it was checked" in sentences(results)[0]
    toys.scored = 0
    assert value() == [pytest.approx(now), pytest.approx(0.2)]
    assert toys.scored == 0
    folder(changed, a=51 if changed == "out" else 0)
    assert value() == [pytest.approx(0.2), pytest.approx(0.2)]


def test_a_picture_that_is_another_size_or_gone_is_named(toys, folder):
    out = folder("out", a=1, b=1)
    planned = make_plan({"out": out}, None, ["toy-light"], rules=Pairing(), settings=Settings())
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(out / "b.png")
    with pytest.raises(InputError, match=r"b.png: was 12x16 when it was checked and is 9x9 now"):
        run_plan(planned)
    (out / "b.png").unlink()
    with pytest.raises(InputError, match=r"b.png: cannot be read: No such file"):
        run_plan(planned)


@pytest.fixture
def kept(tmp_path):
    """Make a store of scores in [0, 1] in one folder."""

    def make(signature="toy|1"):
        return Store(tmp_path, signature, "cpu", torch.__version__, (0.0, 1.0))

    return make


def test_lines_that_cannot_be_scores_are_scored_again(kept, caplog):
    store = kept()
    store.put((X, Y), 0.5)
    store.put((Y, None), 1.0 + 1e-7)  # a rounding beyond
    store.close()
    before = store.path.read_bytes()
    wrong = [
        *(json.dumps([X, None, score]) for score in ("0.5", True, None, 1.5, -1.0, [0.5], {})),
        *(json.dumps([x, y, 0.5]) for x, y in ((1, None), ("short", None), (X, 2), (X.upper(), None), (None, None))),
        f'["{X}", null, NaN]',
        f'["{X}", null, 1e999]',
        f'["{X}", null, {"9" * 5000}]',
        f'["{X}", null]',
        "[" * 100_000,
        '{"x": 1}',
        "no JSON",
    ]
    odd = [b"\xff\xfe\x00\x1b[31m", f'["{X}\udcff", null, 0.5]'.encode("utf-8", "surrogateescape")]
    store.path.write_bytes(before + "\n".join(wrong).encode() + b"\n" + b"\n".join(odd))
    read = kept()
    assert (read.get((X, Y)), read.get((Y, None)), read.get((X, None))) == (0.5, 1.0 + 1e-7, None)
    assert f"{len(wrong) + len(odd)} damaged lines" in caplog.text
    read.put((X, None), 0.25)
    read.close()
    assert kept().get((X, None)) == 0.25


@pytest.mark.parametrize("head", [b"", b'{"signature": "toy|1"}', b"\xff\xfe", b"{" * 10])
def test_a_file_of_something_else_is_not_believed(kept, caplog, head):
    store = kept()
    line = json.dumps([X, Y, 0.5]).encode()
    store.path.write_bytes(head + b"\n" + line + b"\n")
    store = kept()
    assert store.get((X, Y)) is None
    assert ("first line" in caplog.text) == bool(head)
    store.put((X, None), 0.75)
    store.close()
    again = kept()
    assert (again.get((X, Y)), again.get((X, None))) == (None, 0.75)


def test_a_cache_that_is_no_folder_is_a_sentence(toys, folder, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ConfigError, match="kept is a file, not a folder"):
        score(folder("out", a=1), None, ["toy-light"], cache=tmp_path / "kept")
    assert toys.scored == 0
    assert (tmp_path / "kept").read_text() == "mine"
