"""What the types of the options cannot say: everything that is wrong with a configuration or its images, at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from accelerate.utils import gather_object

from _lib.data import POLICY
from _lib.networks import start_of
from _lib.validation import FIDELITY
from perceptloss import get_card
from perceptloss.errors import ConfigError, UnknownCritic, near
from perceptloss.honesty.judges import judge_problems
from perceptloss.loss.budget import budget_problems
from perceptloss.loss.parsing import parse_terms
from perceptloss.loss.terms import TermSpec
from perceptloss.runs.images import Pair, bundled, check, find_pairs
from perceptloss.runs.options import Data, Loss, Model, Train, Val

__all__ = ["find_images", "option_problems", "refuse"]


def option_problems(
    data: Data, model: Model, loss: Loss, train: Train, val: Val, *, channels: int = 3, fidelity: str = FIDELITY
) -> list[str]:
    """Contradictions between options; empty if there are none.

    Args:
        data: Options.
        model: Options.
        loss: Options.
        train: Options.
        val: Options.
        channels: Of the images: 3, or 6 for stereo pairs, which critics of single images judge view by view.
        fidelity: Name of the column that stands beside the judges.
    """
    problems: list[str] = []
    if data.patch % model.scale:
        problems.append(f"data.patch: {data.patch} is not a multiple of model.scale {model.scale}")
    if train.warmup >= train.steps:
        problems.append(f"train.warmup: {train.warmup} steps of warm-up leave nothing of {train.steps} steps")
    if model.lora and (start_of(model) is None or model.frozen):
        problems.append(
            "model.lora adds to the weights of a start, all else is frozen: give model.weights, no model.frozen"
        )
    for name in ("train", "val"):
        if getattr(data, f"{name}_lq") and not getattr(data, name):
            problems.append(f"data.{name}_lq needs data.{name}")
    terms: list[TermSpec] = []
    try:
        terms = parse_terms(loss.critics, "loss.critics") if loss.critics else []
    except ConfigError as error:
        problems += error.problems
    trained = {term.card.name for term in terms if not term.monitor}
    if not loss.pixel_weight and not trained and not problems:
        problems.append("loss: pixel_weight is 0 and no critic has a weight, so there is nothing to minimise")
    for term in terms:
        side, seen = term.crop or data.patch - loss.shift, data.patch - loss.shift
        if side > seen or side < term.card.min_size or side % term.card.multiple_of:
            less = f" less loss.shift {loss.shift}" if loss.shift else ""
            problems.append(
                f"loss.critics: {term.label!r} needs sides of at least {term.card.min_size} and a multiple of "
                f"{term.card.multiple_of}, but sees {side} of data.patch {data.patch}{less}"
            )
        if term.card.channels > channels:
            problems.append(f"loss.critics: {term.label!r} judges stereo pairs")
    if loss.anchors and not any(term.joint for term in terms):
        problems.append("loss.anchors teach critics that learn, but no term of loss.critics is `joint`")
    if loss.budget and loss.critics:
        wrong = budget_problems(loss.budget)
        problems += [f"loss.budget: {problem}" for problem in wrong or _strip_problems(loss.budget, data.patch)]
        if start_of(model) is None:
            problems.append(
                "loss.budget is held against the start: give model.weights, or no budget: --loss.budget '{}'"
            )
    return problems + _judge_problems(val, trained, channels, fidelity)


def _strip_problems(budget: Mapping[str, float], side: int) -> list[str]:
    """Critics of a budget that cannot score the strips it is measured on, which are as high as a patch."""
    return [
        f"{name!r} needs sides of at least {card.min_size} and a multiple of {card.multiple_of}, but strips to measure "
        f"it on have {side}, as data.patch"
        for name, card in ((name, get_card(name)) for name in budget)
        if side < card.min_size or side % card.multiple_of
    ]


def _judge_problems(val: Val, trained: set[str], channels: int, fidelity: str) -> list[str]:
    problems: list[str] = []
    judges: list[str] = []
    for name in (*val.judges, *val.guests):
        try:
            card = get_card(name)
        except UnknownCritic as error:
            problems.append(f"val.judges: {error}")
            continue
        judges.append(card.name)
        if card.channels > channels:
            problems.append(f"val.judges: {name!r} judges stereo pairs")
    pairs = [get_card(name) for name in sorted(trained)], [get_card(name) for name in judges]
    problems += [f"val.judges: {problem}" for problem in judge_problems(*pairs)]
    columns = {fidelity, *judges, *trained}
    if val.best not in columns:
        problems.append(
            f"val.best: {val.best!r} is not scored{near(val.best, columns)}; scored: {', '.join(sorted(columns))}"
        )
    return problems


def find_images(
    data: Data, scale: int, photos: tuple[Sequence[str], Sequence[str]], least: int, accelerator: Accelerator
) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, every file checked, shared out over the processes.

    Args:
        data: Where the images are.
        scale: Ground-truth pixels per low-quality pixel.
        photos: Names of the installed photographs to train and to validate on if there are no folders.
        least: Smallest side of a validation image.
        accelerator: Of the run.

    Raises:
        ConfigError: on all processes, listing everything that is wrong with them.
    """
    training = find_pairs(data.train, data.train_lq, scale, "data.train") if data.train else bundled(photos[0])
    validation = find_pairs(data.val, data.val_lq, scale, "data.val") if data.val else bundled(photos[1])
    seen = {pair.gt.resolve() for pair in training}
    shared = [f"{pair.gt} is trained on and validated on" for pair in validation if pair.gt.resolve() in seen]
    if shared:
        raise ConfigError(shared, "data")
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    found = []
    for name, pairs, side in (("data.train", training, data.patch), ("data.val", validation, least)):
        found += [f"{name}: {p}" for p in check(pairs[share], POLICY, side, scale, decode=data.check)]
    refuse(found)
    return training, validation


def refuse(found: Sequence[str]) -> None:
    """Stop all processes if one of them has found something wrong with its images; call on all.

    Raises:
        ConfigError: on all of them.
    """
    everything = gather_object(list(found))
    if everything:
        raise ConfigError(sorted(everything), "images; remove or repair them")
