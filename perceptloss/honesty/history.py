"""What the validations of a training saw, as plain data that a checkpoint or a line of a log can keep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from perceptloss.card import Card, Direction
from perceptloss.compare.columns import group_of
from perceptloss.honesty.content import Content

__all__ = ["History", "Role", "Scores", "Sight", "Validation", "Watched", "spread"]

Role = Literal["trained", "judge", "fidelity"]
Score = float | None


@dataclass(frozen=True)
class Watched:
    """A critic as alarms see it.

    Attributes:
        label: Name of its column.
        role: `trained`, `judge`, or `fidelity`, which may fall where a training trades it for looks.
        better: Direction of its scores.
        needs_reference: Whether it compares; then the ground truth's own score says nothing.
        identity: Score of equal images, where there is one.
    """

    label: str
    role: Role
    better: Direction
    needs_reference: bool
    identity: float | None

    @classmethod
    def of(cls, label: str, card: Card, *, is_trained: bool) -> Watched:
        """A critic by its card."""
        group = group_of(card.name, card.kind, is_trained=is_trained)
        role: Role = "trained" if is_trained else "fidelity" if group == "fidelity" else "judge"
        return cls(label, role, card.better, card.needs_reference, card.identity)

    def gain(self, old: float, new: float) -> float:
        """How much better a score is than another, in units of the score."""
        return new - old if self.better == "higher" else old - new


@dataclass(frozen=True)
class Scores:
    """What a trained critic says of one image; None where it has no finite score.

    Attributes:
        output: Of the restored image.
        mirrored: Of its mirror image.
        truth: Of the ground truth; None too for a critic that compares.
        truth_mirrored: Of the mirror image of that, likewise.
    """

    output: Score
    mirrored: Score
    truth: Score = None
    truth_mirrored: Score = None


@dataclass(frozen=True)
class Sight:
    """What instruments see of one restored image.

    Attributes:
        content: Its figures against the ground truth's; None if pixels are NaN or infinite.
        scores: Of the trained critics, by label; empty likewise.
    """

    content: Content | None
    scores: Mapping[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """One look at all validation images.

    Attributes:
        step: After how many steps.
        sights: One per image.
        means: Mean score by every critic; None where there is none.
        anchors: Rank correlation of critics that learn with the labels of their anchor images.
    """

    step: int
    sights: tuple[Sight, ...]
    means: Mapping[str, Score]
    anchors: Mapping[str, float] = field(default_factory=dict)

    def of(self, label: str) -> list[Scores]:
        """What a trained critic says of the images that it was shown."""
        return [sight.scores[label] for sight in self.sights if label in sight.scores]

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Validation:
        """The validation that `dataclasses.asdict` made plain."""
        return cls(facts["step"], tuple(map(_sight, facts["sights"])), facts["means"], facts["anchors"])


@dataclass
class History:
    """The validations of a run, oldest first, and the step up to which no critic has a say."""

    critics: tuple[Watched, ...]
    validations: list[Validation] = field(default_factory=list)
    start: int = 0

    def those(self, role: Role) -> list[Watched]:
        """The critics of a role."""
        return [critic for critic in self.critics if critic.role == role]

    @property
    def before(self) -> Validation | None:
        """The last validation before any critic had a say, if there is one."""
        return next((past for past in reversed(self.validations) if past.step <= self.start), None)

    def prefixes(self) -> Iterator[History]:
        """The history as it was, from now back to its first validation."""
        for end in range(len(self.validations), 0, -1):
            yield History(self.critics, self.validations[:end], self.start)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON types."""
        return [asdict(validation) for validation in self.validations]


def spread(values: Sequence[Score]) -> float:
    """Standard deviation of the scores that there are; 0 of fewer than two."""
    found = [value for value in values if value is not None]
    if len(found) < 2:
        return 0.0
    centre = math.fsum(found) / len(found)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in found) / len(found))


def _sight(facts: Mapping[str, Any]) -> Sight:
    content = None if facts["content"] is None else Content(**facts["content"])
    return Sight(content, {label: Scores(**scores) for label, scores in facts["scores"].items()})
