"""Labels for pictures that nobody has a reference of: what the averaged network makes of them, if a critic agrees.

After Huang et al., "Contrastive Semi-supervised Learning for Underwater Image Restoration via Reliable Bank"
(Semi-UIR), CVPR 2023: a label gives way only to one that a critic without reference puts above it, and above what the
network makes of the picture now. The critic chooses; no gradient flows through it, so there is nothing to deceive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from _lib.honesty import Watched
from _lib.scenes import Place
from perceptloss import Critic
from perceptloss.compare.pixels import stored, turned
from perceptloss.inputs import all_finite
from perceptloss.runs import loop

__all__ = ["Bank"]


class Bank:
    """The labels of a training, by the numbers of their pictures, and the critic's scores of them.

    All of them are in memory, 8 bits deep, and in every checkpoint. Every process has the whole bank.

    Args:
        numbers: Of the pictures without reference.
        picture: A whole raw picture by its number, (C, h, w).
        restored: What a network makes of one.
        every: Steps between two looks, each at one picture for every process.
        critic: That scores without reference; None where there are no such pictures.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        picture: Callable[[int], Tensor],
        restored: Callable[[nn.Module, Tensor], Tensor],
        every: int,
        critic: Critic | None,
    ) -> None:
        self.critic, self.numbers, self.every = critic, list(numbers), every
        self._picture, self._restored = picture, restored
        self.labels: dict[int, Tensor] = {}
        self.scores: dict[int, float] = {}

    def targets(self, places: Tensor, references: Tensor, output: Tensor) -> Tensor:
        """References, or labels where there is none; without any, what the network gave, in [0, 1].

        Args:
            places: Of the patches, as `ScenePatches` gives them, (N, 5).
            references: (N, 3, H, W).
            output: Of the network, same shape.
        """
        if bool(places[:, Place.HAS_REFERENCE].all()):
            return references
        targets, side = references.clone(), references.shape[-1]
        for i, (number, top, left, turn, has_reference) in enumerate(places.tolist()):
            if has_reference:
                continue
            label = self.labels.get(number)
            if label is None:
                targets[i] = output[i].detach().clamp(0, 1)
            else:
                cut = label[:, top : top + side, left : left + side].to(targets) / 255
                targets[i] = turned(cut, turn)
        return targets

    def look(self, t: Watched) -> None:
        """At the end of a step: let the critic judge labels, if it is time; call on all processes."""
        if self.critic is None or t.step % self.every:
            return
        accelerator = t.accelerator
        first = (t.step // self.every - 1) * accelerator.num_processes + accelerator.process_index
        number = self.numbers[first % len(self.numbers)]
        found = self._judged(t, number, self.critic)
        for entry in gather_object([found]):
            if entry is not None:
                key, label, score = entry
                self.labels[key], self.scores[key] = label, score

    @torch.no_grad()
    def _judged(self, t: Watched, number: int, critic: Critic) -> tuple[int, Tensor, float] | None:
        """A new label of one picture and its score, if it is the best there is."""
        raw = self._picture(number).to(t.accelerator.device)
        t.network.eval()
        student = stored(self._restored(t.network, raw))
        with loop.averaged(t):
            teacher = stored(self._restored(t.network, raw))
        t.network.train()
        if not (all_finite(teacher) and all_finite(student)):
            return None
        sign = 1.0 if critic.card.better == "higher" else -1.0
        ours, theirs = (sign * float(critic(image[None])) for image in (teacher, student))
        if ours <= theirs or ours <= sign * self.scores.get(number, -sign * float("inf")):
            return None
        return number, (teacher * 255).round().byte().cpu(), sign * ours

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must keep."""
        return {"labels": dict(self.labels), "scores": dict(self.scores)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.labels, self.scores = dict(state["labels"]), dict(state["scores"])
