"""Image-quality networks as critics: weighted, differentiable losses for image restoration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Card",
    "Critic",
    "CriticLoss",
    "TermOptions",
    "create_critic",
    "get_card",
    "list_critics",
    "register_critic",
]

_HOME = {
    "Card": "card",
    "Critic": "critic",
    "CriticLoss": "loss.critic_loss",
    "TermOptions": "loss.terms",
    "create_critic": "registry",
    "get_card": "registry",
    "list_critics": "registry",
    "register_critic": "registry",
}

if TYPE_CHECKING:
    from perceptloss.card import Card
    from perceptloss.critic import Critic
    from perceptloss.loss.critic_loss import CriticLoss
    from perceptloss.loss.terms import TermOptions
    from perceptloss.registry import create_critic, get_card, list_critics, register_critic


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        value = getattr(import_module(f"perceptloss.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'perceptloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
