"""Whether critics after papers learn: each is taught for minutes, and judges photographs and damage that it never saw.

Every training is a run of `recipes/critic.py`, so that an interrupted proof goes on where it stopped. The targets are
the consensus of full-reference critics; no person was asked.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

import yaml
from accelerate import Accelerator

from benchmarks.learned import Row
from benchmarks.lessons import FAMILIES, KINDS, LESSONS, SUBJECTS, Lesson
from perceptloss import get_card
from perceptloss.errors import ConfigError
from perceptloss.output.files import write_atomically
from perceptloss.runs.images import bundled, find_pairs
from perceptloss.teach.exams.evaluate import examine
from perceptloss.teach.run.critic import build_critic
from perceptloss.teach.run.options import CriticOptions
from perceptloss.teach.run.sources import Setting, open_sources, parse_entries

__all__ = ["School"]

_RECIPE: Final = Path(__file__).parents[1] / "recipes" / "critic.py"
_PHOTOS: Final = {
    "taught": ("astronaut.png", "brick.png", "coins.png", "grass.png", "gravel.png", "motorcycle_left.png"),
    "exam": ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg"),
}
_OWN: Final = "--photos and --others"


@dataclass(frozen=True)
class School:
    """All lessons.

    Attributes:
        folder: Of sets and runs.
        photos: Folders of photographs to learn from; none: those of scikit-image.
        others: Folders of photographs for the exam; likewise.
        side: Of the cuts, pixels.
        cuts: Of all photographs to learn from, and of all others, about so many.
        share: Of the steps of each lesson; for trying out.
    """

    folder: Path
    photos: Sequence[Path] = ()
    others: Sequence[Path] = ()
    side: int = 256
    cuts: tuple[int, int] = (400, 29)
    share: float = 1.0

    @cached_property
    def folders(self) -> Mapping[str, list[str]]:
        """Folders of photographs to learn from (`taught`) and for the `exam`."""
        given = {"taught": self.photos, "exam": self.others}
        return {part: [str(f) for f in folders] or [str(self._bundled(part))] for part, folders in given.items()}

    def _bundled(self, part: str) -> Path:
        home = self.folder / "photos" / part
        home.mkdir(parents=True, exist_ok=True)
        for pair in bundled(_PHOTOS[part], _OWN):
            shutil.copyfile(pair.gt, home / pair.gt.name)
        return home

    def _count(self, part: str) -> int:
        return len(find_pairs(self.folders[part], (), 1, _OWN))

    def entry(self, lesson: Lesson, part: str) -> dict[str, Any]:
        """The source that a lesson learns from (`taught`), or an exam."""
        subject, is_taught = SUBJECTS[lesson.subject], part == "taught"
        if is_taught:
            entry = dict(subject.taught) | {"hold_out_families": [*subject.kinds, *subject.families]}
        else:
            entry = subject.asked(part)
        photos = "taught" if is_taught else "exam"
        entry |= {"name": part, "photos": self.folders[photos]}
        if subject.is_set:
            of_all = self.cuts[not is_taught]
            entry |= {"folder": str(self.folder / "sets" / f"{lesson.subject}-{part}"), "crop": self.side}
            entry |= {"crops_per_photo": -(-of_all // self._count(photos)), "processes": 1}
        if is_taught:
            batch = {"contents": 8, "versions": 2} if subject.is_set else {"contents": 6, "versions": 1}
            entry |= batch | {"turns": "none" if lesson.remembers else "mirror"} | dict(lesson.source)
            entry["contents"] = min(entry["contents"], self._count(part))
        return entry

    def config(self, name: str) -> dict[str, Any]:
        """Configuration of the recipe for a lesson."""
        lesson = LESSONS[name]
        more = [dict(entry) | {"photos": self.folders["taught"]} for entry in lesson.more]
        if lesson.beside is not None:
            more.append(self.entry(replace(lesson, subject=lesson.beside), "taught") | {"name": lesson.beside})
        for entry in more:
            entry["contents"] = min(entry["contents"], self._count("taught"))
        critic: dict[str, Any] = {"name": lesson.critic, "options": dict(lesson.options)}
        if lesson.remembers:
            critic |= {"remember": True, "fixed": ["trunk.*"]}
        if lesson.start is not None and lesson.steps:
            critic["weights"] = str(self.weights(lesson.start))
        steps = max(1, round(self.share * lesson.steps))
        config = {
            "output": str(self.folder / name),
            "threads": 1,
            "critic": critic,
            "data": [self.entry(lesson, "taught"), *more],
            "objectives": dict(lesson.objectives),
            "train": {
                "steps": steps,
                "lr": lesson.rate,
                "lr_end": 1e-5,
                "warmup": min(50, steps // 4),
                "weight_decay": 0.01,
                "betas": [0.9, 0.98],
                "clip": 1.0,
                "ema": 0.98,
            },
            "val": {
                "every": 0,
                "limit": 1,
                "rounds": 10,
                "sets": [self.entry(lesson, exam) for exam in (KINDS, FAMILIES)],
            },
            "card": {"write": False},
            "log": {"every": 50, "checkpoint_every": 100},
        }
        for key, value in lesson.config.items():
            *above, last = key.split(".")
            place: dict[str, Any] = config
            for part in above:
                place = place[part]
            place[last] = value
        return config

    def weights(self, name: str) -> Path:
        """What a lesson leaves."""
        start = LESSONS[name].start
        if not LESSONS[name].steps and start is not None:
            return self.weights(start)
        return self.folder / name / "models" / f"{LESSONS[name].critic}.safetensors"

    def teach(self, name: str) -> Path:
        """Hold a lesson, unless it was held as it is said now, and return the folder of its run.

        Raises:
            PerceptlossError: if the training fails.
        """
        lesson, home, file = LESSONS[name], self.folder / name, self.folder / f"{name}.yaml"
        text = yaml.safe_dump(self.config(name), sort_keys=False)
        is_same = file.is_file() and file.read_text(encoding="utf-8") == text
        if lesson.start is not None:
            made = self.teach(lesson.start) / "results.json"
            is_same = is_same and (home / "results.json").is_file()
            is_same = is_same and made.stat().st_mtime <= (home / "results.json").stat().st_mtime
        if not is_same:
            shutil.rmtree(home, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text)
        if not (home / "results.json").is_file():
            again = [] if lesson.steps else ["--evaluate_only", str(self.weights(name))]
            _recipe()(["--config", str(file), *again])
        return home

    def row(self, name: str) -> Row:
        """What a critic says after its lesson, and said before it; kept with the run."""
        home = self.teach(name)
        kept = home / "row.json"
        if not kept.is_file():
            write_atomically(kept, json.dumps(asdict(self._examined(name))))
        return Row(**json.loads(kept.read_text(encoding="utf-8")))

    def _examined(self, name: str) -> Row:
        lesson, found = LESSONS[name], self._results(name)
        kinds, figures = (found["exams"][exam]["figures"][lesson.critic]["unseen"] for exam in (KINDS, FAMILIES))
        before, learned = self._untaught(name)
        steps = [name, *([lesson.start] if lesson.start and LESSONS[lesson.start].is_step else [])]
        seconds = [origin["seconds"] for step in steps if (origin := self._results(step)["origin"]) is not None]
        return Row(
            critic=lesson.critic,
            sees=get_card(lesson.critic).needs_reference,
            learned=learned,
            minutes=sum(seconds) / 60 if seconds else None,
            images=figures["srcc"]["count"],
            before=before,
            srcc=_known(figures["srcc"]),
            levels=_known(figures["levels"]),
            kinds=_known(kinds["srcc"]),
            kinds_levels=_known(kinds["levels"]),
        )

    def _results(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name / "results.json").read_text(encoding="utf-8"))
        return content

    def _untaught(self, name: str) -> tuple[float, int]:
        """SRCC of the critic as it is built, and how many of its numbers learn."""
        config = self.config(name)
        given = {key: value for key, value in config["critic"].items() if key != "weights"}
        critic = build_critic(CriticOptions(**given | {"fixed": tuple(given.get("fixed", ()))}), 0)
        learned = sum(p.numel() for p in critic.parameters() if p.requires_grad)
        setting = Setting(critic.card, 0, True, critic.card.needs_reference, lambda act: act())
        [opened] = open_sources(parse_entries([self.entry(LESSONS[name], FAMILIES)], "val.sets"), setting)
        found = examine(Accelerator(cpu=True), critic.freeze(), opened.exams, limit=0, seed=0, rounds=0)
        return _known(found[FAMILIES]["unseen"]["srcc"]), learned

    def rows(self, names: Iterable[str] = ()) -> Iterator[Row]:
        """Of these lessons, or all that are no mere steps, as they come.

        Raises:
            ConfigError: if a name is none.
        """
        chosen = [*names] or [name for name, lesson in LESSONS.items() if not lesson.is_step]
        if unknown := [name for name in chosen if name not in LESSONS]:
            raise ConfigError([f"no lesson is called {n!r}; there are {', '.join(LESSONS)}" for n in unknown], "learn")
        yield from map(self.row, chosen)


@cache
def _recipe() -> Callable[[Sequence[str]], None]:
    """The recipe's `main`, in this process: what it imports takes longer than some lessons."""
    spec = spec_from_file_location("critic_recipe", _RECIPE)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    main: Callable[[Sequence[str]], None] = module.main
    return main


def _known(figure: Mapping[str, Any]) -> float:
    """NaN where it is not defined: a critic says the same of all images."""
    return math.nan if figure["value"] is None else float(figure["value"])
