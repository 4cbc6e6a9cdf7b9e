"""What recipes of restorers share as types: their options, and the functions in which one differs from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from _lib.honesty import Watched
from _lib.validation import FIDELITY, Enlarge, published
from perceptloss import Critic
from perceptloss.runs.config import option
from perceptloss.runs.inventory import Item
from perceptloss.runs.options import Data, Learning, Log, Loss, Model, RunOptions, Train, Val

__all__ = ["Aid", "Batch", "Images", "RestorerOptions", "Task", "plain_rivals"]

Batch = Sequence[Tensor]  # low quality, ground truth, and what else the patches of a task have
Images = tuple[Sequence[Item], Sequence[Item]]  # to train on, to validate on


@dataclass(frozen=True)
class RestorerOptions(RunOptions):
    """Every option of a recipe of a restorer; each recipe gives its own defaults."""

    baseline: bool = option(True, "also train with L1 alone, and compare (if there are critics)")
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    critic: Learning = field(default_factory=Learning)
    train: Train = field(default_factory=Train)
    val: Val = field(default_factory=Val)
    log: Log = field(default_factory=Log)

    @property
    def name(self) -> str:
        """What the trained network is called in tables."""
        return "critics" if self.loss.critics else "l1"

    @property
    def has_baseline(self) -> bool:
        """Whether a second network is trained."""
        return self.baseline and bool(self.loss.critics)

    @property
    def border(self) -> int:
        """Pixels cut off each side before scoring."""
        return self.model.scale if self.val.border is None else self.val.border

    def samples_per_step(self, accelerator: Accelerator) -> int:
        """Patches that all processes together see in one optimizer step."""
        return self.data.batch * self.train.accumulate * accelerator.num_processes


class Aid:
    """What a task adds to the steps of a training; this one adds nothing."""

    def output(self, t: Watched, batch: Batch) -> Tensor:
        """What the network gives."""
        output: Tensor = t.network(batch[0])
        return output

    def target(self, t: Watched, batch: Batch, output: Tensor) -> Tensor:
        """What the network should have given."""
        return batch[1]

    def loss(self, t: Watched, batch: Batch, output: Tensor, target: Tensor) -> Tensor | None:
        """A term beside L1 and critics."""
        return None

    def after(self, t: Watched) -> None:
        """At the end of a step."""


C = TypeVar("C", bound=RestorerOptions)


def plain_rivals(config: C) -> dict[str, C]:
    """L1 alone, if a baseline is asked for."""
    return {"l1": replace(config, loss=replace(config.loss, critics={}))} if config.has_baseline else {}


@dataclass(frozen=True, kw_only=True)
class Task(Generic[C]):
    """The functions in which a recipe differs from others; each gets the configuration first.

    Attributes:
        recipe: Its name.
        problems: Contradictions between options.
        find: Images to train on and to validate on, every file checked; gets the smallest side of the latter.
        patches: Of images to train on: `patches[epoch, index]` is one sample of a batch.
        whole: An image to validate on, as low quality and ground truth, (C, h, w) and (C, h * scale, w * scale).
        strip: A part of an image to train on that no patch comes from, likewise.
        network: On the CPU, as the training starts with it, or with `model.weights` None as its seed makes it.
        restored: What a network makes of one low-quality image.
        plain: Systems that learn nothing, the first rows of the table.
        has_reference: Whether the ground truth of an image is known; otherwise `whole` gives an empty one.
        judge: A critic that watches, by name.
        fidelity: Stands beside the judges in every table.
        aid: Made for each training, the baseline's too; gets the trainee, before its state is restored, and its images.
        crop: Side in pixels and enlargement of what the picture at the end shows.
        remarks: Below the table at the end; gets the folder of the run and the names of the systems.
        told: Likewise, from the systems themselves and the images to validate on; may leave files in the folder.
        rivals: Other trainings from the same start on the same patches, by the folder of their own; L1 alone first.
        stereo: Images are stereo pairs of six channels; critics and judges of single images see each view.
    """

    recipe: str
    problems: Callable[[C], list[str]]
    find: Callable[[C, int, Accelerator], Images]
    patches: Callable[[C, Sequence[Any]], Dataset[tuple[Tensor, ...]]]
    whole: Callable[[C, Any], tuple[Tensor, Tensor]]
    strip: Callable[[C, Any], tuple[Tensor, Tensor]]
    network: Callable[[C], nn.Module]
    restored: Callable[[C, nn.Module, Tensor], Tensor]
    plain: Callable[[C], Mapping[str, Enlarge]]
    has_reference: Callable[[Any], bool] = lambda item: True
    judge: Callable[[C, str], Critic] = lambda config, name: published(name)
    fidelity: Callable[[C], Critic | str] = lambda config: FIDELITY
    aid: Callable[[C, Any, Sequence[Any]], Aid] = lambda config, trainee, items: Aid()
    crop: tuple[int, int] = (96, 3)
    remarks: Callable[[C, Any, Sequence[str]], Sequence[str]] = lambda config, folder, systems: ()
    told: Callable[[C, Any, Mapping[str, Enlarge], Sequence[Any]], Sequence[str]] = lambda *given: ()
    rivals: Callable[[C], Mapping[str, C]] = plain_rivals
    stereo: bool = False
