"""What every test shares: a seed, no network, a private cache, and the critics of the registry one at a time."""

from __future__ import annotations

import copy
import logging
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).parent


def pytest_addoption(parser):
    parser.addoption("--parity-dir", default=str(_HERE / "parity"), help="folder of parity cases, one sub-folder each")
    parser.addoption("--thorough", action="store_true", help="also what takes long and seldom fails alone")
    parser.addoption("--other-rounding", action="store_true", help="as on a processor that sums in another order")


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): tests that run in one process")
    config.addinivalue_line("markers", "smoke: a first look at everything, in half a minute: pytest -m smoke")
    config.addinivalue_line("markers", "thorough: takes long, and only runs with --thorough; CI runs it")
    config.addinivalue_line("markers", "every_name: also run for critics that are variants of one class")
    os.environ["PERCEPTLOSS_OFFLINE"] = "1"
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cores = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, cores))))


def pytest_ignore_collect(collection_path, config):
    """With `-m smoke`, import no file without such a test: importing all takes longer than the tests."""
    is_other = config.option.markexpr == "smoke" and collection_path.suffix == ".py"
    return True if is_other and "mark.smoke" not in collection_path.read_text("utf-8") else None


def pytest_generate_tests(metafunc):
    """Run a test that asks for `critic` once per kind of critic, all tests of one critic together.

    Names of one class whose cards claim the same differ by a trunk or a constant: one of them runs
    everything, the others the tests marked `every_name`. A test marked `smoke` runs for one critic per
    base class. A test may name its critics itself.
    """
    if "critic" not in metafunc.fixturenames or any(
        mark.args[0] == "critic" for mark in metafunc.definition.iter_markers("parametrize")
    ):
        return
    from small import PACKAGES, SMALL, base_of, kind_of

    from perceptloss import get_card, list_critics

    cards = [*list_critics(), *map(get_card, PACKAGES)]
    if metafunc.definition.get_closest_marker("smoke"):
        cards = list({base_of(card): card for card in sorted(cards, key=lambda card: card.name in SMALL)}.values())
    elif not metafunc.definition.get_closest_marker("every_name"):
        cards = list({kind_of(card): card for card in reversed(cards)}.values())[::-1]
    absent = {name for name, module in PACKAGES.items() if find_spec(module) is None}
    why = pytest.mark.skip(reason="another package's, which is not installed")
    names = [pytest.param(card.name, marks=[why] * (card.name in absent)) for card in cards]
    metafunc.parametrize("critic", names, indirect=True, scope="module")


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked `thorough`, unless it is asked for; under xdist, keep together what shares a fixture:
    the tests of a file, of one critic, of one parity case."""
    if not config.getoption("thorough"):
        spared = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=spared)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    for item in items:
        chosen = getattr(item, "callspec", None)
        shared = chosen.params.get("critic", chosen.params.get("row", "")) if chosen else ""
        shared = shared[0] if isinstance(shared, tuple) else shared
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name}-{shared}"))


@pytest.fixture(autouse=True)
def _own_log(request):
    """Outside of their tests hosts get nothing of our log, which `caplog` would see there a second time."""
    ours = logging.getLogger("perceptloss")
    before = ours.handlers
    if "integrations" not in request.path.parts:
        ours.handlers = [handler for handler in before if type(handler).__name__ != "Forward"]
    yield
    ours.handlers = before


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERCEPTLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _other_rounding(request):
    if not request.config.getoption("--other-rounding"):
        yield
        return
    from other_rounding import OtherRounding

    with OtherRounding():
        yield


@pytest.fixture(scope="module")
def critic(request):
    """A registered critic in fp32, with its default weights where they are on this machine, else random ones.

    A large one without weights, or that needs none, is a small build of its class (`small.py`). Shared by the tests of
    a module: a test that changes it takes a copy.
    """
    from small import SMALL, build_small

    from perceptloss import create_critic, get_card
    from perceptloss.weights.search import get_file, locate

    name = request.param
    weights = get_card(name).weights
    is_here = all(locate(get_file(file)) for file in weights)
    if name in SMALL and not (weights and is_here):
        return build_small(name)
    return create_critic(name) if is_here else create_critic(name, weights=None)


@pytest.fixture(scope="module")
def critic64(critic):
    """The same critic in float64, where equalities can be demanded to many digits."""
    return copy.deepcopy(critic).double()
