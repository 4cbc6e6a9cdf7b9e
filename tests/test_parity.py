"""Every critic against numbers from its authors' own code.

`pytest tests/test_parity.py --parity-dir DIR` runs other cases. A case names the layout of a
published checkpoint, how to fill it, inputs, and what the authors' code gave. The filled state goes
through the public converter, the images are fed as plain RGB, and scores, gradients and
intermediates are compared in float64 and float32. The authors take (reference, distorted).
Where an input has crops, its score is the mean over them, its intermediates are those of the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.mapping import (
    AUTHORS_EXTRAS,
    COUPLED,
    INTERMEDIATES,
    LOOSE_FLOAT32_GRADIENTS,
    LOOSE_GRADIENTS,
    NOT_OURS,
    ONE_TYPE,
    critic_name,
)
from parity.parity import distort, fill_state, image, load_case
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.critic import Critic
from perceptloss.errors import UnknownCritic

DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Pairs:
    """One named input of a case: distorted images and references, (N, channels, H, W) each."""

    x: Tensor
    y: Tensor | None
    items: tuple[Any, ...]
    crops: tuple[tuple[int, int, int, int], ...] = ()  # top, left, height, width

    def views(self) -> list[tuple[Tensor, Tensor | None]]:
        """What the network is given: the pair itself, or each of its crops."""
        windows = [(..., slice(t, t + h), slice(left, left + w)) for t, left, h, w in self.crops] or [...]
        return [(self.x[window], None if self.y is None else self.y[window]) for window in windows]


def pytest_generate_tests(metafunc):
    if "row" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("parity_dir"))
    rows, ids = [], []
    for path in sorted(folder.glob("*/case.json")):
        case = load_case(path.parent)
        if (
            "format" in case or case["system"] == "content-diverse-losses"
        ):  # in test_parity_named.py, test_objectives.py
            continue
        for name, index in _addresses(case):
            rows.append((path.parent, name, index))
            ids.append(f"{name}-{index if index is None else case['expected'][index]['input'][:24]}")
    if not rows:
        raise pytest.UsageError(f"--parity-dir {folder} holds no folder with a case.json")
    metafunc.parametrize("row", rows, ids=ids)


def _addresses(case: dict) -> list[tuple[str, int | None]]:
    """(critic name, index of the expected row) for critics that exist; (name, None) once for one that does not."""
    rows = case["expected"] if isinstance(case["expected"], list) else []
    found: dict[tuple[str, int | None], None] = {}
    for index, row in enumerate(rows or [{}]):
        name = critic_name(case["system"], row.get("metric"))
        found[(name, index if _exists(name) else None)] = None
    return list(found)


def _exists(name: str) -> bool:
    try:
        get_card(name)
    except UnknownCritic:
        return False
    return True


@lru_cache(maxsize=2)
def _case(folder: Path) -> dict:
    return load_case(folder)


@lru_cache(maxsize=2)
def _state(folder: Path) -> dict[str, Tensor]:
    case = _case(folder)
    filled = fill_state(case["layout"], seed=case["seed"])
    return {key: torch.from_numpy(np.array(value)) for key, value in filled.items()}


@lru_cache(maxsize=2)
def _critic(folder: Path, name: str, dtype: str) -> Critic:
    critic = create_critic(name, weights=_state(folder) or None).to(DTYPES[dtype])
    critic.hold_weights = False  # the authors' gradient goes through their weights
    return critic


def _inputs(case: dict, name: str, critic: Critic, dtype: str) -> Pairs:
    (entry,) = [entry for entry in case["inputs"] if entry["name"] == name]
    items = tuple(entry["items"])
    x, y = [], []
    for item in items:
        facts = item["image"]
        picture = image(facts["seed"], facts["height"], facts["width"], facts.get("channels", critic.card.channels))
        y.append(picture)
        x.append(distort(picture, **item["distort"]) if item["distort"] else picture)
    xs, ys = (torch.from_numpy(np.stack(planes)).to(DTYPES[dtype]) for planes in (x, y))
    crops = tuple(tuple(crop) for crop in entry.get("crops", ()))
    return Pairs(xs, ys if critic.card.needs_reference else None, items, crops)


def _tolerance(case: dict, dtype: str) -> tuple[float, float]:
    suffix = "" if dtype == "float64" else "_float32"
    return case["rtol" + suffix], case["atol" + suffix]


def _close(what: str, ours: Tensor, theirs: Any, rtol: float, atol: float) -> None:
    wanted = torch.tensor(theirs, dtype=torch.float64)
    torch.testing.assert_close(ours.detach().double(), wanted, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")


def _number(value: float | str) -> float:
    return math.nan if value == "nan" else float(value)


def _check_gradient(ours: Tensor, theirs: dict, rtol: float, atol: float) -> None:
    """Norm, mean and sampled values; to `rtol` of a typical element, where the authors have no NaN."""
    assert torch.isfinite(ours).all(), "the gradient is not finite"
    norm = _number(theirs["norm"])
    if not math.isfinite(norm):
        return
    typical = max(rtol * norm / math.sqrt(ours.numel()), atol * 1e-3)
    _close("gradient norm", ours.double().norm(), norm, rtol, max(atol, typical))
    _close("gradient mean", ours.double().mean(), _number(theirs["mean"]), rtol, typical)
    values = [_number(v) for v in theirs["value"]]
    _close("gradient values", torch.stack([ours[tuple(i)] for i in theirs["index"]]), values, rtol, 10 * typical)


def _check_intermediate(name: str, ours: Tensor, theirs: dict, rtol: float, atol: float) -> None:
    assert list(ours.shape) == theirs["shape"], f"{name}: shape {list(ours.shape)}, expected {theirs['shape']}"
    ours = ours.detach().double()
    first = theirs["first"]
    _close(name, ours.flatten()[: len(first)], first, rtol, max(atol, rtol * theirs["std"]))
    _close(f"mean of {name}", ours.mean(), theirs["mean"], rtol, max(atol, rtol * theirs["std"]))
    _close(f"deviation of {name}", ours.std(unbiased=False), theirs["std"], rtol, atol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_authors_code(row, dtype):
    folder, name, index = row
    if index is None:
        pytest.skip(f"no critic for {name!r} yet")
    case = _case(folder)
    expected = case["expected"][index]
    if ONE_TYPE.get(name, {}).get(expected["input"], dtype) != dtype:
        pytest.skip(f"a large network: {expected['input']!r} is run in the other type only")
    critic = _critic(folder, name, dtype)
    rtol, atol = _tolerance(case, dtype)
    pairs = _inputs(case, expected["input"], critic, dtype)
    x = pairs.x.requires_grad_()
    score = torch.stack([critic(*view) for view in pairs.views()]).mean(0)
    if (name, expected["input"]) in COUPLED:
        _check_each_alone(critic, pairs, score, rtol, atol)
        return
    if len(expected["score"]) < len(score):
        _check_mixed_batch(case, expected, critic, pairs, score, rtol, atol)
        return
    _close("score", score, expected["score"], rtol, atol)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    tables = (LOOSE_GRADIENTS, LOOSE_FLOAT32_GRADIENTS) if dtype == "float32" else (LOOSE_GRADIENTS,)
    looser = max(table.get(name, (0.0, ""))[0] for table in tables)
    _check_gradient(gradient, expected["gradient"], max(rtol, looser), atol)
    with torch.no_grad():
        for theirs in expected.get("intermediate", []):
            if (name, theirs["name"]) in NOT_OURS:
                continue
            assert theirs["name"] in INTERMEDIATES.get(name, {}), f"map the intermediate {theirs['name']!r} of {name!r}"
            read = INTERMEDIATES[name][theirs["name"]]
            _check_intermediate(theirs["name"], read(critic, *pairs.views()[0]), theirs, rtol, atol)
    for key, ours in AUTHORS_EXTRAS.get(name, {}).items():
        _close(key, torch.as_tensor(ours(critic, x, score)), [expected[key]], rtol, atol)


def _check_each_alone(critic: Critic, pairs: Pairs, score: Tensor, rtol: float, atol: float) -> None:
    for i in range(len(score)):
        alone = critic(pairs.x[i : i + 1], None if pairs.y is None else pairs.y[i : i + 1])
        torch.testing.assert_close(score[i : i + 1], alone, rtol=rtol, atol=atol)


def _check_mixed_batch(
    case: dict, expected: dict, critic: Critic, pairs: Pairs, score: Tensor, rtol: float, atol: float
) -> None:
    """The authors' code gives one score for such a batch; ours must score each image as if it came alone."""
    _check_each_alone(critic, pairs, score, rtol, atol)
    known = {repr(entry["items"][0]): entry["name"] for entry in case["inputs"] if len(entry["items"]) == 1}
    matched = [(i, known[repr(item)]) for i, item in enumerate(pairs.items) if repr(item) in known]
    assert matched, f"no image of {expected['input']!r} was scored alone by the authors' code"
    for i, name in matched:
        (alone,) = [row["score"] for row in case["expected"] if row["input"] == name]
        _close("score", score[i : i + 1], alone, rtol, atol)


def test_a_checkpoint_file_loads_like_its_state_dict(request, tmp_path):
    """The same tensors through a .pth and a .safetensors file."""
    from safetensors.torch import save_file

    folder = Path(request.config.getoption("parity_dir")) / "lpips-squeeze"
    if not folder.exists():
        pytest.skip("no lpips-squeeze in this folder")
    state = _state(folder)
    torch.save({"state_dict": state}, tmp_path / "authors.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "ours.safetensors")
    wanted = create_critic("lpips-squeeze", weights=state)
    for name in ("authors.pth", "ours.safetensors"):
        loaded = create_critic("lpips-squeeze", weights=tmp_path / name)
        assert loaded.weights_id == wanted.weights_id
        for key, value in wanted.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
