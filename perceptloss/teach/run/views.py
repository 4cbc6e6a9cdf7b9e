"""Stereo pairs as a source shows them: where they come from, how they are damaged, and what a teacher says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from perceptloss import Critic, create_critic, get_card
from perceptloss.critics.mini.stereo import dominance
from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.registry import set_precision
from perceptloss.runs.images import Pair, check
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.degradations import degrade, get_degradation, list_degradations
from perceptloss.teach.degradations.stereo import stereo_pair
from perceptloss.teach.run.fresh import NAMES, in_bytes, kept_names, listed
from perceptloss.teach.run.photos import Photos

__all__ = ["Damage", "Scenes", "ViewTeacher", "damaged", "find_damages", "find_scenes", "find_teacher"]

_SHOWN = frozenset({"asymmetric-blur", "asymmetric-noise", "asymmetric-jpeg", "asymmetric-brightness"})
_APART = frozenset({"noise"})  # families that no two cameras share, even at one level
_LAYOUTS = ("both views", "one view", "unequal views")
_ENDINGS = ("_left", "_right")
_WORSE = 0.3  # weight of the worse view


@dataclass(frozen=True)
class Damage:
    """A degradation; one of single images also has a layout: the views alike, one alone, or one less than the other."""

    name: str
    layout: str = ""

    @property
    def label(self) -> str:
        """Name of the kind of damage."""
        return f"{self.name}, {self.layout}" if self.layout else self.name

    @property
    def is_shown(self) -> bool:
        """Whether the views show it one by one."""
        return bool(self.layout) or self.name in _SHOWN


def damaged(clean: Tensor, damage: Damage, levels: Sequence[float], seed: int) -> Tensor:
    """A pair (6, H, W), uint8, at several levels of one damage with the same draws, (N, 6, H, W), uint8.

    Unequal views have the level and a share of it, drawn from 0.2 to 0.8. Views have the same draws, but of noise.
    """
    x = clean[None].float() / 255
    if not damage.layout:
        return in_bytes([degrade(x, damage.name, level, seed=seed) for level in levels])
    draw, turned = torch.rand(2, generator=torch.Generator().manual_seed(seed)).tolist()
    least = {"both views": 1.0, "one view": 0.0, "unequal views": 0.2 + 0.6 * draw}[damage.layout]
    shares = (1.0, least) if turned < 0.5 else (least, 1.0)
    seeds = (seed, seed + (get_degradation(damage.name).family in _APART))
    sides = list(zip(x.split(3, 1), shares, seeds, strict=True))
    return in_bytes([torch.cat([degrade(v, damage.name, s * at, seed=n) for v, s, n in sides], 1) for at in levels])


class Scenes:
    """Clean pairs: cuts of stereo pairs, and of photographs that are given a depth.

    Args:
        pairs: Left and right views, or a photograph alone.
        size: Rows and columns of the cuts.
        disparity: Largest one of photographs, pixels; a photograph gets a quarter of it to all.
        cache_mb: Memory for decoded images, MiB.
    """

    def __init__(self, pairs: Sequence[Pair], size: tuple[int, int], disparity: float, cache_mb: int) -> None:
        self.pairs, self.size, self.disparity, self.photos = list(pairs), size, disparity, Photos(cache_mb)

    def draw(self, content: int, generator: torch.Generator, *, central: bool = False) -> Tensor:
        """A clean pair, (6, rows, columns), uint8, from a place that is drawn, or from the centre."""
        (rows, columns), pair = self.size, self.pairs[content]
        depth, top, left = torch.rand(3, generator=generator).tolist()
        seed = int(torch.randint(NAMES, (), generator=generator))
        disparity = 0.0 if pair.lq is not None else self.disparity * (0.25 + 0.75 * depth)
        files = [pair.gt] if pair.lq is None else [pair.gt, pair.lq]
        views = torch.cat([self.photos[file] for file in files])
        wide = columns + ceil(disparity)
        spare, over = views.shape[1] - rows, views.shape[2] - wide
        top, left = (spare // 2, over // 2) if central else (int(top * (spare + 1)), int(left * (over + 1)))
        window = views[:, top : top + rows, left : left + wide]
        if pair.lq is not None:
            return window
        return in_bytes([stereo_pair(window[None].float() / 255, seed, disparity)[0]])[0]


class ViewTeacher:
    """A teacher's targets: 0.7 sum_v w_v q_v + 0.3 min_v q_v, q_v its quality of a view, w_v how dominant the view is.

    Args:
        critic: Full-reference, of single images.
    """

    def __init__(self, critic: Critic) -> None:
        self.critic = critic
        self._is_distance = critic.card.better == "lower"
        identity = critic.card.identity
        self._perfect = torch.nan if identity is None else float(self._quality(torch.tensor(identity)))

    def _quality(self, score: Tensor) -> Tensor:
        return torch.exp(-score) if self._is_distance else score

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Targets (N,) of pairs beside clean ones, (N, 6, H, W), uint8; undamaged views are not shown to the critic."""
        views, clean = (torch.cat(image.split(3, 1)) for image in (x, y))
        found = torch.full((len(views),), self._perfect)
        asked = ((views != clean).flatten(1).any(1) | found.isnan()).nonzero()[:, 0]
        with torch.inference_mode():
            x, y = views.float() / 255, clean.float() / 255
            q = self._quality(self.critic(x[asked], y[asked]).float()).tolist() if len(asked) else []
            seen = dominance(x).tolist()
        found[asked] = torch.tensor(q)
        q_of_views, shares = found.view(2, -1), torch.tensor(seen)
        return (1 - _WORSE) * (shares * q_of_views).sum(0) + _WORSE * q_of_views.amin(0)


