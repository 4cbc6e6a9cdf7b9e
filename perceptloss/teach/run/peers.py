"""Critics to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from perceptloss import Card, Critic, create_critic
from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.teach.run.sources import Exam

__all__ = ["build_peers", "size_problems"]


def build_peers(peers: Mapping[str, Any] | Sequence[Any], card: Card, device: torch.device) -> dict[str, Critic]:
    """Build them now, so that missing weights stop a run before it begins.

    Raises:
        ConfigError: listing peers that are unknown, lack weights, or judge another kind of image.
    """
    given = dict(peers) if isinstance(peers, Mapping) else dict.fromkeys(peers)
    problems: list[str] = []
    built: dict[str, Critic] = {}
    for name, weights in given.items():
        try:
            critic = create_critic(name, *([] if weights is None else [weights])).as_published()
        except (PerceptlossError, TypeError) as error:
            problems.append(f"{name}: {error}")
            continue
        if critic.card.channels != card.channels:
            problems.append(f"{name}: judges {critic.card.channels} channels, but {card.name!r} {card.channels}")
        if critic.card.needs_reference and not card.needs_reference:
            problems.append(f"{name}: needs references, which exams of {card.name!r} do not bring")
        built[name] = critic.to(device)
    if problems:
        raise ConfigError(problems, "val.peers")
    return built


def size_problems(critics: Mapping[str, Critic], exams: Sequence[Exam]) -> list[str]:
    """Critics that do not accept the first image of an exam, found before the first step rather than after."""
    problems: list[str] = []
    for exam in exams:
        images = exam.images(np.array([0]))
        for name, critic in critics.items():
            x, y = (None if i is None else torch.zeros(i.shape, device=next_device(critic)) for i in images)
            assert x is not None
            try:
                critic.admit(x, y if critic.card.needs_reference else None)
            except PerceptlossError as error:
                problems.append(f"exam {exam.name!r}: {name}: {error}")
    return problems


def next_device(critic: Critic) -> torch.device:
    """Where its weights or constants are."""
    return next((t.device for t in (*critic.parameters(), *critic.buffers())), torch.device("cpu"))
