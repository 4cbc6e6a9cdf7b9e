"""Critics of a user's own, named `module:Class`, beside those of the registry."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from perceptloss.card import Card, Direction, Kind
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError, WeightsError, near
from perceptloss.registry import DEFAULT, create_critic, set_direction
from perceptloss.weights.checkpoints import read_state
from perceptloss.weights.loading import load

__all__ = ["OwnCritic", "critic_named"]


class OwnCritic(Critic):
    """A module that is called as `(x)` or `(x, y)` with images in [0, 1], as a critic; one image at a time.

    Args:
        card: Its card.
        module: Gives one number for one image.
    """

    def __init__(self, card: Card, module: nn.Module) -> None:
        super().__init__(card)
        self.module = module

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """One score per image, (N,).

        Raises:
            InputError: if the module fails, or gives anything but one number for one image.
        """
        scores = []
        for i in range(len(x)):
            given = (x[i : i + 1], *(() if y is None else (y[i : i + 1],)))
            try:
                found = self.module(*given)
            except Exception as error:
                shape = " and ".join(str(tuple(image.shape)) for image in given)
                problem = (
                    f"{self.card.source} fails on images of shape {shape} in [0, 1]: {type(error).__name__}: {error}"
                )
                raise InputError(f"{problem}. Mend it; if it takes other images, wrap it, or say --kind.") from error
            if not isinstance(found, Tensor) or found.numel() != 1:
                came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise InputError(f"{self.card.source} must give one number for one image, got {came} for (1, C, H, W).")
            scores.append(found.reshape(1))
        return torch.cat(scores)


def critic_named(
    name: str, weights: str | None = None, *, better: Direction | None = None, kind: Kind | None = None
) -> Critic:
    """A frozen critic of the registry, or `module:Class`, which is imported, called without arguments, and wrapped if
    it is a plain module.

    Args:
        name: A registered name, or `module:Class`; the working directory is looked in, too. A function will do, too.
        weights: A file of weights of its own.
        better: Direction of the scores; a plain module needs it.
        kind: Of a plain module; by default `nr` if it is called with one image, `fr` if with two.

    Raises:
        UnknownCritic: with the nearest names.
        ConfigError: listing what is wrong with a name of one's own.
        WeightsError: if a file is missing or does not fit.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        if kind is not None:
            raise ConfigError([f"--kind is for modules of one's own, and the card says that of {name!r}"], name)
        return create_critic(name, DEFAULT if weights is None else weights, better=better)
    made = _made(_found(module_name, attribute, name), name)
    if isinstance(made, Critic):
        if kind is not None:
            raise ConfigError(["--kind is for plain modules: this one is a Critic and has a card"], name)
        critic = made.freeze()
        if better is not None:
            set_direction(critic, better)
        if weights is not None:
            load(critic, [weights])
        return critic
    if weights is not None:
        _fill(made, weights)
    return OwnCritic(_card(made, name, better, kind), made).freeze()


def _found(module_name: str, attribute: str, name: str) -> Callable[[], Any]:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError([f"{module_name!r} cannot be imported: {type(error).__name__}: {error}"], name) from error
    made = getattr(module, attribute, None)
    if not callable(made):
        hint = near(attribute, [key for key, value in vars(module).items() if isinstance(value, type)])
        raise ConfigError([f"{module_name} has no class {attribute!r}{hint}"], name)
    return made


@torch.inference_mode(False)
def _made(build: Callable[[], Any], name: str) -> nn.Module:
    try:
        made = build()
    except TypeError as error:
        advice = "write a function that makes it, and name that"
        raise ConfigError([f"it must be made without arguments ({error}): {advice}"], name) from error
    except Exception as error:
        raise ConfigError([f"it cannot be made: {type(error).__name__}: {error}"], name) from error
    if not isinstance(made, nn.Module):
        raise ConfigError([f"expected a Critic or a torch module, got {type(made).__name__}"], name)
    return made


def _card(module: nn.Module, name: str, better: Direction | None, kind: Kind | None) -> Card:
    problems = []
    if better is None:
        problems.append("a plain module has no card: say --better higher or --better lower")
    needed = _images_needed(module)
    if kind is None and needed not in (1, 2):
        problems.append("its forward takes neither one image nor two: say --kind")
    if problems or better is None:
        raise ConfigError(problems, name)
    return Card(
        name=name.lower(),
        summary="A module of the user's own.",
        kind=kind or ("fr" if needed == 2 else "nr"),
        better=better,
        bounds=(-math.inf, math.inf),
        identity=None,
        shape="distance" if better == "lower" else "hinge",
        couples_batch=True,
        fidelity="after-paper",
        licence_code="not stated",
        paper="none",
        source=name,
    )


def _images_needed(module: nn.Module) -> int:
    """Arguments that `forward` cannot do without; 0 if it does not say."""
    found = inspect.signature(module.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in found)


def _fill(module: nn.Module, path: str) -> None:
    try:
        module.load_state_dict(read_state(path))
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit: {error}") from error
