"""What a degradation is, the table of them, and how one is applied at a level.

A degradation turns clean images into worse ones. Its strength is a *level*, a real number from 0 (nothing
happens) to 5 (very bad), so that kinds can be mixed and compared; each kind has its own table that says
which physical parameter a level stands for. The five levels follow the idea of KADID-10k (Lin, Hosu, Saupe,
"KADID-10k: A Large-scale Artificially Distorted IQA Database", QoMEX 2019): level 1 is just noticeable,
level 5 very annoying, and equal levels of two kinds hurt about as much.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from perceptloss.errors import ConfigError, InputError, PerceptlossError, near

__all__ = [
    "KADID",
    "LEVELS",
    "PIPAL",
    "REAL_ESRGAN",
    "SMALLEST_SIDE",
    "TID2013",
    "Degradation",
    "Step",
    "UnknownDegradation",
    "apply_steps",
    "degradation",
    "degrade",
    "get_degradation",
    "list_degradations",
    "register_degradation",
    "summary",
]

LEVELS = 5
SMALLEST_SIDE = 32

KADID = "KADID-10k, QoMEX 2019"
PIPAL = "PIPAL, ECCV 2020"
REAL_ESRGAN = "Wang et al., Real-ESRGAN, ICCVW 2021"
TID2013 = "TID2013, Signal Processing: Image Communication 2015"

Function = Callable[[Tensor, float, torch.Generator], Tensor]


class UnknownDegradation(PerceptlossError, KeyError):
    """No degradation is registered under this name."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Degradation:
    """One kind of damage and the strengths that its five levels stand for.

    Args:
        name: Lower case words joined by hyphens, such as "gaussian-blur".
        family: The group it belongs to, such as "blur".
        parameter: What the level sets, with its unit: "standard deviation in pixels".
        values: The parameter at level 1 to 5; the damage must rise, the numbers need not.
        function: Takes images (N, C, H, W) in [0, 1], the parameter and a CPU generator; gives finite
            images of the same shape (`degrade` clamps them, and gives it one at a time). It draws always
            the same whatever the parameter is. It must not change its argument.
        identity: The parameter's value that does nothing, which level 0 stands for.
        channels: 3 for images, 6 for stereo pairs (left RGB, right RGB).
        source: The paper or dataset that uses it.
    """

    name: str
    family: str
    parameter: str
    values: tuple[float, ...]
    function: Function
    identity: float = 0.0
    channels: int = 3
    source: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not self.name or self.name != self.name.lower().strip() or " " in self.name:
            problems.append(f"name: expected lower case words joined by hyphens, got {self.name!r}")
        if len(self.values) != LEVELS or not all(math.isfinite(v) for v in (*self.values, self.identity)):
            problems.append(f"values: expected {LEVELS} finite numbers and a finite identity, got {self.values}")
        if self.channels not in (3, 6):
            problems.append(f"channels: expected 3 (image) or 6 (stereo pair), got {self.channels}")
        if problems:
            raise ConfigError(problems, f"degradation {self.name!r}")

    def value(self, level: float) -> float:
        """The parameter at a level in [0, 5], linear between the table's entries."""
        knots = (self.identity, *self.values)
        below = min(int(checked_level(level)), LEVELS - 1)
        return knots[below] + (level - below) * (knots[below + 1] - knots[below])


@dataclass(frozen=True)
class Step:
    """One degradation of a chain: its name, its level in [0, 5] and the seed of its random draws."""

    name: str
    level: float
    seed: int


_TABLE: dict[str, Degradation] = {}


def register_degradation(degradation: Degradation, *, replace: bool = False) -> Degradation:
    """Make a degradation known by its name.

    Args:
        degradation: What to add.
        replace: Allow the name to be taken already.

    Raises:
        ConfigError: The name is taken and `replace` is off.
    """
    if degradation.name in _TABLE and not replace:
        raise ConfigError(
            [f"name: {degradation.name!r} is registered already; pick another or pass replace=True"], "degradations"
        )
    _TABLE[degradation.name] = degradation
    return degradation


def degradation(
    name: str, family: str, values: tuple[float, ...], source: str, *, identity: float = 0.0, channels: int = 3
) -> Callable[[Function], Function]:
    """Register the function below it; the first line of its docstring says what the level sets, with its unit."""

    def registered(function: Function) -> Function:
        what = summary(function)
        register_degradation(Degradation(name, family, what, values, function, identity, channels, source))
        return function

    return registered


