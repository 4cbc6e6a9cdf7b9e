"""Critics against numbers from their authors' own code, for cases whose quantities have names."""

from __future__ import annotations

import copy
import importlib
import re
from functools import lru_cache
from pathlib import Path

import pytest
from parity.named import DTYPES, NamedCase, System

from perceptloss.critic import Critic

HERE = Path(__file__).parent / "parity"
NAMES = sorted(path.stem.removeprefix("named_") for path in HERE.glob("named_*.py"))


def system_of(name: str) -> System:
    return importlib.import_module(f"parity.named_{name}").SYSTEM


@lru_cache(maxsize=2)
def loaded(folder: Path, dtype: str) -> tuple[NamedCase, Critic]:
    case = NamedCase(folder, dtype)
    if dtype == "float32":  # a copy rounds back to the same bits, and spares filling 150 million weights again
        return case, copy.deepcopy(loaded(folder, "float64")[1]).float()
    return case, system_of(folder.name).build(case)


def reason_to_leave(system: System, quantity: str) -> str | None:
    return next((why for pattern, why in system.left.items() if re.fullmatch(pattern, quantity)), None)


def pytest_generate_tests(metafunc):
    if "row" not in metafunc.fixturenames:
        return
    rows, ids = [], []
    for path in sorted(Path(metafunc.config.getoption("parity_dir")).glob("*/case.json")):
        case = NamedCase(path.parent)
        name = path.parent.name
        if "format" not in case.facts:  # test_parity.py reads it
            continue
        if name not in NAMES:
            rows.append((path.parent, None))
            ids.append(name)
            continue
        for number, row in enumerate(case.facts["expected"]):
            if reason_to_leave(system_of(name), row["name"]) is None:
                rows.append((path.parent, number))
                ids.append(f"{name}-{row['name']}-{row['input']}-{number}")
    metafunc.parametrize("row", rows, ids=ids)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_authors_code(dtype, row):
    folder, number = row
    name = folder.name
    if number is None:
        pytest.skip(f"no critic for {name!r} yet")
    if dtype not in system_of(name).types:
        pytest.skip(f"a large network: run in {' and '.join(system_of(name).types)} only")
    case, critic = loaded(folder, dtype)
    expected = case.facts["expected"][number]
    readers = system_of(name).readers
    assert expected["name"] in readers, f"read {expected['name']!r} of {name!r}, or leave it with a reason"
    case.compare(expected, readers[expected["name"]](critic, case, expected["input"]))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_exists_and_has_a_reason(name):
    quantities = {row["name"] for row in NamedCase(HERE / name).facts["expected"]}
    for pattern, why in system_of(name).left.items():
        assert len(why) > 10
        assert any(re.fullmatch(pattern, quantity) for quantity in quantities), f"no row is called {pattern!r}"
    assert set(system_of(name).readers) <= quantities
