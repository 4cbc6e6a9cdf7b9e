"""What is asked of scores: how differences are judged, and what is computed beside means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from perceptloss.compare.opinions import Opinion
from perceptloss.compare.presets import Preset
from perceptloss.compare.votes.ballots import Vote
from perceptloss.errors import ConfigError, near, some

__all__ = ["Analysis"]

_WORST: Final = re.compile(r"[1-9]\d*|(?:[1-9]\d?)(?:\.\d+)?%|0?\.\d+%")
_MOST_ROUNDS: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """How differences are judged.

    Attributes:
        rounds: Resamples of each bootstrap interval, and random sign patterns where not all are tried.
        seed: Of these.
        level: Probability that an interval covers; tests are at 1 - level.
        groups: Group of each image, by key: whole groups are drawn. Empty: each image is drawn for itself.
        noise: By critic, how far its mean moves when nothing has changed; no smaller difference gets a star.
        margins: By critic, the difference up to which systems count as equivalent.
        worst: Also the mean of the worst images of each system under each critic: how many, or a share such as `5%`.
        presets: Sums of mean scores beside the critics.
        opinions: What people say of the outputs.
        votes: What people preferred, seeing two outputs at a time.
        details: Whether tables of ranks, strengths and tests are printed too; JSON always has them.

    Raises:
        ConfigError: listing what is not allowed.
    """

    rounds: int = 10_000
    seed: int = 0
    level: float = 0.95
    groups: Mapping[str, str] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    worst: str | None = None
    presets: tuple[Preset, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    votes: tuple[Vote, ...] = ()
    details: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not 100 <= self.rounds <= _MOST_ROUNDS:
            problems.append(f"rounds must be from 100 to {_MOST_ROUNDS:,}, got {self.rounds}")
        if self.seed < 0:
            problems.append(f"seed must be at least 0, got {self.seed}")
        if not 0.5 <= self.level < 1:
            problems.append(f"level must be from 0.5 to below 1, got {self.level}")
        problems += [
            f"noise of {critic} must be finite and at least 0, got {value}"
            for critic, value in self.noise.items()
            if not 0 <= value < math.inf
        ]
        problems += [
            f"margin of {critic} must be finite and above 0, got {value}"
            for critic, value in self.margins.items()
            if not 0 < value < math.inf
        ]
        if self.worst is not None and not _WORST.fullmatch(self.worst):
            problems.append(f"worst must be a number of images, or a share such as 5%, got {self.worst!r}")
        names = [preset.name for preset in self.presets]
        problems += [f"preset {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if problems:
            raise ConfigError(problems, "the analysis")

    @property
    def alpha(self) -> float:
        """Level of the tests."""
        return round(1 - self.level, 12)

    def worst_count(self, images: int) -> int:
        """How many are the worst of so many images; at least one."""
        if self.worst is None:
            return 0
        share = self.worst.removesuffix("%")
        count = math.ceil(float(share) / 100 * images) if share != self.worst else int(share)
        return max(1, min(count, images))

    @staticmethod
    def of(stated: Mapping[str, float], label: str) -> float | None:
        """What was stated for a critic, by its label or, where weights tell labels apart, by its name."""
        return stated.get(label, stated.get(label.partition("@")[0]))

    def unfit(self, systems: Sequence[str], labels: Sequence[str], keys: Sequence[str]) -> list[str]:
        """What was stated about critics, outputs or images that are not compared."""
        names = {*labels, *(label.partition("@")[0] for label in labels)}
        problems = [
            f"{what} of {critic!r}, which is not one of the critics{near(critic, names)}"
            for what, stated in (("noise", self.noise), ("margin", self.margins))
            for critic in stated
            if critic not in names
        ]
        if self.margins and len(systems) < 2:
            problems.append("a margin of equivalence needs two systems, got one")
        if lacking := [key for key in keys if key not in self.groups] if self.groups else []:
            problems.append(f"no group for {some(map(repr, lacking))}")
        known = {(system, key) for system in systems for key in keys} if self.opinions else set()
        foreign = [f"{o.system}/{o.image}" for o in self.opinions if (o.system, o.image) not in known]
        problems += [f"opinions of what is not compared: {some(foreign)}"] if foreign else []
        shown = {(s, key) for s in (*systems, "") for key in keys} if self.votes else set()
        voted = {(system, vote.image) for vote in self.votes for system in (vote.left, vote.right)}
        lost = [f"{system}/{key}" for system, key in sorted(voted - shown)]
        return problems + ([f"votes on what is not compared: {some(lost)}"] if lost else [])

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Analysis:
        """The analysis that `dataclasses.asdict` turned into plain types."""
        presets = tuple(Preset.from_dict(preset) for preset in facts.get("presets", ()))
        opinions = tuple(Opinion(**opinion) for opinion in facts.get("opinions", ()))
        votes = tuple(Vote(**vote) for vote in facts.get("votes", ()))
        return cls(**{**facts, "presets": presets, "opinions": opinions, "votes": votes})
