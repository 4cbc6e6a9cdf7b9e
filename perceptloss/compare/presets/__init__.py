"""Scores of challenges: sums of several critics' mean scores, as data files that anyone can add to."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perceptloss.card import Direction
from perceptloss.errors import ConfigError, near

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Preset", "Term", "preset_names", "read_preset"]

_HOME: Final = Path(__file__).parent
_NUMBERS: Final = ("scale", "offset", "least", "most")


@dataclass(frozen=True)
class Term:
    """offset + scale * mean score, kept between `least` and `most` where these are given.

    Attributes:
        critic: Its label among the columns.
        also: Other labels under which the same critic may stand there.
    """

    critic: str
    also: tuple[str, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    least: float | None = None
    most: float | None = None

    def column(self, labels: Collection[str]) -> str | None:
        """The label that is there, if one is."""
        return next((name for name in (self.critic, *self.also) if name in labels), None)

    def value(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its share of the sum, of mean scores of any shape."""
        value = self.offset + self.scale * mean
        value = value if self.least is None else np.maximum(value, self.least)
        return value if self.most is None else np.minimum(value, self.most)


@dataclass(frozen=True)
class Preset:
    """A score of a challenge: the sum of its terms, each of a mean over images.

    Attributes:
        name: Such as `ntire-sr-2026`.
        about: What it is.
        source: Where it is defined.
        better: Direction of the sum.
        terms: What is added up.
        gaps: Why critics of it are not there, by name; without all of them there is no score.
    """

    name: str
    about: str
    source: str
    better: Direction
    terms: tuple[Term, ...]
    gaps: Mapping[str, str] = field(default_factory=dict)

    @property
    def header(self) -> str:
        """Name and arrow of direction."""
        return f"{self.name} {'↑' if self.better == 'higher' else '↓'}"

    def missing(self, labels: Collection[str]) -> list[str]:
        """Each critic that is not among the columns, with the reason where one is known."""
        lacking = [term.critic for term in self.terms if term.column(labels) is None]
        return [f"{name} ({self.gaps[name]})" if name in self.gaps else name for name in lacking]

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Preset:
        """The preset that `dataclasses.asdict` turned into plain types."""
        terms = tuple(Term(**{**term, "also": tuple(term["also"])}) for term in facts["terms"])
        return cls(**{**facts, "terms": terms})


def preset_names() -> list[str]:
    """Names of those that come with perceptloss."""
    return sorted(path.stem for path in _HOME.glob("*.toml"))


def read_preset(source: str) -> Preset:
    """A preset by name, or from a `.toml` file of the same form.

    Raises:
        ConfigError: if there is none of that name, or listing what is wrong with the file.
    """
    is_file = source.lower().endswith(".toml")
    path = Path(source) if is_file else _HOME / f"{source}.toml"
    if not is_file and source not in preset_names():
        known = ", ".join(preset_names())
        raise ConfigError(
            [f"no preset {source!r}{near(source, preset_names()) or '.'} Known: {known}; or a .toml file"], "--preset"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], str(path)) from None
    except ValueError as error:
        raise ConfigError([f"not TOML: {error}"], str(path)) from None
    if problems := _problems(content):
        raise ConfigError(problems, str(path))
    terms = tuple(Term(**{**term, "also": tuple(term.get("also", ()))}) for term in content["term"])
    return Preset(content.get("name", path.stem), content["about"], content["source"], content["better"], terms)


def _problems(content: Mapping[str, Any]) -> list[str]:
    texts = ("name", "about", "source", "better")
    problems = [f"unknown key {key!r}{near(key, (*texts, 'term'))}" for key in content if key not in (*texts, "term")]
    problems += [f"{key!r} is missing" for key in (*texts[1:], "term") if key not in content]
    problems += [f"{key!r} must be a text" for key in texts if not isinstance(content.get(key, ""), str)]
    if content.get("better", "higher") not in ("higher", "lower"):
        problems.append(f"'better' must be 'higher' or 'lower', got {content['better']!r}")
    terms = content.get("term", [{"critic": "-"}])
    if not isinstance(terms, list) or not terms or not all(isinstance(term, dict) for term in terms):
        return [*problems, "'term' must be one or more tables [[term]]"]
    names = [term.get("critic") for term in terms]
    for place, term in enumerate(terms, 1):
        problems += [f"term {place}: {problem}" for problem in _term_problems(term)]
    twice = {str(name) for name in names if names.count(name) > 1}
    return problems + [f"critic {name!r} is there twice" for name in sorted(twice)]


def _term_problems(term: Mapping[str, Any]) -> list[str]:
    keys = ("critic", "also", *_NUMBERS)
    problems = [f"unknown key {key!r}{near(key, keys)}" for key in term if key not in keys]
    if not isinstance(term.get("critic"), str) or not term["critic"]:
        problems.append("'critic' must be the name of a critic")
    also = term.get("also", [])
    if not isinstance(also, list) or not all(isinstance(name, str) for name in also):
        problems.append("'also' must be a list of names")
    for key in _NUMBERS:
        value = term.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
            problems.append(f"{key!r} must be a finite number, got {value!r}")
    if term.get("scale") == 0:
        problems.append("'scale' must not be 0")
    return problems
