"""What recipes of super-resolution of single images share: patches, networks, and the floor of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from torch import Tensor, nn

from _lib.checks import option_problems
from _lib.data import PatchPairs, strip_of, whole_pair
from _lib.networks import bicubic, build_network, restore
from _lib.task import RestorerOptions
from _lib.validation import Enlarge
from perceptloss.runs.images import Pair

__all__ = ["ENLARGING"]


def _patches(config: RestorerOptions, pairs: Sequence[Pair]) -> PatchPairs:
    """Aligned patches, of all but the strips if there is a budget: also for the baseline, which sees the same."""
    data = config.data
    made = PatchPairs(
        pairs, data.patch, config.model.scale, seed=config.train.seed, flips=data.flips, cache_mb=data.cache_mb
    )
    made.spares_strips = bool(config.loss.budget)
    return made


def _whole(config: RestorerOptions, pair: Pair) -> tuple[Tensor, Tensor]:
    return whole_pair(pair, config.model.scale)


def _strip(config: RestorerOptions, pair: Pair) -> tuple[Tensor, Tensor]:
    return strip_of(pair, config.model.scale, config.data.patch)


def _network(config: RestorerOptions) -> nn.Module:
    return build_network(config.model, config.data.patch // config.model.scale)


def _restored(config: RestorerOptions, trained: nn.Module, lq: Tensor) -> Tensor:
    return restore(trained, lq, scale=config.model.scale, multiple=config.model.multiple_of)


def _plain(config: RestorerOptions) -> Mapping[str, Enlarge]:
    return {"bicubic": partial(bicubic, scale=config.model.scale)}


def _problems(config: RestorerOptions) -> list[str]:
    return option_problems(config.data, config.model, config.loss, config.train, config.val)


ENLARGING: Final[dict[str, Any]] = {
    "problems": _problems,
    "patches": _patches,
    "whole": _whole,
    "strip": _strip,
    "network": _network,
    "restored": _restored,
    "plain": _plain,
}
"""The functions of a `Task` that enlarges single images."""
