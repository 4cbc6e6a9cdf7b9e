"""Losses of systems of which only a paper is public: JSPL, BIQA for 4K, DDB-Net, and one network in two modes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.critics.biqa4k.critic import BIQA4K
from perceptloss.critics.ddbnet import DDBNet
from perceptloss.critics.jspl.critic import JSPL
from perceptloss.critics.unified import UnifiedCritic
from perceptloss.errors import ConfigError
from perceptloss.teach.degradations import get_degradation, list_degradations
from perceptloss.teach.objectives.correlation import pearson_loss
from perceptloss.teach.objectives.retinex import retinex_loss
from perceptloss.teach.objectives.unlabelled import positive_unlabelled, pseudo_labelled
from perceptloss.teach.run.judged import Judged, Objective, Reads, own
from perceptloss.teach.run.pairs import order
from perceptloss.teach.run.sources import Source
from perceptloss.teach.run.systems import of_images, of_kind

__all__ = ["PAPERS"]

_PSEUDO = 0.5  # weight of the labels that a critic gives itself
_ENLARGED = "enlarge"  # family of what pretends to a resolution


def _likeness(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Logit of the classifier, and, if it is asked for, the quality of the mirror images, (N,) each."""
    critic, x = of_kind(JSPL, reader.critic, "jspl"), of_images(x, "jspl")
    assert y is not None  # the critic needs references
    logits = critic.logit(x, y).float()
    if not options.get("pseudo", _PSEUDO):
        return (logits,)
    with torch.no_grad():
        return logits, reader.quality(x.flip(-1), y.flip(-1))


def jspl(judged: Judged, pseudo: float = _PSEUDO) -> Tensor:
    """JSPL's part without labels: which images are like the labelled ones, and these agree with their mirror images.

    Of a source with targets, the classifier alone learns: all its images are positive. Of a source without, nothing is
    known: those that the classifier takes for positive are taught the mean of what is said of them and of their mirror
    images. (The paper averages over time instead.)

    Args:
        judged: The images, logits, and qualities of their mirror images.
        pseudo: Weight of these labels; 0 saves a look at the mirror images.
    """
    logits, *mirrored = judged.looked
    others = ~torch.isfinite(judged.target)
    loss = positive_unlabelled(logits, ~others)
    for quality in mirrored:
        label = (judged.q + quality)[others] / 2
        loss = loss + pseudo * pseudo_labelled(judged.q[others], label, logits[others])
    return loss


def _logits(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    critic = of_kind(BIQA4K, reader.critic, "native")
    return (critic.logit_of(critic.vectors(reader.taps(x)), len(x)).float(),)


class _Upscaled(nn.Module):
    """Which kinds of damage are enlargements."""

    by_kind: Tensor

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__()
        known = set(list_degradations())
        found = [kind in known and get_degradation(kind).family == _ENLARGED for kind in kinds]
        if not any(found):
            raise ConfigError([f"native: no damage of the family {_ENLARGED} is taught"], "objectives")
        self.register_buffer("by_kind", torch.tensor(found), persistent=False)


def _upscaled(options: Mapping[str, Any], source: Source, width: int) -> _Upscaled:
    return _Upscaled(source.kinds)


def native(judged: Judged, part: _Upscaled) -> Tensor:
    """BIQA4K's side task: cross entropy of clean images, which are native, against enlarged ones; others count not."""
    is_native = judged.level == 0
    asked = is_native | (part.by_kind[judged.kind] & (judged.kind >= 0))
    logits = judged.looked[0][asked]
    return F.binary_cross_entropy_with_logits(logits, is_native[asked].to(logits)) if len(logits) else logits.sum()


def _layers(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    critic, x = of_kind(DDBNet, reader.critic, "retinex"), of_images(x, "retinex")
    assert y is not None  # the objective needs references
    of_x, of_y = (critic.trunk.decompose(image) for image in (x, y))
    return (retinex_loss(x, y, of_x, of_y).float(),)


def retinex(judged: Judged) -> Tensor:
    """DDB-Net's decomposition, of images and references in other light: mean of `retinex_loss`."""
    return judged.looked[0].mean()


def _twin(reader: Reads, x: Tensor, y: Tensor | None, options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    twin = of_kind(UnifiedCritic, reader.critic, "twin").twin()
    return (reader.sign * reader.score_by(twin, x, y),)


def twin(judged: Judged, delta: float = 0.1, pearson: float = 0.5, margin: float | None = None) -> Tensor:
    """The same images judged in the other mode of a unified critic, by the same targets.

    Args:
        judged: The images, and the qualities in the other mode.
        delta: Of the Huber loss.
        pearson: Weight of the correlation.
        margin: By which more of one damage must be worse, as in the objective `order`; nothing: no such part.
    """
    known = torch.isfinite(judged.target)
    q, target = judged.looked[0][known], judged.target[known]
    loss = (F.huber_loss(q, target, delta=delta) if len(q) else q.sum()) + pearson * pearson_loss(q, target)
    return loss if margin is None else loss + order(replace(judged, q=judged.looked[0]), scale=margin)


PAPERS: Mapping[str, Objective] = {
    "jspl": own(jspl, "references", look=_likeness),
    "native": own(native, "kinds clean", _upscaled, _logits, is_classification=True),
    "retinex": own(retinex, "references", look=_layers),
    "twin": own(twin, "target", look=_twin),
}
