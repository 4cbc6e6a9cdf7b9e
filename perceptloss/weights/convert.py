"""Strict conversion of checkpoints, the authors' and torchvision's, into a critic's own layout.

Every key of a file must be the critic's own, match one of its rules, or raise; every tensor the
critic needs must come from a file, or raise. Nothing is dropped without a written reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.errors import WeightsError, points

__all__ = ["convert", "fingerprint", "load_states"]


def _places(critic: Critic, key: str, tensor: Tensor, own: Mapping[str, Tensor]) -> tuple[tuple[str, ...], Tensor]:
    """The critic's keys for a foreign one, none if it is left out for a reason; and the tensor as they hold it."""
    if key in own:
        return (key,), tensor
    for rule in critic.rules:
        match = re.fullmatch(rule.pattern, key)
        if match is None:
            continue
        if rule.target is None:
            with suppress(RuntimeError):  # of a shape that cannot even be compared
                if rule.check is None or rule.check(critic, tensor):
                    return (), tensor
            raise WeightsError(f"{key}: expected {rule.reason}, got other values")
        targets = tuple(match.expand(t) for t in ((rule.target,) if isinstance(rule.target, str) else rule.target))
        for target in targets:
            if target not in own:
                raise WeightsError(f"{key}: no layer of this critic is called {target!r}")
        return targets, tensor if rule.change is None else rule.change(tensor)
    raise WeightsError(f"{key}: unknown key of shape {tuple(tensor.shape)}")


def _fit(key: str, tensor: Tensor, like: Tensor) -> Tensor:
    squeezed = [n for n in tensor.shape if n != 1] == [n for n in like.shape if n != 1]
    if not squeezed:
        raise WeightsError(f"{key}: shape {tuple(tensor.shape)}, expected {tuple(like.shape)}")
    if tensor.is_floating_point() != like.is_floating_point() or tensor.is_complex():
        raise WeightsError(f"{key}: type {tensor.dtype}, expected {like.dtype}")
    value = tensor.detach().reshape(like.shape).to(dtype=like.dtype, device=like.device)
    if not torch.isfinite(value).all():  # after the cast: fp64 may overflow
        raise WeightsError(f"{key}: holds NaN or infinity")
    return value


def convert(critic: Critic, state: Mapping[str, Tensor], where: str = "checkpoint") -> dict[str, Tensor]:
    """Rename and reshape one file's tensors to the critic's own state dict (which may stay partial).

    Args:
        critic: Gives names, shapes, types and rules; is not changed.
        state: Tensors under the file's names.
        where: Name of the file, for messages.

    Raises:
        WeightsError: naming every key that is unknown, misshapen, not finite or contradictory.
    """
    own = critic.state_dict()
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, tensor in state.items():
        try:
            places, changed = _places(critic, key, tensor, own)
            for target in places:
                value = _fit(key, changed, own[target])
                if target in found and not torch.equal(found[target], value):
                    raise WeightsError(f"{key}: contradicts another tensor for {target!r}")
                found[target] = value
        except WeightsError as error:
            problems.append(str(error))
    if problems:
        raise WeightsError(_message(critic, f"{where} does not fit", problems))
    return found


def load_states(critic: Critic, states: Sequence[Mapping[str, Tensor]], names: Sequence[str] = ()) -> None:
    """Convert one or more files and load them; together they must hold every tensor exactly.

    Args:
        critic: Is loaded, and told the fingerprint of its weights.
        states: One per file.
        names: Of the files, for messages.

    Raises:
        WeightsError: if a key does not fit, files contradict each other, or a tensor is in none.
    """
    names = names or [f"checkpoint {n}" if len(states) > 1 else "checkpoint" for n in range(1, len(states) + 1)]
    merged: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    problems: list[str] = []
    for name, state in zip(names, states, strict=True):
        for key, tensor in convert(critic, state, name).items():
            if key in merged and not torch.equal(merged[key], tensor):
                problems.append(f"{key}: not the same in {origin[key]} and in {name}")
            merged[key], origin[key] = tensor, name
    if problems:
        raise WeightsError(_message(critic, "the files contradict each other for", problems))
    missing = [key for key in critic.state_dict() if key not in merged]
    if missing:
        together = _message(critic, f"{', '.join(names)} is incomplete for", [f"{key}: in no file" for key in missing])
        raise WeightsError(together)
    critic.load_state_dict(merged, strict=True)
    critic.weights_id = fingerprint(merged)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """First eight hex digits of the sha256 over names and values of a state dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:8]


def _message(critic: Critic, what: str, problems: list[str]) -> str:
    return f"{what} critic {critic.card.name!r} ({len(problems)} problems):\n{points(problems)}"
