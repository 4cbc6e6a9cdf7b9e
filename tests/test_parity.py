"""Every critic against numbers from its authors' own code.

`pytest tests/test_parity.py --parity-dir DIR` runs the cases of another folder. A case names the layout
of a published checkpoint, how to fill it, inputs, and what the authors' code gave. The filled state goes
through the public converter, the images are fed as plain RGB, and every number is compared in float64 and
float32. What nothing here reads is a failure. Our own large cases spare some rows, unless `--thorough` is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from parity.case import Case, refuse

from perceptloss import create_critic

OWN = Path(__file__).parent / "parity"
# Without --thorough our own cases spare what only repeats: by their number of parameters
LARGE = 1e6  # every other input runs in the other type
HUGE = 2e7  # all run in float32, and of each quantity the first row alone
SMALLER = {"tres": "tres_resnet18"}  # and losses of a network run on the smaller one


@cache
def case_of(folder: Path) -> Case:
    return Case(folder)


def pytest_generate_tests(metafunc):
    if "row" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("parity_dir"))
    rows = []
    for path in sorted(folder.glob("*/case.json")):
        case = case_of(path.parent)
        is_ours = folder == OWN
        size = case.facts.get("parameters", 0) if is_ours else 0
        inputs = list(dict.fromkeys(row.input for row in case.rows))
        seen: set[str] = set()
        for number, row in enumerate(case.rows):
            what = (path.parent.name, row.metric, row.quantity[:40], row.input[:24], str(number))
            types = case.types[inputs.index(row.input) % 2 :][:1] if size > LARGE else case.types
            types = [dtype for dtype in case.types if dtype == "float32"] or types if size > HUGE else types
            repeats = size > HUGE and row.quantity in seen
            if repeats or (is_ours and "loss" in row.quantity and path.parent.name in SMALLER):
                types = []
            seen.add(row.quantity)
            for dtype in case.types:
                marks = () if dtype in types else (pytest.mark.thorough,)
                name = "-".join(filter(None, (*what, dtype)))
                rows.append(pytest.param((path.parent, number, dtype), marks=marks, id=name))
    if not rows:
        raise pytest.UsageError(f"--parity-dir {folder} holds no folder with a case.json")
    metafunc.parametrize("row", rows)


def test_agrees_with_the_authors_code(row):
    folder, number, dtype = row
    run_row(folder, number, dtype)


def run_row(folder: Path, number: int, dtype: str) -> None:
    from parity.run import check
    from parity.systems import NOT_OURS, system_of

    case = case_of(folder)
    row = case.rows[number]
    if case.system in NOT_OURS:
        pytest.skip(NOT_OURS[case.system])
    system = system_of(case.system)
    if system is None:
        refuse(f"{folder.name}: no critic of ours is read for the system {case.system!r}")
    check(system, folder, row, dtype)


# ---- the runner itself, with altered copies of a case


def altered(tmp_path: Path, name: str, change: Callable[[dict], object]) -> Path:
    facts = json.loads((OWN / name / "case.json").read_text())
    change(facts)
    folder = tmp_path / "renamed"
    folder.mkdir()
    (folder / "case.json").write_text(json.dumps(facts))
    return folder


def failures(folder: Path) -> list[str]:
    """Messages of the rows that fail in float64."""
    found = []
    for number in range(len(case_of(folder).rows)):
        try:
            run_row(folder, number, "float64")
        except (AssertionError, pytest.fail.Exception) as error:
            found.append(str(error))
    return found


def numbers_in(value: object, path: tuple = ()):
    """Paths to all numbers that are compared."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key in ("index", "shape", "numel", "arguments", "metric", "labels"):
            continue
        yield from numbers_in(item, (*path, key))
    if isinstance(value, (int, float)):
        yield path


@pytest.mark.parametrize("name", ["cdc", "censeoqoe_nr", "underwater_measures", "content-diverse-losses"])
def test_a_wrong_number_fails_wherever_it_is(tmp_path, name):
    expected = json.loads((OWN / name / "case.json").read_text())["expected"]
    paths = list(numbers_in(expected))
    chosen = paths[:: max(1, len(paths) // 12)]

    def change(facts: dict) -> None:
        for path in chosen:
            holder = facts["expected"]
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = holder[path[-1]] * 1.01 + 0.01

    assert len(failures(altered(tmp_path, name, change))) >= len({path[0] for path in chosen})


def with_new_output(facts: dict) -> None:
    facts["expected"][0]["intermediate"].append(facts["expected"][0]["intermediate"][0] | {"name": "another layer"})


def with_new_record(facts: dict) -> None:
    facts["expected"][1]["entropy"] = {"mean": 1.0}


def with_new_table(facts: dict) -> None:
    facts["expected_ranks"] = []


def without_numbers(facts: dict) -> None:
    facts["expected"] = []


def of_another_system(facts: dict) -> None:
    facts["system"], facts["expected"] = "nobody's", facts["expected"][:1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_new_output, "nothing reads 'another layer'"),
        (with_new_record, "knows no 'entropy'"),
        (with_new_table, "knows no 'expected_ranks'"),
        (without_numbers, "knows no 'expected'"),
        (of_another_system, 'no critic of ours is read for the system "nobody\'s"'),
    ],
)
def test_what_nothing_reads_fails(tmp_path, change, sentence):
    found = failures(altered(tmp_path, "cdc", change))
    assert found and all(sentence in text for text in found)


def test_other_batches_and_names_run(tmp_path):
    def change(facts: dict) -> None:
        names = {"batch of two": "one", "odd size": "another"}
        facts["inputs"] = [facts["inputs"][2], facts["inputs"][0] | {"items": facts["inputs"][0]["items"][1:]}]
        facts["expected"] = [
            facts["expected"][2],
            {"input": "batch of two", "score": facts["expected"][0]["score"][1:]},
        ]
        for entry, row in zip(facts["inputs"], facts["expected"], strict=True):
            entry["name"] = row["input"] = names[entry["name"]]

    folder = altered(tmp_path, "cdc", change)
    assert len(case_of(folder).rows) == 2 + len(case_of(OWN / "cdc").rows) // 4 - 1
    assert not failures(folder)


def test_what_is_not_ours_is_left_with_a_reason(tmp_path, monkeypatch):
    from parity.systems import NOT_OURS

    monkeypatch.setitem(NOT_OURS, "another's", "not implemented, for a reason")
    folder = altered(tmp_path, "cdc", lambda facts: facts.update(system="another's"))
    with pytest.raises(pytest.skip.Exception, match="for a reason"):
        run_row(folder, 0, "float64")


def test_a_checkpoint_file_loads_like_its_state_dict(tmp_path):
    """The same tensors through a .pth and a .safetensors file."""
    from safetensors.torch import save_file

    state = case_of(OWN / "lpips-squeeze").state()
    torch.save({"state_dict": state}, tmp_path / "authors.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "ours.safetensors")
    wanted = create_critic("lpips-squeeze", weights=state)
    for name in ("authors.pth", "ours.safetensors"):
        loaded = create_critic("lpips-squeeze", weights=tmp_path / name)
        assert loaded.weights_id == wanted.weights_id
        for key, value in wanted.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
