"""The option `val.alarms` of a BasicSR config: reading and checking it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from perceptloss.errors import PerceptlossError, near
from perceptloss.integrations.basicsr.alarms import Alarms
from perceptloss.integrations.basicsr.anchors import Labelled
from perceptloss.integrations.basicsr.budget import first_validation
from perceptloss.loss.critic_loss import CriticLoss

__all__ = ["find_alarms"]

_REACTIONS = ("warn", "stop", "freeze", "anneal")
_CLIPS = "VideoRecurrentTestDataset"


def find_alarms(
    opt: Mapping[str, Any], loss: CriticLoss | None, labelled: Labelled | None, problems: list[str]
) -> Alarms | None:
    """What `val.alarms` asks for, `true` meaning `warn`; None if that is nothing, or with problems, which are noted.

    Args:
        opt: BasicSR's options.
        loss: The critics; None if they could not be built.
        labelled: Images of `critic_opt.anchors`.
        problems: To add to.
    """
    asked = (opt.get("val") or {}).get("alarms", False)
    if asked is None or asked is False:
        return None
    found = list(_problems(asked, opt, loss))
    problems += found
    if found or loss is None:
        return None
    return Alarms("warn" if asked is True else asked, loss, labelled, opt)


def _problems(asked: Any, opt: Mapping[str, Any], loss: CriticLoss | None) -> Iterator[str]:
    if asked is not True and asked not in _REACTIONS:
        known = ", ".join(_REACTIONS)
        yield f"val.alarms must be true, false, or one of {known}, got {asked!r}{near(str(asked), _REACTIONS)}"
    first = first_validation(opt)
    if not first.get("name") or not opt["val"].get("val_freq"):
        yield "val.alarms look at the first validation set: give datasets.val and val.val_freq"
    if (kind := first.get("type")) in ("SingleImageDataset", _CLIPS):
        lack = "clips, not images" if kind == _CLIPS else "no ground truth"
        yield f"val.alarms compare images with their ground truth, but the first set ({kind}) has {lack}"
    if loss is not None and all(term.spec.monitor for term in loss.terms):
        yield "val.alarms watch critics that are trained on, but those of train.critics only watch"
    try:
        import_module("perceptloss.honesty.watch")
    except PerceptlossError as error:  # without kornia, and it says how to install it
        yield f"val.alarms: {error}"
