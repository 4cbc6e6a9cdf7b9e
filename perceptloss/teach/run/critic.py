"""The critic that learns: building it, what the losses read from it, and its weights as a file."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from perceptloss import Critic, create_critic
from perceptloss.critics.mini.viewing import LiteCritic
from perceptloss.errors import ConfigError, near
from perceptloss.networks.trunks import Features, Trunk, TrunkCritic
from perceptloss.registry import find_entry, option_problems, set_precision
from perceptloss.teach.run.kept import Shapes, taps_in
from perceptloss.teach.run.options import CriticOptions
from perceptloss.teach.run.sources import Batch
from perceptloss.teach.run.terms import Terms
from perceptloss.weights.checkpoints import read_facts, read_state
from perceptloss.weights.loading import load
from perceptloss.weights.search import find

__all__ = [
    "Place",
    "Reader",
    "Reading",
    "build_critic",
    "parameter_groups",
    "quality_of",
    "settle",
    "sign",
]

Pair = tuple[Tensor, Tensor | None]
BoundLook = Callable[["Reader", Tensor, Tensor | None], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Place:
    """Where tensors of a run live, and in which memory layout."""

    device: torch.device
    is_channels_last: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """Of weights and images."""
        return torch.channels_last if self.is_channels_last else torch.contiguous_format

    def image(self, image: Tensor) -> Tensor:
        """Bytes become numbers in [0, 1] where they are used."""
        moved = image.to(self.device, non_blocking=True).float().div_(255)
        return moved.contiguous(memory_format=self.memory_format)

    def numbers(self, rows: Tensor) -> Tensor:
        """What is no image stays as it is."""
        return rows.to(self.device, non_blocking=True)

    def pair(self, batch: Batch) -> Pair:
        """Images and references of a batch, or what is remembered of them."""
        moved = self.numbers if batch.x.is_floating_point() else self.image
        return moved(batch.x), None if batch.y is None else moved(batch.y)


def build_critic(options: CriticOptions, seed: int) -> Critic:
    """The critic, learning, on the CPU; random weights follow from the seed, but for trunks, which always start alike.

    Trunks of which we ship the weights start as they ship.

    Raises:
        ConfigError: listing unknown constructor options and patterns that fit no parameter.
        WeightsError: if the file to start from is missing or does not fit.
    """
    entry = find_entry(options.name)
    if problems := option_problems(entry, options.options):
        raise ConfigError(problems, "critic.options")
    if options.weights is not None and not options.options and not _is_of_kin(options):
        files = [] if options.weights == "default" else [options.weights]
        critic = create_critic(options.name, *files)  # which also reads the direction of the scores
    else:
        set_seed(seed)
        critic = entry.build(entry.card, **options.options)
        if isinstance(critic, LiteCritic):
            critic.start(options.weights)
        elif options.weights is not None:
            load(critic, [options.weights])
        else:
            _start_trunks(critic)
    set_precision(critic, options.precision)
    critic.unfreeze()
    _fix(critic, options.fixed)
    critic.train()
    return critic


def _start_trunks(critic: Critic) -> None:
    for module in critic.modules():
        if isinstance(module, Trunk) and module.ships is not None:
            state = read_state(find(module.ships)).items()
            module.load_state_dict({key.removeprefix("trunk."): tensor.float() for key, tensor in state})


def _is_of_kin(options: CriticOptions) -> bool:
    """Whether the file to start from was taught for another critic."""
    file = Path(str(options.weights))
    return file.is_file() and read_facts(file).get("critic", options.name) != options.name


def _fix(critic: Critic, patterns: Sequence[str]) -> None:
    names = [name for name, _ in critic.named_parameters()]
    useless = [p for p in patterns if not fnmatch.filter(names, p)]
    if useless:
        shown = ", ".join(sorted({name.partition(".")[0] for name in names}))
        raise ConfigError([f"no parameter fits {p!r}; their names begin with {shown}" for p in useless], "critic.fixed")
    for name, parameter in critic.named_parameters():
        if any(fnmatch.fnmatch(name, p) for p in patterns):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in critic.parameters()):
        raise ConfigError([f"critic {critic.card.name!r} has no parameter left to learn"], "critic")


def sign(critic: Critic) -> int:
    """What turns its score into a quality, of which more is better."""
    return 1 if critic.card.better == "higher" else -1


class Reading(NamedTuple):
    """Of one batch: qualities (N,) in fp32, features (N, D), and what looks gave, (N, ...) each, by their labels."""

    q: Tensor
    features: Tensor | None = None
    looked: Mapping[str, tuple[Tensor, ...]] = {}


class Reader(nn.Module):
    """The module that Accelerate prepares: image pairs to qualities, and features if a side task reads them.

    All batches of a step go through one call, as data parallelism wants; equal shapes go through together.

    Args:
        critic: That learns.
        read: `score` or `linear`.
        tap: Name of the submodule whose output is the features; empty for none.
        looks: For each source, what its objectives ask besides, by their labels.
        shapes: Of the taps, where these are remembered.
    """

    def __init__(
        self,
        critic: Critic,
        read: str = "score",
        tap: str = "",
        looks: Sequence[Mapping[str, BoundLook]] = (),
        shapes: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.critic, self.read, self.tap, self.looks, self.shapes = critic, read, tap, looks, shapes or {}
        self.sign = sign(critic)
        self._seen: Tensor | None = None
        modules = dict(critic.named_modules())
        taps = critic.taps if isinstance(critic, TrunkCritic) else ()
        if tap and tap not in modules and tap not in taps:
            known = [*taps, *modules]
            raise ConfigError([f"{tap!r} is no tap or module of {critic.card.name!r}{near(tap, known)}"], "critic.tap")
        if isinstance(critic, TrunkCritic) and tap in taps:
            self._watch_trunk(critic)
        elif tap:
            modules[tap].register_forward_hook(lambda module, inputs, output: self._see(output))

    def _watch_trunk(self, critic: TrunkCritic) -> None:
        """Read a tap where the trunk hands it over, because trunks run their layers without hooks."""
        read_taps = critic.read_taps

        def watched(x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> tuple[Tensor, Tensor]:
            self._see(fx[self.tap])
            return read_taps(x, y, fx, fy)

        critic.read_taps = watched  # type: ignore[method-assign]

    def _see(self, output: Any) -> None:
        while not isinstance(output, Tensor):
            output = next(iter(output.values())) if isinstance(output, dict) else output[0]
        if output.ndim == 4:
            output = output.mean((-2, -1))
        self._seen = output.flatten(1) if output.ndim == 2 else output.mean(1)

    def quality(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What the losses read, (N,) in fp32, higher is better; of readings (N, K, numbers), by the first of each."""
        return self.sign * self.score_by(self.critic, x, y)

    def score_by(self, critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        """Scores, or read-outs, (N,) in fp32, of a critic that may be another one on the same trunk."""
        y = y if critic.card.needs_reference else None
        if x.ndim == 3:
            assert isinstance(critic, LiteCritic)
            return critic.judge(x[:, 0]).float()
        if x.ndim == 2:
            assert isinstance(critic, TrunkCritic)
            fy = {} if y is None else self.taps(y)
            return critic.read_taps(x, y, self.taps(x), fy)[self.read == "linear"].float()
        found: Tensor = getattr(critic, self.read)(x, y)
        return found.float()

    def taps(self, image: Tensor) -> Features:
        """Taps of images, or those that are remembered of them."""
        assert isinstance(self.critic, TrunkCritic)
        return taps_in(image, self.shapes) if image.ndim == 2 else self.critic.look(image)

    def forward(self, pairs: Sequence[Pair]) -> list[Reading]:
        """Per batch, qualities, features and what the looks give; images as floats in [0, 1]."""
        found: list[Reading] = [Reading(torch.empty(0), None, {})] * len(pairs)
        for places in _alike(pairs):
            x = torch.cat([pairs[i][0] for i in places])
            has_y = pairs[places[0]][1] is not None
            y = torch.cat([pairs[i][1] for i in places]) if has_y else None  # type: ignore[misc]
            quality = self.quality(x, y)
            sizes = [len(pairs[i][0]) for i in places]
            features = self._features(len(x))
            for i, q, v in zip(places, quality.split(sizes), features.split(sizes), strict=True):
                found[i] = Reading(q, v if self.tap else None, {})
        for i, looks in enumerate(self.looks):
            found[i] = found[i]._replace(looked={label: look(self, *pairs[i]) for label, look in looks.items()})
            self._seen = None
        return found

    def _features(self, count: int) -> Tensor:
        if not self.tap:
            return torch.empty(count, 0)
        if self._seen is None:
            raise ConfigError([f"module {self.tap!r} is not called as a module; choose another"], "critic.tap")
        seen, self._seen = self._seen.float(), None
        return seen[:count]  # a trunk that sees x and y at once sees x first


def _alike(pairs: Sequence[Pair]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for i, (x, _) in enumerate(pairs):
        groups.setdefault(x.shape[1:], []).append(i)
    return list(groups.values())


def quality_of(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    """What exams ask: checked inputs, fp32, references only where they are needed; (N,), higher is better."""
    return sign(critic) * critic(x, y if critic.card.needs_reference else None)


def settle(reader: Reader, pairs: Sequence[Pair]) -> tuple[int, list[str]]:
    """Try the critic on a batch, and fix parameters that no score depends on, for which data parallelism waits.

    Returns:
        Features per image (0 without a tap), and names of the parameters that were fixed.
    """
    reader.eval()
    outputs = reader(pairs)
    values = [t.sum() for q, _, looked in outputs for t in (q, *chain(*looked.values()))]
    torch.stack(values).sum().backward()
    idle = [name for name, p in reader.critic.named_parameters() if p.requires_grad and p.grad is None]
    for name, parameter in reader.critic.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.requires_grad and name not in idle)
    reader.train()
    features = outputs[0].features
    return (0 if features is None else features.shape[1]), idle


def parameter_groups(critic: Critic, terms: Terms, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases, gains and the objectives' own parameters do not; log-variances learn ten times as fast."""
    learning = [p for p in critic.parameters() if p.requires_grad]
    variances = list(terms.balance.parameters()) if terms.balance is not None else []
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay, "pace": 1.0},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0, "pace": 1.0},
        {"params": list(terms.parts.parameters()), "weight_decay": 0.0, "pace": 1.0},
        {"params": variances, "weight_decay": 0.0, "pace": 10.0},
    ]
    return [group for group in groups if group["params"]]
