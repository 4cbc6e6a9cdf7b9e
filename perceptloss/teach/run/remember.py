"""Scored sets of which only the readings are kept: where the trunk is fixed, it needs to look at an image but once.

A critic whose learned parts stand behind a row of numbers (`reading`, `judge`) learns from these rows a hundred times
faster than from the images; any other on a trunk, from its taps (`perceptloss.teach.run.kept`). Images are then
neither cut nor turned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceptloss import Critic, create_critic
from perceptloss.critics.mini.viewing import LiteCritic
from perceptloss.errors import ConfigError
from perceptloss.honesty.attacks import pgd
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.output.files import replacing
from perceptloss.output.progress import bar
from perceptloss.teach.run.critic import quality_of
from perceptloss.teach.run.kept import KeptTaps
from perceptloss.teach.run.options import CriticOptions
from perceptloss.teach.run.setup import Material
from perceptloss.teach.run.sources import Batch, Source, SourceOptions
from perceptloss.teach.run.teachers import Ladders, images

__all__ = ["Remembered", "remembered"]

_AT_ONCE = 16
_STEPS = (1, 5)  # of an attack: the first is FGSM two and a half times as strong, cut to its bound
_STAND_IN = 0.6  # quality of versions that may stand in for the reference


class Remembered:
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
        self.inner = inner
        self.options: SourceOptions = inner.options
        self.gives, self.kinds = inner.gives, inner.kinds
        was_training = critic.training
        critic.to(device).eval()
        self.readings = _readings(inner, critic, device)
        for number, file in enumerate(options.attackers):
            rows, found = _attacked(inner, critic, file, number, options.attacked, device)
            column = np.full((len(self.readings), 1, found.shape[1]), np.nan, dtype=np.float16)
            column[rows, 0] = _small(found)
            self.readings = np.concatenate([self.readings, column], 1)
        critic.train(was_training)

    @property
    def content_ids(self) -> np.ndarray:
        """Photograph of each item."""
        return self.inner.content_ids

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """As `Ladders.batch`, with readings for images."""
        rows = self.inner.rows(indices, generator)
        return self.inner.known(rows, torch.from_numpy(self.readings[rows]).float(), None)


def remembered(material: Material, critic: Critic, options: CriticOptions, device: torch.device) -> Material:
    """The same material, of whose scored sets only readings or taps are kept if `critic.remember` says so.

    Raises:
        ConfigError: if the critic has no trunk, its trunk learns, or a source has other images.
    """
    if not options.remember:
        return material
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
    sources: list[Source] = []
    for source in material.sources:
        assert isinstance(source, Ladders) and isinstance(critic, TrunkCritic)
        own = isinstance(critic, LiteCritic)
        sources.append(Remembered(source, critic, options, device) if own else KeptTaps(source, critic, device))  # type: ignore[arg-type]
    return replace(material, sources=sources)


@torch.no_grad()
def _readings(inner: Ladders, critic: LiteCritic, device: torch.device) -> np.ndarray:
    """Of all rows, (M, 1 or 2, numbers), float16; kept beside the set for the next run that reads the same."""
    count, stand_ins = len(inner.taught.level), _stand_ins(inner) if critic.card.needs_reference else None

    def read(start: int) -> np.ndarray:
        rows = np.arange(start, min(start + _AT_ONCE, count))
        return _small(_read(critic, inner, rows, None if stand_ins is None else stand_ins[rows], device))

    first = read(0)
    seen = first.tobytes() + (b"" if stand_ins is None else stand_ins.tobytes())
    kept = Path(inner.options.folder) / f"readings-{hashlib.sha256(seen).hexdigest()[:16]}.npy"
    if kept.is_file():
        return np.asarray(np.load(kept))
    found = np.empty((count, *first.shape[1:]), dtype=np.float16)
    with bar("readings", count, show=True) as shown:
        for start in range(0, count, _AT_ONCE):
            found[start : start + _AT_ONCE] = read(start)
            shown.update(min(_AT_ONCE, count - start))
    with replacing(kept) as draft, draft.open("wb") as file:
        np.save(file, found)
    return found


def _small(found: Tensor) -> np.ndarray:
    return found.clamp(-6e4, 6e4).cpu().numpy().astype(np.float16)


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
    for part in np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE)):
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
