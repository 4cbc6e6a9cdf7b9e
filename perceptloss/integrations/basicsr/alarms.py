"""Alarms in BasicSR: the first validation set shows whether the critics that are trained on are still to be trusted.

BasicSR validates on its first process alone; that tells the others what it saw, and all come to the same verdict. There
is no validation at iteration 0: what outputs were before any critic had a say is known if critics start after one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from basicsr.utils import get_root_logger

from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError
from perceptloss.integrations.basicsr.anchors import Labelled
from perceptloss.integrations.basicsr.budget import first_validation, measured
from perceptloss.integrations.basicsr.visuals import seeing
from perceptloss.loss.critic_loss import CriticLoss
from perceptloss.output.files import write_atomically
from perceptloss.registry import get_card

if TYPE_CHECKING:  # it needs kornia
    from perceptloss.honesty.history import Sight

__all__ = ["Alarms"]

_MOST = 24  # images


class Alarms:
    """Watches validations, and weakens the critics or stops the training where that is the reaction.

    Args:
        reaction: To alarms, as `honesty.reactions` has them.
        loss: The critics.
        labelled: Images that agreement with labels is measured on.
        opt: BasicSR's options.

    `begin` comes before all else, when it is known what the model trains on.
    """

    def __init__(self, reaction: Any, loss: CriticLoss, labelled: Labelled | None, opt: Mapping[str, Any]) -> None:
        self.reaction, self.loss, self.opt = reaction, loss, opt
        self.held = {} if labelled is None else labelled.held
        self.dataset, self.end = first_validation(opt)["name"], int(opt["train"].get("total_iter") or 0)

    def begin(self, trained: Collection[str]) -> list[str]:
        """Take as judges those metrics that are none of the critics trained on in any slot; sentences for the log."""
        from perceptloss.honesty.judges import judge_problems
        from perceptloss.honesty.watch import Watch

        counting = [term for term in self.loss.terms if not term.spec.monitor]
        optimised: list[Critic | Card] = [*(term.critic for term in counting), *map(get_card, trained)]
        metrics = {label: measured(entry) for label, entry in (self.opt["val"].get("metrics") or {}).items()}
        cards = {label: get_card(name) for label, name in metrics.items() if name is not None}
        whys = {label: judge_problems(optimised, [card]) for label, card in cards.items()}
        self.judges = [label for label, why in whys.items() if not why]
        self.watch = Watch(
            {term.label: term.critic for term in counting},
            {f"val.metrics.{label}": cards[label] for label in self.judges},
            reaction=self.reaction,
            start=min(term.spec.start for term in counting),
        )
        judges = [critic.label for critic in self.watch.history.those("judge")]  # and not fidelity, which may be traded
        named = ", ".join(judges) or "none, so a critic that rises while they fall is not seen"
        unfit = [f"val.metrics.{label} is no judge: {why[0]}" for label, why in whys.items() if why]
        return [f"alarms look at {self.dataset}, reaction {self.reaction}; judges: {named}", *unfit]

    @contextmanager
    def following(self, model: Any, dataset: str, current_iter: int, tb_logger: Any) -> Iterator[None]:
        """Look at what a model shows while it validates, if it is on the first set, and react afterwards.

        Raises:
            ConfigError: see `seeing`.
            DeceivedCritics: on all processes, if an alarm rings and the reaction is to stop.
        """
        step = min(current_iter, self.end or current_iter)  # after its last iteration BasicSR validates once more
        known = self.watch.history.validations
        if dataset != self.dataset or (known and known[-1].step >= step):
            yield
            return
        sights: list[Sight] = []
        with seeing(model, self.loss, lambda x, y: sights.append(self.watch.sight(x, y)), _MOST):
            yield
        seen: list[Any] = [None]
        if self.opt["rank"] == 0:
            learning = [learner.critic for learner in self.loss.learners.values()]
            agreement = self.watch.agreement(self.held, learning) if self.held else {}
            seen = [(sights, self._means(model, sights), agreement)]
        if self.opt["dist"]:
            dist.broadcast_object_list(seen, 0)
        self._conclude(step, seen[0], tb_logger)

    def _means(self, model: Any, sights: Sequence[Sight]) -> dict[str, float | None]:
        means: dict[str, float | None] = {}
        for label in self.watch.trained:
            found = [score for s in sights if label in s.scores and (score := s.scores[label].output) is not None]
            means[label] = math.fsum(found) / len(found) if found else None
        results = getattr(model, "metric_results", {})
        for label in self.judges:
            mean = results.get(label)
            means[f"val.metrics.{label}"] = float(mean) if isinstance(mean, float) and math.isfinite(mean) else None
        return means

    def _conclude(self, step: int, seen: tuple[Any, Any, Any], tb_logger: Any) -> None:
        watch, logger, before, known = self.watch, get_root_logger(), self.watch.factor, set(self.watch.rung)
        for alarm in watch.record(step, *seen):
            if (alarm.name, alarm.about) not in known:
                logger.warning(f"Alarm at iteration {step}: {alarm}")
        try:
            self.loss.factor = watch.react().factor
        finally:
            if self._file(step).is_file():  # BasicSR saves before it validates
                self.save(step)
            if step == self.end:
                logger.info(watch.summary())
        if watch.factor != before:
            logger.warning(f"Because of alarms the critics' weights are multiplied by {watch.factor:g}")
        if tb_logger is not None:
            tb_logger.add_scalar("alarms/ringing", len(watch.alarms), step)
            tb_logger.add_scalar("alarms/factor", watch.factor, step)

    def save(self, iteration: int) -> None:
        """Keep all that was seen beside BasicSR's own state, on the first process."""
        if self.opt["rank"] == 0:
            write_atomically(self._file(iteration), json.dumps(self.watch.state()))

    def resume(self, iteration: int) -> None:
        """Go on from what `save` kept; begin anew, and say so, where there is nothing.

        Raises:
            ConfigError: if the file is damaged.
        """
        if not (file := self._file(iteration)).is_file():
            get_root_logger().warning(f"{file} is missing: alarms begin anew, and critics with their full weights.")
            return
        try:
            self.watch.load_state(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ConfigError([f"{file}: {error}"], "resuming") from error
        self.loss.factor = self.watch.factor

    def _file(self, iteration: int) -> Path:
        return Path(self.opt["path"]["training_states"]) / f"{iteration}.alarms.json"
