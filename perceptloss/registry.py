"""The one table of critics, and how a critic is made by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from importlib.metadata import entry_points
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import torch

from perceptloss.card import GROUP, Card, Direction, Kind
from perceptloss.critic import Critic, Entry, Precision, options_text
from perceptloss.critics.aliases import canonical
from perceptloss.critics.table import TABLE
from perceptloss.errors import ConfigError, PerceptlossError, UnknownCritic, near
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.weights.loading import direction_in, load, load_default
from perceptloss.weights.search import Source

__all__ = [
    *("DEFAULT", "Default", "Weights", "create_critic", "find_entry", "get_card", "list_critics", "option_problems"),
    "register_critic",
]

_PACKAGES: Final = {"package:cvvdp": "cvvdp"}  # critics of other packages, which need not be installed
_registered: dict[str, Entry] = {}

Weights = Source | Sequence[Source] | None


class Default:
    """The type of `DEFAULT`."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()


def register_critic(entry: Entry) -> None:
    """Add a critic of your own to this process.

    Packages do the same for every process by an entry point in the group `perceptloss.critics`.

    Raises:
        ConfigError: if the name is taken.
    """
    name = entry.card.name
    if name in _names():
        raise ConfigError([f"a critic called {name!r} exists already; choose another name"], "registry")
    _registered[name] = entry


@lru_cache(maxsize=1)
def _foreign() -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for point in entry_points(group=GROUP):
        if point.name not in TABLE:
            found[point.name] = point.load()
    return found


def _names() -> Iterator[str]:
    yield from sorted({*TABLE, *_foreign(), *_registered})


def find_entry(name: str) -> Entry:
    """The card of a critic and what builds it; foreign names are understood, see `critics.aliases`.

    Raises:
        UnknownCritic: with the nearest names.
    """
    if name not in TABLE and name not in _PACKAGES:
        name = canonical(name, _names())
    if place := TABLE.get(name) or _PACKAGES.get(name):
        module = importlib.import_module(f"perceptloss.critics.{place}")
        return module.ENTRIES[name]
    entry = _registered.get(name) or _foreign().get(name)
    if entry is None:
        raise UnknownCritic(f"unknown critic {name!r}{near(name, _names())} `perceptloss list` shows all.")
    return entry


def get_card(name: str) -> Card:
    """The card of a critic, without building it.

    Raises:
        UnknownCritic: with the nearest names.
    """
    return find_entry(name).card


def list_critics(
    *,
    kind: Kind | None = None,
    domain: str | None = None,
    commercial: bool | None = None,
    weight_free: bool | None = None,
) -> list[Card]:
    """Cards of all critics, sorted by name, filtered by what the cards say."""
    cards = [get_card(name) for name in _names()]
    return [
        card
        for card in cards
        if (kind is None or card.kind == kind)
        and (domain is None or domain in card.domains)
        and (commercial is None or card.is_commercial == commercial)
        and (weight_free is None or (not card.weights) == weight_free)
    ]


@torch.inference_mode(False)  # or its weights could never be part of a graph
def create_critic(
    name: str,
    weights: Weights | Default = DEFAULT,
    *,
    precision: Precision = "fp32",
    better: Direction | None = None,
    options: Mapping[str, object] | None = None,
) -> Critic:
    """Build a frozen critic.

    Args:
        name: A registered name; `perceptloss list` shows them. Names of other libraries, such as `lpips`, are
            understood and what they mean here is logged.
        weights: Left out: the files its card names (searched, then downloaded). A path, a name of
            the weights manifest, a state dict, or several of them: the authors' checkpoint,
            torchvision's trunk, our own format; what they leave open is filled from the card's
            files. None: random, seeded.
        precision: Of the trunk; `bf16` or `fp16` where the card allows it.
        better: Direction of the scores of these weights. Left out: what the file's own metadata says
            (`perceptloss weights convert --better`), else what the card says.
        options: Arguments of the critic's class beside its card, such as `pixels_per_degree` of mini-fr; most shape
            the network, and need weights of that shape.

    Raises:
        UnknownCritic: with the nearest names.
        WeightsError: if a file is missing or does not fit.
        ConfigError: if the direction is none, or does not go with the critic; listing options that it has not.
    """
    entry = find_entry(name)
    critic = _built(entry, options or {})
    critic.freeze()
    set_precision(critic, precision)
    paths: list[Path] = []
    if isinstance(weights, Default):
        if entry.card.weights:
            paths = load_default(critic)
    elif weights is not None:
        paths = load(critic, weights if isinstance(weights, Sequence) and not isinstance(weights, str) else [weights])
    if better is None and critic.card.shape != "distance":  # a distance made from the same weights has its own
        better = direction_in(paths)
    if better is not None:
        set_direction(critic, better)
    return critic


