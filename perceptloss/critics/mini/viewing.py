"""What our own critics share: the trunk, the distance from the picture, and learned parts behind a reading."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.critics.mini.band_bank import halve_whole
from perceptloss.errors import ConfigError, WeightsError
from perceptloss.networks.trunks import Features, Lite, Trunk, TrunkCritic
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.search import find

__all__ = ["TRUNK", "LiteCritic", "readings_of", "refuse"]

TRUNK = "lite0-smooth"
"""The file of the trunk."""
_NONE = torch.empty(0, 0, 0)

_TAUGHT = 60.0  # pixels per degree: a screen of 96 dpi from 90 cm
_LEAST = 8  # pixels that must be left of a side: the trunk looks at a quarter of it


def readings_of(critic: Critic) -> int:
    """How many readings teaching keeps of every image: beside its reference and what stands in for it, or its own."""
    return 2 if critic.card.needs_reference else 1


def refuse(card: Card, wanted: str, is_wrong: Callable[[float], bool], **given: float) -> None:
    """Name the options of a critic's class whose values will not do.

    Raises:
        ConfigError: if there are any.
    """
    problems = [f"options.{name} must be {wanted}, got {value!r}" for name, value in given.items() if is_wrong(value)]
    if problems:
        raise ConfigError(problems, card.name)


class LiteCritic(TrunkCritic):
    """A critic on the shared trunk whose learned parts read a row of numbers of each image or pair.

    Args:
        card: What it is.
        pixels_per_degree: Of visual angle, as the picture is seen: 60, as it was taught, or 120, 240 ..., for which the
            picture is halved once, twice ... before anything looks at it. Detail beyond is then not seen at all: for
            judging, not for a loss. For 480 and 960 images must be larger, 64 and 128 pixels.

    Raises:
        ConfigError: if it is none of these.
    """

    def __init__(self, card: Card, pixels_per_degree: float = _TAUGHT) -> None:
        super().__init__(card)
        octaves = math.log2(pixels_per_degree / _TAUGHT) if pixels_per_degree > 0 else -1.0
        if octaves < 0 or octaves > 4 or octaves != int(octaves):
            raise ConfigError(
                [f"pixels_per_degree: expected 60, 120, 240, 480 or 960, got {pixels_per_degree!r}"], card.name
            )
        self.halvings = int(octaves)
        if card.min_size < _LEAST << self.halvings:
            self.card = replace(card, min_size=_LEAST << self.halvings)
        self.trunk: Trunk = Lite()

    @property
    def signature(self) -> str:
        """Also says from how far it looks, if that is not as it was taught."""
        seen = f"|{_TAUGHT * 2**self.halvings:g} pixels per degree" if self.halvings else ""
        return super().signature + seen

    def prepare(self, image: Tensor) -> Tensor:
        for _ in range(self.halvings):
            image = halve_whole(image)
        return image

    def start(self, file: str | Path | None) -> None:
        """Take the trunk that ships, and of a file, also of another critic of our own, what has a place here.

        Raises:
            MissingWeights: if the trunk is nowhere.
            WeightsError: if nothing of the file has a place.
        """
        own = self.state_dict()
        for source in (find(TRUNK), *([] if file is None else [file])):
            state = read_state(source)
            fit = {key: tensor.float() for key, tensor in state.items() if own.get(key, _NONE).shape == tensor.shape}
            if not fit:
                raise WeightsError(f"{source} holds nothing that {self.card.name!r} could start from.")
            self.load_state_dict(fit, strict=False)

    def reading(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        """Everything that the learned parts see, (N, numbers)."""
        raise NotImplementedError

    def judge(self, reading: Tensor) -> Tensor:
        """Readings to scores, (N,)."""
        raise NotImplementedError

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.judge(self.reading(x, y, fx, fy))
