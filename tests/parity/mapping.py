"""Where the quantities that a parity case names are found in our critics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perceptloss.critic import Critic, TrunkCritic

Reader = Callable[[Critic, Tensor, "Tensor | None"], Tensor]

_NAMES = {"ssim_full_size": "ssim-full"}  # where `_` to `-` is not enough
_LPIPS = ("lpips-alex", "lpips-squeeze", "lpips-vgg")


def critic_name(system: str, metric: str | None = None) -> str:
    """Registry name for a case's system, or for one metric of a case that holds several."""
    name = metric or system
    return _NAMES.get(name, name.replace("_", "-"))


def _tap(name_or_place: str | int) -> Reader:
    def read(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        assert isinstance(critic, TrunkCritic)
        name = critic.taps[name_or_place] if isinstance(name_or_place, int) else name_or_place
        return critic.trunk(critic.prepare(x), (name,))[name]

    return read


def _distances(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, TrunkCritic) and y is not None
    fx, fy = (critic.trunk(critic.prepare(image), critic.taps) for image in (x, y))
    return critic.distances(fx, fy)


def _levels(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, TrunkCritic) and y is not None
    fx, fy = (critic.trunk(critic.prepare(image), critic.taps) for image in (x, y))
    return critic.distances(x, y, fx, fy).squeeze(1)


_LPIPS_READERS: dict[str, Reader] = {
    "first tap (features of the distorted image)": _tap(0),
    "last tap (features of the distorted image)": _tap(-1),
    "weighted spatial mean per tap, one row per tap": _distances,
}
_STAGES: dict[str, Reader] = {
    "stage1 output, distorted": _tap("relu1_2"),
    "stage3 output, distorted": _tap("relu3_3"),
    "stage5 output, distorted": _tap("relu5_3"),
}

INTERMEDIATES: dict[str, dict[str, Reader]] = {
    **dict.fromkeys(_LPIPS, _LPIPS_READERS),
    "dists": _STAGES,
    "deepwsd": {**_STAGES, "distance per level: image, stage1..stage5": _levels},
}

# (critic, intermediate) that our structure does not have, with the reason
NOT_OURS: dict[tuple[str, str], str] = {
    (name, "spatial map (bilinear, input size)"): "LPIPS scores only; its tap maps are not offered yet"
    for name in _LPIPS
}

# (rtol, why) where float32 cannot follow the float64 gradient to the case's tolerance
_MEDIAN = (
    "the noise level is a median: all its gradient falls on one pixel, and rounding picks another of the same rank"
)
LOOSE_FLOAT32_GRADIENTS: dict[str, tuple[float, str]] = dict.fromkeys(("fsim", "fsimc"), (5e-3, _MEDIAN))


def _test_form(critic: Critic, x: Tensor, score: Tensor) -> Tensor:
    """DeepWSD's test form: log(score + 1), squared if the image was shrunk."""
    logarithm = torch.log(score + 1)
    return logarithm if critic.factor(x) == 1 else logarithm.square()


# further fields of an expected row: how they follow from our critic, the distorted image and its score
AUTHORS_EXTRAS: dict[str, dict[str, Callable[[Critic, Tensor, Tensor], Tensor | list[int]]]] = {
    "deepwsd": {
        "score_not_as_loss": _test_form,
        "downsampling_factor": lambda critic, x, score: [critic.factor(x)],
    },
}
