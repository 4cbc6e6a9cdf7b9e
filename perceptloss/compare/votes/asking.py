"""The page that asks for votes: blind, from one file, answered by a small CSV that the browser saves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFilter

from perceptloss.compare.pages import page, pictures_of, png, window
from perceptloss.compare.pages.pictures import Bytes
from perceptloss.compare.plan import Plan
from perceptloss.compare.results import ImageRecord
from perceptloss.compare.votes.codes import CATCH, code_of, short_hash
from perceptloss.compare.votes.trials import BAD, GOOD, Options, Trial, draw_trials
from perceptloss.errors import InputError

__all__ = ["vote_html"]

_BLUR: Final = 6.0
_GRAIN: Final = 40.0


def vote_html(plan: Plan, options: Options = Options()) -> str:  # noqa: B008  (frozen)
    """One page that stands alone and names no system.

    Args:
        plan: The images, checked; of stereo pairs the left view is shown.
        options: How votes are asked for.

    Raises:
        ConfigError: for less than two systems.
        InputError: if files changed since they were checked, or their sizes differ.
    """
    trials = draw_trials(len(plan.images), len(plan.systems), options)
    code = _page_code(plan, options)
    sheet = _Sheet(plan, options, code)
    asked = [sheet.asked(trial) for trial in trials]
    has_reference = plan.images[0].reference is not None
    usual = "Which picture is the better copy of the one in the middle?" if has_reference else "Which looks better?"
    data = {"page": code, "ties": options.has_ties, "trials": asked, "pictures": sheet.urls}
    context = {
        "title": "Which looks better?",
        "question": options.question or usual,
        "count": len(trials),
        "has_ties": options.has_ties,
        "has_reference": has_reference,
    }
    return page(
        "vote.html", context, styles=("style.css", "vote.css"), scripts=("common.js", "panes.js", "vote.js"), data=data
    )


def _page_code(plan: Plan, options: Options) -> str:
    files = [
        (record.key, *(file.digest for file in (*record.outputs, record.reference) if file is not None))
        for record in plan.images
    ]
    return short_hash("p", json.dumps([list(plan.systems), files, asdict(options)]))


@dataclass
class _Sheet:
    """Pictures of a page, each there once, if any question shows it."""

    plan: Plan
    options: Options
    code: str
    crops: dict[int, list[Bytes]] = field(default_factory=dict)
    places: dict[tuple[int, int], int] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)

    def asked(self, trial: Trial) -> dict[str, Any]:
        """A question as the page reads it."""
        record = self.plan.images[trial.image]
        if trial.image not in self.crops:
            self.crops[trial.image] = self._read(record)
        return {
            "left": self._shown(trial.image, trial.left),
            "right": self._shown(trial.image, trial.right),
            "reference": None if record.reference is None else self._shown(trial.image, GOOD),
            "codes": [self._code(record, trial.left), self._code(record, trial.right)],
        }

    def _read(self, record: ImageRecord) -> list[Bytes]:
        pictures = pictures_of(record, self.plan.settings, {})
        if self.options.side is None:
            return pictures
        left, top, wide, tall = window(pictures[: len(self.plan.systems)], self.options.side)
        return [picture[top : top + tall, left : left + wide].copy() for picture in pictures]

    def _shown(self, image: int, what: int) -> int:
        """Place of a picture; that of `GOOD` is the last one, the reference if there is one."""
        pictures = self.crops[image]
        number = len(pictures) - 1 if what == GOOD else what
        if (image, number) not in self.places:
            self.places[image, number] = len(self.urls)
            picture = _ruined(pictures[-1], self.options.seed + image) if what == BAD else pictures[number]
            self.urls.append(png(picture))
        return self.places[image, number]

    def _code(self, record: ImageRecord, what: int) -> str:
        is_catch = what in (GOOD, BAD)
        file = record.reference or record.outputs[-1] if is_catch else record.outputs[what]
        if file is None:
            raise InputError(f"{record.key}: votes need files")
        kinds = {GOOD: CATCH[0], BAD: CATCH[1]}
        return code_of(self.code, kinds.get(what) or f"system:{self.plan.systems[what]}", record.key, file)


def _ruined(picture: Bytes, seed: int) -> Bytes:
    """Blurred and grainy, so that nobody who looks can prefer it, whatever the picture shows."""
    blurred = np.asarray(Pillow.fromarray(np.ascontiguousarray(picture)).filter(ImageFilter.GaussianBlur(_BLUR)))
    grain = np.random.default_rng(seed).normal(0, _GRAIN, blurred.shape)
    ruined: Bytes = (blurred + grain).clip(0, 255).round().astype(np.uint8)
    return ruined
