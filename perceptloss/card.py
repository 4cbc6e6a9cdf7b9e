"""The card of a critic: the facts a trainer needs before building it, as data that tests check."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

__all__ = [
    "CARDS",
    "FLAT",
    "GROUP",
    "PIQ",
    "Card",
    "Direction",
    "Shape",
    "after_paper_card",
    "distance_card",
    "opinion_card",
    "shipped_cards",
    "similarity_card",
]

GROUP: Final = "perceptloss.critics"  # entry points of other packages' critics; each names an Entry
CARDS: Final = Path(__file__).parent / "critics" / "cards.json"  # `perceptloss list --refresh` writes it from the code

Direction = Literal["higher", "lower"]
Kind = Literal["fr", "nr", "stereo-fr", "stereo-nr"]
Shape = Literal["distance", "deficit", "hinge", "softplus", "sigmoid"]
Fidelity = Literal["official-parity", "paper", "after-paper"]

_NON_COMMERCIAL = ("non-commercial", "noncommercial", "research", "none stated", "-nc")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a critic is, readable without its weights.

    Attributes:
        name: Registry name, lower case, variants after a hyphen.
        summary: One sentence: what it measures.
        kind: `fr` needs a reference, `nr` judges alone; `stereo-` takes six channels.
        better: Direction of the natural score.
        bounds: Smallest and largest score in exact arithmetic; infinities where unbounded.
        identity: Score of an image against itself; None where that depends on the image.
        shape: Default shape of a loss made from it.
        domains: Image domains it was designed or fitted for.
        min_size: Smallest accepted side, in pixels.
        multiple_of: Sides must be a multiple of this.
        low_precision: Whether its trunk may run in bf16 or fp16; statistics never do.
        tiling: What tiles say of an image: its score (`exact`, from sums over them), about its score, the mean of
            theirs (`approximate`), or nothing (`never`); `inside`: it looks at a few parts of an image by itself, so
            that its memory does not grow with it, and is never given tiles.
        halo: Pixels around a tile that its part of an exact score depends on.
        stride: Exact tiles are cut at multiples of it.
        couples_batch: True if an image's score depends on the rest of the batch.
        fidelity: `official-parity` (checked against the authors' code), `paper`, or `after-paper`.
        licence_code: Licence of the authors' code (ours is Apache-2.0 and written from facts).
        licence_weights: Licence of the weights it needs; None if it needs none.
        weights: Names in the weights manifest that it loads by default.
        paper: Authors, title, venue, year.
        source: The original implementation, with commit or release.
        notes: Facts a user would otherwise learn the hard way.
    """

    name: str
    summary: str
    kind: Kind
    better: Direction
    bounds: tuple[float, float]
    identity: float | None
    shape: Shape
    domains: frozenset[str] = frozenset({"natural"})
    min_size: int = 1
    multiple_of: int = 1
    low_precision: bool = False
    tiling: Literal["exact", "approximate", "never", "inside"] = "approximate"
    halo: int = 0
    stride: int = 1
    couples_batch: bool = False
    fidelity: Fidelity = "official-parity"
    licence_code: str
    licence_weights: str | None = None
    weights: tuple[str, ...] = ()
    paper: str
    source: str
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.name != self.name.lower() or not self.name:
            raise ValueError(f"card names are lower case, got {self.name!r}")
        if self.shape == "deficit" and not all(map(math.isfinite, self.bounds)):
            raise ValueError(f"{self.name}: shape 'deficit' needs finite bounds, got {self.bounds}")
        if self.shape == "distance" and self.better != "lower":
            raise ValueError(f"{self.name}: shape 'distance' needs a lower-better score")
        if self.halo % self.stride:
            raise ValueError(f"{self.name}: a halo of {self.halo} is no multiple of the stride {self.stride}")

    @property
    def needs_reference(self) -> bool:
        """Whether `score` must be given a reference."""
        return self.kind in ("fr", "stereo-fr")

    @property
    def channels(self) -> int:
        """Channels of the judged image: 3, or 6 for a stereo pair."""
        return 6 if self.kind.startswith("stereo") else 3

    @property
    def arrow(self) -> str:
        """Direction of the score, for table headers."""
        return "↑" if self.better == "higher" else "↓"

    @property
    def is_commercial(self) -> bool:
        """Whether neither licence is known to forbid commercial use."""
        licences = f"{self.licence_code} {self.licence_weights or ''}".lower()
        return not any(word in licences for word in _NON_COMMERCIAL)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON types (infinities as strings)."""
        facts = asdict(self)
        facts["domains"] = sorted(self.domains)
        facts["bounds"] = [b if math.isfinite(b) else str(b) for b in self.bounds]
        facts["weights"], facts["notes"] = list(self.weights), list(self.notes)
        return facts

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Card:
        """The card that `to_dict` turned into plain types."""
        low, high = map(float, facts["bounds"])
        sets = {
            "domains": frozenset(facts["domains"]),
            "weights": tuple(facts["weights"]),
            "notes": tuple(facts["notes"]),
        }
        return cls(**{**facts, **sets, "bounds": (low, high)})


def shipped_cards() -> dict[str, Card]:
    """Cards of the critics that come with perceptloss, by name, without loading their code or torch."""
    return {facts["name"]: Card.from_dict(facts) for facts in json.loads(CARDS.read_text(encoding="utf-8"))}


opinion_card = partial(Card, better="higher", bounds=(-math.inf, math.inf), identity=None, shape="hinge")
"""A regression of opinions: nothing bounds it, and equal images have no fixed score."""
distance_card = partial(Card, kind="fr", better="lower", bounds=(0.0, math.inf), identity=0.0, shape="distance")
"""A distance of two images, 0 where they are equal."""
similarity_card = partial(
    Card,
    kind="fr",
    better="higher",
    bounds=(0.0, 1.0),
    identity=1.0,
    shape="deficit",
    licence_code="Apache-2.0 (piq)",
)
"""A classical index of two images as piq has it, 1 where they are equal."""
after_paper_card = partial(
    opinion_card,
    low_precision=True,
    fidelity="after-paper",
    licence_code="no code published",
    licence_weights="BSD-3-Clause (torchvision trunk); the head is the user's own",
)
"""Opinions read from a torchvision trunk by a head of ours, where the authors published nothing."""

PIQ = "https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0)"
"""The source that most classical critics follow."""
FLAT = "no gradient arrives where the judged image is exactly flat"
