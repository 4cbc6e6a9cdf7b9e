"""A loss of a host, and what its options mean in a critic of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from perceptloss.errors import ConfigError, near
from perceptloss.loss.terms import TermOptions

__all__ = ["BEHIND", "LAYERS", "ON", "DropIn", "Options", "frequencies", "mean_only", "same"]

Options = Mapping[str, Any]
LAYERS: Final = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
BEHIND: Final = {tap.replace("conv", "relu"): weight for tap, weight in LAYERS.items()}


@dataclass(frozen=True)
class DropIn:
    """A loss of a host.

    Attributes:
        critic: That stands for it, of its options where they decide.
        defaults: Its options as the host has them, with the host's defaults.
        carried: Options that go to the critic as they are, under another name where one is given.
        only: Options that can have no other value here, and why.
        made: Further options of the critic, made of those of the host.
        factor: By which the host multiplies it, from its options.
        beside: Further terms that the host adds, from its options.
        sees_average: Whether the host also gives it what the averaged weights restore.
    """

    critic: str | Callable[[Options], str]
    defaults: Options = field(default_factory=dict)
    carried: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    made: Callable[[Options], Options] = lambda options: {}
    factor: Callable[[Options], float] = lambda options: 1.0
    beside: Callable[[Options], Sequence[TermOptions]] = lambda options: ()
    sees_average: bool = False

    def terms(self, name: str, given: Options) -> list[TermOptions]:
        """The terms of a `CriticLoss` that mean the same.

        Raises:
            ConfigError: with every option that the host's loss has not, or that cannot mean the same.
        """
        problems = [
            f"{name} has no option {key!r}{near(key, self.defaults)} Known: {', '.join(self.defaults) or 'none'}"
            for key in given
            if key not in self.defaults
        ]
        options = {**self.defaults, **given}
        problems += [
            f"{key}: {options[key]!r} cannot mean the same here: {why}"
            for key, (allowed, why) in self.only.items()
            if options[key] not in allowed
        ]
        if problems:
            raise ConfigError(problems, name)
        carried = {target: options[key] for key, target in self.carried.items()}
        first: TermOptions = {
            "critic": self.critic if isinstance(self.critic, str) else self.critic(options),
            "weight": self.factor(options),
            "options": {**carried, **self.made(options)},
        }
        return [first, *self.beside(options)]


def mean_only(why: str = "a loss is a mean here, so that its weight does not depend on the size of a crop") -> Options:
    """That no other reduction is here."""
    return {"reduction": (("mean",), why)}


def same(*keys: str) -> Mapping[str, str]:
    """Options that keep their names."""
    return {key: key for key in keys}


ON: Final = ((True,), "it is a loss, with its published weights")


def frequencies(factor: float) -> DropIn:
    """The focal frequency loss, times a host's factor."""
    options = {"alpha": 1.0, "patch_factor": 1, "ave_spectrum": True, "log_matrix": False, "batch_matrix": False}
    return DropIn("ffl", options, same(*options), factor=lambda o: factor)
