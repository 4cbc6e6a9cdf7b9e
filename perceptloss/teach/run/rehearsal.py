"""What would stop a run at its first step, found without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from perceptloss import Critic
from perceptloss.teach.run.critic import Place, Reader, settle
from perceptloss.teach.run.options import CriticOptions
from perceptloss.teach.run.remember import refuse_to_remember
from perceptloss.teach.run.setup import Material
from perceptloss.teach.run.terms import Terms, looks_of

__all__ = ["rehearse"]


def rehearse(
    material: Material, critic: Critic, own: CriticOptions, objectives: Mapping[str, Any], accelerator: Accelerator
) -> None:
    """Draw a batch of every source, and let the critic and the objectives try it; nothing is remembered or attacked.

    Args:
        material: Sources to learn from.
        critic: That learns; on the CPU.
        own: Its options.
        objectives: Of sources that have none of their own.
        accelerator: Of the run.

    Raises:
        ConfigError: as the first step would.
    """
    streams = material.streams(0, accelerator.process_index, accelerator.num_processes)
    if own.remember:
        refuse_to_remember(material, critic, own)
    looks = [] if own.remember else looks_of(objectives, [source.options for source in material.sources])
    reader = Reader(critic, own.read, own.tap, looks)
    place = Place(torch.device("cpu"), own.channels_last)
    width, _ = settle(reader, [place.pair(stream[0]) for stream in streams])
    Terms(objectives, material.sources, critic.card, width=width)
