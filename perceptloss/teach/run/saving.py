"""The weights of a critic as a file, with their origin in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from perceptloss import Critic, __version__, create_critic
from perceptloss.critics.mini.viewing import LiteCritic
from perceptloss.errors import WeightsError
from perceptloss.weights.checkpoints import read_facts, write_state
from perceptloss.weights.convert import fingerprint

__all__ = ["export", "stamp"]


def export(critic: Critic, path: Path, facts: Mapping[str, Any]) -> None:
    """Write the weights for `create_critic(name, weights=path)`; `facts` go into the metadata.

    The trunk that our own critics share is a file of its own, and left out as long as it did not learn.

    Raises:
        WeightsError: if what was written does not load.
    """
    state = {key: value.detach().cpu().contiguous().clone() for key, value in critic.state_dict().items()}
    if isinstance(critic, LiteCritic) and not any(p.requires_grad for p in critic.trunk.parameters()):
        state = {key: value for key, value in state.items() if not key.startswith("trunk.")}
    record = {
        "critic": critic.card.name,
        "version": __version__,
        "weights_id": fingerprint(state),
        "better": critic.card.better,
        **facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_state(path, state, record)
    if not facts.get("options"):
        _check(critic, path)


def stamp(path: Path, known: Mapping[str, Any]) -> None:
    """Make the facts of a model card part of a file's own; the file changes only if they are not."""
    facts = read_facts(path)
    wanted = {**facts, **known}
    if wanted != facts:
        write_state(path, load_file(path), wanted)


def _check(critic: Critic, path: Path) -> None:
    again = create_critic(critic.card.name, weights=path).state_dict()
    different = [key for key, value in critic.state_dict().items() if not torch.equal(value.cpu(), again[key])]
    if different:
        raise WeightsError(f"{path}: read back, {', '.join(different[:8])} are not what was written.")
