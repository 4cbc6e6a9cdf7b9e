"""How the case of TReS on ResNet-18 is read: like that of ResNet-50, and five crops of a wider image."""

from __future__ import annotations

from .named import System
from .named_tres import LOSS_READERS, READERS

_CROPS = {
    "score_per_crop": READERS["score"],
    "score_mean_over_crops": lambda critic, case, name: critic(case.image(name)).mean(),
}

SYSTEM = System("tres-resnet18", {**READERS, **_CROPS, **LOSS_READERS})
