"""Which versions of which crop a plan asks for; every draw follows from the plan's seed and the crop's number."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

import torch

from perceptloss.teach.degradations import Step, get_degradation, random_chain
from perceptloss.teach.degradations.chains import Chain
from perceptloss.teach.sets.plan import Plan

__all__ = ["CLEAN", "Version", "deal", "derived", "network_names", "versions"]

CLEAN: Final = "clean"
_LOW, _HIGH = 0.3, 5.0  # below this level most degradations vanish when rounded to 8 bits


@dataclass(frozen=True)
class Version:
    """One image to make of a crop.

    Attributes:
        name: The degradation, `clean`, or `chain-` and the kind of a chain.
        family: Its family; `clean` or `chain`.
        level: In [0, 5]; 0 for the clean crop, NaN for a chain.
        group: Number of the crop, degradation and seed that several levels share; -1 for chains and clean crops.
        steps: What to apply, in order.
    """

    name: str
    family: str
    level: float
    group: int
    steps: tuple[Step, ...]

    @property
    def recipe(self) -> str:
        """The steps as text, such as `jpeg:2.5#17 + gaussian-blur:1#3` (name, level, seed)."""
        return " + ".join(f"{step.name}:{step.level!r}#{step.seed}" for step in self.steps)


def derived(*parts: object) -> int:
    """A seed of 48 bits that depends on all parts, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "little")


def network_names(plan: Plan) -> tuple[str, ...]:
    """The degradations of a plan's networks: each at its own scales, then at the factors of all enlargers."""
    return tuple(name for network in sorted(plan.networks) for name in (network, f"{network}-enlarged"))


def versions(plan: Plan, number: int) -> tuple[Version, ...]:
    """The versions of the plan's crop `number`, the clean one first."""
    names = list(deal(plan.names, plan.crops, plan.singles, plan.seed)[number])
    networks = network_names(plan)
    names += [networks[number % len(networks)]] if networks else []
    names += plan.always
    shared = derived(plan.seed, "always", number)
    found = [Version(CLEAN, CLEAN, 0.0, -1, ())]
    for position, name in enumerate(names):
        seed = shared if name in plan.always else derived(plan.seed, "single", number, position)
        family = "network" if name in networks else get_degradation(name).family
        group = number * len(names) + position
        is_given = name in plan.always and plan.always_levels
        for level in plan.always_levels if is_given else _levels(plan.levels_each, seed):
            found.append(Version(name, family, level, group, (Step(name, level, seed),)))
    for position in range(plan.chains):
        kind = cast(Chain, plan.chain_kinds[(position + number * plan.chains) % len(plan.chain_kinds)])
        generator = torch.Generator().manual_seed(derived(plan.seed, "chain", number, position))
        chosen = (plan.names or None) if kind == "mixed" else None
        steps = random_chain(generator, kind=kind, names=chosen, exclude=plan.excluded_names, networks=networks)
        found.append(Version(f"chain-{kind}", "chain", float("nan"), -1, tuple(steps)))
    return tuple(found)


@lru_cache(maxsize=8)
def deal(names: tuple[str, ...], hands: int, each: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Deal names like cards: over all hands each comes up equally often (by one at most), in a hand only once.

    A name comes twice in a hand only if `each` is more than there are names.
    """
    dealt: list[tuple[str, ...]] = []
    deck: deque[str] = deque()
    generator = torch.Generator().manual_seed(derived(seed, "deal"))
    for _ in range(hands):
        hand: list[str] = []
        while len(hand) < each:
            if not deck:
                shuffled = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
                deck.extend(sorted(shuffled, key=lambda name: name in hand))
            hand.append(deck.popleft())
        dealt.append(tuple(hand))
    return tuple(dealt)


def _levels(count: int, seed: int) -> list[float]:
    """Rising levels, one from each of `count` equal parts of (0.3, 5], to three decimals."""
    draws = torch.rand(count, generator=torch.Generator().manual_seed(derived(seed, "levels")), dtype=torch.float64)
    width = (_HIGH - _LOW) / count
    return [round(_HIGH - width * (count - 1 - i + draw), 3) for i, draw in enumerate(draws.tolist())]