def summary(function: Function) -> str:
    """The first line of a docstring, less its full stop."""
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")


def get_degradation(name: str) -> Degradation:
    """The degradation of that name.

    Raises:
        UnknownDegradation: There is none; the message suggests near names.
    """
    if name not in _TABLE:
        raise UnknownDegradation(
            f"unknown degradation {name!r}{near(name, _TABLE) or '.'} list_degradations() names all {len(_TABLE)}"
        )
    return _TABLE[name]


def list_degradations(family: str | None = None, channels: int = 3) -> tuple[str, ...]:
    """Names of the registered degradations in alphabetical order.

    Args:
        family: Only those of one family.
        channels: 3 for images, 6 for stereo pairs.

    Raises:
        UnknownDegradation: No degradation is of that family.
    """
    families = {d.family for d in _TABLE.values()}
    if family is not None and family not in families:
        raise UnknownDegradation(
            f"unknown family {family!r}{near(family, families) or '.'} The families: {', '.join(sorted(families))}"
        )
    return tuple(sorted(n for n, d in _TABLE.items() if d.channels == channels and family in (None, d.family)))


@torch.no_grad()
def degrade(x: Tensor, name: str, level: float, *, seed: int) -> Tensor:
    """Damaged copies of images; the draws depend on name and seed only, so levels of one seed are comparable.

    So the images of a batch have the same draws, each as if it were alone; for others give it another seed.

    Args:
        x: Images, (N, C, H, W), float32 in [0, 1], sides of at least 32; C as the degradation says.
        name: A registered degradation.
        level: In [0, 5]; 0 gives the images back bit for bit.
        seed: Of the random draws (noise field, direction, place).

    Returns:
        New tensor of x's shape, device and dtype, in [0, 1].

    Raises:
        UnknownDegradation: No such name.
        InputError: The images, the level or the seed are not as above, or a registered function broke its word.
    """
    kind = get_degradation(name)
    value = kind.value(level)
    _check_images(x, kind)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed: expected an int, got {seed!r}")
    if level == 0:
        return x.clone()
    start = (seed * 0x9E3779B97F4A7C15 + zlib.crc32(name.encode())) % 2**63
    done = [kind.function(image[None], value, torch.Generator().manual_seed(start)) for image in x]
    out = torch.cat(done) if done else x.clone()
    if out.shape != x.shape or not bool(torch.isfinite(out).all()):
        raise InputError(
            f"degradation {name!r} at level {level} gave shape {tuple(out.shape)} for {tuple(x.shape)} or values that "
            "are not finite; its function must keep the shape and stay finite"
        )
    return out.clamp(0, 1)


def apply_steps(x: Tensor, steps: Iterable[Step]) -> Tensor:
    """Apply a chain of degradations one after the other; errors and ranges as in `degrade`."""
    for step in steps:
        x = degrade(x, step.name, step.level, seed=step.seed)
    return x


def checked_level(level: float) -> float:
    """The level itself if it is a real number in [0, 5].

    Raises:
        InputError: It is not.
    """
    if isinstance(level, bool) or not isinstance(level, Real) or not 0 <= level <= LEVELS:
        raise InputError(f"level: expected a number from 0 (clean) to {LEVELS} (very bad), got {level!r}")
    return float(level)


def _check_images(x: Tensor, kind: Degradation) -> None:
    expected = (
        f"degradation {kind.name!r} expects images (N, {kind.channels}, H, W), float32 in [0, 1], "
        f"sides of at least {SMALLEST_SIDE}; got "
    )
    if not isinstance(x, Tensor):
        raise InputError(f"{expected}{type(x).__name__}")
    if x.dtype != torch.float32 or x.dim() != 4 or x.shape[1] != kind.channels or min(x.shape[2:]) < SMALLEST_SIDE:
        raise InputError(f"{expected}{tuple(x.shape)} of {x.dtype}")
    if x.numel() and not (x.amin() >= 0 and x.amax() <= 1):  # also false for NaN
        raise InputError(f"{expected}values from {x.amin():.4g} to {x.amax():.4g}; scale them first")
