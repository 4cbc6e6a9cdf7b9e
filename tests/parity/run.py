"""Running a case in one floating-point type: our counterpart of every row, by the readers of its system."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptloss.registry import create_critic
from perceptloss.weights.convert import _places

from .case import DTYPES, Case, Row, refuse

__all__ = ["Reader", "Run", "System", "check", "once"]

Reader = Callable[..., Any]
"""Our quantity: (run, row, groups of the pattern that matched the row's name) -> tensor or numbers."""

_GRADIENT = re.compile(r"grad_(.+?)(?:_wrt_images?|_wrt:(.+))?")


@dataclass(frozen=True, eq=False)
class System:
    """How the cases of one system are read. Names of quantities are regular expressions that match all of a name.

    Attributes:
        critic: Registry name, or a function of the case and, where a case holds several metrics, the row.
        readers: Quantity to its reader.
        parts: Quantity to the sub-module that returns it while the critic scores (may use groups, `{0}`), or to that
            and a function of what it returns.
        alone: Whether the authors' code mixes the images of this batch, which ours never does: then ours must be what
            it is for each image alone.
        rtol: Another tolerance of a gradient, in a type, with the reason beside it; None for the case's.
        channels: Of the images, where a case lists the views of a stereo pair one by one; None for the critic's.
    """

    critic: str | Callable[[Case, Row], nn.Module] | None
    readers: Mapping[str, Reader] = field(default_factory=dict)
    parts: Mapping[str, str | tuple[str, Callable[[Any], Tensor]]] = field(default_factory=dict)
    alone: Callable[[Case, Row], bool] = lambda case, row: False
    rtol: Callable[[Row, str], float | None] = lambda row, dtype: None
    channels: int | None = None

    def build(self, case: Case, row: Row) -> nn.Module | None:
        """In float64, with the case's weights and exact gradients."""
        if self.critic is None:
            return None
        critic = (
            create_critic(self.critic, weights=case.state() or None)
            if isinstance(self.critic, str)
            else self.critic(case, row)
        )
        critic.hold_weights = False  # the authors' gradient goes through their weights
        return critic.double()


@dataclass(eq=False)
class Run:
    """A case, its critic and the images, in one type."""

    case: Case
    system: System
    critic: Any
    dtype: str
    only: int | None = None  # the image of a batch that is looked at alone

    def __post_init__(self) -> None:
        self._images: dict[Any, Tensor] = {}
        self._graph: tuple[Any, Tensor] | None = None
        self._gradients: tuple[Any, dict[Any, Tensor]] = None, {}
        self.memory: dict[Any, Any] = {}

    # ---- inputs

    def tensor(self, values: Any, **options: bool) -> Tensor:
        return torch.tensor(values, dtype=DTYPES[self.dtype], **options)

    def image(self, name: str, *, pristine: bool = False) -> Tensor:
        """A batch, the same leaf each time, so that gradients can be asked for; or its pristine version."""
        key = name, pristine, self.only
        if key not in self._images:
            channels = self.system.channels or getattr(getattr(self.critic, "card", None), "channels", 3)
            array = self.case.array(name, pristine=pristine, channels=channels)
            batch = torch.from_numpy(array).to(DTYPES[self.dtype])
            self._images[key] = batch if self.only is None else batch[self.only : self.only + 1].clone()
        return self._images[key].requires_grad_()

    def pair(self, name: str) -> tuple[Tensor, Tensor | None]:
        """What the critic is given: in the first crop, where the case averages over several."""
        return self.pairs(name)[0]

    def pairs(self, name: str) -> list[tuple[Tensor, Tensor | None]]:
        has_reference = not hasattr(self.critic, "card") or self.critic.card.needs_reference
        x, y = self.image(name), self.image(name, pristine=True).detach() if has_reference else None
        return [(x[window], None if y is None else y[window]) for window in self.case.crops(name)]

    # ---- what critics have in common

    def score(self, name: str) -> Tensor:
        """(N,), the mean over crops."""
        return torch.stack([self.critic(*pair) for pair in self.pairs(name)]).mean(0)

    def taps(self, image: Tensor, *names: str) -> dict[str, Tensor]:
        return self.critic.trunk(self.critic.prepare(image), names or self.critic.taps)

    def tap(self, row: Row, name: str) -> Tensor:
        """One tap of the judged image."""
        return self.taps(self.pair(row.input)[0], name)[name]

    def features(self, name: str) -> list[dict[str, Tensor]]:
        """All taps of the judged image and of its reference."""
        return [self.taps(image) for image in self.pair(name) if image is not None]

    @lru_cache(maxsize=1)  # noqa: B019 - a run lives as long as its critic
    def _parts(self, name: str, only: int | None) -> dict[str, Any]:
        """What sub-modules returned while the critic scored an input, at their last call."""
        found: dict[str, Any] = {}
        wanted = {match[0] for row in self.case.rows if row.input == name and (match := self._part(row)) is not None}
        handles = [
            self.critic.get_submodule(path).register_forward_hook(
                lambda module, given, out, path=path: found.update({path: _kept(out)})
            )
            for path in wanted
        ]
        try:
            self.critic.score(*self.pair(name))
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _part(self, row: Row) -> tuple[str, Callable[[Any], Tensor]] | None:
        for pattern, part in self.system.parts.items():
            if match := re.fullmatch(pattern, row.quantity):
                path, then = (part, _same) if isinstance(part, str) else part
                return path.format(*match.groups()), then
        return None

    # ---- rows

    def reads(self, row: Row) -> Callable[[], Any] | None:
        """Our counterpart of a row that is no gradient, if there is one."""
        for pattern, reader in self.system.readers.items():
            if match := re.fullmatch(pattern, row.quantity):
                return lambda: reader(self, row, *match.groups())
        if (part := self._part(row)) is not None:
            return lambda: part[1](self._parts(row.input, self.only)[part[0]])
        if row.quantity == "score":
            return lambda: self.score(row.input)
        return None

    def ours(self, row: Row) -> Tensor:
        gradient = _GRADIENT.fullmatch(row.quantity)
        if (read := self.reads(row)) is not None:
            if not (row.is_gradient or row.quantity == "score"):
                with torch.no_grad():
                    return self._as_tensor(read())
            return self._differentiable(row, read)
        if gradient is not None:
            return self._gradient(row, *gradient.groups())
        refuse(f"{self.case.system}: nothing reads {row.quantity!r} (kind {row.kind}) of input {row.input!r}")

    def _owner(self, row: Row, quantity: str) -> Row:
        """The row of the quantity whose gradient this is: of the same input, or the one that depends on it."""
        rows = [r for r in self.case.rows if r.quantity == quantity and r.metric == row.metric]
        own = [r for r in rows if r.input == row.input] or rows[:1]
        return own[0] if own else Row(quantity, row.input, "value", {})

    def _gradient(self, row: Row, quantity: str, key: str | None) -> Tensor:
        """Of the sum of a quantity: in an image, or in the weight that the checkpoint calls `key`."""
        owner = self._owner(row, quantity)
        read = self.reads(owner)
        if read is None:
            refuse(f"{self.case.system}: nothing reads {quantity!r}, whose gradient {row.quantity!r} is")
        key_of = owner.quantity, owner.input, self.only, str(owner.context)
        if self._gradients[0] != key_of:
            value = self._differentiable(owner, read)
            wanted = {(row.input, key): None}  # and all others of the same quantity, in one backward pass
            for other in self.case.rows:
                match = _GRADIENT.fullmatch(other.quantity)
                if match and match[1] == quantity and self._owner(other, quantity) is owner:
                    wanted[other.input, match[2]] = None
            targets = [self.image(name) if part is None else self._weight(part) for name, part in wanted]
            found = torch.autograd.grad(value.sum(), targets, retain_graph=False)
            self._gradients = key_of, dict(zip(wanted, found, strict=True))
        return self._gradients[1][row.input, key]

    def _weight(self, key: str) -> Tensor:
        critic, tensor = self.critic, self.case_state[key]
        places, _ = _places(critic, key, tensor, critic.state_dict())
        if len(places) != 1:
            refuse(f"{self.case.system}: the weight {key!r} is no single parameter of ours")
        return critic.get_parameter(places[0])

    @cached_property
    def case_state(self) -> dict[str, Tensor]:
        return self.case.state()

    def _differentiable(self, row: Row, read: Callable[[], Any]) -> Tensor:
        """The last one is kept, with its graph: several rows ask for its gradients. For losses the critic learns."""
        key = row.quantity, row.input, self.only, str(row.context)
        if self._graph is None or self._graph[0] != key:
            self._graph = None
            if hasattr(self.critic, "freeze"):
                (self.critic.unfreeze if row.quantity.startswith("loss") else self.critic.freeze)()
            self._graph = key, self._as_tensor(read())
        return self._graph[1]

    def _as_tensor(self, found: Any) -> Tensor:
        return found if isinstance(found, Tensor) else self.tensor(found)


def _same(out: Any) -> Any:
    return out


def _kept(out: Any) -> Any:
    """A copy: some layers work in place."""
    if isinstance(out, Tensor):
        return out.clone()
    return [_kept(part) for part in out] if isinstance(out, (tuple, list)) else out


def once(read: Callable[..., Any]) -> Callable[..., Any]:
    """What several rows start from: computed once for a run, unless a graph is wanted."""

    def remembered(run: Run, *arguments: str) -> Any:
        if torch.is_grad_enabled() or run.only is not None:
            return read(run, *arguments)
        key = read, arguments
        if key not in run.memory:
            run.memory[key] = read(run, *arguments)
        return run.memory[key]

    return remembered


@lru_cache(maxsize=2)
def _run(folder: Path, dtype: str, system: System, metric: str | None) -> Run:
    case = Case(folder)
    row = next(row for row in case.rows if row.metric == metric)
    if dtype == "float32":  # a copy rounds back to the same bits, and spares filling the weights again
        critic = copy.deepcopy(_run(folder, "float64", system, metric).critic)
        return Run(case, system, None if critic is None else critic.float(), dtype)
    return Run(case, system, system.build(case, row), dtype)


def check(system: System, folder: Path, row: Row, dtype: str) -> None:
    """Fail unless ours agrees with the authors' row."""
    if row.kind == "unknown":
        refuse(f"{folder.name}: the runner knows no {row.quantity!r} in {row.input or 'a case'!r}")
    run = _run(folder, dtype, system, row.metric)
    if row.quantity.endswith("_float32") and run.reads(row) is None:  # what their code gives in that type
        check(system, folder, replace(row, quantity=row.quantity.removesuffix("_float32")), "float32")
        return
    if not system.alone(run.case, row):
        run.case.compare(row, run.ours(row), dtype, system.rtol(row, dtype) if row.is_gradient else None)
        return
    together, apart = run.ours(row).detach(), []
    for number in range(len(run.case.array(row.input))):
        run.only = number
        apart.append(run.ours(row).detach())
        run.only = None
    expected = torch.cat(apart)
    # a sorted distance is steep where two values nearly tie: in float32 single gradients move with the order of sums
    share = 1e-9 if dtype == "float64" else 1e-3 if row.is_gradient else 1e-4
    torch.testing.assert_close(together, expected, rtol=share, atol=1e-7 + share * float(expected.abs().max()))
