"""The one table of critics, and how a critic is made by name."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from perceptloss.card import Card, Kind
from perceptloss.checkpoints import plain_tensors
from perceptloss.convert import convert, load_states
from perceptloss.critic import Critic, Entry, Precision, TrunkCritic
from perceptloss.errors import ConfigError, MissingWeights, UnknownCritic, WeightsError, near
from perceptloss.weights import Source, find, get_file, read_state, resolve

__all__ = ["DEFAULT", "create_critic", "get_card", "list_critics", "register_critic"]

# critic name -> module of perceptloss.critics that holds its entry
_TABLE: Final = {
    "deepwsd": "deepwsd",
    "dists": "dists",
    "fsim": "fsim",
    "fsimc": "fsim",
    "gmsd": "gmsd",
    "haarpsi": "haarpsi",
    "lpips-alex": "lpips",
    "lpips-squeeze": "lpips",
    "lpips-vgg": "lpips",
    "mdsi": "mdsi",
    "ms-gmsd": "gmsd",
    "ms-gmsdc": "gmsd",
    "ms-ssim": "ssim",
    "ssim": "ssim",
    "ssim-full": "ssim",
    "vgg-content": "vgg_content",
    "vgg-style": "vgg_content",
    "vif": "vif",
    "vsi": "vsi",
}
_GROUP: Final = "perceptloss.critics"  # entry points of third-party critics; each names an Entry
_registered: dict[str, Entry] = {}

Weights = Source | Sequence[Source] | None

logger = logging.getLogger(__name__)


class _Default:
    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = _Default()


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
    for point in entry_points(group=_GROUP):
        if point.name not in _TABLE:
            found[point.name] = point.load()
    return found


def _names() -> Iterator[str]:
    yield from sorted({*_TABLE, *_foreign(), *_registered})


def _entry(name: str) -> Entry:
    if name in _TABLE:
        module = importlib.import_module(f"perceptloss.critics.{_TABLE[name]}")
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
    return _entry(name).card


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


def create_critic(name: str, weights: Weights | _Default = DEFAULT, *, precision: Precision = "fp32") -> Critic:
    """Build a frozen critic.

    Args:
        name: A registered name; `perceptloss list` shows them.
        weights: Left out: the files its card names (searched, then downloaded). A path, a name of
            the weights manifest, a state dict, or several of them: the authors' checkpoint,
            torchvision's trunk, our own format; what they leave open is filled from the card's
            files. None: random, seeded.
        precision: Of the trunk; `bf16` or `fp16` where the card allows it.

    Raises:
        UnknownCritic: with the nearest names.
        WeightsError: if a file is missing or does not fit.
    """
    entry = _entry(name)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        critic = entry.build(entry.card)
    critic.freeze()
    set_precision(critic, precision)
    if isinstance(weights, _Default):
        if entry.card.weights:
            paths = _files_of(entry.card)
            load_states(critic, [read_state(path) for path in paths], [str(path) for path in paths])
    elif weights is not None:
        is_many = isinstance(weights, Sequence) and not isinstance(weights, str)
        _load(critic, weights if is_many else [weights])  # type: ignore[list-item,arg-type]
    return critic


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


def _files_of(card: Card) -> list[Path]:
    try:
        return [find(file) for file in card.weights]
    except MissingWeights as error:
        advice = f"`perceptloss weights fetch {card.name}` fetches all {len(card.weights)} files of this critic."
        raise MissingWeights(f"{error}\n{advice}") from None


def _load(critic: Critic, sources: Sequence[Source]) -> None:
    """Load what the user gives, and what that leaves open from the card's files."""
    if not sources:
        raise WeightsError(
            f"weights of critic {critic.card.name!r} are an empty list; leave them out for the files of its card, "
            "or give None for random ones."
        )
    parts: dict[str, dict[str, Tensor]] = {}
    for number, source in enumerate(sources, 1):
        if isinstance(source, Mapping):
            name = f"state dict {number} of {len(sources)}"
            state = plain_tensors(source, name)
        elif isinstance(source, (str, PathLike)):
            path = resolve(source)
            name, state = str(path), read_state(path)
        else:
            raise WeightsError(f"weights must be paths or state dicts, got {type(source).__name__}.")
        parts[name] = convert(critic, state, name)
    _fill(critic, parts)
    load_states(critic, list(parts.values()), list(parts))


def _fill(critic: Critic, parts: dict[str, dict[str, Tensor]]) -> None:
    """Add the tensors that are still open; asks for no file that is not needed."""
    missing = set(critic.state_dict()).difference(*parts.values())

    def is_unlikely(name: str) -> bool:
        holds = get_file(name).holds
        return bool(holds) and not any(key.split(".")[0] in holds for key in missing)

    given = ", ".join(parts)
    for name in sorted(critic.card.weights, key=is_unlikely) if missing else ():
        if not missing:
            break
        try:
            path = find(name)
        except MissingWeights as error:
            left = f"{given}: leave {len(missing)} tensors of critic {critic.card.name!r} open, such as {min(missing)}"
            raise MissingWeights(f"{left}.\n{error}") from error
        found = convert(critic, read_state(path), str(path))
        fresh = {key: tensor for key, tensor in found.items() if key in missing}
        if fresh:
            logger.info("critic %r: %d tensors, which %s lacks, are from %s", critic.card.name, len(fresh), given, path)
            parts[str(path)] = fresh
            missing.difference_update(fresh)
