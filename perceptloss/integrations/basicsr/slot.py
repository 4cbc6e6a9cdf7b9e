"""The pixel criterion with critics added, and the log entries that take the sum apart again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from perceptloss.errors import ConfigError, InputError
from perceptloss.integrations.basicsr.options import Plan
from perceptloss.loss.clips import flicker, frames
from perceptloss.networks.artefacts import artefact_map

__all__ = ["CriticSlot"]


@dataclass(frozen=True)
class _Call:
    """One evaluation of the slot: what the model got, the pixel part, and the critics' report."""

    total: Tensor
    pixel: Tensor | None
    report: dict[str, dict[str, float | int | None]]
    extras: dict[str, Tensor] = field(default_factory=dict)


class CriticSlot(nn.Module):
    """A pixel criterion with critics added.

    Args:
        pixel: The model's own criterion, None to use the critics alone.
        plan: The critics.

    Attributes:
        step: The iteration that schedules and crops follow.
        calls: Evaluations since the last `begin`.
        steady: What the averaged weights restore in this iteration, for the loss of artefacts.
    """

    def __init__(self, pixel: nn.Module | None, plan: Plan) -> None:
        super().__init__()
        self.pixel, self.critics, self.extras = pixel, plan.loss, plan.extras
        self.step = 0
        self.calls: list[_Call] = []
        self.artefacts, self.temporal, self.anchors = plan.artefacts, plan.temporal, plan.anchors
        self.steady: Tensor | None = None
        self._last: tuple[Tensor, Tensor] | None = None  # images that joint critics learn from

    def begin(self, step: int) -> None:
        """Start an iteration."""
        self.step = step
        self.calls = []
        self._last = None

    def forward(self, output: Tensor, gt: Tensor) -> Tensor:
        """Pixel loss plus weighted critics, 0-d.

        Args:
            output: Restored images, (N, 3, H, W), or clips, (N, T, 3, H, W).
            gt: Ground truth, same shape.
        """
        pixel = None if self.pixel is None else self.pixel(output, gt)
        x, y = frames(output), frames(gt)
        critics = self.critics(x, y, step=self.step)
        if self.critics.learners:
            self._last = x.detach(), y.detach()
        total = critics if pixel is None else pixel + critics
        extras = self._extras(output, gt)
        for extra in extras.values():
            total = total + extra
        parts = {name: extra.detach() for name, extra in extras.items()}
        self.calls.append(_Call(total, None if pixel is None else pixel.detach(), self.critics.report, parts))
        return total

    def _extras(self, output: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Weighted losses beside pixel loss and critics, under what they are logged as."""
        found = {}
        if self.artefacts:
            x, y = frames(output).float(), frames(gt).float()
            weights = artefact_map(x.detach(), y, None if self.steady is None else frames(self.steady))
            found["l_artefacts"] = self.artefacts * (weights * (x - y).abs()).mean()
        if self.temporal:
            if output.ndim != 5:
                raise InputError(f"critic_opt.temporal needs clips (N, T, C, H, W), got {tuple(output.shape)}.")
            found["l_temporal"] = self.temporal * flicker(output, gt)
        return found

    def learn(self) -> dict[str, float]:
        """Let joint critics learn from the last images of this iteration; their losses as `l_<label>_joint_<part>`."""
        if self._last is None:
            return {}
        anchors = self.anchors.at(self.step) if self.anchors is not None and self.critics.learns_at(self.step) else None
        found = self.critics.learn(*self._last, step=self.step, anchors=anchors)
        return {f"l_{label}_joint_{part}": value for label, parts in found.items() for part, value in parts.items()}

    def untangle(self, losses: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
        """A model's loss dict with the clean pixel loss, and `l_<label>` for each critic after it.

        Keys and their order depend only on the keys given, so that ranks can be reduced together.
        """
        if not self.calls:  # GAN models skip the generator's losses in some iterations
            return OrderedDict(losses)
        mine = self._entry(losses)
        clean: OrderedDict[str, Tensor] = OrderedDict()
        for key, value in losses.items():
            if key != mine:
                clean[key] = value
                continue
            if self.pixel is not None:
                clean[key] = torch.stack([call.pixel for call in self.calls if call.pixel is not None]).sum()
            clean.update(self._rows(value))
            for name in dict.fromkeys(name for call in self.calls for name in call.extras):
                clean[name] = torch.stack([call.extras[name] for call in self.calls]).sum()
        clash = [term.label for term in self.critics.terms if f"l_{term.label}" in losses]
        if clash:
            raise ConfigError(
                [f"term {label!r}: the model logs l_{label} already; give the term another 'name'" for label in clash],
                "train.critics",
            )
        return clean

    def _entry(self, losses: dict[str, Tensor]) -> str:
        """The key under which the model logs what this slot returned."""
        returned = {id(call.total) for call in self.calls}
        found = [key for key, value in losses.items() if id(value) in returned]
        found += [key for key in ("l_pix", "l_g_pix") if key in losses]  # a model that adds up several calls
        if not found:
            raise ConfigError(
                [f"the model evaluates cri_pix but logs it under none of its keys: {', '.join(losses)}"],
                "train.critics",
            )
        return found[0]

    def _rows(self, like: Tensor) -> Iterator[tuple[str, Tensor]]:
        for term in (term for term in self.critics.terms if not term.spec.monitor):
            rows = [call.report[term.label] for call in self.calls]
            # before its start a term counts nothing; one that was left out shows its nan
            value = sum(row["weighted"] or 0.0 for row in rows)
            yield f"l_{term.label}", like.detach().new_tensor(value)

    def watched(self) -> Iterator[tuple[str, float]]:
        """Scores of monitors and what `critic_opt.log` asks for, of this process: `score_<label>`, `share_<label>`."""
        monitors = {term.label for term in self.critics.terms if term.spec.monitor}
        for row_of in (call.report for call in self.calls[-1:]):
            for extra in dict.fromkeys(("score", *self.extras)):
                for label, row in row_of.items():
                    is_wanted = extra in self.extras or (label in monitors and extra == "score")
                    if is_wanted and (value := row[extra]) is not None:
                        yield f"{extra}_{label}", float(value)