def find_scenes(
    photos: Sequence[str], pairs: Sequence[str], size: tuple[int, int], disparity: float, where: str
) -> list[Pair]:
    """Photographs, alone, and pairs of views, NAME_left and NAME_right, of some folders.

    Raises:
        ConfigError: listing missing folders, views without partner, unreadable, too small and unequal ones.
    """
    problems: list[str] = [] if photos or pairs else ["photos, pairs: give at least one folder"]
    alone = [Pair(file, None, n) for folder in photos for n, file in listed(folder, "photos", problems).items()]
    views = [views for folder in pairs for views in _together(folder, problems)]
    rows, columns = size
    problems += check(alone, TAUGHT, max(rows, columns + ceil(disparity)), 1, decode=False)
    problems += check(views, TAUGHT, max(rows, columns), 1, decode=False)
    if problems:
        raise ConfigError(problems, where)
    return [*alone, *views]


def _together(folder: str, problems: list[str]) -> list[Pair]:
    files = listed(folder, "pairs", problems)
    left, right = ({n.removesuffix(end): path for n, path in files.items() if n.endswith(end)} for end in _ENDINGS)
    problems += [f"pairs: {left[n]} has no {n}_right beside it" for n in left if n not in right]
    problems += [f"pairs: {right[n]} has no {n}_left beside it" for n in right if n not in left]
    if files and not (left or right):
        problems.append(f"pairs: {folder} holds no NAME_left and NAME_right")
    return [Pair(left[n], right[n], n) for n in left if n in right]


def find_damages(
    given: Sequence[str], exclude: Collection[str], unseen: Collection[str], where: str
) -> tuple[list[Damage], list[Damage]]:
    """Those of pairs, and those of single images in every layout; not those `unseen`, nor chains, of which these
    may be a part.

    Args:
        given: Degradations; none: all but networks.
        exclude: Names and families.
        unseen: Names and families.
        where: For messages.

    Raises:
        ConfigError: listing unknown names, or if none is left.
    """
    known = [name for c in (6, 3) for name in list_degradations(channels=c)]
    kept = kept_names(given, exclude, unseen, known, where)
    of_pairs = [Damage(n) for n in kept if get_degradation(n).channels == 6]
    return of_pairs, [Damage(n, layout) for n in kept if get_degradation(n).channels == 3 for layout in _LAYOUTS]


def find_teacher(given: Mapping[str, Any], size: tuple[int, int], where: str) -> ViewTeacher | None:
    """The teacher, its trunk in bf16 where its card allows that; None if there is none.

    Args:
        given: `name`, and `weights` unless they are those of its card.
        size: Rows and columns of the views.
        where: For messages.

    Raises:
        ConfigError: if there is no such critic, it lacks weights, or it cannot judge a view beside another.
    """
    if not given:
        return None
    if not isinstance(given.get("name"), str) or given.keys() - {"name", "weights"}:
        raise ConfigError([f"teacher: expected {{name, weights}}, got {given!r}"], where)
    name, weights = given["name"], given.get("weights")
    try:
        card = get_card(name)
        if card.kind != "fr" or min(size) < card.min_size or any(side % card.multiple_of for side in size):
            what = "full-reference critic of single images of {}x{} pixels".format(*size)
            raise ConfigError([f"expected a {what}, got {name!r}"], where)
        critic = create_critic(name, *([] if weights is None else [weights]))
    except (PerceptlossError, TypeError) as error:
        raise ConfigError([f"teacher: {p}" for p in getattr(error, "problems", [error])], where) from None
    if card.low_precision and isinstance(critic, TrunkCritic):
        set_precision(critic, "bf16")
    return ViewTeacher(critic)
