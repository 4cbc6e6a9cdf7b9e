"""Several degradations one after the other: what happens to pictures on the web, in restoration and in phones."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, near
from perceptloss.teach.degradations.core import (
    REAL_ESRGAN,
    Degradation,
    Step,
    apply_steps,
    get_degradation,
    list_degradations,
    register_degradation,
)

__all__ = ["ORDERS", "STAGES", "Chain", "random_chain"]

Chain = Literal["real-world", "mixed", "restoration", "phone"]

STAGES: dict[str, tuple[str, ...]] = {
    "blur": ("gaussian-blur", "anisotropic-blur", "generalised-blur", "plateau-blur"),
    "resize": ("bilinear-resize", "bicubic-resize", "area-resize"),
    "noise": ("white-noise", "shot-noise", "camera-noise"),
    "jpeg": ("jpeg",),
    "sinc": ("ringing",),
}
"""Which degradations may stand at a stage of a real-world chain."""

_Stage = tuple[tuple[str, ...], tuple[float, float], float]

ORDERS: dict[str, tuple[_Stage, ...]] = {
    "restoration": (
        (("gaussian-blur", "anisotropic-blur", "missed-focus", "hand-shake"), (0.2, 1.6), 0.35),
        (("enlarge", "restoration", "network"), (0.8, 4.6), 1.0),
        (("sharpening", "denoising"), (0.3, 2.0), 0.4),
        (("jpeg", "webp"), (0.2, 1.5), 0.4),
    ),
    "phone": (
        (("exposure", "veil", "white-balance", "low-light-noise"), (0.3, 3.0), 0.6),
        (("missed-focus", "hand-shake", "motion-blur", "lens-blur"), (0.3, 3.0), 0.6),
        (("phone-pipeline", "digital-zoom"), (0.4, 3.2), 1.0),
        (("jpeg", "double-jpeg", "reposted-jpeg", "webp"), (0.2, 2.0), 0.5),
    ),
}
"""Stages of a chain in their order: names and families of which one is drawn, levels, probability."""

_FIRST, _SECOND = (0.3, 2.6), (0.2, 1.6)  # levels; the second round is gentler, as in Real-ESRGAN
_SECOND_BLUR, _SINC_FOR_BLUR, _FINAL_SINC = 0.8, 0.1, 0.8  # Real-ESRGAN's probabilities
_MIXED = (0.5, 4.5)
_APART = ("network", "chain")  # families that are no single degradations with weights of their own


def random_chain(
    generator: torch.Generator,
    *,
    kind: Chain = "real-world",
    names: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    length: tuple[int, int] = (2, 4),
    networks: Iterable[str] = (),
) -> tuple[Step, ...]:
    """Draw a chain.

    "real-world" follows Real-ESRGAN (Wang et al., ICCVW 2021, https://arxiv.org/abs/2107.10833): blur, resize,
    noise, JPEG; then again, gentler, with the last JPEG before or after a sinc filter. "mixed" is a few single
    degradations of different families in random order at random levels. "restoration" is what super-resolution
    leaves: perhaps blur, then shrinking, damage and an enlarger or a network, perhaps sharpening or smoothing and a
    codec. "phone" is wrong light, a wrong lens, the chain inside a phone, and a codec.

    Args:
        generator: The only source of chance.
        kind: "real-world", "mixed", "restoration" or "phone".
        names: Degradations that may be used; None for all of three channels, except networks and chains.
        exclude: Names that must not be used. A stage that loses all its degradations to `names` and `exclude` is
            left out.
        length: Fewest and most steps of a mixed chain.
        networks: Degradations by networks that may enlarge in a restoration chain; as often as all enlargers together.

    Raises:
        ConfigError: for an unknown kind, unknown names, an impossible length, or if no degradation is left.
    """
    usable = _usable(names, exclude)
    problems = [] if kind in get_args(Chain) else [f"kind: unknown {kind!r}{near(kind, get_args(Chain))}"]
    if not 1 <= length[0] <= length[1]:
        problems.append(f"length: expected (fewest, most) with 1 <= fewest <= most, got {length}")
    stages = {stage: [n for n in members if n in usable] for stage, members in STAGES.items()}
    if kind == "real-world" and not any(stages.values()):
        problems.append(f"names and exclude leave none of {', '.join(n for ns in STAGES.values() for n in ns)}")
    if kind == "mixed" and not usable:
        problems.append("names and exclude leave no degradation")
    order = [
        (_members(choice, usable, networks), levels, chance) for choice, levels, chance in ORDERS.get(str(kind), ())
    ]
    if kind in ORDERS and not any(members for members, _, _ in order):
        problems.append(f"names and exclude leave nothing of which a {kind} chain is made")
    if problems:
        raise ConfigError(problems, "random chain")
    if kind in ORDERS:
        return _ordered(generator, order)
    return _real_world(generator, stages) if kind == "real-world" else _mixed(generator, usable, length)


def _members(choice: tuple[str, ...], usable: tuple[str, ...], networks: Iterable[str]) -> list[list[str]]:
    """What each name or family of a stage stands for, those that stand for nothing left out."""
    found = [[n for n in usable if one in (n, get_degradation(n).family)] for one in choice if one != "network"]
    return [names for names in (*found, sorted(networks) if "network" in choice else []) if names]


def _ordered(
    generator: torch.Generator, order: list[tuple[list[list[str]], tuple[float, float], float]]
) -> tuple[Step, ...]:
    steps: list[Step] = []
    while not steps:  # what is left of an order may be stages that are often skipped
        for groups, levels, probability in order:
            if groups and _chance(generator) <= probability:
                names = groups[int(torch.randint(len(groups), (), generator=generator))]
                steps.append(_step(generator, names, levels))
    return tuple(steps)


def _usable(names: Iterable[str] | None, exclude: Iterable[str]) -> tuple[str, ...]:
    known = list_degradations()
    wanted = [n for n in known if get_degradation(n).family not in _APART] if names is None else list(names)
    excluded = set(exclude)
    unknown = sorted({n for n in (*wanted, *excluded) if n not in known})
    if unknown:
        raise ConfigError(
            [f"{n!r} is no degradation of three channels{near(n, known)}" for n in unknown], "random chain"
        )
    return tuple(sorted({n for n in wanted if n not in excluded}))


def _real_world(generator: torch.Generator, stages: dict[str, list[str]]) -> tuple[Step, ...]:
    steps: list[Step] = []

    def add(stage: str, levels: tuple[float, float], probability: float = 1.0) -> None:
        if stages[stage] and _chance(generator) <= probability:
            steps.append(_step(generator, stages[stage], levels))

    for levels, blur in ((_FIRST, 1.0), (_SECOND, _SECOND_BLUR)):
        add("sinc" if _chance(generator) < _SINC_FOR_BLUR else "blur", levels, blur)
        add("resize", levels)
        add("noise", levels)
        if levels is _FIRST:
            add("jpeg", levels)
    sinc_first = _chance(generator) < 0.5
    for stage in ("sinc", "jpeg") if sinc_first else ("jpeg", "sinc"):
        add(stage, _SECOND, _FINAL_SINC if stage == "sinc" else 1.0)
    return tuple(steps)


def _mixed(generator: torch.Generator, usable: tuple[str, ...], length: tuple[int, int]) -> tuple[Step, ...]:
    families: dict[str, list[str]] = {}
    for name in usable:
        families.setdefault(get_degradation(name).family, []).append(name)
    count = int(torch.randint(length[0], length[1] + 1, (), generator=generator))
    steps: list[Step] = []
    while len(steps) < count:
        for pick in torch.randperm(len(families), generator=generator).tolist()[: count - len(steps)]:
            steps.append(_step(generator, list(families.values())[pick], _MIXED))
    return tuple(steps)


def _step(generator: torch.Generator, names: list[str], levels: tuple[float, float]) -> Step:
    name = names[int(torch.randint(len(names), (), generator=generator))]
    level = levels[0] + (levels[1] - levels[0]) * _chance(generator)
    return Step(name, level, int(torch.randint(2**31, (), generator=generator)))


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _scaled(x: Tensor, share: float, generator: torch.Generator, *, kind: Chain) -> Tensor:
    """A chain of its own for each image, all its levels scaled."""
    done = []
    for image in x:
        steps = random_chain(generator, kind=kind)
        done.append(apply_steps(image[None], [Step(s.name, share * s.level, s.seed) for s in steps]))
    return torch.cat(done)


def _register(kind: Chain, values: tuple[float, ...], source: str, what: str) -> None:
    what = f"share of the levels of {what}, drawn"
    register_degradation(
        Degradation(f"{kind}-chain", "chain", what, values, partial(_scaled, kind=kind), source=source)
    )


_register("real-world", (0.1, 0.3, 0.65, 1.15, 1.8), REAL_ESRGAN, "a second-order chain")
_register(
    "mixed",
    (0.2, 0.4, 0.6, 0.8, 1.1),
    "KADIS-700k, multiply distorted",
    "two to four single degradations of different families",
)
_register("restoration", (0.2, 0.45, 0.7, 0.9, 1.05), REAL_ESRGAN, "shrinking, enlarging and what goes with it")
_register("phone", (0.25, 0.5, 0.8, 1.1, 1.5), "SPAQ, CVPR 2020", "a phone's picture")
