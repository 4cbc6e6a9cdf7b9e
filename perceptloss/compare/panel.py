"""The critics of a run: from what was asked for to frozen scorers with signatures."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch

from perceptloss.card import Card
from perceptloss.compare.columns import Column
from perceptloss.compare.settings import Settings
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, UnknownCritic, WeightsError
from perceptloss.networks.tiles import side_for, smallest_tile
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.registry import DEFAULT, Default, Weights, create_critic, get_card
from perceptloss.weights.convert import fingerprint

__all__ = ["Asked", "Scorer", "build", "parse_critics", "pick_device", "signature", "unfit", "with_choices"]

Colour = Literal["rgb", "y"]
_ON_LUMA: Final = "-y"  # ending of a critic's name
_log = logging.getLogger("perceptloss.compare")
_READS_CHROMA: Final = frozenset({"fsimc", "haarpsi", "mdsi", "ms-gmsdc", "vsi"})  # and mean something else on luma


@dataclass(frozen=True)
class Asked:
    """A critic that was asked for: its card, and weight files, the critic itself or a colour of its own if given."""

    card: Card
    weights: tuple[str, ...] = ()
    critic: Critic | None = None
    colour: Colour | None = None

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.card.name}{_ON_LUMA}" if self.colour == "y" else self.card.name


@dataclass(frozen=True)
class Scorer:
    """A critic ready to score.

    Attributes:
        label: Unique in the run.
        critic: Frozen.
        signature: Every choice that changes its per-image scores.
        colour: What it sees of an image.
        each_view: Whether the score of a stereo pair is the mean of those of its views.
    """

    label: str
    critic: Critic
    signature: str
    colour: Colour = "rgb"
    each_view: bool = False

    @property
    def column(self) -> Column:
        """What the results keep of it."""
        return Column(self.label, self.signature, self.critic.card.to_dict())

    def bytes_away(self, device: torch.device) -> int:
        """Memory that its weights would need on a device, if they are not there."""
        tensors = (*self.critic.parameters(), *self.critic.buffers())
        return sum(t.numel() * t.element_size() for t in tensors if t.device.type != device.type)


def parse_critics(critics: Sequence[str | Critic]) -> list[Asked]:
    """Critics by `name`, by `name=weights` (several files with commas), or as they are.

    `psnr-y` is the critic `psnr` on BT.601 luma, whatever the others see; so for each that judges luma.

    Raises:
        ConfigError: listing every unknown name, with hints, and what was asked for twice.
    """
    asked: list[Asked] = []
    problems: list[str] = [] if critics else ["no critic given; `perceptloss list` shows all"]
    for item in critics:
        if isinstance(item, Critic):
            asked.append(Asked(item.card, critic=item))
            continue
        name, sign, paths = item.partition("=")
        try:
            card, colour = _named(name.strip())
            entry = Asked(card, _files(paths), colour=colour)
        except UnknownCritic as error:
            problems.append(str(error))
            continue
        if sign and not entry.weights:
            problems.append(f"{item!r} names no weights after the sign of equality")
        if entry in asked:
            problems.append(f"{item} is there twice")
        asked.append(entry)
    if problems:
        raise ConfigError(problems, "critics")
    return asked


def _files(text: str) -> tuple[str, ...]:
    """Paths with commas between; a comma that belongs to a file that exists is no separator."""
    found, parts = [], text.split(",")
    while parts:
        lengths = range(len(parts), 0, -1)
        count = next((n for n in lengths if os.path.isfile(",".join(parts[:n]).strip())), 1)
        found.append(",".join(parts[:count]).strip())
        parts = parts[count:]
    return tuple(filter(None, found))


def _named(name: str) -> tuple[Card, Colour | None]:
    try:
        return get_card(name), None
    except UnknownCritic:
        if not name.endswith(_ON_LUMA):
            raise
        return get_card(name.removesuffix(_ON_LUMA)), "y"


def unfit(
    asked: Sequence[Asked], settings: Settings, *, has_reference: bool = True, has_pairs: bool = False
) -> list[str]:
    """What the cards say against these settings, all of it; `has_pairs`: the images may be stereo pairs."""
    problems = []
    for entry in asked:
        card, name = entry.card, f"critic {entry.card.name!r}"
        if card.needs_reference and not has_reference:
            problems.append(f"{name} compares with a reference: give --ref")
        if card.channels != 3 and not has_pairs:
            problems.append(f"{name} judges stereo pairs, got single images: give --stereo, and two views of each")
        is_luma = (entry.colour or settings.colour) == "y"
        if is_luma and (card.weights or card.kind != "fr" or card.name in _READS_CHROMA):
            what = "--colour y" if entry.colour is None else entry.name
            problems.append(f"{name} judges colour: {what} is for full-reference critics without network or chroma")
        if settings.tile_side is not None and card.tiling == "never":
            problems.append(f"{name} must see whole images: its card forbids --tile")
        elif (side := side_for(card, settings.tile_side)) is not None and side < smallest_tile(card):
            problems.append(f"{name} needs --tile of at least {smallest_tile(card)}, got {side}")
        if settings.precision == "bf16" and card.weights and not card.low_precision:
            problems.append(f"{name} runs in fp32 only, got --precision bf16")
    problems += [
        f"--{flag} {value} needs --ref"
        for flag, value in (("resize", settings.resize), ("crop", settings.crop))
        if value.startswith("to-ref") and not has_reference
    ]
    return problems


def build(
    asked: Sequence[Asked], settings: Settings, *, random_weights: bool = False, has_pairs: bool = False
) -> list[Scorer]:
    """Build the critics on the CPU.

    Args:
        asked: From `parse_critics`.
        settings: Precision, and the choices that signatures name.
        random_weights: Seeded random weights where no files were given: for tests only.
        has_pairs: Images are stereo pairs, of which a critic of single images scores each view.

    Raises:
        WeightsError: listing all critics whose weights are missing or do not fit.
    """
    critics: list[Critic] = []
    problems: list[WeightsError] = []
    for entry in asked:
        try:
            critics.append(_build(entry, settings, random_weights))
        except WeightsError as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else WeightsError("\n".join(map(str, problems)))
    names = [entry.name for entry in asked]
    scorers = []
    for entry, critic in zip(asked, critics, strict=True):
        colour = entry.colour or settings.colour
        label = entry.name if names.count(entry.name) == 1 else f"{entry.name}@{_weights_id(critic)}"
        each_view = has_pairs and critic.card.channels == 3
        told = signature(critic, settings, colour)
        told = with_choices(told, ["views:mean"]) if each_view else told
        scorers.append(Scorer(label, critic, told, colour, each_view))
    labels = [scorer.label for scorer in scorers]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError([f"{label} is there twice, with the same weights" for label in twice], "critics")
    return scorers


def _build(entry: Asked, settings: Settings, random_weights: bool) -> Critic:
    if entry.critic is not None:
        return entry.critic
    card = entry.card
    weights: Weights | Default = list(entry.weights) or DEFAULT
    if random_weights and card.weights and not entry.weights:
        _log.warning("%s has random weights: its scores mean nothing", card.name)
        weights = None
    precision = settings.precision if card.low_precision else "fp32"
    return create_critic(card.name, weights, precision=precision).as_published()


def _weights_id(critic: Critic) -> str:
    """Identity of the weights; a fingerprint is added where the critic itself names none."""
    if critic.weights_id in ("none", "random") and any(True for _ in critic.parameters()):
        prefix = "random" if critic.weights_id == "random" else "own"
        return f"{prefix}-{fingerprint(critic.state_dict())}"
    return critic.weights_id


def signature(critic: Critic, settings: Settings, colour: Colour) -> str:
    """The critic's signature with the choices that `settings` add before the version."""
    parts = critic.signature.split("|")
    parts = [f"weights:{_weights_id(critic)}" if part.startswith("weights:") else part for part in parts]
    parts = ["y-bt601" if part == "rgb" and colour == "y" else part for part in parts]
    extra = list(settings.choices)
    if isinstance(critic, TrunkCritic) and critic.precision != "fp32" and not any(critic.precision in p for p in parts):
        extra.insert(0, f"trunk:{critic.precision}")
    return with_choices("|".join(parts), extra)


def with_choices(signature: str, choices: Sequence[str]) -> str:
    """The signature with more choices before the version."""
    *parts, version = signature.split("|")
    return "|".join([*parts, *choices, version])


def pick_device(name: str | None) -> torch.device:
    """The device asked for; by default the GPU if there is one.

    Raises:
        ConfigError: if it does not exist here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"device {name!r} cannot be used: {reason}"], "settings") from error
    return device
