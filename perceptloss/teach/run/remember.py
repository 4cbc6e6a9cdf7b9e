"""Scored sets of which only the readings are kept: where the trunk is fixed, it needs to look at an image but once.

A critic whose learned parts stand behind a row of numbers (`reading`, `judge`) learns from these rows a hundred times
faster than from the images; any other on a trunk, from its taps (`perceptloss.teach.run.kept`). Images are then
neither cut nor turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from perceptloss import Critic, create_critic
from perceptloss.critics.mini.viewing import LiteCritic
from perceptloss.errors import ConfigError
from perceptloss.honesty.attacks import pgd
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.teach.run.critic import quality_of
from perceptloss.teach.run.kept import AT_ONCE, Kept, KeptTaps, in_halves, looked_at
from perceptloss.teach.run.options import CriticOptions
from perceptloss.teach.run.setup import Material
from perceptloss.teach.run.sources import Batch, Source
from perceptloss.teach.run.teachers import Ladders, images

__all__ = ["Remembered", "refuse_to_remember", "remembered"]

_STEPS = (1, 5)  # of an attack: the first is FGSM two and a half times as strong, cut to its bound
_STAND_IN = 0.6  # quality of versions that may stand in for the reference


class Remembered(Kept):
    """What is taught of a scored set, as readings; else as `Ladders`.

    Of critics that compare, every image is read twice: beside its reference, and beside one of the better versions of
    the same cut. `Batch.x` is (N, 1 or 2 and one for each attacker, numbers), float32, NaN where nothing was attacked.

    Args:
        inner: The set.
        critic: Whose readings are kept; its trunk must be fixed.
        options: Who attacks how many images.
        device: Where it looks.
    """

    def __init__(self, inner: Ladders, critic: LiteCritic, options: CriticOptions, device: torch.device) -> None:
        super().__init__(inner)
        was_training = critic.training
        critic.to(device).eval()
        self.readings = _readings(inner, critic, device)
        for number, file in enumerate(options.attackers):
            rows, found = _attacked(inner, critic, file, number, options.attacked, device)
            column = np.full((len(self.readings), 1, found.shape[1]), np.nan, dtype=np.float16)
            column[rows, 0] = in_halves(found)
            self.readings = np.concatenate([self.readings, column], 1)
        critic.train(was_training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """As `Ladders.batch`, with readings for images."""
        rows = self.inner.rows(indices, generator)
        return self.inner.known(rows, torch.from_numpy(self.readings[rows]).float(), None)


def remembered(material: Material, critic: Critic, options: CriticOptions, device: torch.device) -> Material:
    """The same material, of whose scored sets only readings or taps are kept if `critic.remember` says so.

    Raises:
        ConfigError: see `refuse_to_remember`.
    """
    if not options.remember:
        return material
    refuse_to_remember(material, critic, options)
    sources: list[Source] = []
    for source in material.sources:
        assert isinstance(source, Ladders) and isinstance(critic, TrunkCritic)
        own = isinstance(critic, LiteCritic)
        sources.append(Remembered(source, critic, options, device) if own else KeptTaps(source, critic, device))  # type: ignore[arg-type]
    return replace(material, sources=sources)


def refuse_to_remember(material: Material, critic: Critic, options: CriticOptions) -> None:
    """Find what cannot be remembered before anything is.

    Raises:
        ConfigError: if the critic has no trunk, its trunk learns, or a source has other images.
    """
    problems = []
    if not isinstance(critic, TrunkCritic):
        problems.append(f"critic {critic.card.name!r} has no trunk of which anything could be kept")
    elif any(p.requires_grad for p in critic.trunk.parameters()):
        problems.append('the trunk learns; give `critic.fixed: ["trunk.*"]`')
    problems += [
        f"{s.options.label}: only sources of kind `teachers` can be remembered, this is of kind {s.options.kind!r}"
        for s in material.sources
        if not isinstance(s, Ladders)
    ]
    problems += [f"{s.options.label}: crops: readings are of whole images" for s in material.sources if s.options.crops]
    sides = {s.taught.images.shape[2:] for s in material.sources if isinstance(s, Ladders)}
    problems += ["data: sets of several sizes cannot be remembered together"] * (len(sides) > 1)
    if options.attackers and not isinstance(critic, LiteCritic):
        problems.append(f"critic.attackers: only critics of our own remember attacks, not {critic.card.name!r}")
    if problems:
        raise ConfigError(problems, "critic.remember")


def _readings(inner: Ladders, critic: LiteCritic, device: torch.device) -> np.ndarray:
    """Of all rows, (M, 1 or 2, numbers), float16."""
    if not critic.card.needs_reference:
        return looked_at(inner, "readings", lambda rows: _read(critic, inner, rows, None, device))
    stand_ins = _stand_ins(inner)
    return looked_at(
        inner, "readings", lambda rows: _read(critic, inner, rows, stand_ins[rows], device), stand_ins.tobytes()
    )


def _seen(inner: Ladders, rows: np.ndarray, device: torch.device, *, clean: bool = False) -> Tensor:
    taken = images(inner.taught, rows, with_reference=clean)[1 if clean else 0]
    assert taken is not None
    return taken.to(device).float().div_(255)


def _read(
    critic: LiteCritic, inner: Ladders, rows: np.ndarray, stand_ins: np.ndarray | None, device: torch.device
) -> Tensor:
    x = _seen(inner, rows, device)
    fx = critic.look(x)
    if stand_ins is None:
        return critic.reading(x, None, fx, {})[:, None]
    pairs = [_seen(inner, rows, device, clean=True), _seen(inner, stand_ins, device)]
    return torch.stack([critic.reading(x, y, fx, critic.look(y)) for y in pairs], 1)


def _attacked(
    inner: Ladders, critic: LiteCritic, file: str, number: int, count: int, device: torch.device
) -> tuple[np.ndarray, Tensor]:
    """Rows that other weights attack, in the direction that spoils their order, and the readings after it."""
    judge = create_critic(critic.card.name, weights=file).to(device)
    judge.overshoot = "pass"
    dice = np.random.default_rng([number, 23])
    known = np.flatnonzero(np.isfinite(inner.target) & inner.is_used)
    rows = np.sort(dice.permutation(known)[:count])
    middle, found = np.median(inner.target[known]), []
    for part in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
        x = _seen(inner, part, device)
        y = _seen(inner, part, device, clean=True) if critic.card.needs_reference else None
        direction = torch.from_numpy(np.where(inner.target[part] >= middle, -1.0, 1.0)).to(x)
        strength = torch.from_numpy(np.exp2(dice.uniform(0, 3, len(part))) / 255).to(x)[:, None, None, None]
        attacked = pgd(partial(quality_of, judge), x, y, direction, strength, int(dice.choice(_STEPS)))
        with torch.no_grad():
            found.append(critic.reading(attacked, y, critic.look(attacked), {} if y is None else critic.look(y)))
    return rows, torch.cat(found)


def _stand_ins(inner: Ladders) -> np.ndarray:
    """For every row, one of the better versions of its cut, other than itself where there is one."""
    taught, chosen = inner.taught, np.arange(len(inner.target))
    dice = np.random.default_rng(0)
    for cut in np.unique(taught.reference):
        rows = np.flatnonzero(taught.reference == cut)
        good = rows[(inner.target[rows] >= _STAND_IN) & (np.asarray(taught.level)[rows] != 0)]
        for row in rows:
            others = good[good != row]
            if len(others):
                chosen[row] = dice.choice(others)
    return chosen
