"""One object that a training loop asks at every validation whether its critics are still to be trusted."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from perceptloss.card import Card
from perceptloss.compare.statistics.measures import srcc
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError
from perceptloss.honesty.alarms import Alarm, Limits, content_of, raised
from perceptloss.honesty.content import TOLERANCES, measure
from perceptloss.honesty.history import History, Scores, Sight, Validation, Watched
from perceptloss.honesty.reactions import Reaction, Verdict, decide
from perceptloss.inputs import all_finite
from perceptloss.output.tables import counted, markdown

__all__ = ["Watch"]

_RANDOM = "random"  # `weights_id` of a critic that has learned nothing yet


class Watch:
    """Alarms over the validations of a training.

    In each validation `look` is given the images, or, where several processes share them, `sight` each image and
    `record` what was gathered. Then `react` says what to do. Best begin with a look before any critic has a say, at
    step 0 or up to `start`: what the outputs were then is told, but not reacted to.

    Args:
        trained: Critics that the training optimises, by the labels of their columns. They may be learning: they are
            asked in evaluation mode, without gradients, and left as they were.
        cards: Cards of everything that is scored at a validation, by label; those of `trained` may be among them.
        reaction: To alarms; see `reactions.decide`.
        limits: Of the alarms.
        start: Step up to which no critic has a say.

    Example:
        >>> from perceptloss import create_critic, get_card
        >>> from perceptloss.honesty.watch import Watch
        >>> critic = create_critic("gmsd")
        >>> watch = Watch({"gmsd": critic}, {"ssim": get_card("ssim")})
        >>> y = torch.rand(2, 3, 64, 64)
        >>> x = (y + 0.02).clamp(0, 1)
        >>> watch.look(100, zip(x, y), {"gmsd": 0.1, "ssim": 0.9})
        ()
        >>> watch.react().factor
        1.0
    """

    def __init__(
        self,
        trained: Mapping[str, Critic],
        cards: Mapping[str, Card],
        *,
        reaction: Reaction = "warn",
        limits: Limits | None = None,
        start: int = 0,
    ) -> None:
        self.trained, self.reaction, self.limits = dict(trained), reaction, limits or Limits()
        everything = {**cards, **{label: critic.card for label, critic in trained.items()}}
        watched = [Watched.of(label, card, is_trained=label in trained) for label, card in everything.items()]
        self.history = History(tuple(watched), start=start)
        self.alarms: tuple[Alarm, ...] = ()
        self.rung: dict[tuple[str, str], Alarm] = {}
        self.factor = 1.0

    @torch.no_grad()
    def sight(self, x: Tensor, y: Tensor) -> Sight:
        """What the instruments see of one image; plain data, which processes can exchange.

        Args:
            x: Restored, RGB in [0, 1], (3, H, W) or a stereo pair (6, H, W), on the device of the critics.
            y: Ground truth, same shape.

        Raises:
            InputError: if they do not fit together or a critic. A restored image that is not finite is an alarm.
        """
        if not all_finite(x):
            return Sight(None)
        x, y = x[None], y[None]
        seen = measure(*(torch.cat(image.split(3, 1), -1) for image in (x, y)))  # the views of a pair side by side
        return Sight(seen, {label: _scores(critic, x, y) for label, critic in self.trained.items()})

    def record(
        self,
        step: int,
        sights: Sequence[Sight],
        means: Mapping[str, float | None],
        anchors: Mapping[str, float] | None = None,
    ) -> tuple[Alarm, ...]:
        """Keep a validation, and say which alarms ring.

        Args:
            step: After how many steps it is.
            sights: Of all its images, always in the same order.
            means: Mean scores of the restored images, by label.
            anchors: Rank correlation with the labels of their anchor images, of critics that learn, by label; see
                `agreement`.
        """
        self.history.validations.append(Validation(step, tuple(sights), dict(means), dict(anchors or {})))
        self.alarms = tuple(raised(self.history, self.limits))
        self.rung |= {(alarm.name, alarm.about): alarm for alarm in self.alarms}
        return self.alarms

    def look(
        self,
        step: int,
        images: Iterable[tuple[Tensor, Tensor]],
        means: Mapping[str, float | None],
        anchors: Mapping[str, float] | None = None,
    ) -> tuple[Alarm, ...]:
        """`sight` every pair of a restored image and its ground truth, and `record` them."""
        return self.record(step, [self.sight(x, y) for x, y in images], means, anchors)

    @torch.no_grad()
    def agreement(
        self, anchors: Mapping[str, tuple[Tensor, Tensor | None, Tensor]], of: Collection[Critic] | None = None
    ) -> dict[str, float]:
        """Rank correlation of the trained critics with labels, for `record` and `look`: means over labelled sets.

        Args:
            anchors: Name of a set to images in [0, 1], (N, C, H, W), references or None, and labels (N,), higher is
                better; three images or more, best some that no critic learns from.
            of: Those of the trained critics that learn; all unless given.

        Returns:
            Label of a critic to its correlation (Spearman's), in [-1, 1]; NaN, which is an alarm, where it says the
            same of all images, and 0 where its weights are random still. A critic that compares leaves out sets
            without references.

        Raises:
            ProtocolError: if there are too few images, or all labels are equal.
        """
        found: dict[str, list[float]] = {}
        asked = self.trained.values() if of is None else of
        for label, critic in ((label, critic) for label, critic in self.trained.items() if critic in asked):
            sign = 1.0 if critic.card.better == "higher" else -1.0
            if critic.weights_id == _RANDOM:  # what it says by chance must not be what it may not fall below
                found[label] = [0.0]
                continue
            for images, references, labels in anchors.values():
                given = [images]
                if critic.card.needs_reference:
                    if references is None:
                        continue
                    given.append(references)
                with _in_evaluation(critic):
                    said = [sign * float(critic(*pair)) for pair in zip(*(g.split(1) for g in given), strict=True)]
                is_mute = len(set(said)) == 1 or not all(map(math.isfinite, said))
                found.setdefault(label, []).append(math.nan if is_mute else float(srcc(said, labels.tolist())))
        return {label: math.fsum(values) / len(values) for label, values in found.items()}

    def react(self) -> Verdict:
        """What the loop must do after the last validation; call it once after each. Nothing before critics have a say.

        Raises:
            DeceivedCritics: if an alarm rings and the reaction is `stop`.
        """
        looks, start = self.history.validations, self.history.start
        if looks and looks[-1].step <= start:
            return Verdict(self.factor, self.alarms)
        verdict = decide(self.alarms, self.reaction, self.factor)
        self.factor = verdict.factor
        return verdict

    def state(self) -> dict[str, Any]:
        """All that a checkpoint must keep, as plain JSON types."""
        rung = [asdict(alarm) for alarm in self.rung.values()]
        return {"validations": self.history.to_list(), "rung": rung, "factor": self.factor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            ConfigError: if it is not that.
        """
        try:
            validations = [Validation.from_dict(facts) for facts in state["validations"]]
            rung = [Alarm(**facts) for facts in state["rung"]]
            factor = float(state["factor"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError([f"damaged or of another version: {type(error).__name__}: {error}"], "watch") from error
        self.history.validations, self.factor = validations, factor
        self.rung = {(alarm.name, alarm.about): alarm for alarm in rung}
        self.alarms = tuple(raised(self.history, self.limits)) if validations else ()

    def summary(self) -> str:
        """The end of a run, in Markdown: alarms that ring, those that rang, and the content of the last outputs."""
        validations = self.history.validations
        if not validations:
            return "Honesty: nothing was validated, so nothing is known.\n"
        looks = f"{counted(len(validations), 'validation')}, the last at step {validations[-1].step}"
        ringing = {(alarm.name, alarm.about) for alarm in self.alarms}
        over = [alarm for key, alarm in self.rung.items() if key not in ringing]
        verdict = f"{counted(len(self.alarms), 'alarm')} at the end" if self.alarms else "no alarm at the end"
        lines = [f"- {alarm}" for alarm in self.alarms]
        lines += [f"- over: {alarm.name}, {alarm.about}: {alarm.seen} (limit: {alarm.limit})" for alarm in over]
        if self.factor < 1:
            lines.append(f"- the critics' weights were multiplied by {self.factor:g}")
        return f"Honesty: {verdict} ({looks}).\n" + "".join(f"{line}\n" for line in lines) + self._content()

    def _content(self) -> str:
        content = content_of(self.history.validations[-1])
        if content is None:
            return ""
        rows = []
        for name, tolerance in TOLERANCES.items():
            value = getattr(content, name)
            is_fine = "yes" if tolerance.holds(value) else "**no**"
            rows.append([name.replace("_", " "), f"{value:.2f}", str(tolerance), is_fine])
        return "\n" + markdown(["content", "outputs", "tolerance", "within"], rows, "lrll")


def _scores(critic: Critic, x: Tensor, y: Tensor) -> Scores:
    with _in_evaluation(critic):
        if critic.card.needs_reference:
            return Scores(_finite(critic(x, y)), _finite(critic(_mirrored(x), _mirrored(y))))
        return Scores(*(_finite(critic(image)) for image in (x, _mirrored(x), y, _mirrored(y))))


def _mirrored(image: Tensor) -> Tensor:
    """As in a mirror, in which the views of a stereo pair change places."""
    return image.flip(-1) if image.shape[1] == 3 else image.flip(-1).roll(3, 1)


@contextmanager
def _in_evaluation(critic: Critic) -> Iterator[None]:
    modes = [(module, module.training) for module in critic.modules()]
    critic.eval()
    try:
        yield
    finally:
        for module, mode in modes:  # one by one: a critic that learns may keep its normalisations in evaluation
            module.training = mode


def _finite(scores: Tensor) -> float | None:
    value = float(scores[0])
    return value if math.isfinite(value) else None