def _built(entry: Entry, options: Mapping[str, object]) -> Critic:
    """A critic with seeded random weights; what its class says of an option goes before what its type does."""
    where = f"options of {entry.card.name}"
    problems, types = option_problems(entry, options), _type_problems(entry, options)
    if problems != types:
        raise ConfigError(problems, where)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            critic = entry.build(entry.card, **options)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if not types or isinstance(error, PerceptlossError):
            raise
        raise ConfigError(types, where) from error
    if types:
        raise ConfigError(types, where)
    critic.options = _chosen(entry, options)
    return critic


def option_problems(entry: Entry, options: Mapping[str, object]) -> list[str]:
    """Options that the class of a critic does not have, of another type, or that its entry fixes, as problems."""
    parameters = inspect.signature(entry.build).parameters
    known = [name for name in parameters if name != next(iter(parameters))]
    bound = entry.build.keywords if isinstance(entry.build, partial) else {}
    problems = [f"{entry.card.name!r} has no option {o!r}{near(o, known)}" for o in options if o not in known]
    problems += _type_problems(entry, options)
    return problems + [
        f"{o!r} is fixed to {bound[o]!r} in {entry.card.name!r}" for o in options if o in bound and o in known
    ]


def _type_problems(entry: Entry, options: Mapping[str, object]) -> list[str]:
    hints = _hints(entry)
    return [
        f"options.{o} must be {_need(hints[o])}, got {value!r}"
        for o, value in options.items()
        if o in hints and not _fits(value, hints[o])
    ]


def _hints(entry: Entry) -> dict[str, Any]:
    """Types of the arguments of a critic's class; none if they cannot be told here."""
    made_by: Any = entry.build
    while isinstance(made_by, partial):
        made_by = made_by.func
    try:
        return get_type_hints(getattr(made_by, "__init__") if isinstance(made_by, type) else made_by)  # noqa: B009
    except (NameError, TypeError):  # of a class outside this package
        return {}


_NEEDS: Final[dict[Any, str]] = {
    **{bool: "true or false", int: "a whole number", float: "a number", str: "a text"},
    **{Mapping: "a mapping", Sequence: "a list"},
}


def _need(hint: Any) -> str:
    """What values of a type are, in words."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    named = [_NEEDS.get(get_origin(kind) or kind, "") for kind in kinds]
    return " or ".join(dict.fromkeys(filter(None, named)))


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type that options have; classes themselves say which words and numbers they take."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(value is None if part is NoneType else _fits(value, part) for part in inner)
    if kind in (int, float):
        is_kind = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        return is_kind and value == value  # not NaN
    if kind is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(v, inner[0]) for v in value)
    if kind is Mapping:
        return isinstance(value, Mapping) and all(_fits(v, inner[1]) for v in value.values())
    return isinstance(value, kind) if kind in (bool, str) else True


def _chosen(entry: Entry, options: Mapping[str, object]) -> dict[str, object]:
    """Options that are not the defaults of the class anyhow."""
    defaults = {name: p.default for name, p in inspect.signature(entry.build).parameters.items()}

    def is_default(name: str, value: object) -> bool:
        return value == defaults[name] or options_text({name: value}) == options_text({name: defaults[name]})

    return {name: value for name, value in options.items() if not is_default(name, value)}


def set_direction(critic: Critic, better: Direction) -> None:
    """Turn a critic; see `Critic.turn`.

    Raises:
        ConfigError: if the direction is none, or does not go with the critic.
    """
    if better not in get_args(Direction):
        raise ConfigError([f"better must be 'higher' or 'lower', got {better!r}"], critic.card.name)
    try:
        critic.turn(better)
    except ValueError as error:
        raise ConfigError([str(error)], critic.card.name) from None


def set_precision(critic: Critic, precision: Precision) -> None:
    """Choose the precision of a critic's trunk.

    Raises:
        ConfigError: if the card does not allow it.
    """
    if precision == "fp32":
        if isinstance(critic, TrunkCritic):
            critic.precision = precision
        return
    if precision not in ("bf16", "fp16"):
        raise ConfigError([f"precision must be 'fp32', 'bf16' or 'fp16', got {precision!r}"], critic.card.name)
    if not (critic.card.low_precision and isinstance(critic, TrunkCritic)):
        raise ConfigError([f"this critic runs in fp32 only, got precision={precision!r}"], critic.card.name)
    critic.precision = precision
